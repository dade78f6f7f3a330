// Every hand-written backward of the reference against the complex-step derivative of its forward.
#include <gtest/gtest.h>

#include "tests/reference/complex_step.h"
#include "tests/reference/dispatch.h"
#include "tests/reference/random.h"

namespace smoe::reference {
namespace {

// f maps the complex entries of one input to the projected output.
template <typename F>
void expect_gradient(const char* input, const std::vector<double>& at, const std::vector<double>& backward, F f) {
  EXPECT_LE(deviation(backward, complex_step_gradient(at, f)), gradient_tolerance) << "gradient by " << input;
}

template <typename T>
Matrix<T> like(const Matrix<double>& shape, const std::vector<T>& values) {
  return {shape.rows, shape.cols, values};
}

using ComplexVector = std::vector<Complex>;

TEST(ComplexStep, Embedding) {
  Random random(1);
  const Matrix<double> table = random.matrix(7, 5), dout = random.matrix(9, 5);
  const Ids ids = random.ids(9, 7);
  Matrix<double> dtable(7, 5);
  embedding_backward(ids, dout, dtable);
  expect_gradient("table", table.values, dtable.values, [&](const ComplexVector& z) {
    return project(embedding_forward(ids, like(table, z)).values, dout.values);
  });
}

TEST(ComplexStep, RmsNorm) {
  Random random(2);
  const Matrix<double> x = random.matrix(6, 7), dy = random.matrix(6, 7), residual = random.matrix(6, 7);
  const std::vector<double> weight = random.normals(7);
  const double epsilon = 1e-2;
  std::vector<double> dweight(7);
  const RmsNorm<double> forward = rms_norm_forward(x, weight, epsilon);
  const Matrix<double> dx = rms_norm_backward(dy, x, weight, forward.rstd, residual, dweight);
  expect_gradient("x", x.values, dx.values, [&](const ComplexVector& z) {
    const Matrix<Complex> y = rms_norm_forward(like(x, z), cast<Complex>(weight), epsilon).y;
    return project(y.values, dy.values) + project(z, residual.values);  // the residual branch beside the norm
  });
  expect_gradient("weight", weight, dweight, [&](const ComplexVector& z) {
    return project(rms_norm_forward(cast<Complex>(x), z, epsilon).y.values, dy.values);
  });
}

TEST(ComplexStep, Linear) {
  Random random(3);
  const Matrix<double> x = random.matrix(4, 5), w = random.matrix(3, 5), dy = random.matrix(4, 3);
  Matrix<double> dw(3, 5);
  const Matrix<double> dx = linear_backward(dy, x, w, dw);
  expect_gradient("x", x.values, dx.values, [&](const ComplexVector& z) {
    return project(linear_forward(like(x, z), cast<Complex>(w)).values, dy.values);
  });
  expect_gradient("w", w.values, dw.values, [&](const ComplexVector& z) {
    return project(linear_forward(cast<Complex>(x), like(w, z)).values, dy.values);
  });
}

TEST(ComplexStep, GroupedLinear) {
  Random random(4);
  const Ids offsets{0, 2, 2, 6, 7};  // the second of four experts has no rows
  const Matrix<double> x = random.matrix(7, 5), w = random.matrix(4 * 3, 5), dy = random.matrix(7, 3);
  const Matrix<double> dx = grouped_gemm_nn(dy, w, offsets), dw = grouped_gemm_tn(dy, x, offsets);
  expect_gradient("x", x.values, dx.values, [&](const ComplexVector& z) {
    return project(grouped_gemm_nt(like(x, z), cast<Complex>(w), offsets).values, dy.values);
  });
  expect_gradient("w", w.values, dw.values, [&](const ComplexVector& z) {
    return project(grouped_gemm_nt(cast<Complex>(x), like(w, z), offsets).values, dy.values);
  });
}

TEST(ComplexStep, Rope) {
  Random random(5);
  const Index heads = 3, head_dim = 6;
  const Matrix<double> x = random.matrix(5, heads * head_dim), dy = random.matrix(5, heads * head_dim);
  const Matrix<double> table = rope_table(1e4, 9, head_dim);
  const Ids positions = random.ids(5, 9);
  Matrix<double> dx = dy;
  rope_backward(dx, 2, positions, table);  // the last head is not rotated
  expect_gradient("x", x.values, dx.values, [&](const ComplexVector& z) {
    Matrix<Complex> y = like(x, z);
    rope_forward(y, 2, positions, table);
    return project(y.values, dy.values);
  });
}

struct AttentionCase {
  const char* name;
  Index heads, kv_heads, window;
  bool documents;
  friend std::ostream& operator<<(std::ostream& out, const AttentionCase& c) { return out << c.name; }
};

class ComplexStepAttention : public testing::TestWithParam<AttentionCase> {};

TEST_P(ComplexStepAttention, Qkv) {
  const AttentionCase& c = GetParam();
  Random random(6);
  const AttentionShape shape{2, 6, c.heads, c.kv_heads, 3, c.window};
  const Index tokens = shape.sequences * shape.sequence_length;
  const Matrix<double> qkv = random.matrix(tokens, (c.heads + 2 * c.kv_heads) * 3);
  const Matrix<double> dout = random.matrix(tokens, c.heads * 3);
  const Ids starts = c.documents ? random_documents(random, 2, 6, 3.0) : Ids{};
  const Attention<double> forward = attention_forward(shape, qkv, starts);
  const Matrix<double> dqkv = attention_backward(shape, qkv, starts, forward, dout);
  expect_gradient("qkv", qkv.values, dqkv.values, [&](const ComplexVector& z) {
    return project(attention_forward(shape, like(qkv, z), starts).out.values, dout.values);
  });
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ComplexStepAttention,
    testing::Values(AttentionCase{"gqa_1_1", 2, 2, 0, false}, AttentionCase{"gqa_4_1", 4, 1, 0, false},
                    AttentionCase{"documents", 4, 2, 0, true}, AttentionCase{"window_1", 2, 1, 1, false},
                    AttentionCase{"window_3_documents", 2, 1, 3, true}, AttentionCase{"window_beyond", 2, 1, 9, false}),
    [](const auto& info) { return info.param.name; });

struct RouterCase {
  const char* name;
  Index top_k;
  RoutingRule rule{};
  std::vector<double> bias{};
  friend std::ostream& operator<<(std::ostream& out, const RouterCase& c) { return out << c.name; }
};

class ComplexStepRouter : public testing::TestWithParam<RouterCase> {};

TEST_P(ComplexStepRouter, LogitsThroughWeightsBalanceAndZ) {
  const RoutingRule& rule = GetParam().rule;
  const std::vector<double>& bias = GetParam().bias;
  const Index top_k = GetParam().top_k, tokens = 6, E = 5;
  Random random(7);
  const Matrix<double> logits = random.matrix(tokens, E, 1.5), dweights = random.matrix(tokens, top_k);
  const double z_scale = 0.3;
  const Routing<double> forward = router_forward(logits, top_k, rule, bias);
  EXPECT_EQ(forward.experts.values == router_forward(logits, top_k).experts.values, bias.empty())
      << "the bias decides nothing";
  for (const Index groups : {1, 3}) {
    const Matrix<double> gradient = random.matrix(groups, E);
    const Matrix<double> dlogits = router_backward(logits, forward, dweights, gradient, z_scale, rule);
    expect_gradient("logits", logits.values, dlogits.values, [&](const ComplexVector& z) {
      const Routing<Complex> r = router_forward(like(logits, z), top_k, rule, bias);
      const BalanceStatistics<Complex> s = balance_statistics(r, groups);
      return project(r.weights.values, dweights.values) + project(s.probability_sums.values, gradient.values) +
             z_scale * sum(s.z_sums);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rules, ComplexStepRouter,
    testing::Values(RouterCase{"k1", 1}, RouterCase{"k2", 2}, RouterCase{"k3", 3}, RouterCase{"k_equals_e", 5},
                    RouterCase{"k2_scaled", 2, {Score::softmax, true, 2.5}},
                    RouterCase{"k1_softmax", 1, {Score::softmax, false, 1}},
                    RouterCase{"k3_softmax_scaled", 3, {Score::softmax, false, 0.7}},
                    RouterCase{"k1_sigmoid", 1, {Score::sigmoid, false, 1}},
                    RouterCase{"k3_sigmoid_scaled", 3, {Score::sigmoid, false, 1.5}},
                    RouterCase{"k2_sigmoid_renormalised", 2, {Score::sigmoid, true, 1}},
                    RouterCase{"k5_sigmoid_renormalised_scaled", 5, {Score::sigmoid, true, 2.5}},
                    RouterCase{"k2_biased", 2, {}, {0.9, 0, -0.4, 0, 0.2}},
                    RouterCase{"k2_sigmoid_biased", 2, {Score::sigmoid, true, 2}, {0.9, 0, -0.4, 0, 0.2}}),
    [](const auto& info) { return info.param.name; });

class ComplexStepBalance : public testing::TestWithParam<BalanceScope> {};

TEST_P(ComplexStepBalance, LogitsOfEveryLayer) {
  const Index layers = 3, tokens = 8, E = 4, top_k = 2, groups = balance_groups(GetParam(), 4);
  Random random(8);
  const Matrix<double> logits = random.matrix(layers * tokens, E);
  auto statistics = [&]<typename T>(const Matrix<T>& all) {
    std::vector<BalanceStatistics<T>> out;
    for (Index l = 0; l < layers; ++l)
      out.push_back(balance_statistics(router_forward(row_range(all, l * tokens, tokens), top_k), groups));
    return out;
  };
  std::vector<double> dlogits;
  for (Index l = 0; l < layers; ++l) {
    const Matrix<double> gradient = balance_gradient(GetParam(), statistics(logits), l, tokens, top_k);
    const Routing<double> routing = router_forward(row_range(logits, l * tokens, tokens), top_k);
    const Matrix<double> d =
        router_backward(row_range(logits, l * tokens, tokens), routing, Matrix<double>(tokens, top_k), gradient, 0.0);
    dlogits.insert(dlogits.end(), d.values.begin(), d.values.end());
  }
  expect_gradient("logits", logits.values, dlogits, [&](const ComplexVector& z) {
    return balance_loss(GetParam(), statistics(like(logits, z)), tokens, top_k);
  });
}

INSTANTIATE_TEST_SUITE_P(Scopes, ComplexStepBalance,
                         testing::Values(BalanceScope::sequence, BalanceScope::micro_batch, BalanceScope::hf),
                         [](const auto& info) {
                           return info.param == BalanceScope::sequence      ? "sequence"
                                  : info.param == BalanceScope::micro_batch ? "micro_batch"
                                                                            : "hf";
                         });

TEST(ComplexStep, PermuteAndUnpermute) {
  Random random(9);
  const Matrix<double> x = random.matrix(6, 4), dx = random.matrix(6, 4), none(6, 4);
  const Routing<double> routing = router_forward(random.matrix(6, 5), 2);
  for (const Capacity capacity : {Capacity{}, Capacity{2, 6}, Capacity{1, 3}}) {
    const RoutingMap map = routing_map(within_capacity(routing.experts, capacity), 5);
    const Index rows = map.offsets.back();
    EXPECT_EQ(rows == 12, capacity.rows == 0) << "nothing is dropped";
    const Matrix<double> drows = random.matrix(rows, 4);
    expect_gradient("x", x.values, unpermute(drows, map.row_of, 2, none).values, [&](const ComplexVector& z) {
      return project(permute(like(x, z), map.assignment_of, 2).values, drows.values);
    });
    expect_gradient("rows", drows.values, permute(dx, map.assignment_of, 2).values, [&](const ComplexVector& z) {
      return project(unpermute(like(drows, z), map.row_of, 2, cast<Complex>(x)).values, dx.values);
    });
    const std::vector<double> drow_weights = random.normals(rows);
    expect_gradient("weights", routing.weights.values, unpermute_weights(drow_weights, map.row_of, 2).values,
                    [&](const ComplexVector& z) {
                      return project(permute_weights(like(routing.weights, z), map.assignment_of), drow_weights);
                    });
  }
}

TEST(ComplexStep, Swiglu) {
  Random random(10);
  const Matrix<double> h = random.matrix(5, 6, 2.0), da = random.matrix(5, 3);
  const std::vector<double> weights = random.normals(5);
  const SwigluGradients<double> d = swiglu_backward(h, weights, da);
  expect_gradient("h", h.values, d.dh.values, [&](const ComplexVector& z) {
    return project(swiglu_forward(like(h, z), cast<Complex>(weights)).values, da.values);
  });
  expect_gradient("row_weights", weights, d.drow_weights, [&](const ComplexVector& z) {
    return project(swiglu_forward(cast<Complex>(h), z).values, da.values);
  });
  expect_gradient("h without weights", h.values, swiglu_backward(h, {}, da).dh.values, [&](const ComplexVector& z) {
    return project(swiglu_forward(like(h, z), ComplexVector{}).values, da.values);
  });
}

TEST(ComplexStep, ExpertsInputWeightsAndParameters) {
  Random random(11);
  const Index tokens = 7, D = 5, F = 3, E = 4, K = 2;
  Matrix<double> logits = random.matrix(tokens, E);
  for (Index t = 0; t < tokens; ++t) logits(t, 2) = -9;  // nobody chooses expert 2
  const Routing<double> routing = router_forward(logits, K);
  const Matrix<double> x = random.matrix(tokens, D), dout = random.matrix(tokens, D);
  std::vector<ExpertParameters<double>> experts, gradients;
  for (Index e = 0; e < E; ++e) {
    experts.push_back({random.matrix(F, D), random.matrix(D, F), random.matrix(F, D)});
    gradients.push_back({Matrix<double>(F, D), Matrix<double>(D, F), Matrix<double>(F, D)});
  }
  const ExpertsGradients<double> d = experts_backward(dout, x, routing, experts, gradients);

  std::vector<ExpertParameters<Complex>> complex_experts;
  for (const auto& e : experts)
    complex_experts.push_back({cast<Complex>(e.w1), cast<Complex>(e.w2), cast<Complex>(e.w3)});
  Routing<Complex> complex_routing{cast<Complex>(routing.probabilities), cast<Complex>(routing.logsumexp),
                                   routing.experts, cast<Complex>(routing.weights)};
  const Matrix<Complex> complex_x = cast<Complex>(x);
  auto projected = [&] {
    return project(experts_forward(complex_x, complex_routing, complex_experts).values, dout.values);
  };
  expect_gradient("x", x.values, d.dx.values, [&](const ComplexVector& z) {
    return project(experts_forward(like(x, z), complex_routing, complex_experts).values, dout.values);
  });
  expect_gradient("weights", routing.weights.values, d.dweights.values, [&](const ComplexVector& z) {
    complex_routing.weights.values = z;
    return projected();
  });
  complex_routing.weights = cast<Complex>(routing.weights);
  for (Index e = 0; e < E; ++e)
    for (const auto member :
         {&ExpertParameters<double>::w1, &ExpertParameters<double>::w2, &ExpertParameters<double>::w3}) {
      Matrix<Complex>& w = member == &ExpertParameters<double>::w1   ? complex_experts[e].w1
                           : member == &ExpertParameters<double>::w2 ? complex_experts[e].w2
                                                                     : complex_experts[e].w3;
      const std::vector<double>& gradient = (gradients[e].*member).values;
      expect_gradient("expert weight", (experts[e].*member).values, gradient, [&](const ComplexVector& z) {
        w.values = z;
        return projected();
      });
      w = cast<Complex>(experts[e].*member);
      EXPECT_EQ(largest(gradient) == 0, e == 2) << "expert " << e;  // only the idle expert has no gradient
    }
}

TEST(ComplexStep, CrossEntropyInSlices) {
  Random random(12);
  const Matrix<double> logits = random.matrix(5, 7, 2.0);
  const Ids targets{0, 6, -100, 3, 4};
  const double scale = 0.25;
  const Index cut = 4;  // two owners of the vocabulary
  auto merged = [&]<typename T>(const Matrix<T>& all) {
    const auto left = cross_entropy_statistics(columns(all, 0, cut), targets, 0);
    const auto right = cross_entropy_statistics(columns(all, cut, 7 - cut), targets, cut);
    CrossEntropyStatistics<T> out = left;
    for (std::size_t n = 0; n < targets.size(); ++n) {
      out.maxima[n] = T(std::max(real_part(left.maxima[n]), real_part(right.maxima[n])));
      out.sums[n] = left.sums[n] * std::exp(left.maxima[n] - out.maxima[n]) +
                    right.sums[n] * std::exp(right.maxima[n] - out.maxima[n]);
      out.target_logits[n] += right.target_logits[n];
      out.logit_sums[n] += right.logit_sums[n];
    }
    return out;
  };
  const CrossEntropyStatistics<double> statistics = merged(logits);
  const CrossEntropyLosses<double> losses = cross_entropy_losses(targets, statistics);
  const CrossEntropyLosses<double> whole = cross_entropy_losses(targets, cross_entropy_statistics(logits, targets, 0));
  EXPECT_LE(deviation(losses.losses, whole.losses), 1e-15);
  EXPECT_EQ(losses.losses[2], 0);
  for (const double smoothing : {0.0, 0.1, 0.75}) {
    const LabelSmoothing of_seven{smoothing, 7};
    Matrix<double> dlogits(5, 7);
    set_columns(dlogits, 0,
                cross_entropy_backward(columns(logits, 0, cut), targets, 0, losses.logsumexp, scale, {}, of_seven));
    set_columns(
        dlogits, cut,
        cross_entropy_backward(columns(logits, cut, 7 - cut), targets, cut, losses.logsumexp, scale, {}, of_seven));
    expect_gradient("logits", logits.values, dlogits.values, [&](const ComplexVector& z) {
      const auto s = merged(like(logits, z));
      return scale * ((1 - smoothing) * sum(cross_entropy_losses(targets, s).losses) +
                      smoothing * sum(uniform_losses(targets, s, 7)));
    });
  }
}

// The definition: -log p of every column, with the weights that smoothing gives them.
TEST(ComplexStep, SmoothedLossIsTheCrossEntropyToTheSmoothedLabels) {
  Random random(13);
  const Matrix<double> logits = random.matrix(3, 7, 2.0);
  const Ids targets{6, 0, -1};
  const CrossEntropyStatistics<double> s = cross_entropy_statistics(logits, targets, 0);
  const CrossEntropyLosses<double> losses = cross_entropy_losses(targets, s);
  const std::vector<double> uniform = uniform_losses(targets, s, 7);
  const double e = 0.3;
  for (Index n = 0; n < 2; ++n) {
    double expected = 0;
    for (Index v = 0; v < 7; ++v)
      expected += (e / 7 + (v == targets[n] ? 1 - e : 0)) * (losses.logsumexp[n] - logits(n, v));
    EXPECT_NEAR((1 - e) * losses.losses[n] + e * uniform[n], expected, 1e-14);
  }
  EXPECT_EQ(uniform[2], 0);
}

}  // namespace
}  // namespace smoe::reference
