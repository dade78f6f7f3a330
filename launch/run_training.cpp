// What `smoe train` does once the configuration is valid: wiring only.
#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "configs/validate.h"
#include "configs/yaml_printer.h"
#include "data/files/printable.h"
#include "kernels/backend.h"
#include "launch/commands.h"
#include "launch/run_plan.h"
#include "model/freeze.h"
#include "model/mixtral.h"
#include "parallel/mesh.h"
#include "trainer/activation_memory.h"
#include "trainer/checkpoint/adapters.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/corpus.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/layout_check.h"
#include "trainer/machine.h"
#include "trainer/same_device.h"
#include "trainer/signals.h"
#include "trainer/trainer.h"

namespace smoe {
namespace {

// Opens what is there, as the run would; what is not is told, because a plan is often made before the data.
void describe_data(const RunConfig& config) {
  DataConfig there = config.data;
  const auto leave_out_missing = [](const char* key, std::vector<DataSource>& sources) {
    std::vector<std::string> keys;  // of what is left
    std::vector<DataSource> left;
    for (std::size_t i = 0; i < sources.size(); ++i)
      if (std::filesystem::exists(std::filesystem::path(sources[i].path) / "manifest.json")) {
        keys.push_back(fmt::format("data.{}.{}", key, i));
        left.push_back(sources[i]);
      } else {
        fmt::print("data.{}.{}: {} holds no token shards yet (smoe prepare makes them)\n", key, i,
                   printable(sources[i].path));
      }
    sources = std::move(left);
    return keys;
  };
  const std::vector<std::string> train = leave_out_missing("train", there.train),
                                 eval = leave_out_missing("eval", there.eval);
  const std::filesystem::path from =
      config.model.from ? find_model_directory(*config.model.from) : std::filesystem::path();
  const auto corpus = open_corpus(
      there,
      {.vocab_size = config.model.vocab_size, .model_directory = from, .epochs = config.train.epochs.has_value()});
  const auto tell = [&](const std::vector<std::string>& keys, const std::vector<Source>& sources) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
      fmt::print("{}: {}: {} samples of {} tokens\n", keys[i], printable(sources[i].name),
                 sources[i].dataset->samples(), config.data.sequence_length);
      if (const std::string packing = describe_packing(sources[i]); !packing.empty())
        fmt::print("{}: {}\n", keys[i], printable(packing));
    }
  };
  tell(train, corpus->train);
  tell(eval, corpus->eval);
  if (const auto epochs = config.train.epochs;
      epochs && !corpus->train.empty() && corpus->train.size() == config.data.train.size()) {
    const std::int64_t sequences = sequences_of(corpus->train), batch = config.train.global_batch_size;
    fmt::print("train.epochs: {} of {} sequences: {} steps\n", *epochs, sequences,
               steps_of_epochs(*epochs, sequences, batch));
  }
}

// Computes a micro-batch where memory allows it, with weights of chance.
void describe(const RunConfig& config, const TrainerConfig& run, const Mesh& mesh, std::unique_ptr<Backend> backend,
              Job& job) {
  const LongWork work(job.session(), "describing the run");  // hashes of the data
  const Layout& layout = mesh.layout();
  job.agree("launch.device", [&] { require_computable(config.model, backend->device()); });
  const MicroBatchShape micro_batch = micro_batch_of(config.train, config.data, config.router);
  const std::vector<std::string> frozen = frozen_patterns(config.router, config.train.freeze);
  const std::uint64_t state =
      training_state_bytes(config.model, layout, frozen, config.train.type(), pointer_to(config.lora));
  const std::uint64_t needed =
      state + estimated_activation_bytes(config.model, micro_batch, layout, pointer_to(config.lora));
  double too_much = !room_on(backend->device(), run.ranks_sharing_memory).holds(needed);
  mesh.group(Axis::world).all_reduce(std::span(&too_much, 1), Reduce::max, "launch.too_much");
  if (too_much == 0) {
    TrainingParts parts(std::move(backend), config.model, run, mesh, frozen);
    parts.model->parameters().initialize(*parts.backend, static_cast<std::uint64_t>(run.train.seed),
                                         parts.optimizer->keeps_masters());
    const std::uint64_t measured = rehearse(*parts.step, micro_batch, mesh);
    if (job.is_root()) fmt::print("{}", describe_rehearsal(measured));
  }
  job.agree("launch.data", [&] {
    if (job.is_root()) describe_data(config);
  });
}

