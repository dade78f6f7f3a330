// smoe: trains sparse mixture-of-experts language models of the Mixtral family.
//
// Exit status: 0 done, 1 failed with a message, 2 wrong usage or configuration, 18 stopped by a signal after saving.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "configs/config_error.h"
#include "configs/suggest.h"
#include "data/files/printable.h"
#include "kernels/arena.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/job.h"
#include "launch/version.h"
#include "parallel/comm/agreement.h"

namespace smoe {
namespace {

enum ExitStatus { failed = 1, wrong_usage = 2 };

void tell(const Job& job, std::string_view message) {
  if (job.is_root()) fmt::print(stderr, "smoe: error: {}\n", printable(message));
}

// Arguments that make no sense, to a command that does without the others. Most often all ranks were given the same: rank
// 0 says so, and its launcher ends the rest. A rank that is still there was given others, and speaks for itself; where the
// launcher is none of ours, it may well leave all of them there.
int refuse_alone(const Job& job, std::string_view message) {
  if (!job.is_root()) std::this_thread::sleep_for(std::chrono::seconds(2));
  if (job.is_root() || job.launcher().joinable) fmt::print(stderr, "smoe: error: {}\n", printable(message));
  return wrong_usage;
}

// Arguments that make no sense. All ranks were given the same, or should have been: those that were not are waiting
// where the others would first agree, and learn it there.
int refuse(Job& job, const std::string& message) {
  if (!job.is_shared()) return refuse_alone(job, message);
  try {
    job.agree("launch.configuration", [&] { throw UsageError(message); });
  } catch (const std::exception& error) {
    tell(job, error.what());
  }
  return wrong_usage;
}

// A failure at work may be one rank's alone, while the others wait for it: it takes them along. Rank 0 goes first,
// so that a failure of all is told once.
int fail(Job& job, std::string_view message) {
  if (!job.is_root()) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const std::string rank = job.launcher().several() ? fmt::format(" (rank {})", job.launcher().rank) : "";
  fmt::print(stderr, "smoe: error{}: {}\n", rank, printable(message));
  if (MpiSession* const session = job.joined(); session && session->size() > 1) session->abort(failed);
  return failed;
}

// The parser would blame the arguments that follow an unknown command.
void check_command(const CommandLine& line, int argc, char** argv) {
  std::vector<std::string> names;
  for (const Command& command : line.commands()) names.push_back(command.name());
  const std::string list = fmt::format("{}", fmt::join(names, ", "));
  if (argc < 2) throw UsageError(fmt::format("no command given, expected one of {}; smoe --help tells more", list));
  const std::string given = argv[1];
  if (given.starts_with('-') || std::find(names.begin(), names.end(), given) != names.end()) return;
  throw UsageError(
      fmt::format("unknown command '{}', expected one of {}{}", given, list, did_you_mean(nearest(given, names))));
}

// Only training, sweeps of it, its verification and a trace of it spread over ranks; the other commands would do the same work, and write
// the same files, in each. They are refused without MPI, which they never touch. `bench` decides by its options.
void keep_to_one_rank(const CommandLine& line, Job& job) {
  for (const Command& command : line.commands()) {
    if (command.name() == "train" || command.name() == "sweep" || command.name() == "verify")
      command.before_parsing([&job] { job.be_shared(); });
    else if (command.name() != "bench")
      command.before_parsing([name = command.name(), &job] { job.be_alone(name); });
  }
}

int run(int argc, char** argv, Job& job) {
  CommandLine line("smoe trains sparse mixture-of-experts language models of the Mixtral family.", "smoe",
                   fmt::format("smoe {}", version()));
  add_prepare_command(line);
  add_train_command(line, job);
  add_sweep_command(line, job);
  add_verify_command(line, job);
  add_eval_command(line);
  add_generate_command(line);
  add_logits_command(line);
  add_analyze_command(line);
  add_bench_command(line, job);
  add_report_command(line);
  add_units_command(line);
  add_upcycle_command(line);
  add_merge_command(line);
  add_resize_command(line);
  add_unavailable_commands(line);
  keep_to_one_rank(line, job);
  try {
    check_command(line, argc, argv);
    if (const int status = line.run(argc, argv, job.is_root()); status != 0) return status;
    // A full disk shows only when the last of the output leaves its buffer.
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      throw std::runtime_error("standard output could not be written to its end (a full disk?)");
    return 0;
  } catch (const SharedFailure& failure) {  // every rank has this one
    tell(job, failure.what());
    return failure.status();
  } catch (const UsageError& error) {
    return refuse(job, error.what());
  } catch (const ConfigError& error) {
    return refuse(job, error.what());
  } catch (const OutOfMemory& error) {
    return fail(job, error.what());
  } catch (const std::bad_alloc&) {
    return fail(job, "out of memory");
  } catch (const std::exception& error) {
    return fail(job, error.what());
  }
}

}  // namespace
}  // namespace smoe

int main(int argc, char** argv) {
  try {
    smoe::Job job(smoe::find_launcher());
    return smoe::run(argc, argv, job);
  } catch (const std::exception& error) {  // outside of any command
    fmt::print(stderr, "smoe: error: {}\n", smoe::printable(error.what()));
    return smoe::failed;
  }
}
