// A NaN that enters an op must leave it: a backend that loses one (a maximum that skips it, an exponential that clamps it)
// would train on in silence. Rows that the NaN has no part in stay clean.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "kernels/device_sums.h"
#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {
namespace {

const double nan = std::nan("");

class BackendNan : public testing::TestWithParam<BackendFactory> {
 protected:
  std::unique_ptr<Backend> backend_ = GetParam().make();
  GuardedWorkspace ws_{*backend_};
  Random random_{71};

  Matrix<double> numbers(Index rows, Index cols) { return f32_matrix(random_, rows, cols); }
  Matrix<double> with_nan(Index rows, Index cols, Index row, Index col) {
    Matrix<double> m = numbers(rows, cols);
    m(row, col) = nan;
    return m;
  }
  // Row r of the tensor seen as [rows, cols] is wholly NaN exactly where spoiled(r).
  template <typename F>
  void expect_rows(const char* what, const Tensor& tensor, Index rows, F spoiled) {
    const Values values = ws_.read(tensor);
    const Index cols = static_cast<Index>(values.size()) / rows;
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c)
        EXPECT_EQ(std::isnan(values[r * cols + c]), spoiled(r)) << what << " row " << r << " column " << c;
  }
};

constexpr auto nowhere = [](Index) { return false; };
constexpr auto everywhere = [](Index) { return true; };
constexpr auto in_row(Index row) {
  return [row](Index r) { return r == row; };
}

TEST_P(BackendNan, AddAndSums) {
  const Tensor a = ws_.f32(with_nan(5, 7, 3, 2)), b = ws_.f32(numbers(5, 7)), out = ws_.output({35});
  backend_->add(a.reshape({35}), b.reshape({35}), out);
  expect_rows("out", out, 35, in_row(3 * 7 + 2));
  DeviceSums sums(*backend_);
  sums.reset(2);
  backend_->sum(a, sums[0]);
  backend_->sum_of_squares(a, sums[1]);
  EXPECT_TRUE(std::isnan(sums.read()[0]));
  EXPECT_TRUE(std::isnan(sums.read()[1]));
}

TEST_P(BackendNan, EmbeddingBackward) {
  const Tensor dtable = ws_.f32(numbers(6, 4));
  Matrix<double> dout = numbers(3, 4);
  for (Index c = 0; c < 4; ++c) dout(1, c) = nan;
  backend_->embedding_backward(ws_.i32({3}, {5, 2, 0}), ws_.f32(dout), 0, 6, dtable);
  expect_rows("dtable", dtable, 6, in_row(2));
}

TEST_P(BackendNan, RmsNorm) {
  const Tensor x = ws_.f32(with_nan(5, 33, 2, 17)), weight = ws_.f32({33}, f32_values(random_, 33));
  const Tensor y = ws_.output({5, 33}), rstd = ws_.output({5});
  backend_->rms_norm_forward(x, weight, 1e-5f, y, rstd);
  expect_rows("y", y, 5, in_row(2));
  expect_rows("rstd", rstd, 5, in_row(2));
  const Tensor dx = ws_.output({5, 33}), dweight = ws_.f32({33}, Values(33));
  backend_->rms_norm_backward(ws_.f32(numbers(5, 33)), x, weight, rstd, Tensor(), dx, dweight);
  expect_rows("dx", dx, 5, in_row(2));
  expect_rows("dweight", dweight, 33, everywhere);
}

TEST_P(BackendNan, Gemm) {
  const Tensor a = ws_.f32(with_nan(9, 21, 4, 6)), b = ws_.f32(numbers(13, 21)), c = ws_.output({9, 13});
  backend_->gemm(Gemm::nt, a, b, c, Write::assign);
  expect_rows("nt", c, 9, in_row(4));
  const Tensor d = ws_.output({21, 13});
  backend_->gemm(Gemm::tn, a, ws_.f32(numbers(9, 13)), d, Write::assign);
  expect_rows("tn", d, 21, in_row(6));
  // A zero does not hide it: 0 * NaN is NaN.
  const Tensor zeros = ws_.f32({2, 9}, Values(18)), e = ws_.output({2, 21});
  backend_->gemm(Gemm::nn, zeros, a, e, Write::assign);
  EXPECT_TRUE(std::isnan(ws_.read(e)[6]));
}

