// smoe bench CONFIG.yaml [key=value ...] [--json] [--steps N] [--threads N]
#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "configs/yaml_reader.h"
#include "kernels/tensor.h"
#include "kernels/yardstick.h"
#include "launch/commands.h"
#include "launch/run_plan.h"
#include "model/freeze.h"
#include "parallel/cores.h"
#include "trainer/activation_memory.h"
#include "trainer/machine.h"
#include "trainer/record/progress.h"
#include "trainer/step_profile_text.h"

namespace smoe {
namespace {

struct BenchArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::int64_t steps = 5;
  std::int64_t threads = 0;
  bool json = false;
};

void bench(const BenchArguments& arguments, bool threads_given) {
  const RunConfig config = resolve_model(read_config(arguments.config, arguments.overrides));
  const Layout one_rank{};
  const TrainConfig& train = config.train;
  if (train.device == DeviceChoice::check)
    throw UsageError(
        "train.device: found check, expected auto, cpu or cuda: the time of two backends is that of neither");
  const Device device = device_of(train.device);
  require_computable(config.model, device);
  require_memory(
      config.model, room_on(device),
      training_state_bytes(config.model, one_rank, frozen_patterns(config.router, train.freeze), train.type()) +
          estimated_activation_bytes(config.model, micro_batch_of(train, config.data), one_rank) +
          Yardstick::bytes_on(device),
      "weights, gradients, moments, activations and the arrays that rates are measured on",
      ", or a smaller train.micro_batch_size");
  Progress progress({.label = "bench", .unit = "step", .total = arguments.steps + 2});
  const StepProfile profile =
      profile_step({.model = config.model,
                    .router = config.router,
                    .freeze = train.freeze,
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

}  // namespace

void add_bench_command(CommandLine& line) {
  const auto arguments = std::make_shared<BenchArguments>();
  const Command command = line.command(
      "bench", "times a configuration's training step op by op, against what the cores and the memory can do");
  command.path("CONFIG", arguments->config, "YAML file; its data is not read: tokens and weights are random")
      .required();
  command.option("key=value", arguments->overrides, "overrides, as in train.micro_batch_size=8");
  command.option("--steps", arguments->steps, "steps that are timed, of one micro-batch and one update each")
      .range(1, 1000)
      .show_default();
  const Option threads =
      command.option("--threads", arguments->threads, fmt::format("{}; default: train.threads", threads_help))
          .range(0, 4096);
  command.flag("--json", arguments->json, "one JSON object on stdout");
  command.runs([arguments, threads] { bench(*arguments, threads.given()); });
}

}  // namespace smoe
