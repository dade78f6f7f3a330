#include "model/freeze.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "model/mixtral.h"
#include "parallel/mesh.h"

namespace smoe {
namespace {

ModelConfig small_model() {
  ModelConfig c;
  c.vocab_size = 11;
  c.hidden_size = 8;
  c.intermediate_size = 6;
  c.num_hidden_layers = 12;  // numbers of one digit and of two
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.num_local_experts = 4;
  return c;
}

ParameterSet frozen_by(const std::vector<std::string>& patterns) {
  return declare_parameters(small_model(), Mesh::single(), patterns);
}

std::string refusal_of(const std::vector<std::string>& patterns) {
  try {
    check_frozen(frozen_by(patterns), patterns);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(Freeze, AStarStandsForAnyRunOfCharacters) {
  for (const char* pattern : {"a.bc.abc", "*", "**", "a*", "*c", "a.*.abc", "*.abc", "*abc*", "a*b*c*c", "*a.bc.abc*"})
    EXPECT_TRUE(matches_pattern(pattern, "a.bc.abc")) << pattern;
  for (const char* pattern : {"", "a", "bc", "*b", "b*", "a.bc.abcd", "a.?c.abc", "*abc.abc", "a*b*c*d*", "A.*"})
    EXPECT_FALSE(matches_pattern(pattern, "a.bc.abc")) << pattern;
  EXPECT_TRUE(matches_pattern("*", ""));
  EXPECT_TRUE(matches_pattern("", ""));
  EXPECT_FALSE(matches_pattern("*" + std::string(2000, 'a') + "*b", std::string(2000, 'a')));
}

TEST(Freeze, WhatAPatternMatchesIsFrozenAndCountedOut) {
  const ModelConfig c = small_model();
  const ParameterCounts counts = count_parameters(c);
  const auto trained = [](const std::vector<std::string>& patterns) { return count_trained(frozen_by(patterns)); };
  EXPECT_EQ(trained({}), counts.total);
  EXPECT_EQ(trained({"*.experts.*"}), counts.total - counts.experts);
  EXPECT_EQ(trained({"*norm*", "*.self_attn.*"}), counts.total - counts.norms - counts.attention);
  EXPECT_EQ(trained({"model.*"}), counts.embedding / 2);
  EXPECT_EQ(trained({"model.layers.1.*"}),
            counts.total - (counts.total - counts.embedding - c.hidden_size) / c.num_hidden_layers)
      << "not 10 and 11";
  RouterConfig router;
  router.frozen = true;
  EXPECT_EQ(trained(frozen_patterns(router, {})), counts.total - counts.routers);
  EXPECT_EQ(trained(frozen_patterns(router, {"*.experts.*"})), counts.total - counts.routers - counts.experts);
  router.frozen = false;
  EXPECT_EQ(trained(frozen_patterns(router, {})), counts.total);
}

TEST(Freeze, WhatLiesInOneMatrixMayBeFrozenAsOne) {
  for (const std::vector<std::string>& patterns :
       std::vector<std::vector<std::string>>{{},
                                             {"*.q_proj.*", "*.k_proj.*", "*.v_proj.*"},
                                             {"*.o_proj.*"},
                                             {"*.w2.*"},
                                             {"*.w1.*", "*.w3.*"},
                                             {"*.experts.*"},
                                             {"model.*"},
                                             {"model.layers.11.*"},
                                             {"*.layers.3.*.w2.weight"},
                                             {"*.gate.weight"},
                                             {"lm_head.weight"},
                                             {"*norm.weight"}})
    EXPECT_EQ(refusal_of(patterns), "");
}

TEST(Freeze, APatternThatMatchesNothingIsRefusedWithTheNamesThereAre) {
  EXPECT_EQ(
      refusal_of({"*.experts.*", "*.mlp.*"}),
      "train.freeze: '*.mlp.*' matches no parameter of this model, expected patterns of names such as 'model.embed_tokens.weight', "
      "'model.layers.*.input_layernorm.weight', 'model.layers.*.self_attn.q_proj.weight', 'model.layers.*.self_attn.k_proj.weight', "
      "'model.layers.*.self_attn.v_proj.weight', 'model.layers.*.self_attn.o_proj.weight', "
      "'model.layers.*.post_attention_layernorm.weight', 'model.layers.*.block_sparse_moe.gate.weight', "
      "'model.layers.*.block_sparse_moe.experts.*.w1.weight', 'model.layers.*.block_sparse_moe.experts.*.w3.weight', "
      "'model.layers.*.block_sparse_moe.experts.*.w2.weight', 'model.norm.weight', 'lm_head.weight'");
  EXPECT_NE(refusal_of({"model.layers.12.*"}), "");
}

TEST(Freeze, APartOfAMatrixIsRefusedWithWhatIsMissing) {
  EXPECT_EQ(
      refusal_of({"*.w1.weight"}),
      "train.freeze: '*.w1.weight' freezes 'model.layers.0.block_sparse_moe.experts.0.w1.weight', "
      "'model.layers.0.block_sparse_moe.experts.1.w1.weight' and 2 more and not 'model.layers.0.block_sparse_moe.experts.0.w3.weight', "
      "'model.layers.0.block_sparse_moe.experts.1.w3.weight' and 2 more, which lie in one matrix and are trained or frozen as one (q_proj, "
      "k_proj and v_proj of a layer; w1 and w3 of all its experts; w2 of all its experts): add "
      "'model.layers.*.block_sparse_moe.experts.*.w3.weight', or freeze none of them");
  const std::string one_layer =
      refusal_of({"*norm*", "model.layers.10.*.q_proj.weight", "model.layers.10.self_attn.v*"});
  EXPECT_NE(one_layer.find("'model.layers.10.*.q_proj.weight', 'model.layers.10.self_attn.v*' freezes"),
            std::string::npos)
      << one_layer;
  EXPECT_NE(one_layer.find("add 'model.layers.10.self_attn.k_proj.weight', or"), std::string::npos) << one_layer;
  const std::string one_expert = refusal_of({"*.experts.3.*"});
  EXPECT_NE(
      one_expert.find(
          "add 'model.layers.*.block_sparse_moe.experts.*.w1.weight', 'model.layers.*.block_sparse_moe.experts.*.w3.weight', or"),
      std::string::npos)
      << one_expert;
  EXPECT_NE(refusal_of({"*.experts.3.w2.weight"}).find("experts.*.w2.weight"), std::string::npos);
  // The suggestion, taken, is enough.
  EXPECT_EQ(refusal_of({"*.w1.weight", "model.layers.*.block_sparse_moe.experts.*.w3.weight"}), "");
}

TEST(Freeze, NothingLeftToTrainIsRefused) {
  EXPECT_EQ(refusal_of({"*"}), "train.freeze: every parameter is frozen, expected one to train");
  EXPECT_EQ(refusal_of({"model.*", "lm_head.*"}), "train.freeze: every parameter is frozen, expected one to train");
}

// Which experts a rank has does not change what is frozen: a part of a layer's experts is refused whatever the layout.
TEST(Freeze, EveryRankFreezesTheSameOfWhatItHolds) {
  const Mesh rank = Mesh::placed({.ranks = 4, .tp = 2, .ep = 4}, 2);
  const ParameterSet own = declare_parameters(small_model(), rank, {"*.w2.weight"});
  std::size_t frozen = 0;
  for (const Parameter& p : own) frozen += !p.trainable;
  EXPECT_EQ(frozen, 12u);
}

}  // namespace
}  // namespace smoe
