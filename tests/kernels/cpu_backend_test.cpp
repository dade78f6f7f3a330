#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string_view>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/vector_math.h"
#include "tests/kernels/cpu_test_support.h"
#include "tests/support/deviation.h"
#include "tests/support/message_of.h"

namespace smoe {
namespace {

using test::Floats;
using test::Ints;
constexpr float infinity = std::numeric_limits<float>::infinity();

// Distance in units of the last place of the exact value's float.
double ulps(float got, double exact) {
  const auto nearest = static_cast<float>(exact);
  const double ulp = static_cast<double>(std::nextafter(nearest, infinity)) - static_cast<double>(nearest);
  return std::abs(static_cast<double>(got) - exact) / ulp;
}

TEST(CpuVectorMath, ExpIsWithinTwoUlps) {
  test::Worst worst;
  for (float x = -87.3f; x < 88.7f; x += 0.00037f) worst.add(ulps(cpu::vector_exp(x), std::exp(double(x))));
  EXPECT_LT(worst.value, 2.0);
}

TEST(CpuVectorMath, ExpAndSigmoidAtTheEnds) {
  // In an array, so that the vectorised code answers and not the compiler's constant folding.
  std::vector<float> x = {0.0f, -infinity, -1e30f, -88.0f, infinity, 89.0f, 3e38f, std::nanf(""), -0.0f, 1e-30f};
  std::vector<float> e(x.size()), s(x.size());
#pragma omp simd
  for (std::size_t i = 0; i < x.size(); ++i) {
    e[i] = cpu::vector_exp(x[i]);
    s[i] = cpu::vector_sigmoid(x[i]);
  }
  const std::vector<float> exp = {1, 0, 0, 0, infinity, infinity, infinity, 0, 1, 1};
  const std::vector<float> sigmoid = {0.5f, 0, 0, 0, 1, 1, 1, 0, 0.5f, 0.5f};
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(x[i])) {
      EXPECT_TRUE(std::isnan(e[i]) && std::isnan(s[i]));
      continue;
    }
    EXPECT_EQ(e[i], exp[i]) << x[i];
    EXPECT_NEAR(s[i], sigmoid[i], 1e-37) << x[i];
  }
}

TEST(CpuMemory, IsAlignedAndCopies) {
  CpuBackend cpu(2);
  for (std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{100}, std::size_t{5} << 20}) {
    void* data = cpu.allocate(bytes);
    EXPECT_EQ(std::bit_cast<std::uintptr_t>(data) % (bytes >= (2u << 20) ? (2u << 20) : 64u), 0u);
    std::memset(data, 1, bytes);
    cpu.release(data, bytes);
  }
  EXPECT_THROW(cpu.allocate(std::numeric_limits<std::size_t>::max()), std::bad_alloc);
  auto a = Floats::random({1000, 700}, 1);
  Floats b({1000, 700}), c({1000, 700}, 1.0f);
  cpu.copy(b, a);
  EXPECT_EQ(a.values(), b.values());
  cpu.fill(b, 0.5f);
  cpu.copy_from_host(c, b.values().data());
  EXPECT_EQ(test::sum(cpu, c), 350000.0);
  EXPECT_EQ(test::sum_of_squares(cpu, c), 175000.0);
}

TEST(CpuBackendBadInput, IdsOutsideTheTableAreRefused) {
  CpuBackend cpu(1);
  Floats table({10, 4}), out({2, 4});
  for (std::int32_t id : {-2, 10}) {
    Ints ids({2}, {3, id});
    EXPECT_THROW(cpu.embedding_forward(ids, table, 0, 10, out), std::logic_error);
    EXPECT_THROW(cpu.embedding_backward(ids, out, 0, 10, table), std::logic_error);
  }
}

TEST(CpuEmbedding, PaddingHasARowOfZerosAndTakesNoGradient) {
  CpuBackend cpu(1);
  Floats table({3, 2}), out({3, 2}), dtable({3, 2});
  table.values() = {1, 2, 3, 4, 5, 6};
  Ints ids({3}, {2, -1, 0});
  for (const std::int64_t first : {0, 4}) {  // of another rank's rows too
    cpu.embedding_forward(ids, table, first, 7, out);
    EXPECT_EQ(out.values(), (first == 0 ? std::vector<float>{5, 6, 0, 0, 1, 2} : std::vector<float>(6)));
  }
  out.values() = {1, 1, 7, 7, 2, 2};
  cpu.embedding_backward(ids, out, 0, 7, dtable);
  EXPECT_EQ(dtable.values(), (std::vector<float>{2, 2, 0, 0, 1, 1}));
}

