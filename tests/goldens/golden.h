// A golden file (make_goldens.py) and a Mixtral that starts from its weights.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "data/files/safetensors.h"
#include "kernels/host_view.h"
#include "model/mixtral.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "parallel/mesh.h"
#include "tests/support/deviation.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/source_folder.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/training_step.h"

namespace smoe {

using test::deviation;
using test::Worst;

inline const std::vector<std::string>& golden_names() {
  static const std::vector<std::string> names{"mixtral_gqa", "mixtral_odd", "mixtral_window"};
  return names;
}

// What a Hugging Face directory with these keys is read as.
inline ModelConfig model_of(Json keys) {
  const test::ScratchDir directory;
  keys["model_type"] = "mixtral";
  write_json_file(directory / "config.json", keys);
  return read_hf_config(directory.path()).model;
}

class GoldenFile {
 public:
  explicit GoldenFile(const std::string& name)
      : file(test::source_folder() + "/tests/goldens/" + name + ".safetensors") {
    const Json json = parse_json(file.metadata().at("config"), file.path());
    const JsonReader config(json, file.path());
    model = model_of(json.at("model"));
    router.aux_loss_scope = AuxLossScope::hf;
    router.aux_loss_coef = config.require_number("aux_loss_coef");

    const JsonReader o = config.require_object("optimizer");
    optimizer = {.learning_rate = o.require_number("learning_rate"),
                 .beta1 = o.require_number("beta1"),
                 .beta2 = o.require_number("beta2"),
                 .epsilon = o.require_number("epsilon"),
                 .weight_decay = o.require_number("weight_decay"),
                 .max_grad_norm = o.require_number("max_grad_norm")};
    const JsonReader s = config.require_object("schedule");
    schedule.type = ScheduleType::cosine;
    schedule.warmup_steps = s.require_int("warmup_steps", 0, 1000);
    schedule.min_lr_ratio = s.require_number("min_lr_ratio");
    steps = s.require_int("steps", 1, 1000);

    const std::vector<std::int64_t> shape = file.info("ids").shape;  // [steps, B, S]
    sequences = shape.at(1);
    sequence_length = shape.at(2);
    ids = column<std::int32_t>("ids", TensorType::i32);
    targets = column<std::int32_t>("targets", TensorType::i32);
  }

  // The step's sequences; steps count from 1.
  StepBatch batch(std::int64_t step) const {
    const auto tokens = static_cast<std::size_t>(sequences * sequence_length);
    const std::size_t first = static_cast<std::size_t>(step - 1) * tokens;
    return {.sequences = sequences,
            .sequence_length = sequence_length,
            .ids = std::span(ids).subspan(first, tokens),
            .targets = std::span(targets).subspan(first, tokens),
            .document_start = {}};
  }
  std::vector<float> values(const std::string& name) const {
    std::vector<float> out(static_cast<std::size_t>(file.info(name).elements()));
    file.read_f32(name, out.data(), 0, static_cast<std::int64_t>(out.size()));
    return out;
  }
  std::vector<double> by_step(const std::string& name) const { return column<double>("step." + name, TensorType::f64); }

  SafetensorsReader file;
  ModelConfig model;
  RouterConfig router;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  std::int64_t steps = 0, sequences = 0, sequence_length = 0;
  std::vector<std::int32_t> ids, targets;

 private:
  template <class T>
  std::vector<T> column(const std::string& name, TensorType type) const {
    if (file.info(name).type != type) throw std::runtime_error(file.path() + ": " + name + " has another type");
    const std::span<const std::byte> bytes = file.raw(name);
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
};

class GoldenModel {
 public:
  explicit GoldenModel(const GoldenFile& golden, Recompute recompute = Recompute::none)
      : GoldenModel(golden, golden.router, recompute, golden.sequences) {}
  GoldenModel(const GoldenFile& golden, const RouterConfig& router, Recompute recompute, std::int64_t micro_batch_size,
              DType type = DType::f32)
      : golden_(golden),
        backend(make_backend(DeviceChoice::automatic, 2)),
        persistent(*backend),
        model(golden.model, mesh, {}, {}, type) {
    model.allocate(*backend, persistent, golden.sequence_length, true);
    optimizer = std::make_unique<AdamW>(*backend, persistent, model.parameters(), mesh, golden.optimizer);
    const ShowNumbers masters = optimizer->keeps_masters();
    std::vector<float> staging;
    for (const Parameter& p : model.parameters()) {
      const std::vector<float> weight = golden.values("weight." + p.name);
      if (static_cast<std::int64_t>(weight.size()) != p.value.elements())
        throw std::runtime_error(golden.file.path() + ": weight." + p.name + " has another size");
      const HostView value(*backend, p.value, staging);
      std::copy(weight.begin(), weight.end(), value.numbers().begin());
      masters(p, value.numbers());
      value.store();
    }
    step = std::make_unique<TrainingStep>(*backend, mesh, model, *optimizer, router, micro_batch_size, recompute);
  }

  // One optimizer step, as the schedule has it; steps count from 1.
  StepResult train(std::int64_t number) {
    const StepResult result = step->compute_gradients(golden_.batch(number));
    const double peak = golden_.optimizer.learning_rate;
    step->apply(result, number, learning_rate(golden_.schedule, peak, number, golden_.steps));
    return result;
  }
  // Logits of the first step's batch [T,V]; `saved` is what its forward leaves.
  Tensor logits(Mixtral::Saved& saved) {
    Context context = step->context();
    const StepBatch first = golden_.batch(1);
    const TokenBatch batch =
        make_token_batch(*backend, context.activations, first.sequences, first.sequence_length, first.ids);
    model.forward(context, batch, Keep::all, saved);
    const Tensor logits = context.activations.take({batch.tokens(), golden_.model.vocab_size});
    model.logits(context, saved.hidden, logits);
    return logits;
  }
  std::vector<float> on_host(const Tensor& tensor) const { return numbers_of(*backend, tensor); }

 private:
  const GoldenFile& golden_;
  Mesh mesh = Mesh::single();

 public:
  std::unique_ptr<Backend> backend;
  Arena persistent;
  Mixtral model;
  std::unique_ptr<AdamW> optimizer;
  std::unique_ptr<TrainingStep> step;
};

}  // namespace smoe