TEST_P(BackendNan, GroupedGemm) {
  const Ids offsets{0, 3, 3, 7};
  const ExpertRows rows{ws_.i32({4}, offsets), offsets};
  const Tensor a = ws_.f32(with_nan(7, 10, 4, 1)), w = ws_.f32({3, 6, 10}, f32_values(random_, 180)),
               c = ws_.output({7, 6});
  backend_->grouped_gemm(Gemm::nt, a, w, c, rows, Write::assign);
  expect_rows("nt", c, 7, in_row(4));
  const Tensor dw = ws_.output({3, 6, 10});
  backend_->grouped_gemm(Gemm::tn, ws_.f32(with_nan(7, 6, 1, 2)), ws_.f32(numbers(7, 10)), dw, rows, Write::assign);
  expect_rows("tn", dw, 18, in_row(2));  // row 2 of expert 0; the idle expert 1 stays zero
}

TEST_P(BackendNan, Rope) {
  const Tensor table = ws_.output({8, 6}), x = ws_.f32({3, 2, 6}, with_nan(3, 12, 1, 0));
  backend_->rope_table(reference::rope_frequencies(1e4, 6), 1, table);
  backend_->rope_forward(x, 2, ws_.i32({3}, {1, 2, 3}), table);
  expect_rows("x", x, 36, [](Index i) { return i == 12 || i == 15; });  // the pair of the first number of token 1
}

// Tiles multiply by zero what a query does not see, and zero times NaN is NaN: a NaN may spread inside its sequence. What
// counts is that nothing that saw it is a number.
TEST_P(BackendNan, AttentionQuery) {
  const AttentionShape shape{1, 70, 2, 1, 8, 0};
  Matrix<double> qkv = numbers(70, 32);
  qkv(40, 3) = nan;  // of head 0
  const Tensor tqkv = ws_.f32({70, 4, 8}, qkv), out = ws_.output({70, 2, 8}), lse = ws_.output({2, 70});
  backend_->attention_forward(shape, tqkv, Tensor(), out, lse);
  expect_rows("out", out, 140, in_row(40 * 2));
  expect_rows("lse", lse, 140, in_row(40));
  const Tensor dqkv = ws_.output({70, 4, 8});
  backend_->attention_backward(shape, tqkv, Tensor(), out, lse, ws_.f32({70, 2, 8}, numbers(70, 16)), dqkv);
  const Values gradient = ws_.read(dqkv);
  for (Index token = 0; token <= 40; ++token)  // its own gradient, and that of every key and value it saw
    for (Index i = 0; i < 32; ++i) {
      const bool spoiled = i >= 16 || (token == 40 && i < 8);
      EXPECT_TRUE(!spoiled || std::isnan(gradient[token * 32 + i])) << "token " << token << " number " << i;
    }
}

TEST_P(BackendNan, AttentionKeyAndValue) {
  const AttentionShape shape{2, 70, 2, 1, 8, 20};
  for (const Index column : {16, 24}) {  // a key, a value
    Matrix<double> qkv = numbers(140, 32);
    qkv(70 + 30, column) = nan;
    const Tensor out = ws_.output({140, 2, 8}), lse = ws_.output({2, 140});
    backend_->attention_forward(shape, ws_.f32({140, 4, 8}, qkv), Tensor(), out, lse);
    const Values values = ws_.read(out);
    for (Index t = 0; t < 140; ++t) {
      const bool found = std::isnan(values[t * 16]), sees = t >= 70 + 30 && t < 70 + 50, other_sequence = t < 70;
      EXPECT_TRUE(found || !sees) << "token " << t << ", column " << column;
      EXPECT_FALSE(found && other_sequence) << "token " << t << ", column " << column;
    }
  }
}

