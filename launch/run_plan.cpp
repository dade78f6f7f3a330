#include "launch/run_plan.h"

#include <fmt/format.h>

#include <iterator>
#include <string>
#include <vector>

#include "data/files/printable.h"
#include "kernels/tensor.h"
#include "model/forced_routing.h"
#include "model/freeze.h"
#include "model/mixtral.h"
#include "parallel/mesh.h"
#include "trainer/activation_memory.h"
#include "trainer/machine.h"

namespace smoe {
namespace {

constexpr double gib = 0x1p30;

// 46702792704 -> 46,702,792,704
std::string grouped(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (auto end = static_cast<std::ptrdiff_t>(digits.size()) - 3; end > 0; end -= 3) {
    digits.insert(static_cast<std::size_t>(end), ",");
  }
  return digits;
}

// 4.2e12 -> 4.2 TFLOP
std::string operations(double flops) {
  static constexpr const char* units[] = {"GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"};
  double value = flops / 1e9;
  std::size_t unit = 0;
  for (; value >= 1000 && unit + 1 < std::size(units); ++unit) value /= 1000;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

std::string line(const char* name, const std::string& text) { return fmt::format("{:<12} {}\n", name, text); }

}  // namespace

std::string describe_run(const RunConfig& config, const Layout& layout, int ranks_sharing_memory) {
  const ModelConfig& model = config.model;
  const TrainConfig& train = config.train;
  const ParameterCounts counts = count_parameters(model);
  const std::int64_t step_tokens = train.global_batch_size * config.data.sequence_length;
  const std::int64_t micro_batches = train.global_batch_size / (train.micro_batch_size * layout.dp());
  const std::vector<std::string> frozen = frozen_patterns(config.router, train.freeze);
  const LoraConfig* lora = pointer_to(config.lora);
  const double token_flops = training_flops_per_token(model, config.data.sequence_length, lora != nullptr);
  const double state = static_cast<double>(training_state_bytes(model, layout, frozen, train.type(), lora)) / gib;
  const double activations = static_cast<double>(estimated_activation_bytes(
                                 model, micro_batch_of(train, config.data, config.router), layout, lora)) /
                             gib;
  const Room room = room_on(device_of(train.device), ranks_sharing_memory);

  std::string text;
  text += line("model", fmt::format("{} layers of width {}, {} experts of which a token uses {}, vocabulary {}",
                                    model.num_hidden_layers, model.hidden_size, model.num_local_experts,
                                    model.num_experts_per_tok, model.vocab_size));
  text +=
      line("parameters", fmt::format("{} total, {} active for a token", grouped(counts.total), grouped(counts.active)));
  text += line("", fmt::format("embedding and head {}, attention {}, experts {}, routers {}, norms {}",
                               grouped(counts.embedding), grouped(counts.attention), grouped(counts.experts),
                               grouped(counts.routers), grouped(counts.norms)));
  if (lora || !frozen.empty()) {
    const std::int64_t trained = count_trained(declare_parameters(model, Mesh::single(), frozen, DType::f32, lora));
    text += line("trained", lora ? fmt::format("{} parameters, adapters of rank {} beside {}", grouped(trained),
                                               lora->r, fmt::join(lora->target_modules, ", "))
                                 : fmt::format("{} parameters; frozen: {}", grouped(trained), fmt::join(frozen, ", ")));
  }
  text += line("step", fmt::format("{} tokens: {} sequences of {}; dp {} x {} micro-batch(es) of {}",
                                   grouped(step_tokens), train.global_batch_size, config.data.sequence_length,
                                   layout.dp(), micro_batches, train.micro_batch_size));
  text += line("ranks", fmt::format("{}: dp {} x tp {}, experts edp {} x ep {}", layout.ranks, layout.dp(), layout.tp,
                                    layout.edp(), layout.ep));
  const std::string of_step = operations(token_flops * static_cast<double>(step_tokens));
  if (train.epochs) {  // how many steps, the data tells
    text += line("run", fmt::format("{} epochs of data.train", *train.epochs));
    text += line("arithmetic", of_step + " a step");
  } else {
    text += line("run", fmt::format("{} steps, {} tokens", grouped(train.steps), grouped(train.steps * step_tokens)));
    text += line("arithmetic", fmt::format("{} a step, {} in all", of_step,
                                           operations(token_flops * static_cast<double>(step_tokens) *
                                                      static_cast<double>(train.steps))));
  }
  const double needed = (state + activations) * room.ranks, free = static_cast<double>(room.free) / gib;
  const std::string found =
      !room.knows() ? fmt::format("{} rank(s) need {:.2f} GiB", room.ranks, needed)
      : room.device == Device::cpu
          ? fmt::format("{} rank(s) here need {:.2f} GiB, this machine has {:.1f} GiB", room.ranks, needed, free)
          : fmt::format("{} rank(s) on a GPU need {:.2f} GiB, {:.1f} of its {:.1f} GiB are free", room.ranks, needed,
                        free, static_cast<double>(room.total) / gib);
  text +=
      line("memory",
           fmt::format("{:.2f} GiB a rank for weights, gradients and moments, about {:.2f} GiB for activations; {}{}",
                       state, activations, found, room.knows() && needed > free ? ": too little" : ""));
  if (const std::string forced = describe(config.router.forced_routing); !forced.empty())
    text += line("ROUTING", fmt::format("forced: {}, for a benchmark (router.forced_routing)", forced));
  text += line("output", printable(train.output_dir));
  return text;
}

std::string describe_rehearsal(std::uint64_t activation_bytes) {
  return line("measured", fmt::format("{:.2f} GiB a rank for the activations of a micro-batch, by computing one",
                                      static_cast<double>(activation_bytes) / gib));
}

}  // namespace smoe
