// The run: data in, optimizer steps, evaluations, checkpoints, metrics out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/shards/data_config.h"
#include "data/shards/loader.h"
#include "model/model_config.h"
#include "model/router_config.h"
#include "optim/adamw.h"
#include "optim/optimizer_config.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/corpus.h"
#include "trainer/machine_rates.h"
#include "trainer/record/metrics.h"
#include "trainer/record/progress.h"
#include "trainer/checkpoint/run_directory.h"
#include "trainer/signals.h"
#include "trainer/record/tensorboard.h"
#include "trainer/train_config.h"
#include "trainer/training_step.h"

namespace smoe {

struct TrainerConfig {
  ModelConfig model;
  RouterConfig router;
  DataConfig data;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  TrainConfig train;
  CheckpointConfig checkpoint;
  EvalConfig eval;
  LogConfig log;
  std::string resolved_yaml;  // for config.resolved.yaml
  int ranks_on_node = 1;      // they share its memory
};

// All ranks make one and run it; what fails on one of them fails on all (SharedFailure, parallel/comm/agreement.h). The root
// holds the run directory and writes everything but the tensors of checkpoints and dumps, which all ranks write.
class Trainer {
 public:
  // Opens the data, builds the model and takes the run directory. Nothing is written before everything that the
  // configuration names has been found fit. threads: 0 for all this process may use.
  Trainer(TrainerConfig config, const Mesh& mesh, int threads);
  Trainer(TrainerConfig, const Mesh&&, int) = delete;  // the mesh must outlive the run
  ~Trainer();

  // Trains to the last step. Returns 0, or 18 where a signal asked to stop and the run was saved. Throws
  // std::runtime_error if a save fails or too many steps in a row are refused; weights are then as last updated.
  int run();

  const TrainingState& state() const { return state_; }
  Mixtral& model() { return *model_; }

 private:
  struct Speed;  // what happened since the last row of metrics

  bool is_root() const { return mesh_.is_root(); }
  void check();
  void open_data(bool verified);
  void build(int threads);
  void require_same_inputs();
  void start();
  std::optional<std::filesystem::path> find_checkpoint() const;
  void resume(const std::filesystem::path& checkpoint);
  void begin_afresh();
  void open_outputs(bool resumed);
  void stop_refusing();  // throws
  StepResult train_step(std::int64_t step, double learning_rate);
  void report_step(const StepResult& result, double learning_rate);
  void evaluate_sources();
  void save();
  bool stop_requested();
  void say(const std::string& line);
  CheckpointContent content();

  TrainerConfig config_;
  const Mesh& mesh_;
  RunPaths paths_;
  std::filesystem::path from_;  // resolved model.from, or empty
  std::vector<Source> train_sources_, eval_sources_;
  std::vector<TokenizerFile> carried_files_;  // into checkpoints; the root's alone
  std::string stream_;  // what decides the order of the data (describe_stream)
  HfConfig hf_;
  std::vector<std::string> frozen_;    // patterns of the names of what is not trained
  std::optional<ParameterSet> whole_;  // the whole model's parameters, declared
  std::unique_ptr<Backend> backend_;
  std::optional<Arena> persistent_;
  std::optional<Mixtral> model_;
  std::optional<AdamW> optimizer_;
  std::optional<TrainingStep> step_;
  std::optional<RunDirectory> directory_;  // this and the three below: the root's alone
  std::optional<MetricsWriter> metrics_;
  std::optional<TensorBoardWriter> tensorboard_;
  std::optional<Progress> progress_;
  std::optional<Loader> loader_;
  StopSignals signals_;
  TrainingState state_;
  std::int64_t saved_step_ = -1;
  std::int64_t left_behind_ = 0;  // parameters whose moments the resumed checkpoint has and this run does not; the root's
  MachineRates rates_;
  std::unique_ptr<Speed> speed_;
};

}  // namespace smoe