TEST_P(BackendNan, AttentionCached) {
  Matrix<double> keys = numbers(10, 8);
  keys(3, 5) = nan;
  const Tensor out = ws_.output({2, 2, 8});
  backend_->attention_cached({1, 2, 2, 1, 8, 5}, ws_.f32({2, 4, 8}, numbers(2, 32)), 7, ws_.f32({10, 1, 8}, keys),
                             ws_.f32({10, 1, 8}, numbers(10, 8)), out);
  for (Index i = 0; i < 16; ++i) EXPECT_TRUE(std::isnan(ws_.read(out)[i])) << i;  // query 7 sees keys 3..7
}

TEST_P(BackendNan, Router) {
  const Tensor probabilities = ws_.output({4, 8}), logsumexp = ws_.output({4}), experts = ws_.output_i32({4, 2}),
               weights = ws_.output({4, 2});
  backend_->router_forward({}, ws_.f32(with_nan(4, 8, 2, 5)), {}, probabilities, logsumexp, experts, weights);
  expect_rows("probabilities", probabilities, 4, in_row(2));
  expect_rows("logsumexp", logsumexp, 4, in_row(2));
  expect_rows("weights", weights, 4, in_row(2));
  // Whatever is chosen must still be two experts, or the dispatch behind it would write anywhere.
  const Ids chosen = ws_.read_ids(experts);
  for (Index t = 0; t < 4; ++t) {
    EXPECT_TRUE(chosen[2 * t] >= 0 && chosen[2 * t] < 8 && chosen[2 * t + 1] >= 0 && chosen[2 * t + 1] < 8) << t;
    EXPECT_NE(chosen[2 * t], chosen[2 * t + 1]) << t;
  }
  const Tensor dlogits = ws_.output({4, 8});
  backend_->router_backward({}, ws_.f32(numbers(4, 8)), probabilities, logsumexp, experts, weights,
                            ws_.f32(numbers(4, 2)), ws_.f32(numbers(1, 8)), 0.1, dlogits);
  expect_rows("dlogits", dlogits, 4, in_row(2));
  const Tensor counts = ws_.output({2, 8}), sums = ws_.output({2, 8}), z = ws_.output({2});
  backend_->balance_statistics(probabilities, logsumexp, experts, counts, sums, z);
  expect_rows("counts", counts, 2, nowhere);
  expect_rows("probability sums", sums, 2, in_row(1));
  expect_rows("z sums", z, 2, in_row(1));
  const Tensor measures = ws_.f64({0, 0, 0});
  backend_->router_measures({}, ws_.f32(with_nan(4, 8, 2, 5)), {}, probabilities, experts, measures);
  for (const double sum : ws_.read(measures)) EXPECT_TRUE(std::isnan(sum));
}

TEST_P(BackendNan, RouterOfNothingButNan) {
  const Tensor experts = ws_.output_i32({2, 3});
  backend_->router_forward({}, ws_.f32({2, 5}, Values(10, nan)), {}, ws_.output({2, 5}), ws_.output({2}), experts,
                           ws_.output({2, 3}));
  const Ids chosen = ws_.read_ids(experts);
  for (Index t = 0; t < 2; ++t) {
    const std::set<std::int32_t> distinct(chosen.begin() + 3 * t, chosen.begin() + 3 * t + 3);
    EXPECT_EQ(distinct.size(), 3u);
    EXPECT_TRUE(*distinct.begin() >= 0 && *distinct.rbegin() < 5);
  }
}

