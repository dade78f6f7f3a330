// What the norm's backward refuses: rows whose gradient of the weight a block's shared memory does not hold.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "tests/cuda_on_host/block.h"
#include "tests/cuda_on_host/complaint_of.h"
#include "tests/kernels/workspace.h"

namespace smoe::checks {
namespace {

using cuda_on_host::machine;

class CudaRmsNorm : public testing::Test {
 protected:
  CudaRmsNorm() { cuda_on_host::set_late(false); }
  ~CudaRmsNorm() override { machine() = saved_; }

  static std::string complaint_about(std::int64_t columns, bool trained) {
    const std::unique_ptr<Backend> backend = make_cuda_backend();
    Workspace workspace(*backend);
    const Tensor x = workspace.output({1, columns}), weight = workspace.output({columns}), rstd = workspace.output({1});
    return complaint_of([&] {
      backend->rms_norm_backward(x, x, weight, rstd, {}, workspace.output({1, columns}),
                                 trained ? workspace.output({columns}) : Tensor());
    });
  }

 private:
  cuda_on_host::Machine saved_ = machine();
};

TEST_F(CudaRmsNorm, BadInputRowsBeyondTheSharedMemoryAreRefusedByName) {
  for (const auto& [kib, most] : {std::pair(227, 58'048), std::pair(99, 25'280)}) {
    machine().shared_memory = static_cast<std::size_t>(kib) * 1024;
    EXPECT_EQ(complaint_about(most, true), "");
    EXPECT_EQ(complaint_about(most + 1, true),
              "rms_norm_backward: D " + std::to_string(most + 1) + ", expected at most " + std::to_string(most) +
                  " on this GPU, whose blocks have " + std::to_string(kib) + " KiB of shared memory");
    EXPECT_EQ(complaint_about(most + 1, false), "");  // without its gradient there is no such limit
  }
}

}  // namespace
}  // namespace smoe::checks
