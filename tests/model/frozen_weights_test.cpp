// A model of which a part is frozen: what is trained gets the gradient it would get anyway, to the bit; what is not gets
// none; and backward takes no step whose result nobody wants.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "kernels/device_sums.h"
#include "kernels/timed_backend.h"
#include "tests/model/model_fixture.h"

namespace smoe {
namespace {

bool has(const std::string& name, const char* part) { return name.find(part) != std::string::npos; }

struct FrozenCase {
  const char* name;
  std::function<bool(const std::string&)> trained;
  // How often the head's and the model's backward call these, of three layers.
  std::int64_t embedding, rms_norm, attention, gemm_nn, gemm_tn, grouped_nn, grouped_tn;
};
void PrintTo(const FrozenCase& c, std::ostream* out) { *out << c.name; }

std::vector<FrozenCase> frozen_cases() {
  return {
      {"nothing", [](const auto&) { return true; }, 1, 7, 3, 10, 10, 6, 6},
      {"all_but_the_head", [](const auto& n) { return has(n, "lm_head"); }, 0, 0, 0, 0, 1, 0, 0},
      {"all_but_the_final_norm", [](const auto& n) { return n == "model.norm.weight"; }, 0, 1, 0, 1, 0, 0, 0},
      {"the_head", [](const auto& n) { return !has(n, "lm_head"); }, 1, 7, 3, 10, 9, 6, 6},
      {"the_embedding", [](const auto& n) { return !has(n, "embed_tokens"); }, 0, 7, 3, 10, 10, 6, 6},
      {"the_embedding_and_two_layers",
       [](const auto& n) { return !has(n, "embed_tokens") && !has(n, "layers.0.") && !has(n, "layers.1."); }, 0, 3, 1,
       4, 4, 2, 2},
      {"the_routers", [](const auto& n) { return !has(n, ".gate."); }, 1, 7, 3, 10, 7, 6, 6},
      {"the_experts", [](const auto& n) { return !has(n, ".experts."); }, 1, 7, 3, 10, 10, 6, 0},
      {"all_but_w2", [](const auto& n) { return has(n, ".w2."); }, 0, 6, 2, 8, 0, 6, 3},
      {"all_but_one_layers_attention", [](const auto& n) { return has(n, "layers.1.self_attn."); }, 0, 4, 2, 6, 2, 4,
       0},
      {"the_norms", [](const auto& n) { return !has(n, "norm"); }, 1, 7, 3, 10, 10, 6, 6},
  };
}

class FrozenWeights : public ::testing::TestWithParam<FrozenCase> {
 protected:
  static reference::ReferenceConfig config() {
    reference::ReferenceConfig c;
    c.vocab = 53, c.hidden = 32, c.ffn = 48, c.layers = 3;
    c.heads = 8, c.kv_heads = 2, c.head_dim = 4;
    c.experts = 8, c.top_k = 2;
    c.aux_coef = 0.3, c.z_coef = 0.01;
    return c;
  }
  FrozenWeights()
      : weights(float_parameters(config(), 5)),
        batch(reference::random_batch(config(), 3, 17, 9, true, 0.3)),
        whole(config(), weights, batch.sequence_length),
        part(config(), weights, batch.sequence_length) {
    for (Parameter& p : part.model.parameters())
      if (!GetParam().trained(p.name)) frozen.push_back({p.name, std::exchange(p.gradient, Tensor{})});
  }

  const reference::Parameters<double> weights;
  const reference::Batch batch;
  RealModel whole, part;
  std::vector<std::pair<std::string, Tensor>> frozen;  // names, and the memory that their gradients had
};

TEST_P(FrozenWeights, WhatIsTrainedGetsTheSameBits) {
  for (const Recompute recompute : {Recompute::none, Recompute::layer}) {
    whole.clear_gradients();
    part.clear_gradients();
    whole.step(batch, recompute);
    part.step(batch, recompute);
    for (const Parameter& p : part.model.parameters())
      if (GetParam().trained(p.name)) {
        EXPECT_EQ(part.gradient(p.name), whole.gradient(p.name)) << p.name;
      }
    for (const auto& [name, memory] : frozen)
      EXPECT_TRUE(std::all_of(memory.f32(), memory.f32() + memory.elements(), [](float g) { return g == 0; })) << name;
  }
}

TEST_P(FrozenWeights, BackwardEndsWhereNothingBelowIsTrained) {
  TimedBackend timed(*part.backend);
  Context context{timed, part.mesh, part.activations, part.scratch};
  const TokenBatch tokens = make_token_batch(timed, part.activations, batch.sequences, batch.sequence_length,
                                             batch.tokens, batch.targets, batch.document_start);
  part.model.forward(context, tokens, Keep::all, part.saved);
  DeviceSums loss(timed);
  loss.reset(1);
  timed.reset();
  part.model.loss_and_gradient(context, tokens, 1.0, part.saved, loss[0]);
  part.model.backward(context, tokens, {}, part.saved);

  std::map<std::string, std::int64_t> calls;
  for (const OpTime& op : timed.times())
    calls[has(op.op, "gemm") ? op.op + " " + op.shape.substr(0, 2) : op.op] += op.calls;
  const FrozenCase& c = GetParam();
  EXPECT_EQ(calls["embedding_backward"], c.embedding);
  EXPECT_EQ(calls["rms_norm_backward"], c.rms_norm);
  EXPECT_EQ(calls["attention_backward"], c.attention);
  EXPECT_EQ(calls["gemm nn"], c.gemm_nn);
  EXPECT_EQ(calls["gemm tn"], c.gemm_tn);
  EXPECT_EQ(calls["grouped_gemm nn"], c.grouped_nn);
  EXPECT_EQ(calls["grouped_gemm tn"], c.grouped_tn);
}

INSTANTIATE_TEST_SUITE_P(Parts, FrozenWeights, ::testing::ValuesIn(frozen_cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace smoe
