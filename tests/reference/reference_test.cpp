// The forward of the reference, which the complex step takes as given: known values, and identities that hold by
// definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "tests/reference/adamw.h"
#include "tests/reference/complex_step.h"
#include "tests/reference/dispatch.h"
#include "tests/reference/noise.h"
#include "tests/reference/random.h"

namespace smoe::reference {
namespace {

TEST(Reference, RmsNormByHand) {
  const RmsNorm<double> n = rms_norm_forward(Matrix<double>{1, 2, {3, 4}}, {1, 2}, 0.0);
  EXPECT_DOUBLE_EQ(n.rstd[0], 1 / std::sqrt(12.5));
  EXPECT_DOUBLE_EQ(n.y(0, 1), 8 / std::sqrt(12.5));
}

TEST(Reference, RouterTieGoesToTheLowestIndex) {
  const Routing<double> r = router_forward(Matrix<double>{2, 4, {1, 3, 3, 0, 2, 2, 2, 2}}, 3);
  EXPECT_EQ(r.experts.values, (std::vector<std::int32_t>{1, 2, 0, 0, 1, 2}));
  EXPECT_DOUBLE_EQ(r.weights(0, 0), r.weights(0, 1));
  EXPECT_DOUBLE_EQ(r.weights(0, 2) / r.weights(0, 0), std::exp(-2.0));
  EXPECT_DOUBLE_EQ(r.logsumexp[1], 2 + std::log(4.0));
}

TEST(Reference, OtherRoutingRulesByHand) {
  const double l2 = std::log(2.0), l3 = std::log(3.0);
  const Matrix<double> logits{1, 3, {0, l3, l2}};  // softmax 1/6 3/6 2/6, sigmoid 1/2 3/4 2/3
  const auto close = [](const Routing<double>& r, std::vector<std::int32_t> experts, std::vector<double> weights) {
    EXPECT_EQ(r.experts.values, experts);
    EXPECT_LE(deviation(r.weights.values, weights), 1e-12);
  };
  close(router_forward(logits, 2, {Score::softmax, false, 3}), {1, 2}, {1.5, 1});
  close(router_forward(logits, 2, {Score::softmax, true, 5}), {1, 2}, {3, 2});
  close(router_forward(logits, 2, {Score::sigmoid, false, 1}), {1, 2}, {3.0 / 4, 2.0 / 3});
  close(router_forward(logits, 2, {Score::sigmoid, true, 17}), {1, 2}, {9, 8});
  const Routing<double> sigmoid = router_forward(logits, 1, {Score::sigmoid, true, 1});
  EXPECT_LE(deviation(sigmoid.probabilities.values, std::vector<double>{6.0 / 23, 9.0 / 23, 8.0 / 23}), 1e-15);
  EXPECT_NEAR(sigmoid.logsumexp[0], std::log(6.0), 1e-15);
  // A bias of 0.4 puts 1/6 before 1/2 and 1/2 before 3/4, and is in no weight.
  close(router_forward(logits, 2, {Score::softmax, false, 1}, {0.4, 0, 0}), {0, 1}, {1.0 / 6, 3.0 / 6});
  close(router_forward(logits, 2, {Score::sigmoid, true, 1}, {0.4, 0, 0}), {0, 1}, {2.0 / 5, 3.0 / 5});
  // Scores too small for a number still have a share.
  const Matrix<double> tiny{1, 3, {-2000, -2000 + l3, -1000 * 1e3}};
  close(router_forward(tiny, 2, {Score::sigmoid, true, 1}), {1, 0}, {3.0 / 4, 1.0 / 4});
  close(router_forward(Matrix<double>{1, 3, {-2000, -2000 + l3, 0}}, 2, {}, {5, 5, 0}), {0, 1}, {1.0 / 4, 3.0 / 4});
}

TEST(Reference, AnExpertTakesTheFirstAssignmentsOfEachGroup) {
  const Matrix<std::int32_t> experts{4, 2, {0, 1, 1, 0, 1, 2, 1, 0}};
  EXPECT_EQ(within_capacity(experts, {}).values, experts.values);
  EXPECT_EQ(within_capacity(experts, {1, 2}).values, (std::vector<std::int32_t>{0, 1, -1, -1, 1, 2, -1, 0}));
  EXPECT_EQ(within_capacity(experts, {2, 4}).values, (std::vector<std::int32_t>{0, 1, 1, 0, -1, 2, -1, -1}));
  const RoutingMap map = routing_map(within_capacity(experts, {2, 4}), 3);
  EXPECT_EQ(map.offsets, (Ids{0, 2, 4, 5}));
  EXPECT_EQ(map.row_of, (Ids{0, 2, 3, 1, -1, 4, -1, -1}));
  EXPECT_EQ(map.assignment_of, (Ids{0, 3, 1, 2, 5}));
}

TEST(Reference, OrTheMostProbable) {
  const Matrix<std::int32_t> experts{4, 2, {0, 1, 1, 0, 1, 2, 1, 0}};
  const Matrix<double> p{4, 3, {.3, .2, .5, .4, .6, 0, .1, .5, .4, .3, .5, .2}};
  EXPECT_EQ(within_capacity(experts, {}, p).values, experts.values);
  EXPECT_EQ(within_capacity(experts, {1, 4}, p).values, (std::vector<std::int32_t>{-1, -1, 1, 0, -1, 2, -1, -1}));
  EXPECT_EQ(within_capacity(experts, {2, 4}, p).values, (std::vector<std::int32_t>{0, -1, 1, 0, 1, 2, -1, -1}))
      << "of two alike the first";
  EXPECT_EQ(within_capacity(experts, {1, 2}, p).values, (std::vector<std::int32_t>{-1, -1, 1, 0, 1, 2, -1, 0}));
}

TEST(Reference, PhiloxGivesThePublishedNumbers) {  // kat_vectors of Random123
  EXPECT_EQ(philox(0, {0, 0, 0, 0}), (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(0x299f31d0a4093822ull, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Reference, NoiseBelongsToTheTokenAndHasItsWidth) {
  const Matrix<double> all = noise_factors({7, 100, 3, 0.25}, 400, 10), part = noise_factors({7, 150, 3, 0.25}, 20, 10);
  EXPECT_EQ(row_range(all, 50, 20).values, part.values);
  const double count = double(all.values.size());
  EXPECT_NEAR(sum(all.values) / count, 1, 0.01);
  EXPECT_NEAR((sum_of_squares(all.values) / count - 1) * 3, 0.25 * 0.25,
              0.02);  // a uniform one has a third of its width squared
  EXPECT_LE(*std::max_element(all.values.begin(), all.values.end()), 1.25);
  EXPECT_GE(*std::min_element(all.values.begin(), all.values.end()), 0.75);
  EXPECT_NE(noise_factors({7, 100, 4, 0.25}, 400, 10).values, all.values);
  EXPECT_NE(noise_factors({8, 100, 3, 0.25}, 400, 10).values, all.values);
}

TEST(Reference, RenormalisedWeightsAreTheSoftmaxOfTheChosenLogits) {
  Random random(1);
  const Matrix<double> logits = random.matrix(9, 6, 2.0);
  const Routing<double> r = router_forward(logits, 2);
  for (Index t = 0; t < 9; ++t) {
    const double ratio = std::exp(logits(t, r.experts(t, 0)) - logits(t, r.experts(t, 1)));
    EXPECT_NEAR(r.weights(t, 0) / r.weights(t, 1), ratio, 1e-12 * ratio);
    EXPECT_NEAR(r.weights(t, 0) + r.weights(t, 1), 1, 1e-15);
  }
}

// Balance scores 1 a layer and k in the pooled form; collapse onto k experts scores E / k a layer. Layers that collapse
// on different experts look balanced to the pooled form: four layers of eight experts, each on its own pair.
TEST(Reference, BalanceLossUnits) {
  const Index E = 8, K = 2, tokens = 12, layers = 4;
  std::vector<BalanceStatistics<double>> balanced, collapsed;
  for (Index l = 0; l < layers; ++l) {
    Matrix<double> even(tokens, E), pair(tokens, E);
    for (Index t = 0; t < tokens; ++t) {
      for (Index e = 0; e < E; ++e) pair(t, e) = e / 2 == l ? 0.0 : -1000.0;
      for (Index k = 0; k < K; ++k) even(t, (2 * t + k) % E) = 1e-12;
    }
    balanced.push_back(balance_statistics(router_forward(even, K), 1));
    collapsed.push_back(balance_statistics(router_forward(pair, K), 1));
  }
  EXPECT_NEAR(balance_loss(BalanceScope::micro_batch, balanced, tokens, K), layers, 1e-9);
  EXPECT_NEAR(balance_loss(BalanceScope::hf, balanced, tokens, K), K, 1e-9);
  EXPECT_NEAR(balance_loss(BalanceScope::micro_batch, collapsed, tokens, K), double(layers * E) / K, 1e-9);
  EXPECT_NEAR(balance_loss(BalanceScope::hf, collapsed, tokens, K), K, 1e-9);
}

TEST(Reference, AttentionOfOneVisibleKeyIsItsValue) {
  Random random(2);
  const AttentionShape shape{1, 5, 2, 1, 3, 1};  // window 1: a query sees itself alone
  const Matrix<double> qkv = random.matrix(5, 12);
  const Attention<double> a = attention_forward(shape, qkv, {});
  for (Index t = 0; t < 5; ++t)
    for (Index h = 0; h < 2; ++h)
      for (Index c = 0; c < 3; ++c) EXPECT_DOUBLE_EQ(a.out(t, h * 3 + c), qkv(t, 9 + c));
}

TEST(Reference, DocumentsOfOneSequenceAreSequencesOfTheirOwn) {
  Random random(3);
  const Matrix<double> qkv = random.matrix(8, 16);
  const AttentionShape joined{1, 8, 2, 1, 4}, apart{2, 4, 2, 1, 4};
  const Attention<double> a = attention_forward(joined, qkv, {0, 0, 0, 0, 4, 4, 4, 4});
  const Attention<double> b = attention_forward(apart, qkv, {});
  EXPECT_EQ(a.out.values, b.out.values);
  EXPECT_EQ(a.lse.values, b.lse.values);
}

TEST(Reference, RopeScoresDependOnDistanceAlone) {
  Random random(4);
  const Matrix<double> table = rope_table(1e4, 40, 8), q = random.matrix(1, 8), k = random.matrix(1, 8);
  auto score = [&](std::int32_t at, std::int32_t distance) {
    Matrix<double> a = q, b = k;
    rope_forward(a, 1, {at + distance}, table);
    rope_forward(b, 1, {at}, table);
    return gemm_nt(a, b)(0, 0);
  };
  EXPECT_NEAR(score(0, 5), score(30, 5), 1e-5);  // the angles are f32
  EXPECT_GT(std::abs(score(0, 5) - score(0, 6)), 1e-3);
  // Pairs are (i, i + C/2): position 1 turns (1, 0, ...) by one radian into (cos 1, ..., sin 1 at C/2, ...).
  Matrix<double> unit(1, 8);
  unit(0, 0) = 1;
  rope_forward(unit, 1, {1}, table);
  EXPECT_DOUBLE_EQ(unit(0, 0), std::cos(1.0));
  EXPECT_DOUBLE_EQ(unit(0, 4), std::sin(1.0));
}

TEST(Reference, CachedAttentionContinuesTheSequence) {
  Random random(5);
  const Matrix<double> qkv = random.matrix(7, 16);
  for (const Index window : {0, 3}) {
    const AttentionShape shape{1, 7, 2, 1, 4, window};
    const Attention<double> whole = attention_forward(shape, qkv, {});
    Matrix<double> keys(9, 4), values(9, 4);
    attention_cached(shape, row_range(qkv, 0, 4), 0, keys, values);
    const Matrix<double> tail = attention_cached(shape, row_range(qkv, 4, 3), 4, keys, values);
    EXPECT_EQ(tail.values, row_range(whole.out, 4, 3).values);
  }
}

// The experts written per expert (experts.h) and as the op table does it: sort rows, grouped products, unsort.
TEST(Reference, DispatchedExpertsEqualExperts) {
  Random random(6);
  const Index tokens = 9, D = 5, F = 4, E = 6, K = 3;
  const Matrix<double> x = random.matrix(tokens, D);
  const Routing<double> routing = router_forward(random.matrix(tokens, E), K);
  std::vector<ExpertParameters<double>> experts;
  Matrix<double> w13(E * 2 * F, D), w2(E * D, F);
  for (Index e = 0; e < E; ++e) {
    experts.push_back({random.matrix(F, D), random.matrix(D, F), random.matrix(F, D)});
    std::copy_n(experts[e].w1.values.begin(), F * D, w13.values.begin() + e * 2 * F * D);
    std::copy_n(experts[e].w3.values.begin(), F * D, w13.values.begin() + (e * 2 + 1) * F * D);
    std::copy_n(experts[e].w2.values.begin(), F * D, w2.values.begin() + e * F * D);
  }
  const RoutingMap map = routing_map(routing.experts, E);
  const Matrix<double> h = grouped_gemm_nt(permute(x, map.assignment_of, K), w13, map.offsets);
  const Matrix<double> a = swiglu_forward(h, permute_weights(routing.weights, map.assignment_of));
  const Matrix<double> out = unpermute(grouped_gemm_nt(a, w2, map.offsets), map.row_of, K, Matrix<double>(tokens, D));
  EXPECT_LE(deviation(out.values, experts_forward(x, routing, experts).values), 1e-14);
  for (std::size_t r = 1; r < map.assignment_of.size(); ++r) {  // by expert, inside one by token
    const auto before = routing.experts.values[map.assignment_of[r - 1]],
               now = routing.experts.values[map.assignment_of[r]];
    EXPECT_TRUE(before < now || (before == now && map.assignment_of[r - 1] < map.assignment_of[r]));
  }
}

TEST(Reference, AdamWByHand) {
  std::vector<double> w{2}, g{4}, m{0.5}, v{0.25};
  adamw(AdamWStep{0.1, 0.9, 0.99, 1e-8, 0.5, 0.19, 0.0199, 0.5}, w, g, m, v);  // second step, gradient clipped by half
  EXPECT_DOUBLE_EQ(m[0], 0.9 * 0.5 + 0.1 * 2);
  EXPECT_DOUBLE_EQ(v[0], 0.99 * 0.25 + 0.01 * 4);
  EXPECT_NEAR(w[0], 2 - 0.1 * 0.5 * 2 - 0.1 * (0.65 / 0.19) / (std::sqrt(0.2875 / 0.0199) + 1e-8), 1e-15);
  EXPECT_EQ(g[0], 0);
}

TEST(Reference, UniformLogitsCostLogV) {
  ReferenceConfig config;
  Parameters<double> p = random_parameters(config, 7);
  p.lm_head = Matrix<double>(config.vocab, config.hidden);
  ModelSaved<double> saved;
  EXPECT_NEAR(model_forward(config, p, random_batch(config, 2, 5, 8, true), saved).lm, std::log(double(config.vocab)),
              1e-14);
}

TEST(Reference, FloatFollowsDouble) {
  ReferenceConfig config;
  config.aux_coef = 0.1;
  config.z_coef = 0.01;
  const Parameters<double> p = cast<double>(config, cast<float>(config, random_parameters(config, 9)));
  const Batch batch = random_batch(config, 2, 6, 10, true);
  ModelSaved<double> exact;
  ModelSaved<float> rounded;
  const Losses<double> truth = model_forward(config, p, batch, exact);
  const Losses<float> found = model_forward(config, cast<float>(config, p), batch, rounded);
  EXPECT_NEAR(found.total, truth.total, 1e-5);
  Parameters<float> gradients = make_parameters<float>(config);
  model_backward(config, cast<float>(config, p), batch, rounded, gradients);
  const NamedGradients expected = model_gradient(config, p, batch);
  std::size_t next = 0;
  visit_parameters(gradients,
                   [&](const std::string& name, const std::vector<Index>&, const std::vector<float>& values) {
                     EXPECT_LE(deviation(cast<double>(values), expected[next++].second), 2e-5) << name;
                   });
}

TEST(Reference, GradientsAccumulate) {
  ReferenceConfig config;
  config.aux_coef = 0.1;
  const Parameters<double> p = random_parameters(config, 11);
  const Batch batch = random_batch(config, 2, 4, 12, false);
  ModelSaved<double> saved;
  model_forward(config, p, batch, saved);
  Parameters<double> twice = make_parameters<double>(config);
  model_backward(config, p, batch, saved, twice);
  model_backward(config, p, batch, saved, twice);
  const NamedGradients once = model_gradient(config, p, batch);
  std::size_t next = 0;
  visit_parameters(twice, [&](const std::string& name, const std::vector<Index>&, std::vector<double>& values) {
    for (double& value : values) value /= 2;
    EXPECT_LE(deviation(values, once[next++].second), 1e-14) << name;
  });
}

TEST(Reference, ParameterNamesAndShapesAreThoseOfHuggingFace) {
  ReferenceConfig config;
  const Parameters<double> p = make_parameters<double>(config);
  std::vector<std::string> seen;
  visit_parameters(p, [&](const std::string& name, const std::vector<Index>& shape, const std::vector<double>& values) {
    std::string text = name;
    Index elements = 1;
    for (const Index dim : shape) {
      text += " " + std::to_string(dim);
      elements *= dim;
    }
    EXPECT_EQ(elements, static_cast<Index>(values.size())) << name;
    seen.push_back(text);
  });
  EXPECT_EQ(seen.size(), 3u + 2u * (2 + 4 + 1 + 3 * 4));
  for (const char* expected :
       {"model.embed_tokens.weight 11 8", "model.layers.0.input_layernorm.weight 8",
        "model.layers.1.self_attn.q_proj.weight 8 8", "model.layers.0.self_attn.k_proj.weight 2 8",
        "model.layers.0.self_attn.o_proj.weight 8 8", "model.layers.1.block_sparse_moe.gate.weight 4 8",
        "model.layers.1.block_sparse_moe.experts.3.w1.weight 6 8",
        "model.layers.0.block_sparse_moe.experts.0.w2.weight 8 6", "model.layers.0.post_attention_layernorm.weight 8",
        "model.norm.weight 8", "lm_head.weight 11 8"})
    EXPECT_NE(std::find(seen.begin(), seen.end(), expected), seen.end()) << expected;
}

}  // namespace
}  // namespace smoe::reference