TEST(CpuRouter, PicksTheBestAndTheLowestIndexOfEquals) {
  CpuBackend cpu(2);
  Floats logits({3, 4}), probabilities({3, 4}), lse({3}), weights({3, 2});
  logits.values() = {1, 3, 3, 2, 0, 0, 0, 0, -200, 500, -300, -100};
  Ints experts({3, 2});
  cpu.router_forward({}, logits, {}, probabilities, lse, experts, weights);
  const std::vector<std::int32_t> expected = {1, 2, 0, 1, 1, 3};
  for (std::int64_t i = 0; i < 6; ++i) EXPECT_EQ(experts[i], expected[static_cast<std::size_t>(i)]) << i;
  EXPECT_EQ(weights.values(), (std::vector<float>{0.5f, 0.5f, 0.5f, 0.5f, 1, 0}));
  EXPECT_FLOAT_EQ(lse[1], std::log(4.0f));
}

TEST(CpuRouter, NaNLogitsKeepIndicesInRange) {
  CpuBackend cpu(1);
  Floats logits({1, 3}, std::nanf("")), probabilities({1, 3}), lse({1}), weights({1, 2});
  Ints experts({1, 2});
  cpu.router_forward({}, logits, {}, probabilities, lse, experts, weights);
  EXPECT_NE(experts[0], experts[1]);
  for (int k : {0, 1}) EXPECT_TRUE(experts[k] >= 0 && experts[k] < 3 && std::isnan(weights[k]));
}

TEST(CpuRoutingBadInput, NamesWhatIsWrong) {
  CpuBackend cpu(1);
  const auto refused = [](const auto& call, std::initializer_list<std::string_view> pieces) {
    try {
      call();
      ADD_FAILURE() << "accepted what had to be refused";
    } catch (const std::logic_error& error) {
      test::mentions(error.what(), pieces);
    }
  };
  Floats logits({4, 3}), probabilities({4, 3}), lse({4}), weights({4, 2}), bias({4}), rows({8, 5}), x({4, 5});
  Ints experts({4, 2}), row_of({4, 2}), assignment_of({8}), offsets({4});
  refused([&] { cpu.router_forward({}, logits, bias, probabilities, lse, experts, weights); },
          {"selection_bias is [4] f32"});
  for (const Capacity& capacity : {Capacity{2, 3}, Capacity{2, 0}, Capacity{-1, 4}})
    refused([&] { cpu.routing_map(experts, {}, capacity, row_of, assignment_of, offsets); },
            {"must divide the tokens"});
  refused(
      [&] {
        cpu.routing_map(experts, {}, {2, 4, CapacityOrder::probability}, row_of, assignment_of, offsets);
      },
      {"probabilities is"});
  row_of[3] = -2;
  refused([&] { cpu.unpermute(rows, row_of, {}, x); }, {"row_of[3] is -2, expected -1 .. 7"});
}

TEST(CpuPermute, MapIsStableAndUnpermuteInvertsIt) {
  CpuBackend cpu(2);
  Ints experts({4, 2}, {2, 0, 0, 2, 2, 4, 0, 4}), row_of({4, 2}), assignment_of({8}), offsets({6});
  cpu.routing_map(experts, {}, {}, row_of, assignment_of, offsets);
  EXPECT_EQ(offsets.values(), (std::vector<std::int32_t>{0, 3, 3, 6, 6, 8}));
  const std::vector<std::int32_t> expected_assignments = {1, 2, 6, 0, 3, 4, 5, 7};
  for (std::int64_t r = 0; r < 8; ++r) {
    EXPECT_EQ(assignment_of[r], expected_assignments[static_cast<std::size_t>(r)]);
    EXPECT_EQ(row_of[assignment_of[r]], r);
  }
  auto x = Floats::random({4, 5}, 1);
  Floats rows({8, 5}), back({4, 5}, std::nanf(""));
  cpu.permute(x, assignment_of, 2, rows);
  cpu.unpermute(rows, row_of, {}, back);
  for (std::int64_t i = 0; i < 20; ++i) EXPECT_EQ(back[i], 2 * x[i]);
  cpu.unpermute(rows, row_of, back, back);
  for (std::int64_t i = 0; i < 20; ++i) EXPECT_EQ(back[i], 4 * x[i]);
}

TEST(CpuCrossEntropy, EqualsTheDefinitionAndMasks) {
  CpuBackend cpu(2);
  const std::int64_t N = 5, V = 5003;
  auto logits = Floats::random({N, V}, 1, 4.0f);
  auto original = logits;
  Ints targets({N}, {0, 5002, -100, 17, 3000});
  Floats maxima({N}), sums({N}), target_logits({N}), lse({N}), losses({N});
  cpu.cross_entropy_statistics(logits, targets, 0, maxima, sums, target_logits, {});
  cpu.cross_entropy_losses(targets, maxima, sums, target_logits, lse, losses);
  cpu.cross_entropy_backward(logits, targets, 0, lse, 0.25, {}, {}, logits);
  for (std::int64_t i = 0; i < N; ++i) {
    double sum = 0;
    for (std::int64_t v = 0; v < V; ++v) sum += std::exp(double(original[i * V + v]));
    EXPECT_NEAR(lse[i], std::log(sum), 2e-6 * std::log(sum));
    EXPECT_NEAR(losses[i], targets[i] < 0 ? 0 : std::log(sum) - double(original[i * V + targets[i]]), 3e-6);
    for (std::int64_t v = 0; v < V; ++v) {
      const double p = std::exp(double(original[i * V + v])) / sum - (v == targets[i] ? 1 : 0);
      ASSERT_NEAR(logits[i * V + v], targets[i] < 0 ? 0 : 0.25 * p,
                  2.5e-7);  // the f32 log-sum-exp is rounded by up to 5e-7
    }
  }
}

