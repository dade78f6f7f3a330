// The run: optimizer steps over the data, evaluations, checkpoints, metrics.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/shards/loader.h"
#include "trainer/assemble.h"
#include "trainer/checkpoint/dump.h"
#include "trainer/layer_metrics.h"
#include "trainer/machine_rates.h"
#include "trainer/rate_meter.h"
#include "trainer/record/metrics.h"
#include "trainer/record/run_record.h"
#include "trainer/router_probe.h"
#include "trainer/router_watch.h"

namespace smoe {

enum class RunEnd {
  complete,  // the last step is done
  stopped,   // a signal asked to stop; saved, so that the same configuration goes on from there
};

// How a run ended, the same on every rank but for what the clock and `bytes_sent` say.
struct RunSummary {
  RunEnd end = RunEnd::complete;
  std::int64_t steps = 0;                // of this run, refused ones included: 0 where nothing was left to train
  TrainingState state;                   // steps, updates, tokens and refused steps since the very beginning
  std::optional<StepMetrics> last;       // the last row of this run's metrics
  std::vector<EvalMetrics> evaluations;  // of this run, in order: a row a source
};

// All ranks make one and run it; what fails on one of them fails on all (SharedFailure, parallel/comm/agreement.h). The root
// writes everything but the tensors of checkpoints and dumps, which all ranks write.
class Trainer {
 public:
  // Takes the run directory for this run: moves results of an earlier one aside, and opens the files.
  explicit Trainer(RunParts parts);
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  // Trains to the last step, or until a signal asks to stop. Throws std::runtime_error if a save fails or too many steps in
  // a row are refused; weights are then as last updated.
  RunSummary run();

  const TrainingState& state() const { return parts_.state; }
  const RunParts& parts() const { return parts_; }
  Mixtral& model() { return *parts_.training.model; }

 private:
  void begin_afresh();
  void resume();
  void open_record(bool resumed);
  void start_loader();
  void start_probe();
  std::string describe_capacity() const;
  void train(std::int64_t step);
  std::uint64_t noise_key(std::int64_t step) const;
  StepResult gradients_of(const Batch& batch);
  bool looks_odd(const StepResult& result) const;
  std::string far_above(const StepResult& result) const;
  std::unique_ptr<StepDump> start_dump(std::int64_t step);
  void count(const StepResult& result);
  void report(const StepResult& result, double learning_rate);
  void warn(const std::vector<std::string>& texts);
  bool is_due(std::int64_t step) const {  // a row of metrics
    return step % parts_.config.log.interval == 0 || step == 1 || step == parts_.config.train.steps;
  }
  StepMetrics measured(const StepResult& result, double learning_rate) const;
  void stop_refusing();  // throws
  void evaluate_sources();
  void save();
  bool stop_requested();

  RunParts parts_;
  RunRecord record_;
  std::optional<Loader> loader_;
  std::optional<RouterProbe> probe_;
  std::int64_t saved_step_ = -1;
  bool told_of_bias_ = false, told_of_rule_ = false;
  MachineRates rates_;
  RateMeter meter_;
  LoadInterval load_interval_;
  RouterWatch watch_;
  std::vector<std::string> untold_warnings_;  // in no row yet
  RunSummary summary_;
};

}  // namespace smoe
