// What attention refuses, where the kernels have no tiles for it; and of tensor cores what the op list does not reach: edges of tiles,
// scores that rise, NaN.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/cuda_on_host/block.h"
#include "tests/cuda_on_host/complaint_of.h"
#include "tests/kernels/backend_vs_reference.h"
#include "tests/kernels/workspace.h"

namespace smoe::checks {
namespace {

TEST(CudaAttention, RefusesHeadsAboveItsTilesByName) {
  cuda_on_host::machine().fused_attention = false;
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  Workspace workspace(*backend);
  const Tensor qkv = workspace.output({3, 3, 257}), dqkv = workspace.output({3, 3, 257}),
               out = workspace.output({3, 1, 257}), lse = workspace.output({1, 3}),
               cache = workspace.output({3, 1, 257}), other_cache = workspace.output({3, 1, 257});
  const AttentionShape shape{1, 3, 1, 1, 257, 0};
  const std::string limit = ": head_dim 257, expected at most 256 on a GPU";
  EXPECT_EQ(complaint_of([&] { backend->attention_forward(shape, qkv, {}, out, lse); }), "attention_forward" + limit);
  EXPECT_EQ(complaint_of([&] { backend->attention_backward(shape, qkv, {}, out, lse, out, dqkv); }),
            "attention_backward" + limit);
  EXPECT_EQ(complaint_of([&] { backend->attention_cached(shape, qkv, 0, cache, other_cache, out); }),
            "attention_cached" + limit);
}

// Each number of `found` is bf16, summed of numbers and weights that were rounded to it.
void expect_near(const Values& found, const Values& truth, double tolerance, const std::string& what) {
  ASSERT_EQ(found.size(), truth.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(found[i], truth[i], tolerance * (0.5 + std::abs(truth[i]))) << what << " " << i;
}

// Forward and backward on tensor cores beside the kernels of f32, whose numbers the op list has. The rounding of `out` is in delta, and is
// multiplied by keys and queries.
void expect_as_in_f32(const AttentionShape& shape, const Values& qkv, const Values& dout,
                      const std::vector<std::int32_t>& document_start, double gradient_tolerance,
                      const std::string& what) {
  cuda_on_host::machine().fused_attention = false;
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  Workspace workspace(*backend);
  const Index T = shape.sequences * shape.sequence_length, H = shape.heads, G = shape.kv_heads, C = shape.head_dim;
  const Tensor starts = document_start.empty() ? Tensor() : workspace.i32({T}, document_start);
  const auto run = [&](bool in_bf16) {
    const auto input = [&](Shape dims, const Values& values) {
      return in_bf16 ? workspace.bf16(dims, values) : workspace.f32(dims, workspace.read(workspace.bf16(dims, values)));
    };
    const auto output = [&](Shape dims) { return in_bf16 ? workspace.output_bf16(dims) : workspace.output(dims); };
    const Tensor tqkv = input({T, H + 2 * G, C}, qkv), out = output({T, H, C}), lse = workspace.output({H, T}),
                 dqkv = output({T, H + 2 * G, C});
    backend->attention_forward(shape, tqkv, starts, out, lse);
    backend->attention_backward(shape, tqkv, starts, out, lse, input({T, H, C}, dout), dqkv);
    return std::array<Values, 3>{workspace.read(out), workspace.read(lse), workspace.read(dqkv)};
  };
  const auto found = run(true), truth = run(false);
  expect_near(found[0], truth[0], 1.0 / 128, what + " out");
  expect_near(found[1], truth[1], 1.0 / 4096, what + " lse");
  expect_near(found[2], truth[2], gradient_tolerance, what + " dqkv");
}

// Documents that begin at each place around the edge of a tile: which tiles need a mask, and which are left out.
TEST(CudaAttention, OnTensorCoresDocumentsMayBeginAnywhereInATile) {
  Random random(74);
  for (const Index C : {8, 72}) {
    constexpr Index S = 140, offsets = 5, first = 62;
    std::vector<std::int32_t> starts;
    for (Index b = 0; b < offsets; ++b)
      for (Index i = 0; i < S; ++i) starts.push_back(i < first + b ? 0 : static_cast<std::int32_t>(first + b));
    expect_as_in_f32({offsets, S, 1, 1, C, 0}, f32_values(random, offsets * S * 3 * C),
                     f32_values(random, offsets * S * C), starts, 1.0 / 32, "heads of " + std::to_string(C));
  }
}

// Each key's score is above the one's before it: what was summed of a tile is scaled anew in the next.
TEST(CudaAttention, OnTensorCoresScoresMayRiseFromTileToTile) {
  Random random(75);
  constexpr Index S = 150, C = 8;
  for (const double rise : {0.02, 0.1, 0.5}) {  // the last makes keys of 26
    Values qkv = f32_values(random, S * 3 * C);
    for (Index i = 0; i < S; ++i)
      for (Index c = 0; c < C; ++c) {
        qkv[(i * 3) * C + c] = 1;
        qkv[(i * 3 + 1) * C + c] = rise * static_cast<double>(i) / std::sqrt(8.0);
      }
    expect_as_in_f32({1, S, 1, 1, C, 0}, qkv, f32_values(random, S * C), {}, 1.0, "rise " + std::to_string(rise));
  }
}

// Head 0 of one query is NaN: its row of the output, and no other, and all that its gradients reach.
TEST(CudaAttention, OnTensorCoresANaNOfAQueryIsOfItsRow) {
  cuda_on_host::machine().fused_attention = false;
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  Workspace workspace(*backend);
  Random random(72);
  for (const Index C : {8, 7}) {  // wide rows, and such as are not
    const AttentionShape shape{1, 150, 2, 1, C, 0};
    constexpr Index spoiled = 90;
    Matrix<double> qkv = f32_matrix(random, 150, 4 * C);
    qkv(spoiled, 3) = std::nan("");
    const Tensor tqkv = workspace.bf16({150, 4, C}, qkv.values), out = workspace.output_bf16({150, 2, C}),
                 lse = workspace.output({2, 150}), dqkv = workspace.output_bf16({150, 4, C});
    backend->attention_forward(shape, tqkv, Tensor(), out, lse);
    const Values values = workspace.read(out), statistics = workspace.read(lse);
    for (Index row = 0; row < 300; ++row) {
      const bool is_spoiled = row == 2 * spoiled;
      for (Index c = 0; c < C; ++c) EXPECT_EQ(std::isnan(values[row * C + c]), is_spoiled) << row << " " << c;
      EXPECT_EQ(std::isnan(statistics[row % 2 * 150 + row / 2]), is_spoiled) << row;
    }
    backend->attention_backward(shape, tqkv, Tensor(), out, lse,
                                workspace.bf16({150, 2, C}, f32_matrix(random, 150, 2 * C).values), dqkv);
    const Values gradient = workspace.read(dqkv);
    for (Index token = 0; token <= spoiled; ++token)  // its own gradient, and that of every key and value it saw
      for (Index i = 0; i < 4 * C; ++i)
        EXPECT_TRUE(!(i >= 2 * C || (token == spoiled && i < C)) || std::isnan(gradient[token * 4 * C + i]))
            << token << " " << i;
  }
}

// A key, or a value: every query that sees it, none of a tile of keys that ends before it.
TEST(CudaAttention, OnTensorCoresANaNOfAKeyIsOfThoseWhoSeeIt) {
  cuda_on_host::machine().fused_attention = false;
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  Workspace workspace(*backend);
  Random random(73);
  const AttentionShape shape{2, 200, 2, 1, 8, 40};
  constexpr Index spoiled = 200 + 130;
  for (const Index column : {16, 24}) {
    Matrix<double> qkv = f32_matrix(random, 400, 32);
    qkv(spoiled, column) = std::nan("");
    const Tensor out = workspace.output_bf16({400, 2, 8}), lse = workspace.output({2, 400});
    backend->attention_forward(shape, workspace.bf16({400, 4, 8}, qkv.values), Tensor(), out, lse);
    const Values values = workspace.read(out);
    for (Index t = 0; t < 400; ++t) {
      const bool found = std::isnan(values[t * 16]), sees = t >= spoiled && t < spoiled + 40;
      EXPECT_TRUE(found || !sees) << "token " << t << ", column " << column;
      EXPECT_FALSE(found && (t < spoiled - 64 || t >= spoiled + 40 + 64)) << "token " << t << ", column " << column;
    }
  }
}

}  // namespace
}  // namespace smoe::checks
