// A warm training step takes nothing from the heap: every malloc of the process is counted, whichever library or thread
// it comes from. operator new and the backend's allocate end in one of the functions below; tests show that they do.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "tests/support/warm_step.h"

namespace {
std::atomic<std::int64_t> allocation_count{0};
void count_allocation() { allocation_count.fetch_add(1, std::memory_order_relaxed); }
}  // namespace

// glibc lets a program define these; its own are reached under their internal names. free stays glibc's.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) {
  count_allocation();
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  count_allocation();
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, std::size_t bytes) {
  count_allocation();
  return __libc_realloc(old, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  count_allocation();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  count_allocation();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) {
  count_allocation();
  *out = __libc_memalign(alignment, bytes);
  return *out ? 0 : ENOMEM;
}
}

namespace smoe {
namespace {
using test::WarmSetting;
using test::WarmStep;

// Allocations of the whole process while `work` runs.
template <class Work>
std::int64_t allocations_of(const Work& work) {
  const std::int64_t before = allocation_count.load();
  work();
  return allocation_count.load() - before;
}

// Keeps the compiler from removing an allocation whose memory nobody reads.
void use(void* memory) { asm volatile("" : : "g"(memory) : "memory"); }

TEST(AllocationCounter, EveryWayToTheHeapIsCounted) {
  EXPECT_EQ(allocations_of([] {}), 0);
  EXPECT_EQ(allocations_of([] {
              void* memory = std::malloc(10);
              use(memory);
              std::free(memory);
            }),
            1);
  EXPECT_EQ(allocations_of([] {
              const std::unique_ptr<int> owned(new int(3));
              use(owned.get());
            }),
            1);
  EXPECT_EQ(allocations_of([] {
              std::vector<int> values(1000);
              use(values.data());
              values.resize(100000);
              use(values.data());
            }),
            2);
  EXPECT_EQ(allocations_of([] {
              void* memory = std::aligned_alloc(64, 128);
              use(memory);
              std::free(memory);
            }),
            1);
  const auto backend = make_cpu_backend(2);
  EXPECT_EQ(allocations_of([&] { backend->release(backend->allocate(1 << 20), 1 << 20); }), 1);
}

TEST(AllocationCounter, OtherThreadsAreCounted) {
  std::atomic<bool> go{false}, done{false};
  std::thread other([&] {
    while (!go) std::this_thread::yield();
    void* memory = std::malloc(10);
    use(memory);
    std::free(memory);
    done = true;
  });
  EXPECT_EQ(allocations_of([&] {
              go = true;
              while (!done) std::this_thread::yield();
            }),
            1);
  other.join();
}

class Allocation : public testing::TestWithParam<WarmSetting> {};

TEST_P(Allocation, WarmStepsTakeNothingFromTheHeap) {
  WarmStep step(make_cpu_backend(2), GetParam());
  // Tiles go to whichever thread is free: on a busy machine a thread may meet its first tile of a kind, and grow its
  // workspace, only some steps after the others.
  constexpr std::int64_t warm_steps = 40, counted_steps = 4;
  EXPECT_GT(allocations_of([&] { step.train(1); }), 0)
      << "a cold step allocates: if this one does not, nothing is counted";
  for (std::int64_t number = 2; number <= warm_steps; ++number) step.train(number);
  for (std::int64_t number = warm_steps + 1; number <= warm_steps + counted_steps; ++number)
    EXPECT_EQ(allocations_of([&] { step.train(number); }), 0) << "step " << number;
}

// Hidden small: most ops run on one thread; large: on several. At least 64, for heads of 16: some of OpenBLAS 0.3.21's
// kernels for small products allocate inside where the result has at most 8 columns, and we cannot keep them from it.
WarmSetting setting(const char* name, std::int64_t micro_batch_size, Recompute recompute, AuxLossScope scope,
                    std::int64_t hidden, DType type = DType::f32) {
  return {.name = name,
          .type = type,
          .recompute = recompute,
          .scope = scope,
          .micro_batch_size = micro_batch_size,
          .hidden = hidden,
          .intermediate = 2 * hidden,
          .length = 48,
          .second_document = 20};
}

WarmSetting steered(WarmSetting setting) {
  setting.steered = true;
  return setting;
}

WarmSetting padded(WarmSetting setting) {
  setting.padded = true;
  return setting;
}

INSTANTIATE_TEST_SUITE_P(
    Steps, Allocation,
    testing::Values(setting("OneMicroBatch", 4, Recompute::none, AuxLossScope::global_batch, 64),
                    setting("LargerThanOneThreadsShare", 4, Recompute::none, AuxLossScope::global_batch, 128),
                    setting("Accumulating", 2, Recompute::none, AuxLossScope::global_batch, 64),
                    setting("RecomputingLayers", 4, Recompute::layer, AuxLossScope::sequence, 64),
                    setting("AccumulatingAndRecomputing", 1, Recompute::layer, AuxLossScope::hf, 128),
                    padded(setting("Padded", 2, Recompute::layer, AuxLossScope::sequence, 64)),
                    steered(setting("Steered", 2, Recompute::none, AuxLossScope::global_batch, 64)),
                    setting("InBf16", 2, Recompute::layer, AuxLossScope::global_batch, 128, DType::bf16)),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace smoe
