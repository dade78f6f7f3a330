// What `smoe train` does once the configuration is valid: wiring only.
#include <fmt/format.h>

#include <filesystem>
#include <string>

#include "configs/validate.h"
#include "configs/yaml_printer.h"
#include "launch/commands.h"
#include "launch/run_plan.h"
#include "trainer/checkpoint.h"
#include "trainer/corpus.h"
#include "trainer/hf_config.h"
#include "trainer/trainer.h"

namespace smoe {
namespace {

// One process for now: a larger world is refused before anything is allocated or written.
void require_one_rank(const MpiSession& session) {
  if (session.size() == 1) return;
  throw UsageError(fmt::format("training over {} ranks is not available yet: start one process (mpirun -n 1, or no mpirun)", session.size()));
}

// The configuration with the shape that model.from stands for.
RunConfig resolve_model(RunConfig config) {
  if (!config.model.from) return config;
  const auto from = config.model.from;
  const std::filesystem::path directory = find_model_directory(*from);
  config.model = read_hf_config(directory).model;
  validate(config, (directory / "config.json").string());
  config.model.from = from;
  return config;
}

// Opens what is there; what is not is told, because a plan is often made before the data.
void describe_data(const RunConfig& config) {
  const auto tell = [&](const char* key, const std::vector<DataSource>& sources) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
      if (!std::filesystem::exists(std::filesystem::path(sources[i].path) / "manifest.json")) {
        fmt::print("data.{}.{}: {} holds no token shards yet (smoe prepare makes them)\n", key, i, sources[i].path);
        continue;
      }
      const auto opened = open_sources({sources[i]}, config.data.sequence_length, config.data.document_masking,
                                       {.vocab_size = config.model.vocab_size, .model_directory = {}});
      fmt::print("data.{}.{}: {}: {} samples of {} tokens\n", key, i, opened[0].name, opened[0].dataset->samples(), config.data.sequence_length);
    }
  };
  tell("train", config.data.train);
  tell("eval", config.data.eval);
}

}  // namespace

int run_training(const RunConfig& given, const TrainingOptions& options, MpiSession& session) {
  require_one_rank(session);
  const RunConfig config = resolve_model(given);
  if (options.dry_run) {
    fmt::print("{}", describe_run(config, session.size()));
    describe_data(config);
    return 0;
  }
  const Mesh mesh = Mesh::single();
  Trainer trainer({.model = config.model,
                   .router = config.router,
                   .data = config.data,
                   .optimizer = config.optimizer,
                   .schedule = config.schedule,
                   .train = config.train,
                   .checkpoint = config.checkpoint,
                   .eval = config.eval,
                   .log = config.log,
                   .resolved_yaml = print_yaml(given)},
                  mesh, static_cast<int>(config.train.threads));
  return trainer.run();
}

}  // namespace smoe
