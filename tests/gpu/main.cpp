// main() of the tests that want a GPU: where there is none, a line says why, and the status is 77, which is "skipped".
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "kernels/backend.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (const std::string missing = smoe::cuda_missing(); !missing.empty() && !testing::GTEST_FLAG(list_tests)) {
    std::printf("no GPU to test: %s\n", missing.c_str());
    return 77;
  }
  return RUN_ALL_TESTS();
}
