#include "trainer/case_training.h"

#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "data/shards/batch.h"
#include "kernels/host_view.h"
#include "kernels/philox.h"
#include "model/freeze.h"
#include "trainer/layer_metrics.h"

namespace smoe {
namespace {

// Token ids, targets and documents of one step's global batch: a pure function of (seed, step, position).
struct GlobalBatch {
  std::vector<std::int32_t> ids, targets, document_start;
};

GlobalBatch make_batch(const EquivalenceCase& what, std::int64_t step) {
  const std::int64_t length = what.sequence_length, sequences = what.at_once * what.accumulation;
  const auto draw = [&](std::int64_t i) {
    return philox(what.seed, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(step));
  };
  // Neighbours among them, so that a rank may have next to nothing else.
  const auto tokens_of = [&](std::int64_t s) {
    if (!what.padded || s % 5 == 0) return length;
    return s % 4 >= 2 ? 1 : 1 + static_cast<std::int64_t>(draw(sequences * length + s)[0]) % length;
  };
  GlobalBatch batch;
  for (std::int64_t s = 0; s < sequences; ++s) {
    std::int32_t start = 0;
    const std::int64_t tokens = tokens_of(s);
    for (std::int64_t t = 0; t < length; ++t) {
      if (t >= tokens) {
        batch.ids.push_back(padding_id);
        batch.targets.push_back(masked_target);
        batch.document_start.push_back(static_cast<std::int32_t>(t));
        continue;
      }
      const auto bits = draw(s * length + t);
      if (what.documents && t > 0 && bits[0] % 5 == 0) start = static_cast<std::int32_t>(t);
      batch.ids.push_back(static_cast<std::int32_t>(bits[1] % static_cast<std::uint64_t>(what.model.vocab_size)));
      const bool without = what.masked_unevenly && s % 3 == 1;
      const bool masked = without || (!(what.masked_unevenly && s % 3 == 2) && uniform_open(bits[2]) < what.masked);
      batch.targets.push_back(
          masked ? masked_target
                 : static_cast<std::int32_t>(bits[3] % static_cast<std::uint64_t>(what.model.vocab_size)));
      batch.document_start.push_back(start);
    }
  }
  if (what.arrange) what.arrange(step, batch.ids, batch.targets);
  return batch;
}

// An adapter's B begins at zero, and then neither A nor what goes through it matters.
void draw_unlike_zero(const Parameter& p, std::span<float> slice) {
  for (std::size_t i = 0; i < slice.size(); ++i) {
    const std::int64_t at = global_index(p.shape, p.slice, p.first, static_cast<std::int64_t>(i));
    slice[i] = static_cast<float>(uniform_open(philox(p.shape[0], static_cast<std::uint64_t>(at))[0]) - 0.5) / 4;
  }
}

// The sequences of one dp rank, as the loader cuts a global batch (data/shards/loader.h).
GlobalBatch part_of(const GlobalBatch& whole, const EquivalenceCase& what, std::int64_t rank, std::int64_t ranks) {
  const std::int64_t micro = what.at_once / ranks, length = what.sequence_length;
  GlobalBatch part;
  for (std::int64_t m = 0; m < what.accumulation; ++m) {
    const auto first = (m * what.at_once + rank * micro) * length, last = first + micro * length;
    const auto append = [&](std::vector<std::int32_t>& to, const std::vector<std::int32_t>& from) {
      to.insert(to.end(), from.begin() + first, from.begin() + last);
    };
    append(part.ids, whole.ids);
    append(part.targets, whole.targets);
    append(part.document_start, whole.document_start);
  }
  return part;
}

}  // namespace

CaseTraining::CaseTraining(const EquivalenceCase& what, const Mesh& mesh, Backend& backend)
    : what_(what),
      mesh_(mesh),
      backend_(backend),
      persistent_(backend),
      model_(what.model, mesh, frozen_patterns(what.router, what.freeze), what.routing, what.type,
             pointer_to(what.lora)),
      bias_(backend, persistent_, model_) {
  const std::int64_t dp = mesh.size(Axis::dp);
  if (what.at_once % dp != 0) throw std::logic_error("the sequences computed at once must divide over dp");
  model_.allocate(backend, persistent_, what.sequence_length, true);
  if (!what.selection_bias.empty())
    bias_.set(what.selection_bias);
  else if (what.router.bias_update_rate > 0)
    bias_.begin_at_zero();
  optimizer_.emplace(backend, persistent_, model_.parameters(), mesh, what.optimizer, what.bucket_elements);
  model_.parameters().initialize(backend, what.seed, [&](const Parameter& p, std::span<float> values) {
    if (p.adapter && p.initial_range == 0) draw_unlike_zero(p, values);
    if (what.adjust) what.adjust(p, values);
    optimizer_->keeps_masters()(p, values);
  });
  step_.emplace(backend, mesh, model_, *optimizer_, what.router, what.at_once / dp, what.recompute,
                what.objective ? what.objective() : std::make_unique<CrossEntropy>(what.label_smoothing));
  step_->add_embedding_noise(what.neftune_alpha);
  step_->drop_in_adapters(pointer_to(what.lora));
  step_->use_selection_bias(bias_);
  step_->measure_routers(true);
}

StepNumbers CaseTraining::step(std::int64_t n) {
  const std::int64_t dp = mesh_.size(Axis::dp);
  const GlobalBatch batch = part_of(make_batch(what_, n), what_, mesh_.rank(Axis::dp), dp);
  step_->steer(n);
  const StepResult result = step_->compute_gradients(
      {what_.at_once * what_.accumulation / dp, what_.sequence_length, batch.ids, batch.targets, batch.document_start,
       what_.seed + static_cast<std::uint64_t>(n), what_.padded ? Positions::of_document : Positions::of_sequence});
  StepNumbers found;
  found.finite = result.finite;
  found.lm_loss = result.lm_loss;
  found.loss = result.loss;
  found.aux_loss = result.aux_loss;
  found.z_loss = result.z_loss;
  found.grad_norm = result.grad_norm;
  found.expert_load = step_->balance().load;
  found.measures = layer_metrics(step_->balance(), step_->router_measures(), model_.has_capacity());
  step_->gather_gradients();
  for (const Parameter& p : parameters()) found.gradients.push_back(numbers_of(backend_, p.gradient));
  step_->apply(result, n, what_.optimizer.learning_rate);
  for (const Parameter& p : parameters()) found.weights.push_back(numbers_of(backend_, p.value));
  found.selection_bias = bias_.values();
  return found;
}

}  // namespace smoe
