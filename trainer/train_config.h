// The run itself: how long, how large a batch, where results land, when to save, evaluate and log.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/tensor.h"
#include "model/recompute.h"

namespace smoe {

inline constexpr auto choices(DeviceChoice) {
  return std::array<std::pair<DeviceChoice, std::string_view>, 4>{{{DeviceChoice::automatic, "auto"},
                                                                   {DeviceChoice::cpu, "cpu"},
                                                                   {DeviceChoice::cuda, "cuda"},
                                                                   {DeviceChoice::check, "check"}}};
}

enum class PrecisionChoice { automatic, fp32, bf16 };  // automatic: fp32 on cpu, bf16 on cuda

inline constexpr auto choices(PrecisionChoice) {
  return std::array<std::pair<PrecisionChoice, std::string_view>, 3>{
      {{PrecisionChoice::automatic, "auto"}, {PrecisionChoice::fp32, "fp32"}, {PrecisionChoice::bf16, "bf16"}}};
}
// "auto", "cpu", "cuda" or "check".
inline DeviceChoice device_named(std::string_view wanted) {
  for (const auto& [choice, name] : choices(DeviceChoice()))
    if (name == wanted) return choice;
  throw std::logic_error("no device is called " + std::string(wanted));
}
// "auto", "fp32" or "bf16".
inline PrecisionChoice precision_named(std::string_view wanted) {
  for (const auto& [choice, name] : choices(PrecisionChoice()))
    if (name == wanted) return choice;
  throw std::logic_error("no precision is called " + std::string(wanted));
}
// Of the weights and activations.
constexpr DType type_of(PrecisionChoice choice, Device device) {
  const bool half = choice == PrecisionChoice::bf16 || (choice == PrecisionChoice::automatic && device == Device::cuda);
  return half ? DType::bf16 : DType::f32;
}

enum class ExportType { of_run, fp32, bf16 };  // of the weights in a checkpoint's model/

inline constexpr auto choices(ExportType) {
  return std::array<std::pair<ExportType, std::string_view>, 3>{
      {{ExportType::of_run, "null"}, {ExportType::fp32, "fp32"}, {ExportType::bf16, "bf16"}}};
}

struct TrainConfig {
  std::int64_t steps = 1000;            // 0 writes the starting checkpoint and ends
  std::optional<double> epochs;         // in place of steps: passes over all sequences of data.train (trainer/corpus.h)
  std::int64_t global_batch_size = 32;  // sequences a step, over all ranks
  std::int64_t micro_batch_size = 4;    // sequences a rank computes at once
  std::int64_t seed = 1;
  DeviceChoice device = DeviceChoice::automatic;
  PrecisionChoice precision = PrecisionChoice::automatic;
  std::vector<std::string> freeze;  // patterns of the names of parameters that are not trained (model/freeze.h)
  std::int64_t threads = 0;         // 0: the rank's part of the cores that it may use (parallel/cores.h)
  Recompute recompute = Recompute::none;
  double label_smoothing = 0;  // share of a target's loss that is to the uniform distribution (trainer/objective.h)
  double neftune_alpha = 0;    // noise on embeddings while training (trainer/embedding_noise.h); 0: none
  std::int64_t max_skipped_steps = 5;  // refused steps in a row before the run stops
  std::optional<double>
      outlier_deviations;  // refuses steps whose loss or gradient norm is so many above (trainer/outliers.h)
  std::string output_dir;  // empty: runs/NAME, NAME being the configuration file's without its extension

  // Of weights and activations.
  DType type() const { return type_of(precision, device_of(device)); }

  // Relations between fields that do not hold: key -> what is wrong.
  std::map<std::string, std::string> problems() const {
    std::map<std::string, std::string> found;
    if (global_batch_size % micro_batch_size != 0) {
      found["global_batch_size"] = "found " + std::to_string(global_batch_size) +
                                   ", expected a multiple of micro_batch_size (" + std::to_string(micro_batch_size) +
                                   ") times the number of data-parallel ranks";
    }
    return found;
  }

  bool operator==(const TrainConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.integer("steps", self.steps, "[0, 1000000000]");
    visit.number("epochs", self.epochs, "(0, inf)");
    visit.integer("global_batch_size", self.global_batch_size, "[1, 16777216]");
    visit.integer("micro_batch_size", self.micro_batch_size, "[1, 16777216]");
    visit.integer("seed", self.seed, "[0, 9223372036854775807]");
    visit.choice("device", self.device);
    visit.choice("precision", self.precision);
    visit.texts("freeze", self.freeze);
    visit.integer("threads", self.threads, "[0, 4096]");
    visit.choice("recompute", self.recompute, {Recompute::expert});
    visit.number("label_smoothing", self.label_smoothing, "[0, 1)");
    visit.number("neftune_alpha", self.neftune_alpha, "[0, inf)");
    visit.integer("max_skipped_steps", self.max_skipped_steps, "[1, 1000000000]");
    visit.number("outlier_deviations", self.outlier_deviations, "(0, inf)");
    visit.path("output_dir", self.output_dir);
  }
};

struct CheckpointConfig {
  std::int64_t interval = 500;  // steps
  std::int64_t keep = 2;        // the latest so many are kept
  std::string resume = "auto";  // auto: from the latest checkpoint if there is one; never; or a checkpoint's path
  ExportType export_dtype = ExportType::of_run;
  std::int64_t max_shard_bytes = 5'000'000'000;  // of a file of tensors; a larger tensor has one of its own

  bool operator==(const CheckpointConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.integer("interval", self.interval, "[1, 1000000000]");
    visit.integer("keep", self.keep, "[1, 1000000]");
    visit.path("resume", self.resume);
    visit.choice("export_dtype", self.export_dtype);
    visit.integer("max_shard_bytes", self.max_shard_bytes, "[1, 9223372036854775807]");
  }
};

struct EvalConfig {
  std::int64_t interval = 500;  // steps
  std::int64_t batches = 50;    // batches of every source an evaluation

  bool operator==(const EvalConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.integer("interval", self.interval, "[1, 1000000000]");
    visit.integer("batches", self.batches, "[1, 1000000000]");
  }
};

struct LogConfig {
  std::int64_t interval = 10;  // steps
  bool tensorboard = true;
  std::optional<std::int64_t>
      probe_sequences;  // held-out ones by which routers' changes are told (trainer/router_probe.h); 0: none
  std::vector<std::int64_t> dump_steps;  // steps, the first is 1, whose gradients and updated weights are written out
  std::int64_t idle_expert_steps = 100;  // with next to no assignment, after which an expert is warned of; 0: never

  bool operator==(const LogConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.integer("interval", self.interval, "[1, 1000000000]");
    visit.flag("tensorboard", self.tensorboard);
    visit.integer("probe_sequences", self.probe_sequences, "[0, 65536]");
    visit.integers("dump_steps", self.dump_steps, "[1, 1000000000]");
    visit.integer("idle_expert_steps", self.idle_expert_steps, "[0, 1000000000]");
  }
};

}  // namespace smoe
