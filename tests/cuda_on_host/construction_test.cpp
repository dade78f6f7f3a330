// A backend that cannot be made, whichever call fails, leaves nothing behind; one that ends waits for the work that uses what it
// gives back.
#include <gtest/gtest.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <ostream>
#include <vector>

#include "kernels/cuda/complaint.h"
#include "kernels/cuda/matrix.h"
#include "kernels/cuda/memory.h"
#include "tests/cuda_on_host/block.h"
#include "tests/kernels/workspace.h"

namespace cuda_on_host {
void PrintTo(const Live& live, std::ostream* out) {
  *out << live.streams << " streams, " << live.events << " events, " << live.blocks << " blocks of the device, "
       << live.locked_blocks << " page-locked ones, " << live.library_handles << " handles of libraries";
}
}  // namespace cuda_on_host

namespace smoe::checks {
namespace {

using cuda_on_host::Live;
using cuda_on_host::live;
using cuda_on_host::machine;

class CudaConstruction : public testing::Test {
 protected:
  CudaConstruction() { cuda_on_host::set_late(false); }
  ~CudaConstruction() override {
    machine() = saved_;
    cuda_on_host::set_late(false);
  }

 private:
  cuda_on_host::Machine saved_ = machine();
};

TEST_F(CudaConstruction, ThatFailsAtAnyCallLeavesNothingBehind) {
  const Live before = live();
  int call = 1;
  for (bool fails = true; fails; ++call) {
    machine().failing_call = call;
    try {
      const std::unique_ptr<Backend> backend = make_cuda_backend();
      fails = false;
    } catch (const std::exception&) {
    }
    // Where the call that was to fail was not reached, no call of a construction is left.
    EXPECT_EQ(fails, machine().failing_call == 0) << call;
    machine().failing_call = 0;
    ASSERT_EQ(live(), before) << "call " << call;
    if (call > 10'000) FAIL() << "there is no end of calls";
  }
  EXPECT_GT(call, 256) << "every event can fail";
  EXPECT_NE(make_cuda_backend(), nullptr);
  EXPECT_EQ(live(), before);
}

// Work that has not begun when the backend ends still has its handles, its room and the note of complaints.
TEST_F(CudaConstruction, WorkThatWasQueuedIsWaitedForAtTheEnd) {
  const Live before = live();
  machine().fused_attention = true;
  cuda_on_host::set_late(true);
  {
    const std::unique_ptr<Backend> backend = make_cuda_backend();
    Workspace workspace(*backend);
    const Tensor a = workspace.f32({2, 3}, Values(6, 1)), b = workspace.f32({4, 3}, Values(12, 1));
    backend->gemm(Gemm::nt, a, b, workspace.output({2, 4}), Write::assign);
    const Tensor qkv = workspace.bf16({2, 3, 8}, Values(48, 1));
    backend->attention_forward({1, 2, 1, 1, 8, 0}, qkv, {}, workspace.output_bf16({2, 1, 8}), workspace.output({1, 2}));
    backend->embedding_forward(workspace.i32({1}, {7}), a, 0, 2, workspace.output({1, 3}));  // there is no row 7
  }
  EXPECT_EQ(live(), before);
}

// Each by itself, whatever waits beside it in a backend.
TEST_F(CudaConstruction, PartsWaitForTheWorkThatUsesThem) {
  const Live before = live();
  cuda_on_host::set_late(true);
  {
    const cuda::Stream stream;
    cuda::Workspace workspace(stream);
    auto* const numbers = workspace.take<float>(12);
    {
      const std::vector<float> ones(8, 1.0f);
      cuda::Upload upload(stream);
      upload(numbers, ones.data(), ones.size() * sizeof(float));
    }
    {
      cuda::Matrix matrix(stream);
      matrix.multiply({Gemm::nt, 2, 2, 2, numbers, numbers + 4, numbers + 8, DType::f32, DType::f32, Write::assign});
    }
    {
      const cuda::Complaints complaints(stream);
      cuda_on_host::queue(stream, [check = complaints.ids("op", "ids", 2)] { EXPECT_FALSE(check(7, 0)); });
    }
  }
  EXPECT_EQ(live(), before);
}

}  // namespace
}  // namespace smoe::checks
