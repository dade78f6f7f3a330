// Which cores and how many threads a process takes: the decision, and what it reads to decide.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>

#include "parallel/cores.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;

Cores range(int first, int last) {
  Cores cores(static_cast<std::size_t>(last - first + 1));
  std::iota(cores.begin(), cores.end(), first);
  return cores;
}

void expect_claim(const CoreFacts& facts, std::int64_t wanted, const Cores& cores, int threads) {
  const CoreClaim claim = divide_cores(facts, wanted);
  EXPECT_EQ(claim.cores, cores);
  EXPECT_EQ(claim.threads, threads);
}

CoreFacts alone(const Cores& own) {
  CoreFacts facts;
  facts.own = facts.given = own;
  return facts;
}
CoreFacts rank_of_mpirun(const Cores& own, const Cores& given, Binding binding, const NodePlace& place) {
  return {.own = own, .given = given, .binding = binding, .place = place};
}

TEST(Cores, AProcessAloneUsesItsMaskAndNoMore) {
  expect_claim(alone(range(0, 7)), 0, range(0, 7), 8);
  expect_claim(alone({1}), 0, {1}, 1);
  expect_claim(alone({2, 3, 9}), 0, {2, 3, 9}, 3);
}

TEST(Cores, ThreadsThatWereAskedForLeaveTheMaskAsItIs) {
  expect_claim(alone({1}), 4, {1}, 4);
  CoreFacts facts = alone(range(0, 7));
  facts.omp_threads = 2;
  facts.quota = 1;
  expect_claim(facts, 5, range(0, 7), 5);
}

TEST(Cores, OmpNumThreadsIsALimit) {
  CoreFacts facts = alone(range(0, 7));
  facts.omp_threads = 3;
  expect_claim(facts, 0, range(0, 7), 3);
  facts.omp_threads = 64;
  expect_claim(facts, 0, range(0, 7), 8);
  CoreFacts rank = rank_of_mpirun({0}, range(0, 7), Binding::unasked, {2, 0, 1});
  rank.omp_threads = 2;
  expect_claim(rank, 0, range(0, 3), 2);
}

TEST(Cores, AQuotaIsALimitThatTheRanksShare) {
  CoreFacts facts = alone(range(0, 63));
  facts.quota = 4;
  expect_claim(facts, 0, range(0, 63), 4);
  facts.quota = 0.2;
  expect_claim(facts, 0, range(0, 63), 1);
  facts.place = {2, 1, 2};
  facts.quota = 6;
  expect_claim(facts, 0, range(0, 63), 3);
}

TEST(Cores, RanksThatMpirunBoundUnaskedDivideWhatItWasGiven) {
  expect_claim(rank_of_mpirun({0}, range(0, 7), Binding::unasked, {2, 0, 1}), 0, range(0, 3), 4);
  expect_claim(rank_of_mpirun({1}, range(0, 7), Binding::unasked, {2, 1, 1}), 0, range(4, 7), 4);
  expect_claim(rank_of_mpirun({0}, range(0, 7), Binding::unasked, {1, 0, 1}), 0, range(0, 7), 8);
  expect_claim(rank_of_mpirun({0}, range(0, 1), Binding::unasked, {2, 0, 1}), 0, {0}, 1);
}

TEST(Cores, ATasksetOfMpirunBindsItsRanks) {
  // mpirun does not look at its own mask: it sends the second rank to core 1.
  expect_claim(rank_of_mpirun({1}, {0}, Binding::unasked, {2, 1, 1}), 0, {0}, 1);
  expect_claim(rank_of_mpirun({1}, {4, 5, 6, 7}, Binding::unasked, {2, 1, 1}), 0, {6, 7}, 2);
  expect_claim(rank_of_mpirun({1}, {0}, Binding::asked, {2, 1, 1}), 0, {0}, 1);
  expect_claim(rank_of_mpirun(range(0, 7), range(0, 3), Binding::asked, {1, 0, 1}), 0, range(0, 3), 4);
  expect_claim(rank_of_mpirun({1}, {0}, Binding::unasked, {2, 1, 1}), 3, {0}, 3);
}

