// Who started this process, and with how many others: read from what launchers put into the environment, before MPI is
// touched. A process that is alone never touches it, because MPI_Init looks for a launcher of its own wherever it finds
// traces of one (a job step of Slurm, Flux, an earlier MPI program of the same rank), and fails where that does not answer.
//
//   environment                                      this process is
//   OMPI_COMM_WORLD_SIZE, OMPI_COMM_WORLD_RANK       a rank of Open MPI's mpirun
//   PMIX_NAMESPACE, PMIX_RANK                        a rank of a launcher that speaks PMIx (srun --mpi=pmix)
//   FLUX_JOB_ID, PMI_FD, PMI_SIZE, PMI_RANK          a rank of flux run
//   SLURM_STEP_NUM_TASKS > 1 in a numbered step      one of several tasks of srun that MPI cannot join
//   FLUX_JOB_SIZE > 1, FLUX_TASK_RANK                one of several tasks of flux run that MPI cannot join
//   PMI_SIZE > 1, PMI_RANK                           one of several processes of another MPI's mpiexec
//   nothing of these                                 alone
//
// The first line that fits counts. An allocation is no launcher: the script of sbatch and the shell of salloc run alone,
// however many tasks they may start, as does srun -n 1.
#pragma once

#include <functional>
#include <string>

namespace smoe {

// The value of a variable, null where it is not set.
using Environment = std::function<const char*(const char* name)>;

struct Launcher {
  int rank = 0;
  int ranks = 1;         // 0: several may be, and only MPI can tell how many
  std::string name;      // of the command that started it, "mpirun"; empty: alone
  bool joinable = true;  // MPI can bring the ranks together

  // Whether this process has others beside it, or must ask MPI for them.
  bool alone() const { return ranks == 1; }
  // As far as can be told without MPI: rank 0 of a job of unknown size passes for a single one.
  bool several() const { return ranks > 1 || rank > 0; }
};

Launcher find_launcher(const Environment& environment);
Launcher find_launcher();  // in this process's environment

}  // namespace smoe
