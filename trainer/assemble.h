// A run put together from its configuration: data, model, optimizer, step, and where it begins. Everything that may be
// found unfit is found here, before any result of an earlier run is touched.
//
// Several runs may be made and run one after another in a process, also after one that failed or was stopped: each gives
// the bits that it gives in a process of its own. What the process has only once: its stop signals (trainer/signals.h), the
// peak of its memory (reset by assemble, so two runs that live at once share one), and the thread count of OpenMP's loops
// outside the backend, which no number depends on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/shards/data_config.h"
#include "data/text/tokenizer_files.h"
#include "kernels/arena.h"
#include "kernels/backend.h"
#include "model/lora_config.h"
#include "model/mixtral.h"
#include "model/model_config.h"
#include "model/router_config.h"
#include "model/selection_bias.h"
#include "optim/adamw.h"
#include "optim/optimizer_config.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/run_directory.h"
#include "trainer/corpus.h"
#include "trainer/signals.h"
#include "trainer/train_config.h"
#include "trainer/training_step.h"

namespace smoe {

struct TrainerConfig {
  ModelConfig model;
  RouterConfig router;
  DataConfig data;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  TrainConfig
      train;  // with an empty output_dir here, the run reads and writes no run directory: no checkpoint, no dump
  CheckpointConfig checkpoint;
  EvalConfig eval;
  LogConfig log;
  std::optional<LoraConfig> lora;
  std::string resolved_yaml;     // for config.resolved.yaml
  bool quiet = false;            // nothing is told on the terminal, where other runs may be
  int ranks_on_node = 1;         // they share its cores
  int ranks_sharing_memory = 1;  // the machine's, or that of this rank's GPU
};

// A model and what trains it. Each holds references to those before it; the mesh must outlive them all.
struct TrainingParts {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Arena> persistent;              // weights, gradients, moments
  std::unique_ptr<Mixtral> model;                 // allocated; its weights are not set
  std::unique_ptr<SelectionBias> selection_bias;  // without values where neither the run nor the model has one
  std::unique_ptr<AdamW> optimizer;
  std::unique_ptr<TrainingStep> step;

  // frozen: patterns of the names of what is not trained (model/freeze.h).
  TrainingParts(std::unique_ptr<Backend> backend, const ModelConfig& model, const TrainerConfig& config,
                const Mesh& mesh, const std::vector<std::string>& frozen);
};

// What a Trainer takes.
struct RunParts {
  TrainerConfig config;
  const Mesh& mesh;
  HfConfig hf;                                // the model, as checkpoints describe it
  std::filesystem::path from;                 // resolved model.from, or empty
  std::vector<std::string> frozen;            // patterns of the names of what is not trained
  std::unique_ptr<const ParameterSet> whole;  // the whole model's parameters, declared
  std::optional<AdapterRun> adapters;         // with config.lora: what is trained in place of the weights
  std::shared_ptr<const Corpus> corpus;
  std::vector<TokenizerFile> carried_files;  // into checkpoints; the root's alone
  std::string stream;                        // what decides the order of the data (describe_stream)
  std::unique_ptr<RunDirectory> directory;   // locked; the root's alone, null without an output_dir
  std::filesystem::path checkpoint;          // where the run goes on from; empty: from weights, or afresh
  std::int64_t left_behind = 0;              // parameters whose moments that has and this run does not; the root's
  TrainingState state;                       // of the checkpoint; else step 0
  bool converts = false;                     // no step is made of the weights of model.from: they are all that is held
  std::vector<std::string> notes;            // on how what steers the balance begins, where that is to be said
  TrainingParts training;                    // with the weights of the run's beginning
  std::unique_ptr<StopSignals> signals;      // from the start of assemble on

  bool is_root() const { return mesh.is_root(); }
  RunPaths paths() const { return {config.train.output_dir}; }
  CheckpointContent checkpoint_content() {
    return {*training.backend,
            *whole,
            training.model->parameters(),
            *training.optimizer,
            *training.selection_bias,
            mesh,
            hf,
            carried_files,
            static_cast<std::uint64_t>(config.checkpoint.max_shard_bytes),
            adapters ? &*adapters : nullptr};
  }
};

// All ranks call it and fail together (SharedFailure, parallel/comm/agreement.h), but for a rank that alone runs out of
// memory in the micro-batch that is tried last (rehearse): it ends the job. Writes nothing but the run directory's lock, and
// clears away what a killed save left. earlier: the corpus of a run before, whose files are not read whole again (open_corpus); may be null.
RunParts assemble(TrainerConfig config, const Mesh& mesh, std::unique_ptr<Backend> backend,
                  const std::shared_ptr<const Corpus>& earlier = nullptr);
RunParts assemble(TrainerConfig, const Mesh&&, std::unique_ptr<Backend>,
                  const std::shared_ptr<const Corpus>& = nullptr) = delete;

}  // namespace smoe
