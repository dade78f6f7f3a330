#include "parallel/comm/launcher.h"

#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <system_error>

namespace smoe {
namespace {

class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  bool has(const char* name) const { return environment_(name) != nullptr; }
  // A whole number from 0; nothing where the variable is not set, or holds something else.
  std::optional<long> number(const char* name) const {
    const char* const value = environment_(name);
    if (!value) return std::nullopt;
    const std::string_view text = value;
    long number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < 0) return std::nullopt;
    return number;
  }
  int number(const char* name, int otherwise) const { return static_cast<int>(number(name).value_or(otherwise)); }

 private:
  const Environment& environment_;
};

// Tasks of the job step of Slurm that this process is in. The batch script, the shell of salloc and what the nodes run
// for themselves are steps too, of one task, with numbers from the very end.
int tasks_of_slurm_step(const Variables& variables) {
  constexpr long first_special_step = 0xfffffff0;
  const auto step = variables.number("SLURM_STEP_ID");
  if (!step || *step >= first_special_step || !variables.has("SLURM_PROCID")) return 1;
  return variables.number("SLURM_STEP_NUM_TASKS", variables.number("SLURM_NTASKS", 1));
}

int tasks_of_flux_job(const Variables& variables) {
  return variables.has("FLUX_TASK_RANK") ? variables.number("FLUX_JOB_SIZE", 1) : 1;
}

}  // namespace

Launcher find_launcher(const Environment& environment) {
  const Variables variables(environment);
  const int slurm_tasks = tasks_of_slurm_step(variables), flux_tasks = tasks_of_flux_job(variables);
  if (const auto ranks = variables.number("OMPI_COMM_WORLD_SIZE"); ranks && *ranks > 0)
    return {variables.number("OMPI_COMM_WORLD_RANK", 0), static_cast<int>(*ranks), "mpirun", true};
  if (const auto rank = variables.number("PMIX_RANK"); rank && variables.has("PMIX_NAMESPACE")) {
    if (variables.has("SLURM_STEP_ID")) return {static_cast<int>(*rank), slurm_tasks, "srun", true};
    if (variables.has("FLUX_TASK_RANK")) return {static_cast<int>(*rank), flux_tasks, "flux run", true};
    return {static_cast<int>(*rank), 0, "a PMIx launcher", true};
  }
  const int pmi_size = variables.number("PMI_SIZE", 1), pmi_rank = variables.number("PMI_RANK", 0);
  if (pmi_size > 1 && variables.has("FLUX_JOB_ID") && variables.has("PMI_FD"))
    return {pmi_rank, pmi_size, "flux run", true};
  if (slurm_tasks > 1) return {variables.number("SLURM_PROCID", 0), slurm_tasks, "srun", false};
  if (flux_tasks > 1) return {variables.number("FLUX_TASK_RANK", 0), flux_tasks, "flux run", false};
  if (pmi_size > 1) return {pmi_rank, pmi_size, "the mpiexec of another MPI", false};
  return {};
}

Launcher find_launcher() {
  return find_launcher([](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace smoe
