#include "trainer/training_step.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels/philox.h"
#include "kernels/range.h"
#include "parallel/token_split.h"
#include "trainer/embedding_noise.h"

namespace smoe {

TrainingStep::TrainingStep(Backend& backend, const Mesh& mesh, Mixtral& model, AdamW& optimizer,
                           const RouterConfig& router, std::int64_t micro_batch_size, Recompute recompute,
                           std::unique_ptr<Objective> objective)
    : backend_(backend),
      mesh_(mesh),
      model_(model),
      optimizer_(optimizer),
      objective_(std::move(objective)),
      reducer_(backend, mesh, model.parameters(), optimizer.shards()),
      router_(router),
      balance_(model.config(), router),
      meter_(backend, model.config()),
      micro_batch_size_(micro_batch_size),
      recompute_(recompute),
      activations_(backend),
      scratch_(backend),
      sums_(backend) {
  if (router.target_max_vio) controller_.emplace(*router.target_max_vio);
  if (router.forced_routing.type != ForcedRoutingType::none)
    forced_.emplace(router.forced_routing, model.config().num_local_experts, model.config().num_experts_per_tok);
}

Tensor TrainingStep::forced_choices(std::int64_t tokens, std::int64_t first) {
  const TokenSplit split(mesh_);
  const Tensor choices = activations_.take({split.local(tokens), model_.config().num_local_experts});
  forced_numbers_.resize(static_cast<std::size_t>(choices.elements()));
  forced_->preferences(first + split.first(tokens), forced_numbers_);
  backend_.copy_from_host(choices, forced_numbers_.data());
  return choices;
}

Tensor TrainingStep::embedding_noise_of(const StepBatch& part) {
  const Tensor half_widths = activations_.take({part.sequences * part.sequence_length});
  embedding_noise_.resize(static_cast<std::size_t>(half_widths.elements()));
  embedding_noise(part, neftune_alpha_, model_.config().hidden_size, embedding_noise_);
  backend_.copy_from_host(half_widths, embedding_noise_.data());
  return half_widths;
}

void TrainingStep::micro_batch(const StepBatch& part, std::int64_t m, double scale, const Tensor& loss,
                               const Tensor& uniform_loss, bool last) {
  const Range range(backend_, "micro_batch", static_cast<int>(m));
  activations_.rewind({});
  scratch_.rewind({});
  Context context = this->context();
  TokenBatch tokens = make_token_batch(backend_, activations_, part.sequences, part.sequence_length, part.ids,
                                       part.targets, part.document_start, 0, part.positions);
  // A step's sequences lie micro-batch by micro-batch, and in each rank by rank (data/shards/loader.h).
  const std::int64_t first_token = (m * mesh_.size(Axis::dp) + mesh_.rank(Axis::dp)) * tokens.tokens();
  if (part.noise_key) tokens.noise = BatchNoise{*part.noise_key, first_token};
  if (part.noise_key && adapters_drop_)
    tokens.assignments = number_assignments(context, tokens, model_.config().num_experts_per_tok);
  if (part.noise_key && neftune_alpha_ > 0) tokens.embedding_noise = embedding_noise_of(part);
  if (forced_) tokens.forced = forced_choices(tokens.tokens(), first_token);
  saved_.statistics = balance_.take_statistics(context, tokens);
  saved_.statistics.measures = meter_.sums();
  model_.forward(context, tokens, kept_with(recompute_), saved_, &reducer_);
  meter_.add_micro_batch(saved_.layers, saved_.statistics.tokens);
  objective_->loss_and_gradient(context, model_, part, tokens, scale, saved_, loss);
  if (!uniform_loss.empty()) backend_.sum(saved_.uniform_losses, uniform_loss);
  balance_.add_micro_batch(context, saved_.statistics, router_gradients_);
  meter_.ask_for_parts(router_gradients_);
  model_.backward(context, tokens, router_gradients_, saved_, last ? &reducer_ : nullptr);
}

StepResult TrainingStep::compute_gradients(const StepBatch& batch) {
  if (batch.sequences <= 0 || batch.sequences % micro_batch_size_ != 0)
    throw std::logic_error("a rank's share of the global batch must be a multiple of micro_batch_size");
  const std::int64_t micro_batches = batch.sequences / micro_batch_size_;

  StepResult result;
  std::array<double, 3> count{objective_->count(batch), 0, 0};  // and tokens, and sequences that have any
  for (std::int64_t s = 0; s < batch.sequences; ++s) {
    const std::int64_t tokens = batch.length_of(s);
    count[1] += static_cast<double>(tokens);
    count[2] += tokens > 0 ? 1 : 0;
  }
  mesh_.group(Axis::dp).all_reduce(count, Reduce::sum, "step.count");
  result.count = count[0];
  result.tokens = count[1];
  const double scale = result.count > 0 ? 1.0 / result.count : 0.0;

  balance_.begin_step({.tokens = count[1], .sequences = count[2]});
  meter_.begin_step(measuring_);
  const double smoothing = objective_->label_smoothing();
  const std::int64_t losses = (smoothing > 0 ? 2 : 1) * micro_batches;
  sums_.reset(losses + 1);
  for (std::int64_t m = 0; m < micro_batches; ++m)
    micro_batch(batch.part(m * micro_batch_size_, micro_batch_size_), m, scale, sums_[m],
                smoothing > 0 ? sums_[micro_batches + m] : Tensor(), m + 1 == micro_batches);
  {
    const Range range(backend_, "reduce");
    reducer_.finish();
  }
  optimizer_.sum_squares(sums_[losses]);
  const std::span<const double> sums = sums_.read();  // the losses and the norm in one wait
  const auto uniform = sums.begin() + micro_batches;
  std::array<double, 2> loss{std::accumulate(sums.begin(), uniform, 0.0),
                             std::accumulate(uniform, sums.end() - 1, 0.0)};
  mesh_.group(Axis::dp).all_reduce(std::span(loss).first(smoothing > 0 ? 2 : 1), Reduce::sum, "step.loss");

  result.lm_loss = loss[0] * scale;
  result.aux_loss = balance_.values().trained(router_.aux_loss_scope);
  result.z_loss = balance_.values().z_total();
  const double trained =
      smoothing > 0 ? (1 - smoothing) * result.lm_loss + smoothing * loss[1] * scale : result.lm_loss;
  result.loss = trained + balance_.values().weighted(router_.aux_loss_scope, balance_.coefficients()) +
                router_.z_loss_coef * result.z_loss;
  result.grad_norm = AdamW::gradient_norm(sums.back(), mesh_);
  result.finite = std::isfinite(result.count) && std::isfinite(result.loss) && std::isfinite(result.grad_norm);
  return result;
}

std::span<const double> TrainingStep::aux_loss_coef() const {
  const std::span<const double> coefficients = balance_.coefficients();
  return router_.aux_loss_coef_by_layer.empty() ? coefficients.first(1) : coefficients;
}

void TrainingStep::steer(std::int64_t step) { balance_.weigh_layers(step, controller_ ? controller_->factor() : 1.0); }

void TrainingStep::rehearse(std::int64_t sequence_length) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(micro_batch_size_ * sequence_length)),
      document_start(ids.size(), 0);
  const auto vocabulary = static_cast<std::uint64_t>(model_.config().vocab_size);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(philox(0, i, 0)[0] % vocabulary);
  const bool measuring = std::exchange(measuring_, true);  // takes the most memory
  compute_gradients({micro_batch_size_, sequence_length, ids, ids, document_start, 0});
  measuring_ = measuring;
  reducer_.clear_all();
  activations_.rewind({});
  scratch_.rewind({});
}

void TrainingStep::start_apply(const StepResult& result, std::int64_t updates, double learning_rate) {
  const Range range(backend_, "optimizer");
  if (result.refused()) return reducer_.clear_all();
  optimizer_.step(updates, learning_rate, optimizer_.clip_factor(result.grad_norm));
  reducer_.clear_unowned();
  reducer_.start_gathering_values();
  if (selection_bias_ && router_.bias_update_rate > 0)
    selection_bias_->update(balance_.counts(), router_.bias_update_rate);
  if (controller_) controller_->observe(max_vio(balance_.counts(), model_.config().num_local_experts));
}

}  // namespace smoe
