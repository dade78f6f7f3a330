// A model read from a Hugging Face directory, for evaluation, generation and inspection: weights and no gradients.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/arena.h"
#include "model/mixtral.h"
#include "model/selection_bias.h"
#include "parallel/mesh.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/peft.h"
#include "trainer/train_config.h"

namespace smoe {

class InferenceModel {
 public:
  // positions: the longest sequence that will be seen. config: the directory's, where it has been read already. What its
  // config.json leaves to be guessed is told on stderr (HfConfig::warnings). Throws std::runtime_error if the directory
  // holds no model that can be used, or fewer positions than asked for. adapter: a PEFT directory (find_adapter_directory) whose
  // adapters stand beside the weights; empty: none.
  InferenceModel(const std::filesystem::path& directory, const Mesh& mesh, std::int64_t positions,
                 std::unique_ptr<Backend> backend, std::optional<HfConfig> config = std::nullopt,
                 PrecisionChoice precision = PrecisionChoice::automatic, const std::filesystem::path& adapter = {});
  InferenceModel(const std::filesystem::path&, const Mesh&&, std::int64_t, std::unique_ptr<Backend>,
                 std::optional<HfConfig> = std::nullopt, PrecisionChoice = PrecisionChoice::automatic,
                 const std::filesystem::path& = {}) = delete;  // the mesh must outlive it

  const HfConfig& config() const { return config_; }
  const ModelConfig& shape() const { return config_.model; }
  const LoraConfig* lora() const { return adapter_ ? &adapter_->lora : nullptr; }
  Mixtral& model() { return model_; }
  Backend& backend() { return *backend_; }
  Arena& persistent() { return persistent_; }
  // With both arenas rewound: nothing of an earlier call is kept.
  Context fresh_context();

 private:
  HfConfig config_;
  const Mesh& mesh_;
  std::optional<PeftConfig> adapter_;
  std::unique_ptr<Backend> backend_;
  Arena persistent_, activations_, scratch_;
  Mixtral model_;
  SelectionBias selection_bias_;  // the directory's, where it has one
};

// Throws std::runtime_error that names the position and value of the first id outside [0, vocabulary).
void check_ids(std::span<const std::int32_t> ids, std::int64_t vocabulary, const std::string& where);

}  // namespace smoe
