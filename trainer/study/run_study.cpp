#include "trainer/study/run_study.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/files/files.h"
#include "data/files/printable.h"
#include "data/files/sha256.h"
#include "parallel/comm/agreement.h"
#include "trainer/checkpoint/directory_lock.h"
#include "trainer/signals.h"
#include "trainer/stopwatch.h"
#include "trainer/study/results.h"
#include "trainer/study/study_report.h"
#include "trainer/study/weights_hash.h"

namespace smoe {
namespace {

// One job after another may hold it, each for moments.
std::unique_ptr<DirectoryLock> lock_for_results(const Study& study, const StudyOptions& options) {
  constexpr double patience = 60;  // many may end at once
  return options.only || options.beside_others
             ? std::make_unique<DirectoryLock>(study.directory, "sweep", "output_dir", patience)
             : nullptr;
}

void write_known_results(const Study& study, std::span<const std::optional<PointResult>> results) {
  std::vector<PointResult> known;
  for (const auto& result : results)
    if (result) known.push_back(*result);
  write_results(study, known);
}

bool is_asked_for(const StudyOptions& options, std::size_t i) { return !options.only || *options.only == i; }

bool has_failed(const std::optional<PointResult>& result) {
  return result && result->record.status == PointRecord::Status::failed;
}

// A failed point's row goes before it runs again: it would be wrong from the moment that the run ends.
void forget_failure(const std::filesystem::path& directory, std::optional<PointResult>& result) {
  PointRecord record = result->record;
  record.status = PointRecord::Status::begun;
  record.error.clear();
  write_point_record(directory, record);
  result.reset();
}

std::string find_wanted(const Study& study, const StudyOptions& options) {
  make_directories(study.directory);
  const auto lock = lock_for_results(study, options);
  std::vector<std::optional<PointResult>> results;
  std::vector<PointResult> found;
  for (const StudyPoint& point : study.points)
    if (results.push_back(result_of(study, point)); results.back()) found.push_back(*results.back());
  check_results(study, found);
  std::string wanted;
  for (std::size_t i = 0; i < study.points.size(); ++i) {
    if (options.retry_failed && is_asked_for(options, i) && has_failed(results[i]))
      forget_failure(study.of_point(study.points[i]), results[i]);
    wanted += results[i] || !is_asked_for(options, i) ? '0' : '1';
  }
  write_known_results(study, results);
  return wanted;
}

void say_to_user(const std::string& text) { fmt::print(stderr, "{}\n", printable(text)); }

// What tasks beside this one may change while it reads.
std::string standings(const Study& study) {
  std::string all;
  for (const StudyPoint& point : study.points) all += name_of(read_point_record(study.of_point(point)).status);
  return all;
}

// Of results that are safe already: where it cannot be made, the study is none the worse. No lock is held, for others would
// wait for it; whoever writes last has then seen all that was recorded before.
void write_report_of(const Study& study, bool others_write) {
  try {
    std::string seen;
    do {
      seen = standings(study);
      write_study_report(study, report_of(study));
    } while (others_write && standings(study) != seen);
  } catch (const std::exception& error) {
    say_to_user(fmt::format("no report: {}", error.what()));
  }
}

class PointRunner {
 public:
  PointRunner(const Study& study, const StudyOptions& options, Communicator& world, const RunPoint& run)
      : study_(study), options_(options), world_(world), run_(run) {}

  RunEnd run(const std::string& wanted) {
    for (std::size_t i = 0; i < study_.points.size(); ++i) {
      if (wanted[i] != '1' || !claim(i)) continue;
      if (stop_requested() || !run_point(i)) return RunEnd::stopped;
    }
    claim_.reset();
    return RunEnd::complete;
  }

 private:
  bool is_root() const { return world_.rank() == 0; }

  // Whether the point is this job's to run, and no other's until the next is claimed. The run's own lock is taken later, when
  // a second claimant would already have begun.
  bool claim(std::size_t i) {
    double own = 0;
    together(world_, "study.claim", [&] {
      if (is_root()) own = claim_at_root(i);
    });
    world_.all_reduce(std::span(&own, 1), Reduce::max, "study.claim");
    return own != 0;
  }

  bool claim_at_root(std::size_t i) {
    const std::filesystem::path directory = study_.of_point(study_.points[i]);
    claim_ = DirectoryLock::try_lock(directory, "output_dir", ".claim");
    if (!claim_ || is_locked(directory)) {
      if (!options_.beside_others) say(fmt::format("point {}: another process runs it", study_.points[i].name));
      return false;
    }
    const auto status = read_point_record(directory).status;  // may have ended since the study was begun
    return status == PointRecord::Status::left || status == PointRecord::Status::begun;
  }

  // False where a signal stopped it.
  bool run_point(std::size_t i) {
    const StudyPoint& point = study_.points[i];
    say(fmt::format("point {} of {}: {}", i + 1, study_.points.size(), point.name));
    PointRecord record;
    try {
      if (run_(i, [&](RunParts& parts) { record = begin_point(point, parts); }) == RunEnd::stopped) return false;
      record.status = PointRecord::Status::done;
    } catch (const SharedFailure& failure) {
      record.error = failure.what();
    } catch (const std::exception& error) {
      if (world_.size() > 1) throw;  // of this rank alone: the others wait for it
      record.error = error.what();
    }
    together(world_, "study.record", [&] {
      if (is_root()) record_end(i, record);
    });
    return true;
  }

