// smoe sweep SWEEP.yaml [--status [--json] | [--point POINT] [--retry-failed]]
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/sweep_reader.h"
#include "configs/validate.h"
#include "configs/yaml_printer.h"
#include "data/files/printable.h"
#include "launch/commands.h"
#include "launch/sweep_plan.h"
#include "parallel/comm/agreement.h"
#include "trainer/corpus.h"
#include "trainer/signals.h"
#include "trainer/study/results.h"
#include "trainer/study/run_study.h"
#include "trainer/study/study_status.h"

namespace smoe {
namespace {

struct SweepArguments {
  std::string file;
  std::vector<std::string> overrides;
  bool status = false;
  bool json = false;
  bool retry_failed = false;
  std::string point;
  int slices = 1;
};

void tell_status(const SweepPlan& plan, bool json) {
  require_same_study(plan);
  const StudyStatus status = read_status(plan.study);
  fmt::print("{}", json ? to_json(plan.study, status) + "\n" : to_text(plan.study, status));
}

// By its name, or its number from 1.
std::optional<std::size_t> point_asked_for(const SweepPlan& plan, const std::string& point) {
  if (point.empty()) return std::nullopt;
  const std::vector<StudyPoint>& points = plan.study.points;
  for (std::size_t i = 0; i < points.size(); ++i)
    if (point == points[i].name || point == std::to_string(i + 1)) return i;
  throw UsageError(
      fmt::format("--point: found '{}', expected a number from 1 to {} or a point's name (--status lists them)", point,
                  points.size()));
}

// Once, though every point has them.
void warn_of(const SweepPlan& plan) {
  if (!plan.sweep.notes.empty())
    fmt::print(stderr, "smoe: {} in the sweep's file: passed over, of no use here\n",
               printable(fmt::format("{}", fmt::join(plan.sweep.notes, ", "))));
  for (const std::string& warning : find_warnings(plan.base))
    fmt::print(stderr, "smoe: warning: {}\n", printable(warning));
}

void tell_end(const SweepPlan& plan, const StudyEnd& end, bool only) {
  std::string text = to_text(plan.study, read_status(plan.study));
  if (only) text.resize(text.find('\n') + 1);  // each of many tasks would list all points
  fmt::print("{}results: {}\n", text, plan.study.results().string());
  if (end.end == RunEnd::stopped)
    fmt::print(stderr, "stopped by a signal; the same command goes on from here\n");
  else if (end.failed > 0)
    fmt::print(stderr, "smoe: error: {} of {} points failed; --retry-failed runs them again\n", end.failed,
               only ? 1 : plan.study.points.size());
  else if (end.busy)
    fmt::print(stderr, "smoe: error: other processes run points of this sweep; run it again when they have ended\n");
}

// Points beside one another, each on a slice of the ranks. A failure that all ranks of a slice share waits until the others
// have come to the end of what they do; any other takes the whole job along.
StudyEnd run_in_slices(const SweepPlan& plan, const StudyOptions& options, int slices, const RunPoint& run, Job& job) {
  const std::string wanted = begin_study(plan.study, options, job.world());
  job.slice(slices, plan.base.train.threads, plan.base.train.device);
  RunEnd end = RunEnd::complete;
  std::exception_ptr failure;
  try {
    end = run_points(plan.study, options, wanted, job.world(), run);
  } catch (const SharedFailure&) {
    failure = std::current_exception();
  }
  job.rejoin();
  job.agree("launch.slices", [&] {
    if (failure) std::rethrow_exception(failure);
  });
  return end_study(plan.study, options, end, job.world());
}

void require_slices(int slices, int ranks) {
  if (slices < 1 || ranks % slices != 0 || (slices > 1 && ranks == 1))
    throw UsageError(
        fmt::format("--slices: found {} of {} rank{}, expected a number that divides them: mpirun -n {} gives each "
                    "slice one",
                    slices, ranks, ranks == 1 ? "" : "s", std::max(slices, 2)));
}

void sweep(const SweepArguments& arguments, Job& job) {
  if (arguments.json && !arguments.status) throw UsageError("--json: found without --status, expected both or neither");
  SweepPlan plan;
  job.agree("launch.configuration", [&] { plan = read_sweep_plan(arguments.file, arguments.overrides); });
  std::string everything =
      fmt::format("sweep\n{}retry_failed: {}\nstatus: {}\npoint: {}\nslices: {}\n", print_sweep(plan.sweep),
                  arguments.retry_failed, arguments.status, arguments.point, arguments.slices);
  for (const RunConfig& config : plan.configs) everything += print_yaml(config);
  job.require_same_everywhere(everything);
  if (arguments.status) {
    job.agree("launch.status", [&] {
      if (job.is_root()) tell_status(plan, arguments.json);
    });
    return;
  }
  StudyOptions options{.retry_failed = arguments.retry_failed, .beside_others = arguments.slices > 1};
  job.agree("launch.point", [&] {
    options.only = point_asked_for(plan, arguments.point);
    require_slices(arguments.slices, job.ranks());
  });
  // Before any point is run: of what all would fail of, none is recorded as failed.
  job.agree("launch.layout", [&] {
    for (std::size_t i = 0; i < plan.configs.size(); ++i) try {
        require_layout_of(resolve_model(plan.configs[i]), job.ranks() / arguments.slices);
      } catch (const UsageError& error) {
        throw UsageError(fmt::format("point {}: {}", plan.study.points[i].name, error.what()));
      }
  });
  if (job.is_root()) warn_of(plan);
  std::unique_ptr<DirectoryLock> lock;
  job.agree("launch.study", [&] {
    if (!job.is_root()) return;
    const bool shared = options.only || options.beside_others;
    lock = open_study(plan, shared ? 60 : 0.05);  // those beside this one hold it for moments
    if (shared) lock.reset();
  });
  // Until the process ends, as in train: a signal ends the sweep and not one point of it.
  [[maybe_unused]] static const auto* const signals = new StopSignals;
  std::shared_ptr<const Corpus> corpus;
  const RunPoint run = [&](std::size_t i, const std::function<void(RunParts&)>& assembled) {
    const TrainingOptions training{.quiet = options.beside_others, .corpus = &corpus, .assembled = assembled};
    const int status = run_training(plan.configs[i], training, job);
    return status == preempted_status ? RunEnd::stopped : RunEnd::complete;
  };
  const StudyEnd end = options.beside_others ? run_in_slices(plan, options, arguments.slices, run, job)
                                             : run_study(plan.study, options, job.world(), run);
  job.agree("launch.end", [&] {
    if (job.is_root()) tell_end(plan, end, options.only.has_value());
  });
  if (end.end == RunEnd::stopped) throw EndsWith(preempted_status);
  if (end.failed > 0 || end.busy) throw EndsWith(1);
}

}  // namespace

void add_sweep_command(CommandLine& line, Job& job) {
  const auto arguments = std::make_shared<SweepArguments>();
  const Command command = line.command("sweep", "trains every point of a grid, or random points");
  command.path("SWEEP", arguments->file, "YAML file: base, method, parameters").required();
  command.option("key=value", arguments->overrides,
                 "overrides of the sweep's own keys, as in runs=20 or base=mine.yaml");
  const Option status = command.flag("--status", arguments->status, "tell what is done, running and left, and exit");
  command.flag("--json", arguments->json, "with --status: as JSON");
  command.flag("--retry-failed", arguments->retry_failed, "run failed points again").excludes(status);
  const Option point =
      command
          .option("--point", arguments->point, "one point alone, by number from 1 or by name: others may run beside it")
          .excludes(status);
  command.option("--slices", arguments->slices, "so many points beside one another, each on its part of mpirun's ranks")
      .excludes(status)
      .excludes(point);
  command.runs([arguments, &job] { sweep(*arguments, job); });
}

}  // namespace smoe
