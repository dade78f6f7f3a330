// Attention alone: the projections, the rotary embedding and what lies between, forward and backward.
#include "model/attention.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "model/rope_frequencies.h"
#include "tests/model/layer_harness.h"
#include "tests/model/model_fixture.h"

namespace smoe {
namespace {

using Values = reference::Matrix<double>;

struct AttentionCase {
  const char* name;
  reference::ReferenceConfig config;
  std::int64_t sequences, length;
  bool documents = false;
};
void PrintTo(const AttentionCase& c, std::ostream* out) { *out << c.name; }

reference::ReferenceConfig attention_config(int hidden, int heads, int kv_heads, int head_dim, int window = 0) {
  reference::ReferenceConfig c;
  c.hidden = hidden, c.heads = heads, c.kv_heads = kv_heads, c.head_dim = head_dim, c.window = window;
  c.rope_theta = 1e4;
  return c;
}

const std::vector<AttentionCase> attention_cases = {
    {"as_many_key_value_heads", attention_config(24, 4, 4, 6), 2, 13},
    {"grouped_queries", attention_config(32, 8, 2, 4), 3, 11},
    {"one_key_value_head", attention_config(20, 6, 1, 8), 2, 9},
    {"documents", attention_config(32, 8, 2, 4), 3, 21, true},
    {"window", attention_config(30, 6, 2, 10, 5), 2, 19},
    {"window_and_documents", attention_config(30, 6, 3, 10, 4), 2, 23, true},
    {"window_of_one_key", attention_config(16, 4, 2, 4, 1), 2, 7},
    {"one_token", attention_config(16, 4, 2, 4), 1, 1},
    {"no_tokens", attention_config(16, 4, 2, 4), 0, 5},
    {"long_sequences_cross_tiles", attention_config(48, 4, 2, 16), 1, 300, true},
};

class AttentionAlone : public ::testing::TestWithParam<AttentionCase> {};

TEST_P(AttentionAlone, ForwardAndBackwardAreTheReferences) {
  const AttentionCase& c = GetParam();
  const ModelConfig config = model_config(c.config);
  LayerHarness harness("attention", 11);
  const Attention attention(harness.parameters, "", config, harness.mesh, 0);
  harness.allocate();

  reference::Batch batch{c.sequences, c.length, reference::Ids(static_cast<std::size_t>(c.sequences * c.length)), {}};
  if (c.documents) batch.document_start = reference::random_documents(harness.random(), c.sequences, c.length, 4.0);
  const TokenBatch tokens = make_token_batch(*harness.backend, harness.context.activations, c.sequences, c.length,
                                             batch.tokens, {}, batch.document_start);
  const RopeFrequencies rope = rope_frequencies(config);
  const Tensor table = harness.unwritten({c.length, config.head_size()});
  harness.backend->rope_table(rope.frequencies, rope.scale, table);

  reference::LayerParameters<double> weights, gradients;
  const std::vector<std::pair<std::string, Values reference::LayerParameters<double>::*>> projections = {
      {"q_proj.weight", &reference::LayerParameters<double>::q},
      {"k_proj.weight", &reference::LayerParameters<double>::k},
      {"v_proj.weight", &reference::LayerParameters<double>::v},
      {"o_proj.weight", &reference::LayerParameters<double>::o}};
  for (const auto& [name, of] : projections) weights.*of = harness.weight(name), gradients.*of = harness.gradient(name);

  const std::int64_t T = c.sequences * c.length, D = config.hidden_size;
  const Values x = harness.random_floats(T, D), dy = harness.random_floats(T, D);
  reference::SelfAttention<double> expected;
  const Values expected_y = self_attention_forward(c.config, weights, x, batch, expected);
  const Values expected_dx = self_attention_backward(c.config, weights, batch, expected, dy, gradients);

  Attention::Saved saved;
  const Tensor y = harness.unwritten({T, D}), dx = harness.unwritten({T, D});
  attention.forward(harness.context, tokens, table, harness.tensor(x), nullptr, saved, y);
  harness.expect_close("rotated queries, keys and values", saved.qkv, expected.qkv.values, layer_tolerance);
  harness.expect_close("output before the projection", saved.out, expected.attention.out.values, layer_tolerance);
  harness.expect_close("log-sum-exp", saved.lse, expected.attention.lse.values, layer_tolerance);
  harness.expect_close("y", y, expected_y.values, layer_tolerance);

  attention.backward(harness.context, tokens, table, harness.tensor(dy), saved, dx);
  harness.expect_close("dx", dx, expected_dx.values, layer_tolerance);
  for (const auto& [name, of] : projections) harness.expect_gradient(name, gradients.*of);
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionAlone, ::testing::ValuesIn(attention_cases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace smoe
