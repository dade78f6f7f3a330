// What the environments of launchers say: whether a process is alone, its rank, and whether MPI can find the others.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "parallel/comm/launcher.h"

namespace smoe {
namespace {

using Variables = std::map<std::string, std::string>;

Launcher found_in(const Variables& variables) {
  return find_launcher([&](const char* name) -> const char* {
    const auto entry = variables.find(name);
    return entry == variables.end() ? nullptr : entry->second.c_str();
  });
}

void expect_alone(const Variables& variables) {
  const Launcher launcher = found_in(variables);
  EXPECT_TRUE(launcher.alone());
  EXPECT_FALSE(launcher.several());
  EXPECT_EQ(launcher.rank, 0);
  EXPECT_TRUE(launcher.joinable);
}

void expect_rank(const Variables& variables, int rank, int ranks, const std::string& name, bool joinable) {
  const Launcher launcher = found_in(variables);
  EXPECT_EQ(launcher.rank, rank);
  EXPECT_EQ(launcher.ranks, ranks);
  EXPECT_EQ(launcher.name, name);
  EXPECT_EQ(launcher.joinable, joinable);
  EXPECT_EQ(launcher.alone(), ranks == 1);
}

// What every process of an allocation sees.
Variables allocation(Variables more = {}) {
  more.insert({{"SLURM_JOB_ID", "7"},
               {"SLURM_JOBID", "7"},
               {"SLURM_NODELIST", "n[1-2]"},
               {"SLURM_NTASKS", "4"},
               {"SLURM_NPROCS", "4"}});
  return more;
}

TEST(Launcher, NoVariablesAreAProcessAlone) { expect_alone({}); }

TEST(Launcher, MpirunSaysRankAndSize) {
  expect_rank(
      {{"OMPI_COMM_WORLD_SIZE", "8"}, {"OMPI_COMM_WORLD_RANK", "3"}, {"PMIX_RANK", "3"}, {"PMIX_NAMESPACE", "1"}}, 3, 8,
      "mpirun", true);
  expect_alone(
      {{"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}, {"PMIX_RANK", "0"}, {"PMIX_NAMESPACE", "1"}});
}

TEST(Launcher, MpirunInsideAStepOfSlurmGoesBeforeTheStep) {
  expect_rank(allocation({{"OMPI_COMM_WORLD_SIZE", "4"},
                          {"OMPI_COMM_WORLD_RANK", "2"},
                          {"SLURM_STEP_ID", "0"},
                          {"SLURM_STEP_NUM_TASKS", "2"},
                          {"SLURM_PROCID", "1"}}),
              2, 4, "mpirun", true);
  expect_alone(allocation({{"OMPI_COMM_WORLD_SIZE", "1"},
                           {"OMPI_COMM_WORLD_RANK", "0"},
                           {"SLURM_STEP_ID", "0"},
                           {"SLURM_STEP_NUM_TASKS", "2"},
                           {"SLURM_PROCID", "1"}}));
}

TEST(Launcher, AnAllocationIsNoLauncher) {
  expect_alone(allocation());                                                          // salloc, and sbatch
  expect_alone(allocation({{"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}}));           // the script of sbatch
  expect_alone(allocation({{"SLURM_PROCID", "0"}, {"SLURM_STEP_ID", "4294967291"}}));  // the same, as a step
  expect_alone(allocation({{"SLURM_PROCID", "0"},
                           {"SLURM_STEP_ID", "4294967290"},
                           {"PMIX_RANK", "0"},
                           {"PMIX_NAMESPACE", "slurm.pmix.7"}}));  // salloc's shell
  expect_alone(allocation({{"SLURM_STEP_ID", "0"}}));
}

TEST(Launcher, OneTaskOfSrunIsAlone) {
  expect_alone({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_NTASKS", "1"}, {"SLURM_PROCID", "0"}});
  expect_alone(allocation({{"SLURM_STEP_ID", "3"},
                           {"SLURM_STEP_NUM_TASKS", "1"},
                           {"SLURM_PROCID", "0"},
                           {"PMIX_RANK", "0"},
                           {"PMIX_NAMESPACE", "s"}}));
}

TEST(Launcher, TasksOfSrunAreJoinedByPmixAlone) {
  const Variables step = allocation({{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "2"}});
  expect_rank(step, 2, 4, "srun", false);
  Variables pmi = step, pmix = step, older = step;
  pmi.insert({{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}, {"PMI_FD", "9"}});
  expect_rank(pmi, 2, 4, "srun", false);
  pmix.insert({{"PMIX_RANK", "2"}, {"PMIX_NAMESPACE", "slurm.pmix.7.0"}});
  expect_rank(pmix, 2, 4, "srun", true);
  older.erase("SLURM_STEP_NUM_TASKS");
  expect_rank(older, 2, 4, "srun", false);
}

TEST(Launcher, FluxIsJoinedThroughItsPmi) {
  expect_alone({{"FLUX_URI", "local:///run/flux"}, {"FLUX_JOB_ID", "f1"}, {"FLUX_KVS_NAMESPACE", "n"}});
  expect_alone({{"FLUX_JOB_ID", "f1"},
                {"FLUX_JOB_SIZE", "1"},
                {"FLUX_TASK_RANK", "0"},
                {"PMI_RANK", "0"},
                {"PMI_SIZE", "1"},
                {"PMI_FD", "9"}});
  const Variables task{{"FLUX_JOB_ID", "f1"}, {"FLUX_JOB_SIZE", "4"}, {"FLUX_TASK_RANK", "3"}};
  expect_rank(task, 3, 4, "flux run", false);
  Variables pmi = task;
  pmi.insert({{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}, {"PMI_FD", "9"}});
  expect_rank(pmi, 3, 4, "flux run", true);
}

TEST(Launcher, TheMpiexecOfAnotherMpiIsSeen) {
  expect_rank({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"PMI_FD", "9"}}, 1, 2, "the mpiexec of another MPI", false);
  expect_alone({{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}});
}

TEST(Launcher, APmixLauncherThatSaysNoSizeLeavesItToMpi) {
  const Launcher first = found_in({{"PMIX_RANK", "0"}, {"PMIX_NAMESPACE", "n"}}),
                 second = found_in({{"PMIX_RANK", "1"}, {"PMIX_NAMESPACE", "n"}});
  EXPECT_FALSE(first.alone());
  EXPECT_FALSE(first.several());
  EXPECT_TRUE(second.several());
  EXPECT_TRUE(second.joinable);
  expect_alone({{"PMIX_RANK", "0"}});
}

TEST(Launcher, WhatIsNoNumberIsNotThere) {
  expect_alone({{"OMPI_COMM_WORLD_SIZE", "many"}, {"OMPI_COMM_WORLD_RANK", "0"}});
  expect_alone({{"OMPI_COMM_WORLD_SIZE", ""}});
  expect_alone({{"OMPI_COMM_WORLD_SIZE", "-2"}});
  expect_alone({{"PMI_SIZE", "4x"}, {"PMI_RANK", "0"}});
}

}  // namespace
}  // namespace smoe
