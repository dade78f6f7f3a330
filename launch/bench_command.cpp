// smoe bench CONFIG.yaml [key=value ...] [--json] [--steps N] [--threads N] [--trace FILE]
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "configs/yaml_printer.h"
#include "configs/yaml_reader.h"
#include "data/files/files.h"
#include "data/files/printable.h"
#include "kernels/tensor.h"
#include "kernels/yardstick.h"
#include "launch/commands.h"
#include "launch/run_plan.h"
#include "model/freeze.h"
#include "parallel/cores.h"
#include "trainer/activation_memory.h"
#include "trainer/layout_check.h"
#include "trainer/machine.h"
#include "trainer/record/progress.h"
#include "trainer/same_device.h"
#include "trainer/step_profile_text.h"
#include "trainer/step_trace.h"

namespace smoe {
namespace {

struct BenchArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::int64_t steps = 5;
  std::int64_t threads = 0;
  bool json = false;
  std::string trace;
};

void require_one_device(DeviceChoice choice) {
  if (choice == DeviceChoice::check)
    throw UsageError(
        "train.device: found check, expected auto, cpu or cuda: the time of two backends is that of neither");
}

void bench(const BenchArguments& arguments, bool threads_given) {
  const RunConfig config = resolve_model(read_config(arguments.config, arguments.overrides));
  const Layout one_rank{};
  const TrainConfig& train = config.train;
  require_one_device(train.device);
  const Device device = device_of(train.device);
  require_computable(config.model, device);
  require_memory(config.model, room_on(device),
                 training_state_bytes(config.model, one_rank, frozen_patterns(config.router, train.freeze),
                                      train.type(), pointer_to(config.lora)) +
                     estimated_activation_bytes(config.model, micro_batch_of(train, config.data, config.router),
                                                one_rank, pointer_to(config.lora)) +
                     Yardstick::bytes_on(device),
                 "weights, gradients, moments, activations and the arrays that rates are measured on",
                 ", or a smaller train.micro_batch_size");
  Progress progress({.label = "bench", .unit = "step", .total = arguments.steps + 2});
  const StepProfile profile =
      profile_step({.model = config.model,
                    .router = config.router,
                    .freeze = train.freeze,
                    .lora = config.lora,
                    .optimizer = config.optimizer,
                    .recompute = train.recompute,
                    .device = train.device,
                    .precision = train.precision,
                    .sequence_length = config.data.sequence_length,
                    .micro_batch_size = train.micro_batch_size,
                    .micro_batches = train.global_batch_size / train.micro_batch_size,
                    .steps = arguments.steps,
                    .threads = claim_threads(threads_given ? arguments.threads : train.threads),
                    .on_progress = [&](std::int64_t done, std::int64_t) { progress.update(done); }});
  progress.finish();
  fmt::print("{}", arguments.json ? to_json_line(profile) : describe(profile));
}

// A file that cannot be written is found out before the step is computed. What it was is still there if that fails.
void require_writable(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path))
    throw std::runtime_error(fmt::format("cannot write {}: it is a directory", path.string()));
  const AtomicFile attempt(path);
}

// One step on all ranks, divided as in training.
void trace(const BenchArguments& arguments, bool threads_given, Job& job) {
  RunConfig config;
  Layout layout;
  job.agree("launch.configuration", [&] {
    config = resolve_model(read_config(arguments.config, arguments.overrides));
    require_one_device(config.train.device);
  });
  job.require_same_everywhere(fmt::format("bench {} {}\n{}", arguments.trace, arguments.threads, print_yaml(config)));
  const TrainConfig& train = config.train;
  job.agree("launch.layout", [&] {
    layout = layout_of(config, job.ranks());
    try {
      require_layout(config.model, {config.data.sequence_length, train.global_batch_size, train.micro_batch_size},
                     layout);
    } catch (const std::runtime_error& error) {
      throw UsageError(error.what());
    }
    if (job.is_root()) require_writable(arguments.trace);
  });
  job.set_timeout(config.parallel.timeout);
  const int threads = job.claim_threads(threads_given ? arguments.threads : train.threads);
  job.claim_device(train.device);
  const Device device = device_of(train.device);
  if (train.device == DeviceChoice::automatic) require_same_device(job.world(), device, cuda_missing());
  const int sharing = job.ranks_sharing_memory(device);
  std::unique_ptr<Backend> backend;
  job.agree("launch.device", [&] {
    require_computable(config.model, device);
    require_memory(config.model, room_on(device, sharing),
                   training_state_bytes(config.model, layout, frozen_patterns(config.router, train.freeze),
                                        train.type(), pointer_to(config.lora)) +
                       estimated_activation_bytes(config.model, micro_batch_of(train, config.data, config.router),
                                                  layout, pointer_to(config.lora)),
                   "weights, gradients, moments and activations", ", or a smaller train.micro_batch_size");
    backend = make_backend(train.device, threads);
  });
  const Mesh mesh = job.mesh_of(layout, {device, config.parallel.transport});
  const StepTrace traced = trace_step({.model = config.model,
                                       .router = config.router,
                                       .data = config.data,
                                       .optimizer = config.optimizer,
                                       .schedule = config.schedule,
                                       .train = train,
                                       .checkpoint = config.checkpoint,
                                       .eval = config.eval,
                                       .log = config.log,
                                       .lora = config.lora,
                                       .resolved_yaml = {}},
                                      mesh, std::move(backend));
  job.agree("launch.trace", [&] {
    if (job.is_root()) write_file_atomically(arguments.trace, traced.file);
  });
  if (job.is_root())
    fmt::print("{}: one step of {} rank(s), {}; https://ui.perfetto.dev and chrome://tracing open it\n{}",
               printable(arguments.trace), job.ranks(), layout.to_string(), describe(traced));
}

}  // namespace

void add_bench_command(CommandLine& line, Job& job) {
  const auto arguments = std::make_shared<BenchArguments>();
  const Command command = line.command(
      "bench", "times a configuration's training step op by op, against what the cores and the memory can do");
  command.path("CONFIG", arguments->config, "YAML file; its data is not read: tokens and weights are random")
      .required();
  command.option("key=value", arguments->overrides, "overrides, as in train.micro_batch_size=8");
  const Option steps =
      command.option("--steps", arguments->steps, "steps that are timed, of one micro-batch and one update each")
          .range(1, 1000)
          .show_default();
  const Option threads =
      command.option("--threads", arguments->threads, fmt::format("{}; default: train.threads", threads_help))
          .range(0, 4096);
  const Option json = command.flag("--json", arguments->json, "one JSON object on stdout");
  const Option file =
      command
          .path(
              "--trace", arguments->trace,
              "instead: one step op by op, of each rank (mpirun -n N), into this file, a timeline for ui.perfetto.dev")
          .excludes(json)
          .excludes(steps);
  command.runs([arguments, threads, file, &job] {
    if (!file.given()) {
      job.be_alone("bench", ", or let it trace a step over all ranks: --trace FILE");
      return bench(*arguments, threads.given());
    }
    job.be_shared();
    trace(*arguments, threads.given(), job);
  });
}

}  // namespace smoe