TEST(Cores, MoreRanksThanCoresShareThemAll) {
  expect_claim(rank_of_mpirun({0}, {0, 1}, Binding::unasked, {3, 0, 2}), 0, {0}, 1);
  expect_claim(rank_of_mpirun({1}, {2, 3}, Binding::unasked, {3, 1, 2}), 0, {2, 3}, 1);
}

TEST(Cores, APackageThatIsWideEnoughIsKept) {
  expect_claim(rank_of_mpirun(range(8, 15), range(0, 15), Binding::unasked, {4, 1, 2}), 0, range(8, 15), 4);
  expect_claim(rank_of_mpirun(range(8, 15), range(0, 15), Binding::unasked, {4, 1, 2}), 6, range(8, 15), 6);
  expect_claim(rank_of_mpirun(range(8, 15), range(0, 15), Binding::unasked, {4, 1, 2}), 12, range(0, 15), 12);
}

TEST(Cores, ABindingThatWasAskedForIsKept) {
  expect_claim(rank_of_mpirun({1}, range(0, 7), Binding::asked, {2, 1, 1}), 0, {1}, 1);
  expect_claim(rank_of_mpirun({1}, range(0, 7), Binding::asked, {2, 1, 1}), 4, {1}, 4);
  expect_claim(rank_of_mpirun(range(0, 7), range(0, 15), Binding::asked, {4, 0, 2}), 0, range(0, 7), 4);
}

TEST(Cores, RanksThatNobodyBoundShareTheirMask) {
  CoreFacts facts = alone(range(0, 7));
  facts.place = {4, 2, 4};
  expect_claim(facts, 0, range(0, 7), 2);
  facts = alone(range(4, 7));  // of a scheduler, or numactl in each rank
  facts.place = {2, 1, 1};
  expect_claim(facts, 0, range(4, 7), 4);
  facts = alone({0});
  facts.place = {2, 1, 2};
  expect_claim(facts, 0, {0}, 1);
}

// Two packages of two cores with two hardware threads each, numbered as Linux often does.
const Topology two_packages = {.physical = {{0, 4}, {1, 5}, {2, 6}, {3, 7}}, .wide = {{0, 1, 4, 5}, {2, 3, 6, 7}}};

TEST(Cores, HabitsOfMpirunAreTold) {
  const Cores all = range(0, 7);
  EXPECT_TRUE(is_mpiruns_habit({0, 4}, all, 0, two_packages));
  EXPECT_TRUE(is_mpiruns_habit({1, 5}, all, 1, two_packages));
  EXPECT_TRUE(is_mpiruns_habit({2, 3, 6, 7}, all, 3, two_packages));
  EXPECT_TRUE(is_mpiruns_habit({1, 5}, {0, 4}, 1, two_packages)) << "taskset of mpirun";
  EXPECT_TRUE(is_mpiruns_habit({2, 6}, {2, 3, 6, 7}, 0, two_packages)) << "a container's cores are counted alone";
  EXPECT_TRUE(is_mpiruns_habit({2}, {2, 3}, 0, two_packages)) << "without the thread that the container has not";
}

TEST(Cores, OtherMasksAreTheUsers) {
  const Cores all = range(0, 7);
  EXPECT_FALSE(is_mpiruns_habit({1, 5}, all, 0, two_packages)) << "another rank's core";
  EXPECT_FALSE(is_mpiruns_habit({0}, all, 0, two_packages)) << "one thread of a core";
  EXPECT_FALSE(is_mpiruns_habit({0, 1, 2}, all, 0, two_packages));
  EXPECT_FALSE(is_mpiruns_habit({0, 4}, all, 0, {})) << "an unknown machine";
  EXPECT_FALSE(is_mpiruns_habit({}, all, 0, two_packages));
}

