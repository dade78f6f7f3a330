// What `smoe train` does once the configuration is valid: wiring only.
#include <fmt/format.h>

#include <filesystem>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "configs/validate.h"
#include "configs/yaml_printer.h"
#include "data/files/printable.h"
#include "launch/commands.h"
#include "launch/run_plan.h"
#include "model/freeze.h"
#include "model/mixtral.h"
#include "parallel/mesh.h"
#include "trainer/activation_memory.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/corpus.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/layout_check.h"
#include "trainer/machine.h"
#include "trainer/signals.h"
#include "trainer/trainer.h"

namespace smoe {
namespace {

// Opens what is there; what is not is told, because a plan is often made before the data.
void describe_data(const RunConfig& config) {
  const auto shards = std::make_shared<OpenShards>();
  const auto tell = [&](const char* key, const std::vector<DataSource>& sources) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
      if (!std::filesystem::exists(std::filesystem::path(sources[i].path) / "manifest.json")) {
        fmt::print("data.{}.{}: {} holds no token shards yet (smoe prepare makes them)\n", key, i, printable(sources[i].path));
        continue;
      }
      const auto opened = open_sources({sources[i]}, config.data.sequence_length, config.data.document_masking,
                                       {.vocab_size = config.model.vocab_size, .model_directory = {}, .shards = shards});
      fmt::print("data.{}.{}: {}: {} samples of {} tokens\n", key, i, printable(opened[0].name), opened[0].dataset->samples(), config.data.sequence_length);
    }
  };
  tell("train", config.data.train);
  tell("eval", config.data.eval);
}

// Computes a micro-batch where memory allows it, with weights of chance.
void describe(const RunConfig& config, const TrainerConfig& run, const Mesh& mesh, int threads, Job& job) {
  const LongWork work(job.session(), "describing the run");  // hashes of the data
  const Layout& layout = mesh.layout();
  job.agree("launch.dry_run", [&] {
    if (job.is_root()) fmt::print("{}", describe_run(config, layout, job.ranks_on_node()));
  });
  const MicroBatchShape micro_batch = micro_batch_of(config.train, config.data);
  const std::vector<std::string> frozen = frozen_patterns(config.router, config.train.freeze);
  const std::uint64_t state = training_state_bytes(config.model, layout, frozen, config.train.type());
  const std::uint64_t needed = state + estimated_activation_bytes(config.model, micro_batch, layout);
  double too_much = needed * static_cast<std::uint64_t>(job.ranks_on_node()) > usable_memory_bytes();
  mesh.group(Axis::world).all_reduce(std::span(&too_much, 1), Reduce::max, "launch.too_much");
  if (too_much == 0) {
    TrainingParts parts(make_backend(config.train.device, threads), config.model, run, mesh, frozen);
    parts.model->parameters().initialize(*parts.backend, static_cast<std::uint64_t>(run.train.seed), parts.optimizer->keeps_masters());
    const std::uint64_t measured = rehearse(*parts.step, micro_batch, mesh);
    if (job.is_root()) fmt::print("{}", describe_rehearsal(measured));
  }
  job.agree("launch.data", [&] {
    if (job.is_root()) describe_data(config);
  });
}

// As a key's value is found unfit, though only the model's names tell.
void require_trainable(const RunConfig& config) {
  const auto frozen = frozen_patterns(config.router, config.train.freeze);
  if (frozen.empty()) return;
  try {
    check_frozen(declare_parameters(config.model, Mesh::single(), frozen), frozen);
  } catch (const std::runtime_error& error) {
    throw UsageError(error.what());
  }
}

}  // namespace

RunConfig resolve_model(RunConfig config) {
  if (const auto from = config.model.from) {
    const std::filesystem::path directory = find_model_directory(*from);
    config.model = read_hf_config(directory, config.model).model;
    validate(config, (directory / "config.json").string());
    config.model.from = from;
  }
  require_trainable(config);
  return config;
}

Layout layout_of(const RunConfig& config, int ranks) {
  return {.ranks = ranks, .tp = static_cast<int>(config.parallel.tp), .ep = static_cast<int>(config.parallel.ep)};
}

int run_training(const RunConfig& given, const TrainingOptions& options, Job& job) {
  RunConfig config;
  Layout layout;
  job.agree("launch.layout", [&] {
    config = resolve_model(given);
    layout = layout_of(config, job.ranks());
    try {
      require_layout(config.model, {config.data.sequence_length, config.train.global_batch_size, config.train.micro_batch_size}, layout);
    } catch (const std::runtime_error& error) {
      throw UsageError(error.what());
    }
  });
  job.set_timeout(config.parallel.timeout);
  TrainerConfig run{.model = config.model,
                    .router = config.router,
                    .data = config.data,
                    .optimizer = config.optimizer,
                    .schedule = config.schedule,
                    .train = config.train,
                    .checkpoint = config.checkpoint,
                    .eval = config.eval,
                    .log = config.log,
                    .resolved_yaml = print_yaml(given),
                    .ranks_on_node = job.ranks_on_node()};
  const int threads = job.claim_threads(config.train.threads);
  const Mesh mesh = job.mesh_of(layout);
  if (options.dry_run) {
    describe(config, run, mesh, threads, job);
    return 0;
  }
  Trainer trainer(assemble(std::move(run), mesh, make_backend(config.train.device, threads)));
  return trainer.run().end == RunEnd::stopped ? preempted_status : 0;
}

}  // namespace smoe
