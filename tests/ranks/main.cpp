// main() of test binaries that run under mpirun: rank 0 reports as usual, the others only what failed on them, and
// all end with the same status.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <memory>
#include <string>

#include "kernels/cuda_device.h"
#include "parallel/mesh.h"
#include "tests/ranks/test_session.h"

namespace smoe {
namespace {

MpiSession* session = nullptr;

class FailuresOfOneRank : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.failed())
      std::fprintf(stderr, "rank %d: %s:%d: %s\n", session->rank(), result.file_name() ? result.file_name() : "?",
                   result.line_number(), result.message());
  }
};

}  // namespace

MpiSession& test_session() { return *session; }

}  // namespace smoe

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  smoe::MpiSession session(&argc, &argv);
  smoe::session = &session;
  smoe::use_cuda_device(session.local_rank());  // where there are GPUs
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (session.rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new smoe::FailuresOfOneRank);
  }
  std::array<double, 1> failed{RUN_ALL_TESTS() ? 1.0 : 0.0};
  smoe::Mesh::over(session, {.ranks = session.size()})
      .group(smoe::Axis::world)
      .all_reduce(failed, smoe::Reduce::max, "tests.failed");
  return failed[0] != 0 ? 1 : 0;
}
