#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cpu/cpu_backend.h"
#include "tests/kernels/cpu_test_support.h"
#include "tests/support/deviation.h"

namespace smoe {
namespace {

using test::Floats;
using test::Ints;

bool sees(const AttentionShape& s, std::int64_t i, std::int64_t j, std::int64_t document_start) {
  return j <= i && j >= document_start && (s.window == 0 || i - j < s.window);
}

// Plain loops in double. Without dout: out; with it: dqkv.
std::vector<double> naive(const AttentionShape& s, Floats& qkv, const std::vector<std::int32_t>& starts, Floats* dout) {
  const std::int64_t S = s.sequence_length, H = s.heads, G = s.kv_heads, C = s.head_dim, T = s.sequences * S,
                     W = H + 2 * G;
  std::vector<double> out(static_cast<std::size_t>(T * H * C)), dqkv(static_cast<std::size_t>(T * W * C));
  const double scale = 1 / std::sqrt(static_cast<double>(C));
  for (std::int64_t t = 0; t < T; ++t)
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t b = t / S, i = t % S, g = h / (H / G);
      const std::int64_t start = starts.empty() ? 0 : starts[static_cast<std::size_t>(t)];
      const auto at = [&](std::int64_t token, std::int64_t head) {
        return static_cast<std::size_t>((token * W + head) * C);
      };
      std::vector<double> p(static_cast<std::size_t>(S)), dp(static_cast<std::size_t>(S));
      double sum = 0, delta = 0;
      for (std::int64_t j = 0; j < S; ++j) {
        if (!sees(s, i, j, start)) continue;
        double score = 0;
        for (std::int64_t c = 0; c < C; ++c)
          score += double(qkv.values()[at(t, h) + c]) * double(qkv.values()[at(b * S + j, H + g) + c]);
        sum += p[j] = std::exp(scale * score);
      }
      const auto row = static_cast<std::size_t>((t * H + h) * C);
      for (std::int64_t j = 0; j < S; ++j) {
        p[j] /= sum;
        for (std::int64_t c = 0; c < C; ++c) {
          const double v = qkv.values()[at(b * S + j, H + G + g) + c];
          out[row + c] += p[j] * v;
          if (dout) dp[j] += double(dout->values()[row + c]) * v;
        }
        delta += p[j] * dp[j];
      }
      if (!dout) continue;
      for (std::int64_t j = 0; j < S; ++j)
        for (std::int64_t c = 0; c < C; ++c) {
          const double ds = scale * p[j] * (dp[j] - delta);
          dqkv[at(t, h) + c] += ds * double(qkv.values()[at(b * S + j, H + g) + c]);
          dqkv[at(b * S + j, H + g) + c] += ds * double(qkv.values()[at(t, h) + c]);
          dqkv[at(b * S + j, H + G + g) + c] += p[j] * double(dout->values()[row + c]);
        }
    }
  return dout ? dqkv : out;
}

// Documents of lengths 1, 2, 3, ... in every sequence.
std::vector<std::int32_t> growing_documents(const AttentionShape& s) {
  std::vector<std::int32_t> starts;
  for (std::int64_t b = 0; b < s.sequences; ++b) {
    std::int32_t start = 0, length = 1;
    for (std::int32_t i = 0; i < s.sequence_length; ++i) {
      if (i == start + length) start = i, length += 11;
      starts.push_back(start);
    }
  }
  return starts;
}

struct Case {
  AttentionShape shape;
  bool documents;
};

class CpuAttention : public ::testing::TestWithParam<Case> {};

TEST_P(CpuAttention, ForwardAndBackwardEqualPlainLoops) {
  const auto [s, documents] = GetParam();
  const std::int64_t T = s.sequences * s.sequence_length, W = s.heads + 2 * s.kv_heads;
  auto starts = documents ? growing_documents(s) : std::vector<std::int32_t>{};
  Ints start_ids({T}, starts);
  const Tensor document_start = documents ? Tensor(start_ids) : Tensor();
  auto qkv = Floats::random({T, W, s.head_dim}, 1), dout = Floats::random({T, s.heads, s.head_dim}, 2);
  std::vector<float> first_out, first_dqkv;
  for (int threads : {1, 2, 5}) {
    CpuBackend cpu(threads);
    Floats out({T, s.heads, s.head_dim}, std::nanf("")), lse({s.heads, T}, std::nanf(""));
    Floats dqkv({T, W, s.head_dim}, std::nanf(""));
    cpu.attention_forward(s, qkv, document_start, out, lse);
    cpu.attention_backward(s, qkv, document_start, out, lse, dout, dqkv);
    if (threads == 1) {
      EXPECT_LT(test::largest_difference(out.values(), naive(s, qkv, starts, nullptr)), 3e-6);
      EXPECT_LT(test::largest_difference(dqkv.values(), naive(s, qkv, starts, &dout)), 3e-5);
      first_out = out.values(), first_dqkv = dqkv.values();
    }
    EXPECT_EQ(out.values(), first_out) << threads << " threads";
    EXPECT_EQ(dqkv.values(), first_dqkv) << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CpuAttention,
                         ::testing::Values(Case{{1, 1, 1, 1, 1, 0}, false}, Case{{2, 37, 4, 2, 7, 0}, false},
                                           Case{{2, 300, 4, 1, 16, 0}, false}, Case{{1, 300, 2, 2, 40, 0}, true},
                                           Case{{2, 290, 4, 2, 33, 50}, false}, Case{{1, 400, 2, 1, 128, 1}, false},
                                           Case{{1, 333, 3, 1, 20, 150}, true}, Case{{3, 64, 8, 2, 64, 0}, false}));

TEST(CpuAttention, NoTokens) {
  CpuBackend cpu(2);
  Floats qkv({0, 4, 8}), out({0, 2, 8}), lse({2, 0});
  cpu.attention_forward({0, 5, 2, 1, 8, 0}, qkv, {}, out, lse);
  cpu.attention_backward({0, 5, 2, 1, 8, 0}, qkv, {}, out, lse, out, qkv);
}

TEST(CpuAttention, NaNIsNotHidden) {
  CpuBackend cpu(1);
  auto qkv = Floats::random({40, 3, 8}, 1);
  qkv[(17 * 3 + 1) * 8] = std::nanf("");  // a number of key 17
  Floats out({40, 1, 8}), lse({1, 40});
  cpu.attention_forward({1, 40, 1, 1, 8, 0}, qkv, {}, out, lse);
  for (std::int64_t t = 0; t < 40; ++t) EXPECT_EQ(std::isnan(out[t * 8]), t >= 17) << t;
}

// Tokens fed through the cache in pieces give what the whole sequence gives at once.
TEST(CpuAttention, CacheEqualsWholeSequence) {
  for (std::int64_t window : {0, 30}) {
    const std::int64_t S = 210, H = 4, G = 2, C = 24;
    const AttentionShape shape{1, S, H, G, C, window};
    CpuBackend cpu(2);
    auto qkv = Floats::random({S, H + 2 * G, C}, 1);
    Floats out({S, H, C}), lse({H, S}), cached({S, H, C}), keys({256, G, C}), values({256, G, C});
    cpu.attention_forward(shape, qkv, {}, out, lse);
    std::int64_t past = 0;
    for (std::int64_t count : {100, 1, 1, 0, 60, 48}) {
      cpu.attention_cached({1, count, H, G, C, window}, Tensor(qkv).rows(past, count), past, keys, values,
                           Tensor(cached).rows(past, count));
      past += count;
    }
    ASSERT_EQ(past, S);
    EXPECT_LE(test::largest_difference(cached.values(), out.values()), 2e-6);
  }
}

}  // namespace
}  // namespace smoe