TEST(Cores, OptionsOfMpirunAreReadInTheEnvironment) {
  using Variables = std::map<std::string, std::string>;
  const auto environment = [](const Variables& variables) {
    return [variables](const char* name) -> const char* {
      const auto entry = variables.find(name);
      return entry == variables.end() ? nullptr : entry->second.c_str();
    };
  };
  EXPECT_FALSE(binding_was_asked(environment({})));
  EXPECT_FALSE(binding_was_asked(environment({{"OMPI_MCA_rmaps_base_mapping_policy", "core"}})));
  EXPECT_TRUE(binding_was_asked(environment({{"OMPI_MCA_rmaps_base_mapping_policy", "slot:PE=2"}})));
  EXPECT_TRUE(binding_was_asked(environment({{"OMPI_MCA_hwloc_base_binding_policy", "core"}})));
  EXPECT_TRUE(cores_were_named(environment({{"OMPI_MCA_hwloc_base_cpu_set", "1"}})));
  EXPECT_TRUE(cores_were_named(environment({{"OMPI_MCA_orte_rankfile", "ranks"}})));
  EXPECT_FALSE(cores_were_named(environment({{"OMPI_MCA_hwloc_base_binding_policy", "core"}})));
}

TEST(Cores, ListsOfCoresAreRead) {
  EXPECT_EQ(parse_cores("0-2,5"), (Cores{0, 1, 2, 5}));
  EXPECT_EQ(parse_cores("7"), Cores{7});
  for (const char* wrong : {"", "a", "1-", "3-1", "1,1", "-1", "1;2", "0-99999999"})
    EXPECT_EQ(parse_cores(wrong), Cores{}) << wrong;
}

TEST(Cores, OmpNumThreadsIsReadAsOpenMpDoes) {
  EXPECT_EQ(parse_omp_threads("4"), 4);
  EXPECT_EQ(parse_omp_threads(" 4 "), 4);
  EXPECT_EQ(parse_omp_threads("4,2,1"), 4);
  EXPECT_EQ(parse_omp_threads(nullptr), 0);
  for (const char* wrong : {"", "0", "-3", "many", "4x", "99999999999"})
    EXPECT_EQ(parse_omp_threads(wrong), 0) << wrong;
}

class SystemFiles : public testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) const { files.write(path, text + "\n"); }
  double quota() const { return read_cpu_quota(root / "membership", root / "groups"); }

  const test::ScratchDir files;
  const fs::path root = files.path();
};

TEST_F(SystemFiles, QuotaOfVersion2IsTheLeastOnTheWay) {
  write("membership", "0::/jobs/one");
  EXPECT_EQ(quota(), 0);
  write("groups/jobs/one/cpu.max", "max 100000");
  EXPECT_EQ(quota(), 0);
  write("groups/jobs/cpu.max", "250000 100000");
  EXPECT_EQ(quota(), 2.5);
  write("groups/jobs/one/cpu.max", "50000 100000");
  EXPECT_EQ(quota(), 0.5);
}

TEST_F(SystemFiles, QuotaOfAContainersOwnRootIsSeen) {
  write("membership", "0::/");
  write("groups/cpu.max", "200000 100000");
  EXPECT_EQ(quota(), 2);
}

TEST_F(SystemFiles, QuotaOfVersion1IsRead) {
  write("membership", "5:memory:/outside/id\n4:cpu,cpuacct:/outside/id\n3:cpuset:/outside/id\n0::/");
  write("groups/cpu,cpuacct/cpu.cfs_quota_us", "-1");
  write("groups/cpu,cpuacct/cpu.cfs_period_us", "100000");
  EXPECT_EQ(quota(), 0);
  write("groups/cpu,cpuacct/cpu.cfs_quota_us", "300000");
  EXPECT_EQ(quota(), 3);
}

TEST_F(SystemFiles, TopologyIsInTheOrderOfPackages) {
  write("cpu/online", "0-3");
  for (const int cpu : {0, 1, 2, 3}) {
    const std::string folder = "cpu/cpu" + std::to_string(cpu) + "/topology/";
    write(folder + "thread_siblings_list", std::to_string(cpu));
    write(folder + "core_siblings_list", cpu % 2 ? "1,3" : "0,2");
  }
  write("node/online", "0");
  write("node/node0/cpulist", "0-3");
  const Topology topology = read_topology(root);
  EXPECT_EQ(topology.physical, (std::vector<Cores>{{0}, {2}, {1}, {3}}));
  EXPECT_EQ(topology.wide, (std::vector<Cores>{{0, 2}, {1, 3}, {0, 1, 2, 3}}));
  EXPECT_TRUE(read_topology(root / "nowhere").physical.empty());
}

}  // namespace
}  // namespace smoe