// A sigmoid sees its own logit alone, but a broken token shows in all of its weights and probabilities, as with a softmax.
TEST_P(BackendNan, RouterOfSigmoids) {
  for (const bool renormalise : {true, false}) {
    const RoutingRule rule{Score::sigmoid, renormalise, 1};
    const Tensor logits = ws_.f32(with_nan(4, 8, 2, 5)), bias = ws_.f32({8}, Values{9, 9, 0, 0, 0, 0, 0, 0});
    const Tensor probabilities = ws_.output({4, 8}), logsumexp = ws_.output({4}), experts = ws_.output_i32({4, 2}),
                 weights = ws_.output({4, 2});
    backend_->router_forward(rule, logits, bias, probabilities, logsumexp, experts, weights);
    expect_rows("probabilities", probabilities, 4, in_row(2));
    expect_rows("logsumexp", logsumexp, 4, in_row(2));
    expect_rows("weights", weights, 4, in_row(2));
    const Tensor dlogits = ws_.output({4, 8});
    backend_->router_backward(rule, logits, probabilities, logsumexp, experts, weights, ws_.f32(numbers(4, 2)),
                              ws_.f32(numbers(1, 8)), 0.1, dlogits);
    expect_rows("dlogits", dlogits, 4, in_row(2));
  }
}

TEST_P(BackendNan, Jitter) {
  const Tensor x = ws_.f32(with_nan(3, 4, 1, 2)), y = ws_.output({3, 4});
  backend_->jitter({1, 2, 3, 0.5f}, x, y, Write::assign);
  expect_rows("y", y, 12, in_row(6));
}

// A row that gets no noise is left alone, whatever it holds: a zero keeps its sign.
TEST_P(BackendNan, AddNoise) {
  Matrix<double> numbers = with_nan(3, 4, 1, 2);
  numbers(2, 0) = -0.0;
  const Tensor x = ws_.f32(numbers);
  backend_->add_noise({1, 2, 3, 0.5f}, ws_.f32({3}, Values{1, 1, 0}), x);
  expect_rows("x", x, 12, in_row(6));
  const Values found = ws_.read(x);
  EXPECT_EQ(Values(found.begin() + 8, found.end()), Values(numbers.values.begin() + 8, numbers.values.end()));
  EXPECT_TRUE(std::signbit(found[8]));
  EXPECT_NE(found[0], numbers(0, 0));
  backend_->add_noise({1, 2, 3, 0.5f}, ws_.f32({3}, Values{nan, 0, 0}), x);
  expect_rows("x", x, 12, [](Index r) { return r < 4 || r == 6; });
}

TEST_P(BackendNan, Unpermute) {
  const Tensor x = ws_.output({3, 4});
  Matrix<double> rows = numbers(6, 4);
  for (Index c = 0; c < 4; ++c) rows(5, c) = nan;
  backend_->unpermute(ws_.f32(rows), ws_.i32({3, 2}, {0, 2, 1, 5, 3, 4}), Tensor(), x);
  expect_rows("x", x, 3, in_row(1));
}

TEST_P(BackendNan, Swiglu) {
  const Index F = 37;
  for (const Index column : {Index(5), F + 5}) {  // gate, up
    const Tensor h = ws_.f32(with_nan(3, 2 * F, 1, column)), weights = ws_.f32({3}, Values{1, 2, 3}),
                 a = ws_.output({3, F});
    backend_->swiglu_forward(h, weights, a);
    expect_rows("a", a, 3 * F, in_row(F + 5));
    const Tensor dh = ws_.output({3, 2 * F}), drow = ws_.output({3}), again = ws_.output({3, F});
    backend_->swiglu_backward(h, weights, ws_.f32(numbers(3, F)), dh, drow, again);
    expect_rows("drow_weights", drow, 3, in_row(1));
    expect_rows("a again", again, 3 * F, in_row(F + 5));
    EXPECT_TRUE(std::isnan(ws_.read(dh)[2 * F + 5]));
  }
  const Tensor a = ws_.output({3, F});
  backend_->swiglu_forward(ws_.f32(numbers(3, 2 * F)), ws_.f32({3}, Values{1, nan, 3}), a);
  expect_rows("a of a NaN weight", a, 3, in_row(1));
}

