// What a profiler is told: each op by its name, inside what the host has named; and nothing where none watches.
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/check_backend.h"
#include "kernels/range.h"
#include "kernels/timed_backend.h"
#include "tests/cuda_on_host/block.h"

namespace smoe {
namespace {
using Names = std::vector<std::string>;

class Ranges : public testing::Test {
 protected:
  Ranges() { cuda_on_host::machine().profiled = true, cuda_on_host::take_ranges(); }
  ~Ranges() override { cuda_on_host::machine().profiled = false; }
};

void add_in_a_layer(Backend& backend, const Tensor& x) {
  const Range layer(backend, "layer", 3);
  {
    const Range attention(backend, "attention");
    backend.add(x, x, x);
  }
  backend.fill(x, 0);
}
const Names of_a_layer = {"layer 3", "layer 3/attention", "layer 3/attention/add", "layer 3/fill"};

TEST_F(Ranges, OpsLieInTheRangesThatTheHostHasBegun) {
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  Arena arena(*backend);
  const Tensor x = arena.take({4, 8}), y = arena.take({4, 4});
  EXPECT_EQ(cuda_on_host::take_ranges(), Names());
  add_in_a_layer(*backend, x);
  EXPECT_EQ(cuda_on_host::take_ranges(), of_a_layer);
  backend->gemm(Gemm::nt, x, x, y, Write::assign);  // a library's, and a copy, which launch no kernel of ours
  std::vector<float> host(16);
  backend->copy_to_host(host.data(), y);
  EXPECT_EQ(cuda_on_host::take_ranges(), (Names{"gemm", "copy_to_host"}));
}

TEST_F(Ranges, PassThroughWhatStandsInFrontOfABackend) {
  const std::unique_ptr<Backend> backend = make_cuda_backend(), cpu = make_cpu_backend(1);
  Arena arena(*backend);
  const Tensor x = arena.take({4, 8});
  backend->fill(x, 1);
  cuda_on_host::take_ranges();
  TimedBackend timed(*backend);
  add_in_a_layer(timed, x);
  EXPECT_EQ(cuda_on_host::take_ranges(), of_a_layer);
  CheckBackend check(*backend, *cpu);
  add_in_a_layer(check, x);
  Names told = cuda_on_host::take_ranges();
  std::erase_if(told, [](const std::string& name) { return name.find("copy") != std::string::npos; });  // its own
  EXPECT_EQ(told, of_a_layer);
}

TEST_F(Ranges, EndWithAnOpThatIsRefused) {
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  Arena arena(*backend);
  EXPECT_THROW(add_in_a_layer(*backend, {}), std::logic_error);  // by the checks of every backend
  EXPECT_EQ(cuda_on_host::take_ranges(), (Names{"layer 3", "layer 3/attention"}));
  const AttentionShape too_wide{1, 1, 1, 1, 264, 0};
  const Tensor qkv = arena.take({1, 3, 264}), out = arena.take({1, 1, 264}), lse = arena.take({1, 1});
  EXPECT_THROW(backend->attention_forward(too_wide, qkv, {}, out, lse), std::invalid_argument);  // by this one
  EXPECT_EQ(cuda_on_host::take_ranges(), Names{"attention_forward"});
}

TEST_F(Ranges, AreNotMadeWhereNobodyWatches) {
  cuda_on_host::machine().profiled = false;
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  Arena arena(*backend);
  add_in_a_layer(*backend, arena.take({4, 8}));
  EXPECT_EQ(cuda_on_host::take_ranges(), Names());
}

}  // namespace
}  // namespace smoe