  // What is true of the run before its first step. A run that goes on has left it before.
  PointRecord begin_point(const StudyPoint& point, RunParts& parts) {
    const std::filesystem::path directory = study_.of_point(point);
    PointRecord record;
    if (parts.checkpoint.empty()) {
      record = {.status = PointRecord::Status::begun,
                .initial_weights = hash_of_weights(*parts.training.backend, *parts.whole,
                                                   parts.training.model->parameters(), parts.mesh),
                .data_order = sha256_hex(parts.stream),
                .error = {}};
    }
    together(world_, "study.point", [&] {
      if (!is_root()) return;
      if (parts.checkpoint.empty()) return write_point_record(directory, record);
      record = read_point_record(directory);
      if (record.initial_weights.empty())
        throw std::runtime_error(fmt::format(
            "{}: found a checkpoint and no point.json of this study: remove the directory to run the point afresh",
            directory.string()));
      if (record.data_order != sha256_hex(parts.stream))
        throw std::runtime_error(
            fmt::format("{}: found other data than the point began with: remove the directory to run the point afresh",
                        directory.string()));
      record.error.clear();
      record.status = PointRecord::Status::begun;
      write_point_record(directory, record);
    });
    return record;
  }

  void record_end(std::size_t i, PointRecord record) {
    const StudyPoint& point = study_.points[i];
    if (!record.error.empty()) {
      say(fmt::format("point {} failed: {}", point.name, record.error));
      record.status = PointRecord::Status::failed;
      const PointRecord before = read_point_record(study_.of_point(point));  // of a run that failed before it began
      if (record.initial_weights.empty()) record.initial_weights = before.initial_weights;
      if (record.data_order.empty()) record.data_order = before.data_order;
    }
    write_point_record(study_.of_point(point), record);
    if (options_.beside_others && record.error.empty()) say(fmt::format("point {}: done", point.name));
    const auto lock = lock_for_results(study_, options_);
    if (results_.empty() || lock) {  // of others, who may have written since
      results_.clear();
      for (const StudyPoint& other : study_.points) results_.push_back(result_of(study_, other));
    } else {
      results_[i] = result_of(study_, point);
    }
    write_known_results(study_, results_);
    if (!lock && is_due()) write_report();
  }

  // While points are left, only where it takes next to no time beside them: it reads all rows of all points.
  bool is_due() const {
    constexpr double share = 0.01;
    return report_seconds_ <= share * seconds_since(reported_);
  }

  void write_report() {
    const Clock::time_point start = Clock::now();
    write_report_of(study_, false);
    reported_ = Clock::now();
    report_seconds_ = seconds_since(start);
  }

  bool stop_requested() {
    double received = StopSignals::received();
    world_.all_reduce(std::span(&received, 1), Reduce::max, "study.stop");
    return received != 0;
  }

  void say(const std::string& text) const {
    if (is_root()) say_to_user(text);
  }

  const Study& study_;
  const StudyOptions& options_;
  Communicator& world_;
  const RunPoint& run_;
  std::unique_ptr<DirectoryLock> claim_;             // the root's, of the point that it runs
  std::vector<std::optional<PointResult>> results_;  // by point; the root's alone
  Clock::time_point reported_ = {};                  // the clock's beginning: never
  double report_seconds_ = 0;                        // that the last report took
};

}  // namespace

std::string begin_study(const Study& study, const StudyOptions& options, Communicator& world) {
  std::string wanted;
  together(world, "study.begin", [&] {
    if (world.rank() == 0) wanted = find_wanted(study, options);
  });
  return broadcast_text(world, wanted, 0, "study.begin");
}

RunEnd run_points(const Study& study, const StudyOptions& options, const std::string& wanted, Communicator& world,
                  const RunPoint& run) {
  return PointRunner(study, options, world, run).run(wanted);
}

StudyEnd end_study(const Study& study, const StudyOptions& options, RunEnd end, Communicator& world) {
  double counts[3] = {};  // done, failed, neither: the root's
  together(world, "study.end", [&] {
    if (world.rank() != 0) return;
    for (std::size_t i = 0; i < study.points.size(); ++i) {
      if (!is_asked_for(options, i)) continue;
      const auto status = read_point_record(study.of_point(study.points[i])).status;
      ++counts[status == PointRecord::Status::done ? 0 : status == PointRecord::Status::failed ? 1 : 2];
    }
  });
  world.all_reduce(std::span(counts), Reduce::sum, "study.end");
  double stopped = end == RunEnd::stopped;
  world.all_reduce(std::span(&stopped, 1), Reduce::max, "study.stopped");
  together(world, "study.report", [&] {
    if (world.rank() == 0 && stopped == 0) write_report_of(study, options.only.has_value());  // a signal leaves no time
  });
  return {.end = stopped != 0 ? RunEnd::stopped : RunEnd::complete,
          .done = static_cast<std::size_t>(counts[0]),
          .failed = static_cast<std::size_t>(counts[1]),
          .busy = stopped == 0 && counts[2] != 0};
}

StudyEnd run_study(const Study& study, const StudyOptions& options, Communicator& world, const RunPoint& run) {
  const std::string wanted = begin_study(study, options, world);
  return end_study(study, options, run_points(study, options, wanted, world, run), world);
}

}  // namespace smoe
