#include "trainer/activation_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <new>
#include <span>
#include <stdexcept>

#include "model/lm_head.h"

namespace smoe {
namespace {

// What adapters take of scratch in a layer's backward, by the product beside which they take most (model/low_rank.h): they keep
// nothing. Each row has two inner products, and its input again where some of it is dropped; B is spread out in f32.
std::int64_t adapter_scratch_bytes(const ModelConfig& model, const MicroBatchShape& shape, const Layout& layout,
                                   const LoraConfig& lora) {
  const auto size = static_cast<std::int64_t>(bytes_of(shape.type));
  const std::int64_t layer = lora.layers.empty() ? 0 : lora.layers.front();
  const auto inner = [&](std::initializer_list<const char*> modules) {
    return lora.r * std::count_if(modules.begin(), modules.end(),
                                  [&](const char* module) { return lora.targets(layer, module); });
  };
  const auto beside = [&](std::int64_t width, std::int64_t rows, std::int64_t inputs, std::int64_t outputs) {
    if (width == 0) return std::int64_t{0};
    return size * rows * (2 * width + (lora.dropout > 0 ? inputs : 0)) + 4 * outputs * width;
  };
  const std::int64_t D = model.hidden_size, F = model.intermediate_size,
                     tokens = shape.sequences * shape.sequence_length;
  const std::int64_t query = model.num_attention_heads * model.head_size() / layout.tp,
                     key_value = 2 * model.num_key_value_heads * model.head_size() / layout.tp;
  const std::int64_t rows = tokens * model.num_experts_per_tok / layout.tp,
                     experts = model.num_local_experts / layout.ep;
  // The inner gradient beside w2 is there until w1's and w3's are computed.
  return std::max({beside(inner({"q_proj", "k_proj", "v_proj"}), tokens, D, query + key_value),
                   beside(inner({"o_proj"}), tokens, query, D),
                   beside(inner({"gate"}), tokens / layout.tp, D, model.num_local_experts),
                   beside(inner({"w2"}), rows, F, experts * D),
                   beside(inner({"w1", "w3"}), rows, D, experts * 2 * F) + size * rows * inner({"w2"})});
}

}  // namespace

MicroBatchShape micro_batch_of(const TrainConfig& train, const DataConfig& data, const RouterConfig& router) {
  return {train.micro_batch_size, data.sequence_length,    train.recompute,
          train.type(),           device_of(train.device), router.jitter_noise > 0};
}

std::uint64_t estimated_activation_bytes(const ModelConfig& model, const MicroBatchShape& shape, const Layout& layout,
                                         const LoraConfig* lora) {
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
      std::max(tokens * layer / layout.tp + (lora ? adapter_scratch_bytes(model, shape, layout, *lora) : 0),
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

std::string what_fits(const ModelConfig& model, MicroBatchShape shape, const Layout& layout, const LoraConfig* lora,
                      std::uint64_t state, const Room& room) {
  const std::uint64_t left = room.a_rank() - std::min(room.a_rank(), state);
  shape.sequences = 1;
  const auto fitting = [&] { return left / estimated_activation_bytes(model, shape, layout, lora); };
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