TEST(CpuAdamW, FollowsTheFormulaAndClearsTheGradient) {
  CpuBackend cpu(2);
  const std::int64_t n = 40001;
  auto w = Floats::random({n}, 1), g = Floats::random({n}, 2), m = Floats::random({n}, 3, 0.1f), v = Floats({n}, 0.3f);
  auto w0 = w, g0 = g, m0 = m;
  cpu.adamw({1e-2, 0.9, 0.95, 1e-8, 0.1, 0.19, 0.0975, 0.5}, w, g, m, v, {});
  for (std::int64_t i = 0; i < n; ++i) {
    const double gradient = 0.5 * double(g0[i]), mean = 0.9 * double(m0[i]) + 0.1 * gradient;
    const double square = 0.95 * double(0.3f) + 0.05 * gradient * gradient;
    const double expected = double(w0[i]) * (1 - 1e-3) - 1e-2 * (mean / 0.19) / (std::sqrt(square / 0.0975) + 1e-8);
    ASSERT_NEAR(w[i], expected, 5e-7);
    ASSERT_NEAR(m[i], mean, 1e-7);
    ASSERT_NEAR(v[i], square, 1e-7);
    ASSERT_EQ(g[i], 0.0f);
  }
}

TEST(CpuRmsNorm, WeightGradientHasTheSameBitsOnAnyNumberOfThreads) {
  const std::int64_t T = 333, D = 70;
  auto x = Floats::random({T, D}, 1), w = Floats::random({D}, 2), dy = Floats::random({T, D}, 3);
  std::vector<float> first;
  for (int threads : {1, 2, 4}) {
    CpuBackend cpu(threads);
    Floats y({T, D}), rstd({T}), dx({T, D}), dw({D}, 1.0f);
    cpu.rms_norm_forward(x, w, 1e-5f, y, rstd);
    cpu.rms_norm_backward(dy, x, w, rstd, {}, dx, dw);
    if (first.empty()) first = dw.values();
    EXPECT_EQ(dw.values(), first);
    for (std::int64_t d = 0; d < D; ++d) {
      double sum = 1;
      for (std::int64_t t = 0; t < T; ++t) sum += double(dy[t * D + d]) * double(x[t * D + d]) * double(rstd[t]);
      EXPECT_NEAR(dw[d], sum, 2e-5);
    }
  }
}

TEST(CpuBackend, ZeroRowsAreLegal) {
  CpuBackend cpu(2);
  Floats x({0, 6}), weight({6}, 1.0f), dweight({6}), stats({0}), h({0, 12}), table({9, 6}), logits({0, 4}),
      weights({0, 2});
  Ints ids({0}), experts({0, 2}), offsets({5}), assignments({0});
  cpu.add(x, x, x);
  EXPECT_EQ(test::sum(cpu, x), 0.0);
  cpu.embedding_forward(ids, table, 0, 9, x);
  cpu.embedding_backward(ids, x, 0, 9, table);
  cpu.rms_norm_forward(x, weight, 1e-5f, x, stats);
  cpu.rms_norm_backward(x, x, weight, stats, x, x, dweight);
  cpu.router_forward({}, logits, {}, logits, stats, experts, weights);
  cpu.router_backward({}, logits, logits, stats, experts, weights, weights, {}, 0.0, logits);
  cpu.routing_map(experts, {}, {}, experts, assignments, offsets);
  for (std::int64_t e = 0; e < 5; ++e) EXPECT_EQ(offsets[e], 0);
  cpu.permute(x, assignments, 2, x);
  cpu.unpermute(x, experts, {}, x);
  cpu.swiglu_forward(h, stats, x);
  cpu.swiglu_backward(h, stats, x, h, stats, x);
  cpu.cross_entropy_statistics(logits, ids, 0, stats, stats, stats, stats);
  cpu.cross_entropy_losses(ids, stats, stats, stats, stats, stats);
  cpu.cross_entropy_uniform_losses(ids, stats, stats, stats, 9, stats);
  cpu.cross_entropy_backward(logits, ids, 0, stats, 1.0, {}, {}, logits);
  cpu.add_noise({}, stats, x);
  Floats counts({1, 4}, 1.0f), sums({1, 4}, 1.0f), z({1}, 1.0f);
  cpu.balance_statistics(logits, stats, experts, counts, sums, z);
  EXPECT_EQ(counts[3] + sums[0] + z[0], 0.0f);
}

}  // namespace
}  // namespace smoe