TEST_P(BackendNan, CrossEntropy) {
  for (const Index column : {Index(0), Index(41), Index(99)}) {
    const Tensor logits = ws_.f32(with_nan(5, 100, 3, column)), targets = ws_.i32({5}, {0, 50, 99, 7, -100});
    const Tensor maxima = ws_.output({5}), sums = ws_.output({5}), target_logits = ws_.output({5});
    const Tensor logit_sums = ws_.output({5}), uniform = ws_.output({5});
    backend_->cross_entropy_statistics(logits, targets, 0, maxima, sums, target_logits, logit_sums);
    backend_->cross_entropy_uniform_losses(targets, maxima, sums, logit_sums, 100, uniform);
    expect_rows("logit sums", logit_sums, 5, in_row(3));
    expect_rows("uniform losses", uniform, 5, in_row(3));
    const Tensor logsumexp = ws_.output({5}), losses = ws_.output({5});
    backend_->cross_entropy_losses(targets, maxima, sums, target_logits, logsumexp, losses);
    expect_rows("logsumexp", logsumexp, 5, in_row(3));
    expect_rows("losses", losses, 5, in_row(3));
    const Tensor smoothed = ws_.output({5, 100});
    backend_->cross_entropy_backward(logits, targets, 0, logsumexp, 0.2, {}, {0.1, 100}, smoothed);
    expect_rows("dlogits of smoothed labels", smoothed, 5, in_row(3));
    backend_->cross_entropy_backward(logits, targets, 0, logsumexp, 0.2, {}, {}, logits);
    expect_rows("dlogits", logits, 5, in_row(3));
  }
}

TEST_P(BackendNan, CrossEntropyOfAMaskedRowIsZero) {
  const Tensor logits = ws_.f32(with_nan(2, 30, 1, 4)), targets = ws_.i32({2}, {3, -1});
  const Tensor maxima = ws_.output({2}), sums = ws_.output({2}), target_logits = ws_.output({2}),
               logit_sums = ws_.output({2}), uniform = ws_.output({2});
  backend_->cross_entropy_statistics(logits, targets, 0, maxima, sums, target_logits, logit_sums);
  backend_->cross_entropy_uniform_losses(targets, maxima, sums, logit_sums, 30, uniform);
  EXPECT_EQ(ws_.read(uniform)[1], 0);
  const Tensor logsumexp = ws_.output({2}), losses = ws_.output({2});
  backend_->cross_entropy_losses(targets, maxima, sums, target_logits, logsumexp, losses);
  EXPECT_EQ(ws_.read(losses)[1], 0);
  const Tensor smoothed = ws_.output({2, 30});
  backend_->cross_entropy_backward(logits, targets, 0, logsumexp, 0.2, {}, {0.1, 30}, smoothed);
  expect_rows("dlogits of smoothed labels", smoothed, 2, nowhere);
  backend_->cross_entropy_backward(logits, targets, 0, logsumexp, 0.2, {}, {}, logits);
  expect_rows("dlogits", logits, 2, nowhere);
}

TEST_P(BackendNan, AdamW) {
  const Tensor parameter = ws_.f32({40}, f32_values(random_, 40)), first = ws_.f32({40}, Values(40)),
               second = ws_.f32({40}, Values(40));
  Values gradient = f32_values(random_, 40);
  gradient[18] = nan;
  backend_->adamw({1e-3, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1.0}, parameter, ws_.f32({40}, gradient), first, second, {});
  for (const Tensor& tensor : {parameter, first, second}) expect_rows("state", tensor, 40, in_row(18));
}

INSTANTIATE_TEST_SUITE_P(Backends, BackendNan, testing::ValuesIn(backend_factories()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace smoe::checks
