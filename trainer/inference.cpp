#include "trainer/inference.h"

#include <fmt/format.h>

#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>

#include "data/files/printable.h"
#include "trainer/checkpoint/adapters.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/machine.h"
#include "trainer/checkpoint/weights.h"

namespace smoe {
namespace {

HfConfig checked_config(const std::filesystem::path& directory, std::optional<HfConfig> read, DType type,
                        Device device) {
  verify_model_directory(directory);
  HfConfig config = read ? *std::move(read) : read_hf_config(directory);
  require_computable(config.model, device);
  require_memory(config.model, room_on(device),
                 bytes_of(type) * static_cast<std::uint64_t>(count_parameters(config.model).total), "weights");
  return config;
}

std::optional<PeftConfig> checked_adapter(const std::filesystem::path& directory, const ModelConfig& model) {
  if (directory.empty()) return std::nullopt;
  verify_adapter_directory(directory);
  return read_peft_config(directory, model);
}

}  // namespace

InferenceModel::InferenceModel(const std::filesystem::path& directory, const Mesh& mesh, std::int64_t positions,
                               std::unique_ptr<Backend> backend, std::optional<HfConfig> config,
                               PrecisionChoice precision, const std::filesystem::path& adapter)
    : config_(checked_config(directory, std::move(config), type_of(precision, backend->device()), backend->device())),
      mesh_(mesh),
      adapter_(checked_adapter(adapter, config_.model)),
      backend_(std::move(backend)),
      persistent_(*backend_),
      activations_(*backend_),
      scratch_(*backend_),
      model_(config_.model, mesh, {}, {}, type_of(precision, backend_->device()), adapter_ ? &adapter_->lora : nullptr),
      selection_bias_(*backend_, persistent_, model_) {
  if (positions > config_.model.max_position_embeddings)
    throw std::runtime_error(
        fmt::format("{}: {} positions are asked for, the model has {} (max_position_embeddings in config.json){}",
                    directory.string(), positions, config_.model.max_position_embeddings,
                    config_.model.rope_scaling.type == RopeType::dynamic
                        ? "; what dynamic rope scaling does to longer sequences is not computed here"
                        : ""));
  model_.allocate(*backend_, persistent_, positions, false);
  load_weights(directory, *backend_, config_.model, model_.parameters(), config_.tied_head);
  if (adapter_) {
    load_adapter(adapter, *adapter_, config_.model, *backend_, model_.parameters());
    config_.warnings.insert(config_.warnings.end(), adapter_->warnings.begin(), adapter_->warnings.end());
    if (std::string warning = warning_of_another_base(adapter, directory); !warning.empty())
      config_.warnings.push_back(std::move(warning));
  }
  if (const auto biases = load_selection_bias(directory, config_.model); !biases.empty()) selection_bias_.set(biases);
  for (const std::string& warning : config_.warnings) fmt::print(stderr, "smoe: warning: {}\n", printable(warning));
}

Context InferenceModel::fresh_context() {
  activations_.rewind({});
  scratch_.rewind({});
  return {*backend_, mesh_, activations_, scratch_};
}

void check_ids(std::span<const std::int32_t> ids, std::int64_t vocabulary, const std::string& where) {
  for (std::size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= vocabulary)
      throw std::runtime_error(
          fmt::format("{}: token {} is {}, expected an id in [0, {})", where, i, ids[i], vocabulary));
}

}  // namespace smoe
