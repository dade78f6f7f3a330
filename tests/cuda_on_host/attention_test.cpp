// What attention refuses, where the kernels have no tiles for it.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/cuda_on_host/block.h"
#include "tests/cuda_on_host/complaint_of.h"
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

}  // namespace
}  // namespace smoe::checks
