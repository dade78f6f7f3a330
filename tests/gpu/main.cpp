// main() of the tests that want a GPU: where there is none, a line says why, and the status is 77, which is "skipped".
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda_device.h"

namespace {

// A kernel that went wrong leaves its process without the GPU, and all tests behind it would fail for nothing: the program ends, and
// launch/test-gpu starts it again for them.
class EndsWithoutItsGpu : public testing::EmptyTestEventListener {
  void OnTestEnd(const testing::TestInfo& test) override {
    if (!test.result()->Failed()) return;
    try {
      smoe::cuda_memory();
    } catch (const std::exception& error) {
      std::printf("%s.%s: failed, and this process has lost its GPU: %s\n", test.test_suite_name(), test.name(),
                  error.what());
      std::fflush(stdout);
      std::_Exit(1);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (const std::string missing = smoe::cuda_missing(); !missing.empty() && !testing::GTEST_FLAG(list_tests)) {
    std::printf("no GPU to test: %s\n", missing.c_str());
    return 77;
  }
  testing::UnitTest::GetInstance()->listeners().Append(new EndsWithoutItsGpu);
  return RUN_ALL_TESTS();
}
