// What attention refuses, where the kernels have no tiles for it, and that its tensor cores hide no NaN: the list that all backends share
// is of f32.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>

#include "tests/cuda_on_host/block.h"
#include "tests/kernels/backend_vs_reference.h"
#include "tests/kernels/workspace.h"

namespace smoe::checks {
namespace {

template <class F>
std::string complaint_of(const F& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

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
