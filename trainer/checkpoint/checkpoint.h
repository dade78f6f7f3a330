// Checkpoints: DIR/step-000500/{model/, optimizer/, state.json, manifest.json} and DIR/latest, a text file that names
// one. model/ is a Hugging Face directory as it stands; a run that trains adapters has adapter/ in its place (adapters.h).
//
// Nothing is ever half there: a checkpoint is written in a hidden directory, every file and directory is synced, the
// directory is renamed, and `latest` is replaced atomically. Old ones are removed after that. A file's SHA-256 is in the
// manifest and is checked before anything is loaded.
//
// The files know nothing of ranks: tensors are whole, and every rank writes what it owns, and reads what it needs, at
// known places of the same files. So a checkpoint of any layout resumes on any other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "data/files/tensor_directory.h"
#include "data/text/tokenizer_files.h"
#include "model/max_vio_controller.h"
#include "model/selection_bias.h"
#include "optim/adamw.h"
#include "parallel/parameter.h"
#include "trainer/checkpoint/adapters.h"
#include "trainer/checkpoint/directories.h"
#include "trainer/checkpoint/hf_config.h"

namespace smoe {

// Where training stands. Batches and schedules are pure functions of these, so this is all there is to resume.
struct TrainingState {
  std::int64_t step = 0;     // steps done, refused ones included
  std::int64_t updates = 0;  // of the weights: t in Adam's bias corrections
  std::int64_t tokens = 0;   // input tokens seen
  std::int64_t skipped = 0;  // steps refused because the loss or the gradient was not finite, or looked odd
  std::int64_t skipped_in_a_row = 0;
  std::vector<double> recent_losses,
      recent_grad_norms;  // what steps are held against (trainer/outliers.h); empty: none are
  std::optional<MaxVioController::State> controller;  // with router.target_max_vio
  DType type = DType::f32;  // that the weights were computed with: a change is reported on resume
  std::string stream;       // what decides the order of the data: likewise
  std::string base;         // fingerprint of the weights beside which adapters are trained; empty: there are none

  bool operator==(const TrainingState&) const = default;
};

struct CheckpointContent {
  Backend& backend;
  const ParameterSet& whole;  // the whole model's parameters, as one rank declares them
  ParameterSet& parameters;   // this rank's
  AdamW& optimizer;
  SelectionBias& selection_bias;  // where it has values they stand in model/, in f32 whatever the weights' type
  const Mesh& mesh;
  HfConfig config;
  const std::vector<TokenizerFile>& carried_files;  // stand in model/ as they are, over what would be written there
  std::uint64_t max_shard_bytes = kDefaultMaxShardBytes;  // of a file of tensors; a larger tensor has one of its own
  const AdapterRun* adapters = nullptr;                   // what is trained in place of the weights; null: these are
};

std::string checkpoint_name(std::int64_t step);  // "step-000500"

// Throws std::runtime_error where a checkpoint's tensors would lie in more files than this process may have open.
void require_few_files(const CheckpointContent& content);

// Writes DIR/step-N, points `latest` at it, and removes all but the newest `keep`. Throws std::runtime_error, leaving
// every earlier checkpoint as it was, if the disk is full or fails. Returns the checkpoint's path. All ranks call it,
// with one directory that all of them see, and fail together.
std::filesystem::path save_checkpoint(const std::filesystem::path& directory, const CheckpointContent& content,
                                      const TrainingState& state, std::int64_t keep);

// The checkpoint that `latest` names, or, where that file is lost or stale, the newest complete one. None: no value.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& directory);
// The complete ones of a later step, newest first.
std::vector<std::filesystem::path> checkpoints_after(const std::filesystem::path& directory, std::int64_t step);
// What a killed save left behind.
void remove_unfinished(const std::filesystem::path& directory);

// Checks every file against the manifest; throws std::runtime_error that names the first bad file and, where there is
// one, an earlier checkpoint to resume from.
void verify_checkpoint(const std::filesystem::path& checkpoint);
// The same for the files of a checkpoint's model/ alone; any other Hugging Face directory has no manifest and passes.
void verify_model_directory(const std::filesystem::path& directory);
// And for those of its adapter/; any other PEFT directory passes.
void verify_adapter_directory(const std::filesystem::path& directory);
// Tells two directories of weights apart without reading them whole: config.json, a checkpoint's manifest, and of other
// weights their files' sizes, beginnings and ends.
std::string fingerprint_model_directory(const std::filesystem::path& directory);
// What a resumed run trains must have been trained by the checkpoint's: where it has no moments of a parameter, throws and
// names it. Returns how many parameters it trained that are frozen now, whose moments are left behind.
std::int64_t check_same_trained(const std::filesystem::path& checkpoint, const ParameterSet& whole);
// Weights, moments and selection bias into place, of this rank; of a run of adapters these and their moments, the weights have
// been loaded. The checkpoint must have been verified. What a run of 0 steps converted has no moments: they stay zero, as before
// every first update.
TrainingState load_checkpoint(const std::filesystem::path& checkpoint, const CheckpointContent& content);

}  // namespace smoe
