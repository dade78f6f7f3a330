#include "trainer/activation_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <span>
#include <stdexcept>

#include "model/lm_head.h"

namespace smoe {

MicroBatchShape micro_batch_of(const TrainConfig& train, const DataConfig& data, const RouterConfig& router) {
  return {train.micro_batch_size, data.sequence_length,    train.recompute,
          train.type(),           device_of(train.device), router.jitter_noise > 0};
}

std::uint64_t estimated_activation_bytes(const ModelConfig& model, const MicroBatchShape& shape, const Layout& layout) {
  const std::int64_t heads = model.num_attention_heads, head_size = model.head_size();
  const std::int64_t query = heads * head_size, key_value = 2 * model.num_key_value_heads * head_size;
  const std::int64_t chosen = model.num_experts_per_tok;

  // Bytes a token that one layer keeps, as its Saved structs name them: in the model's type, or in four bytes.
  const auto size = static_cast<std::int64_t>(bytes_of(shape.type)), four = std::int64_t{4};
  const std::int64_t norms = size * 3 * model.hidden_size;  // the two norms' outputs, and the sum between them
  const std::int64_t attention = size * (query + key_value + query) + four * heads;  // qkv, out; lse
  const std::int64_t router =
      four * (2 * model.num_local_experts + 2 * chosen) + (shape.jittered ? size * model.hidden_size : 0);
  const std::int64_t experts = chosen * (size * (model.hidden_size + 2 * model.intermediate_size) + four * 3);
  const std::int64_t layer = norms + attention + router + experts;

  // Every layer's input is kept. Backward works on one layer with about as much scratch as that layer keeps, or, before it,
  // on a chunk of logits.
  const std::int64_t kept_layers = shape.recompute == Recompute::none ? model.num_hidden_layers : 1;
  // With tp, tokens or heads are divided; what attention reads of all tokens is not.
  const std::int64_t gathered = layout.tp > 1 ? size * (kept_layers + 1) * model.hidden_size : 0;
  const std::int64_t kept = (size * model.num_hidden_layers * model.hidden_size + kept_layers * layer) / layout.tp;
  const std::int64_t tokens = shape.sequences * shape.sequence_length;
  const std::int64_t scratch =
      std::max(tokens * layer / layout.tp,
               lm_head_scratch_bytes(shape.device, shape.type, tokens, model.vocab_size / layout.tp));
  return static_cast<std::uint64_t>(tokens * (kept + gathered) + scratch);
}

std::string how_to_lower(const MicroBatchShape& shape) {
  return fmt::format("lower train.micro_batch_size ({}) or data.sequence_length ({}){}{}", shape.sequences,
                     shape.sequence_length, shape.recompute == Recompute::none ? ", or set train.recompute: layer" : "",
                     shape.device == Device::cuda
                         ? ", or spread the model over more ranks, each with a GPU (parallel.ep, parallel.tp)"
                         : "");
}

std::string what_fits(const ModelConfig& model, MicroBatchShape shape, const Layout& layout, std::uint64_t state,
                      const Room& room) {
  const std::uint64_t left = room.a_rank() - std::min(room.a_rank(), state);
  shape.sequences = 1;
  const auto fitting = [&] { return left / estimated_activation_bytes(model, shape, layout); };
  const std::uint64_t as_it_is = fitting();
  shape.recompute = Recompute::layer;
  const std::uint64_t recomputed = fitting();
  if (as_it_is > 0)
    return fmt::format("; about {} sequence(s) fit{}", as_it_is,
                       recomputed > as_it_is ? fmt::format(", or {} with train.recompute: layer", recomputed) : "");
  return recomputed > 0 ? fmt::format("; about {} sequence(s) fit with train.recompute: layer", recomputed)
                        : std::string();
}

// A rank that throws ends the others, which wait for it in the micro-batch's collectives.
std::uint64_t rehearse(TrainingStep& step, const MicroBatchShape& shape, const Mesh& mesh) {
  try {
    step.rehearse(shape.sequence_length);
  } catch (const std::bad_alloc& error) {
    throw std::runtime_error(
        fmt::format("a micro-batch does not fit in memory ({}): {}", error.what(), how_to_lower(shape)));
  }
  double most = static_cast<double>(step.activation_bytes());
  mesh.group(Axis::world).all_reduce(std::span(&most, 1), Reduce::max, "rehearsal.activations");
  return static_cast<std::uint64_t>(most);
}

}  // namespace smoe
