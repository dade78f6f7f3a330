// A training step that is made many times: what it costs once it is warm is counted by the tests of each backend.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <utility>
#include <vector>

#include "kernels/arena.h"
#include "model/mixtral.h"
#include "model/selection_bias.h"
#include "optim/adamw.h"
#include "parallel/mesh.h"
#include "trainer/training_step.h"

namespace smoe::test {

struct WarmSetting {
  const char* name;
  DType type;
  Recompute recompute;
  AuxLossScope scope;
  std::int64_t micro_batch_size;  // of WarmStep::sequences
  std::int64_t layers = 2, hidden = 32, intermediate = 48;
  std::int64_t length = 24, second_document = 10;  // of a sequence, and where its second document begins
  bool padded = false;   // sequences end in padding, one in 3 tokens of it, the next in 6, ...
  bool steered = false;  // by all that steers the balance: a schedule from 0 on, a target for MaxVio, a selection bias
};
inline void PrintTo(const WarmSetting& setting, std::ostream* out) { *out << setting.name; }

class WarmStep {
 public:
  static constexpr std::int64_t sequences = 4;

  WarmStep(std::unique_ptr<Backend> backend, const WarmSetting& setting)
      : setting_(setting),
        backend_(std::move(backend)),
        persistent_(*backend_),
        model_(model_config(setting), mesh_, {}, {}, setting.type),
        ids_(static_cast<std::size_t>(sequences * setting.length)),
        targets_(ids_.size()),
        document_start_(ids_.size()) {
    RouterConfig router;
    router.aux_loss_scope = setting.scope;
    router.z_loss_coef = 1e-3;
    if (setting.steered) {
      router.aux_loss_schedule = {.type = AuxLossScheduleType::linear, .from = 0.0, .to = 0.01, .steps = 30, .at = {}};
      router.target_max_vio = 0.5;
      router.bias_update_rate = 1e-3;
    }
    model_.allocate(*backend_, persistent_, setting.length, true);
    optimizer_ = std::make_unique<AdamW>(*backend_, persistent_, model_.parameters(), mesh_, OptimizerConfig());
    model_.parameters().initialize(*backend_, 1, optimizer_->keeps_masters());
    step_ = std::make_unique<TrainingStep>(*backend_, mesh_, model_, *optimizer_, router, setting.micro_batch_size,
                                           setting.recompute);
    if (!setting.steered) return;
    selection_bias_.begin_at_zero();
    step_->use_selection_bias(selection_bias_);
  }

  // Gradients and update of step `number`, from 1. Ids drift towards one value, so that loads shift between experts.
  void train(std::int64_t number) {
    for (std::size_t i = 0; i < ids_.size(); ++i) {
      const auto t = static_cast<std::int64_t>(i);
      ids_[i] = static_cast<std::int32_t>((t * (17 + number)) % (vocabulary / number));
      targets_[i] = t % 9 == 0 ? -100 : static_cast<std::int32_t>((t * 31 + number) % vocabulary);
      document_start_[i] =
          t % setting_.length < setting_.second_document ? 0 : static_cast<std::int32_t>(setting_.second_document);
      if (!setting_.padded || t % setting_.length < setting_.length - 3 * (1 + t / setting_.length)) continue;
      ids_[i] = -1, targets_[i] = -100;
      document_start_[i] = static_cast<std::int32_t>(t % setting_.length);
    }
    step_->steer(number);
    const StepResult result =
        step_->compute_gradients({.sequences = sequences,
                                  .sequence_length = setting_.length,
                                  .ids = ids_,
                                  .targets = targets_,
                                  .document_start = document_start_,
                                  .positions = setting_.padded ? Positions::of_document : Positions::of_sequence});
    ASSERT_TRUE(result.finite);
    step_->apply(result, number, 1e-3);
  }

 private:
  static constexpr std::int64_t vocabulary = 300;

  static ModelConfig model_config(const WarmSetting& setting) {
    ModelConfig config;
    config.vocab_size = vocabulary;
    config.hidden_size = setting.hidden;
    config.intermediate_size = setting.intermediate;
    config.num_hidden_layers = setting.layers;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.num_local_experts = 8;
    config.num_experts_per_tok = 2;
    return config;
  }

  WarmSetting setting_;
  Mesh mesh_ = Mesh::single();
  std::unique_ptr<Backend> backend_;
  Arena persistent_;
  Mixtral model_;
  SelectionBias selection_bias_{*backend_, persistent_, model_};
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<TrainingStep> step_;
  std::vector<std::int32_t> ids_, targets_, document_start_;
};

}  // namespace smoe::test
