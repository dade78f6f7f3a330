// What brings a device's numbers to the host: the number of bytes is told by the tensor, the room by the host, so that a type
// which is not what the host has room for must be refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels/arena.h"
#include "kernels/host_mirror.h"
#include "kernels/host_view.h"
#include "tests/support/late_copies.h"
#include "tests/support/sealed_memory.h"

namespace smoe {
namespace {

class HostMemoryBadInput : public testing::Test {
 protected:
  const std::unique_ptr<Backend> cpu_ = make_cpu_backend(1);
  test::SealedMemory device_{1};
  Arena here_{*cpu_}, there_{device_};
  std::vector<float> staging_;
};

TEST_F(HostMemoryBadInput, AViewIsOfFloats) {
  for (const DType type : {DType::i32, DType::f64}) {
    EXPECT_THROW(HostView(*cpu_, here_.take(type, {5}), staging_), std::logic_error);
    EXPECT_THROW(HostView(device_, there_.take(type, {5}), staging_), std::logic_error);
    EXPECT_THROW(numbers_of(*cpu_, here_.take(type, {5})), std::logic_error);
    EXPECT_THROW(numbers_of(device_, there_.take(type, {5})), std::logic_error);
  }
  EXPECT_EQ(numbers_of(device_, Tensor{}), std::vector<float>{});
}

// Host and device, f32 and bf16: what is stored comes back, rounded where the tensor is bf16.
TEST_F(HostMemoryBadInput, AViewWidensAndRoundsHalves) {
  const std::vector<float> numbers{1.0f, -0.0f, 1.00390625f, 3.0e38f, 1e-40f};  // the third is a tie: to even, down
  const std::vector<float> rounded_once{1.0f, -0.0f, 1.0f, widened(rounded(3.0e38f)), widened(rounded(1e-40f))};
  for (const auto& [backend, arena] :
       {std::pair<Backend*, Arena*>(cpu_.get(), &here_), std::pair<Backend*, Arena*>(&device_, &there_)})
    for (const DType type : {DType::f32, DType::bf16}) {
      const Tensor tensor = arena->take(type, {5});
      const HostView view(*backend, tensor, staging_);
      std::copy(numbers.begin(), numbers.end(), view.numbers().begin());
      view.store();
      EXPECT_EQ(numbers_of(*backend, tensor), type == DType::f32 ? numbers : rounded_once) << name_of(type);
    }
}

TEST_F(HostMemoryBadInput, AMirrorHasTheTypeOfWhatItFetches) {
  HostMirror<float> floats;
  HostMirror<std::int32_t> integers;
  HostMirror<double> doubles;
  for (const DType type : {DType::f32, DType::bf16, DType::i32, DType::f64}) {
    const Tensor from = there_.take(type, {5});
    if (type != DType::f32) {
      EXPECT_THROW(floats.start_fetch(device_, from), std::logic_error);
    }
    if (type != DType::i32) {
      EXPECT_THROW(integers.start_fetch(device_, from), std::logic_error);
    }
    if (type != DType::f64) {
      EXPECT_THROW(doubles.start_fetch(device_, from), std::logic_error);
    }
  }
}

TEST(HostMirror, HasTheNumbersOnceAnEventAfterTheFetchWasWaitedFor) {
  test::LateCopies backend(make_cpu_backend(1));
  Arena arena(backend);
  const Tensor x = arena.take({3});
  backend.fill(x, 2.0f);
  HostMirror<float> mirror;
  const Event before = backend.record();
  mirror.start_fetch(backend, x);
  const Event after = backend.record();
  backend.fill(x, 3.0f);  // comes later
  const auto is_there = [&] {
    return std::vector<float>(mirror.numbers().begin(), mirror.numbers().end()) == std::vector<float>(3, 2.0f);
  };
  EXPECT_FALSE(is_there());
  backend.wait(before);
  EXPECT_FALSE(is_there());
  backend.wait(after);
  EXPECT_TRUE(is_there());
  mirror.start_fetch(backend, x);
  mirror.resize(backend, 1000);  // the memory that was to be copied into is gone
  backend.synchronize();
}

}  // namespace
}  // namespace smoe
