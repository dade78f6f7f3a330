// The commands of smoe, one file each. add_X_command gives the parser its arguments and the callback that runs it.
//
// A callback that returns has done its work: status 0. It ends otherwise by throwing: UsageError or ConfigError for
// status 2, EndsWith(status) for a status of its own whose reason has been told, anything else for status 1.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "kernels/backend.h"
#include "launch/command_line.h"
#include "launch/job.h"
#include "parallel/layout.h"

namespace smoe {

struct Corpus;
struct RunParts;

void add_prepare_command(CommandLine& line);
void add_train_command(CommandLine& line, Job& job);
void add_sweep_command(CommandLine& line, Job& job);
void add_verify_command(CommandLine& line, Job& job);
void add_eval_command(CommandLine& line);
void add_generate_command(CommandLine& line);
void add_logits_command(CommandLine& line);
void add_analyze_command(CommandLine& line);
void add_bench_command(CommandLine& line, Job& job);
void add_report_command(CommandLine& line);
void add_units_command(CommandLine& line);
void add_upcycle_command(CommandLine& line);
void add_merge_command(CommandLine& line);
void add_resize_command(CommandLine& line);

inline constexpr const char* device_help =
    "auto: a GPU where there is one; check: a GPU, each operation held against the CPU's";
inline constexpr const char* adapter_help =
    "PEFT directory, checkpoint or run directory of adapters, which stand beside the model's weights";
inline constexpr const char* precision_help = "of weights and activations; auto: bf16 on a GPU, fp32 elsewhere";
// What --adapter asks for; empty: none.
std::filesystem::path adapter_of(const std::string& argument);
// What --device and --threads ask for. That it is two backends is told on standard error.
std::unique_ptr<Backend> backend_of(const std::string& device, std::int64_t threads);
// Help of --threads, and what parallel/cores.h decides where it is 0.
inline constexpr const char* threads_help =
    "0: one a core that the process may use (taskset, numactl), at most OMP_NUM_THREADS";

// A tokenizer.model that is named itself is taken as it stands, though its directory may add tokens to it: then this says
// so on standard error.
void warn_of_tokens_left_out(const std::string& tokenizer);
// What a tokenizer, or whoever read with it, found doubtful: a line each on standard error.
void tell_warnings(const std::vector<std::string>& warnings);

// Those of the interface that are still to come: listed as such, and refused with status 2.
void add_unavailable_commands(CommandLine& line);

struct TrainingOptions {
  bool dry_run = false;  // describe the run and end before its first step
  bool quiet = false;    // nothing on the terminal: the run's log has it
  // Of runs one after another: what the one before has opened, and then what this one has. May be null.
  std::shared_ptr<const Corpus>* corpus = nullptr;
  std::function<void(RunParts&)> assembled = {};  // called before the first step
};

// The configuration with the shape that model.from stands for; model.from stays, because weights come from there. Throws
// UsageError where what is frozen does not fit that model.
RunConfig resolve_model(RunConfig config);
// Throws UsageError where the (resolved) configuration does not fit that many ranks.
void require_layout_of(const RunConfig& config, int ranks);
// As many ranks, divided as the configuration says.
Layout layout_of(const RunConfig& config, int ranks);

// The run that a valid configuration describes. Returns the exit status: 0, or 18 where it was stopped by a signal
// after saving. A model that is taken `from` a directory is not resolved yet.
int run_training(const RunConfig& config, const TrainingOptions& options, Job& job);

}  // namespace smoe
