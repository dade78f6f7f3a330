// Ranks that find different devices: all of them say so, in the same words.
#include "trainer/same_device.h"

#include <gtest/gtest.h>

#include <string>

#include "parallel/comm/agreement.h"
#include "parallel/mesh.h"
#include "tests/ranks/test_session.h"

namespace smoe {
namespace {

class SameDevice : public ::testing::Test {
 protected:
  static Communicator& world() {
    static const Mesh mesh = Mesh::over(test_session(), {.ranks = test_session().size()});
    return mesh.group(Axis::world);
  }
  static std::string refused(bool gpu_here) {
    try {
      require_same_device(world(), gpu_here ? Device::cuda : Device::cpu,
                          gpu_here ? "" : "no driver on " + std::to_string(world().rank()));
    } catch (const SharedFailure& failure) {
      return failure.what();
    }
    return "";
  }
};

TEST_F(SameDevice, OfAllIsAccepted) {
  EXPECT_EQ(refused(true), "");
  EXPECT_EQ(refused(false), "");
}

TEST_F(SameDevice, OfSomeIsRefusedOnAllWithWhoHasWhat) {
  const int last = world().size() - 1;
  const std::string others = last == 1 ? "0" : "0-" + std::to_string(last - 1), end = std::to_string(last);
  const std::string expected = "; expected the same of all: name train.device: cpu, or start ranks only where a GPU is";
  EXPECT_EQ(refused(world().rank() < last), "train.device: auto finds a GPU on rank(s) " + others +
                                                " and none on rank(s) " + end + " (rank " + end + ": no driver on " +
                                                end + ")" + expected);
  EXPECT_EQ(refused(world().rank() == last), "train.device: auto finds a GPU on rank(s) " + end +
                                                 " and none on rank(s) " + others + " (rank 0: no driver on 0)" +
                                                 expected);
}

TEST_F(SameDevice, RanksThatAreNoNeighboursAreListed) {
  if (world().size() < 4) GTEST_SKIP() << "of four ranks";
  EXPECT_NE(refused(world().rank() % 2 == 0).find("on rank(s) 0, 2 and none on rank(s) 1, 3 (rank 1"),
            std::string::npos);
}

}  // namespace
}  // namespace smoe
