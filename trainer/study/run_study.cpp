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

class StudyRunner {
 public:
  StudyRunner(const Study& study, const StudyOptions& options, Communicator& world, const RunPoint& run)
      : study_(study), options_(options), world_(world), run_(run) {}

  StudyEnd run() {
    std::string wanted;
    together(world_, "study.begin", [&] {
      if (is_root()) wanted = begin();
    });
    wanted = broadcast_text(world_, wanted, 0, "study.begin");
    for (std::size_t i = 0; i < study_.points.size(); ++i) {
      if (wanted[i] != '1' || left_to_another(i)) continue;
      if (stop_requested() || !run_point(i)) return ended(RunEnd::stopped);
    }
    return ended(RunEnd::complete);
  }

 private:
  bool is_root() const { return world_.rank() == 0; }

  bool is_asked_for(std::size_t i) const { return !options_.only || *options_.only == i; }

  // Reads where the points stand; '1' for each that is to run.
  std::string begin() {
    make_directories(study_.directory);
    results_.resize(study_.points.size());
    std::string wanted;
    {
      const auto lock = lock_for_results();
      std::vector<PointResult> found;
      for (std::size_t i = 0; i < study_.points.size(); ++i)
        if ((results_[i] = result_of(study_, study_.points[i]))) found.push_back(*results_[i]);
      check_results(study_, found);
      for (std::size_t i = 0; i < study_.points.size(); ++i) {
        if (options_.retry_failed && is_asked_for(i)) forget_failure(i);
        wanted += results_[i] || !is_asked_for(i) ? '0' : '1';
      }
      write_results(study_, known());
    }
    return wanted;
  }

  // A failed point's row goes before it runs again: it would be wrong from the moment that the run ends.
  void forget_failure(std::size_t i) {
    if (!results_[i] || results_[i]->record.status != PointRecord::Status::failed) return;
    PointRecord record = results_[i]->record;
    record.status = PointRecord::Status::begun;
    record.error.clear();
    write_point_record(study_.of_point(study_.points[i]), record);
    results_[i].reset();
  }

  // Of a task that runs one point beside others.
  std::unique_ptr<DirectoryLock> lock_for_results() const {
    constexpr double patience = 60;  // many tasks may end at once
    return options_.only ? std::make_unique<DirectoryLock>(study_.directory, "sweep", "output_dir", patience) : nullptr;
  }

  bool left_to_another(std::size_t i) {
    double held = 0;
    together(world_, "study.held", [&] {
      if (is_root()) held = is_locked(study_.of_point(study_.points[i]));
    });
    world_.all_reduce(std::span(&held, 1), Reduce::max, "study.held");
    if (held == 0) return false;
    say(fmt::format("point {}: another process runs it", study_.points[i].name));
    return busy_ = true;
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
    results_[i] = result_of(study_, point);
    const auto lock = lock_for_results();
    if (lock)  // others have written since
      for (std::size_t other = 0; other < results_.size(); ++other)
        results_[other] = result_of(study_, study_.points[other]);
    write_results(study_, known());
    if (!lock && is_due()) write_report();
  }

  // What tasks beside this one may change while it reads.
  std::string standings() const {
    std::string all;
    for (const StudyPoint& point : study_.points) all += name_of(read_point_record(study_.of_point(point)).status);
    return all;
  }

  // While points are left, only where it takes next to no time beside them: it reads all rows of all points.
  bool is_due() const {
    constexpr double share = 0.01;
    return report_seconds_ <= share * seconds_since(reported_);
  }

  // Of results that are safe already: where it cannot be made, the study is none the worse. No lock is held, for others would
  // wait for it; whoever writes last has then seen all that was recorded before.
  void write_report() {
    const Clock::time_point start = Clock::now();
    try {
      std::string seen;
      do {
        seen = standings();
        write_study_report(study_, report_of(study_));
      } while (options_.only && standings() != seen);
    } catch (const std::exception& error) {
      say(fmt::format("no report: {}", error.what()));
    }
    reported_ = Clock::now();
    report_seconds_ = seconds_since(start);
  }

  std::vector<PointResult> known() const {
    std::vector<PointResult> known;
    for (const auto& result : results_)
      if (result) known.push_back(*result);
    return known;
  }

  StudyEnd ended(RunEnd end) {
    together(world_, "study.report", [&] {
      if (is_root() && end == RunEnd::complete) write_report();  // a signal leaves no time for it
    });
    std::vector<double> counts(2);
    for (std::size_t i = 0; i < results_.size(); ++i)
      if (results_[i] && is_asked_for(i)) ++counts[results_[i]->record.status == PointRecord::Status::failed];
    world_.all_reduce(std::span(counts), Reduce::sum, "study.end");  // the root's, the others having none
    return {end, static_cast<std::size_t>(counts[0]), static_cast<std::size_t>(counts[1]), busy_};
  }

  bool stop_requested() {
    double received = StopSignals::received();
    world_.all_reduce(std::span(&received, 1), Reduce::max, "study.stop");
    return received != 0;
  }

  void say(const std::string& text) const {
    if (!is_root()) return;
    fmt::print(stderr, "{}\n", printable(text));
  }

  const Study& study_;
  const StudyOptions& options_;
  Communicator& world_;
  const RunPoint& run_;
  bool busy_ = false;
  std::vector<std::optional<PointResult>> results_;  // by point; the root's alone
  Clock::time_point reported_ = {};                  // the clock's beginning: never
  double report_seconds_ = 0;                        // that the last report took
};

}  // namespace

StudyEnd run_study(const Study& study, const StudyOptions& options, Communicator& world, const RunPoint& run) {
  return StudyRunner(study, options, world, run).run();
}

}  // namespace smoe