// What lora.from has is read before anything is computed, where a run would begin with it.
void require_adapters(const RunConfig& config) {
  if (!config.lora || !config.lora->from) return;
  const std::filesystem::path output = config.train.output_dir;
  const bool begins =
      config.checkpoint.resume == "never" ||
      (config.checkpoint.resume == "auto" && (output.empty() || !latest_checkpoint(RunPaths{output}.checkpoints())));
  if (begins) find_adapters_to_go_on_from(*config.lora, config.model);
}

// As a key's value is found unfit, though only the model's names tell.
void require_trainable(const RunConfig& config) {
  const auto frozen = frozen_patterns(config.router, config.train.freeze);
  if (frozen.empty()) return;
  try {
    check_frozen(declare_parameters(config.model, Mesh::single(), frozen, DType::f32, pointer_to(config.lora)), frozen);
  } catch (const std::runtime_error& error) {
    throw UsageError(error.what());
  }
}

}  // namespace

RunConfig resolve_model(RunConfig config) {
  if (const auto from = config.model.from) {
    const std::filesystem::path directory = find_model_directory(*from);
    config.model = read_hf_config(directory, config.model).model;
    validate(config, hf_config_file(directory).string());
    config.model.from = from;
  }
  require_trainable(config);
  return config;
}

Layout layout_of(const RunConfig& config, int ranks) {
  return {.ranks = ranks, .tp = static_cast<int>(config.parallel.tp), .ep = static_cast<int>(config.parallel.ep)};
}

void require_layout_of(const RunConfig& config, int ranks) {
  try {
    require_layout(config.model,
                   {config.data.sequence_length, config.train.global_batch_size, config.train.micro_batch_size},
                   layout_of(config, ranks));
  } catch (const std::runtime_error& error) {
    throw UsageError(error.what());
  }
}

int run_training(const RunConfig& given, const TrainingOptions& options, Job& job) {
  RunConfig config;
  Layout layout;
  job.agree("launch.layout", [&] {
    config = resolve_model(given);
    layout = layout_of(config, job.ranks());
    require_layout_of(config, job.ranks());
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
                    .lora = config.lora,
                    .resolved_yaml = print_yaml(given),
                    .quiet = options.quiet,
                    .ranks_on_node = job.ranks_on_node()};
  const int threads = job.claim_threads(config.train.threads);
  job.claim_device(config.train.device);
  if (config.train.device == DeviceChoice::automatic)
    require_same_device(job.world(), device_of(config.train.device), cuda_missing());
  run.ranks_sharing_memory = job.ranks_sharing_memory(device_of(config.train.device));
  if (options.dry_run)  // what can be said of it before there is a device
    job.agree("launch.dry_run", [&] {
      require_adapters(config);
      if (job.is_root()) fmt::print("{}", describe_run(config, layout, run.ranks_sharing_memory));
    });
  std::unique_ptr<Backend> backend;
  job.agree("launch.device", [&] { backend = make_backend(config.train.device, threads); });
  const Mesh mesh = job.mesh_of(layout, {backend->device(), config.parallel.transport});
  if (options.dry_run) {
    describe(config, run, mesh, std::move(backend), job);
    return 0;
  }
  RunParts parts = assemble(std::move(run), mesh, std::move(backend), options.corpus ? *options.corpus : nullptr);
  if (options.corpus) *options.corpus = parts.corpus;
  if (options.assembled) options.assembled(parts);
  Trainer trainer(std::move(parts));
  try {
    return trainer.run().end == RunEnd::stopped ? preempted_status : 0;
  } catch (const std::exception& error) {
    mesh.end_job_of_one(error);
    throw;
  }
}

}  // namespace smoe
