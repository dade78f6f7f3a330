// The run: data in, optimizer steps, evaluations, checkpoints, metrics out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/data_config.h"
#include "data/loader.h"
#include "model/model_config.h"
#include "model/router_config.h"
#include "optim/adamw.h"
#include "optim/optimizer_config.h"
#include "parallel/mesh.h"
#include "trainer/checkpoint.h"
#include "trainer/corpus.h"
#include "trainer/metrics.h"
#include "trainer/progress.h"
#include "trainer/run_directory.h"
#include "trainer/signals.h"
#include "trainer/tensorboard.h"
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
};

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
  Mixtral& model() { return model_; }

 private:
  struct Speed;  // what happened since the last row of metrics

  void start();
  void resume(const std::filesystem::path& checkpoint);
  void open_outputs(bool resumed);
  StepResult train_step(std::int64_t step);
  void report_step(const StepResult& result, double learning_rate);
  void evaluate_sources();
  void save();
  bool stop_requested();
  void say(const std::string& line);
  double measure_matrix_rate();
  CheckpointContent content();

  TrainerConfig config_;
  const Mesh& mesh_;
  std::filesystem::path from_;  // resolved model.from, or empty
  std::vector<Source> train_sources_, eval_sources_;
  HfConfig hf_;
  std::unique_ptr<Backend> backend_;
  Arena persistent_;
  Mixtral model_;
  std::optional<AdamW> optimizer_;
  std::optional<TrainingStep> step_;
  std::optional<RunDirectory> directory_;
  std::optional<MetricsWriter> metrics_;
  std::optional<TensorBoardWriter> tensorboard_;
  std::optional<Progress> progress_;
  std::optional<Loader> loader_;
  StopSignals signals_;
  TrainingState state_;
  std::int64_t saved_step_ = -1;
  double matrix_gflops_ = 0;  // this machine's own rate, the denominator of mfu
  std::unique_ptr<Speed> speed_;
};

// Bytes of weights, gradients and moments of a model in training.
std::uint64_t training_state_bytes(const ModelConfig& model);

}  // namespace smoe
