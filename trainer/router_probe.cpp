#include "trainer/router_probe.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "kernels/range.h"
#include "parallel/token_split.h"
#include "trainer/sample_columns.h"

namespace smoe {
namespace {

// Assignments [T,K] of `now` that are not among the token's `before`.
double count_new(std::span<const std::int32_t> now, std::span<const std::int32_t> before, std::size_t per_token) {
  double found = 0;
  for (std::size_t i = 0; i < now.size(); ++i) {
    const auto old = before.subspan(i / per_token * per_token, per_token);
    found += std::find(old.begin(), old.end(), now[i]) == old.end() ? 1 : 0;
  }
  return found;
}

}  // namespace

RouterProbe::RouterProbe(std::shared_ptr<const Dataset> dataset, std::int64_t sequences, std::int64_t at_once)
    : dataset_(std::move(dataset)), sequences_(std::min(sequences, dataset_->samples())), at_once_(at_once) {}

std::vector<double> RouterProbe::changed(Mixtral& model, Context context) {
  const Range range(context.backend, "probe");
  const auto layers = static_cast<std::size_t>(model.config().num_hidden_layers);
  const Communicator& dp = context.mesh.group(Axis::dp);
  const std::int64_t length = dataset_->sequence_length();
  // Evenly over the ranks, which wait for the one that has most.
  const std::int64_t at_once = std::min(at_once_, (sequences_ + dp.size() - 1) / dp.size()),
                     of_all = at_once * dp.size();
  const std::int64_t per_token = model.config().num_experts_per_tok;
  std::vector<std::vector<std::int32_t>> now(layers);
  std::vector<std::int32_t> choices;
  SampleColumns columns;
  Mixtral::Saved saved;
  // Ranks for which no sequence is left take part: the experts they hold may be wanted by others.
  for (std::int64_t done = 0; done < sequences_; done += of_all) {
    const auto [before, samples] = share_of_rank(std::min(of_all, sequences_ - done), at_once, dp.rank());
    columns.read(*dataset_, done + before, samples, length);
    context.activations.rewind({});
    context.scratch.rewind({});
    TokenBatch batch = columns.batch(context.backend, context.activations);
    batch.dropless = true;
    const std::int64_t tokens = TokenSplit(context.mesh).local(batch.tokens());
    saved.choices = context.activations.take(DType::i32, {model.config().num_hidden_layers, tokens, per_token});
    model.forward(context, batch, Keep::nothing, saved);
    choices.resize(static_cast<std::size_t>(saved.choices.elements()));
    context.backend.copy_to_host(choices.data(), saved.choices);
    const std::size_t of_layer = choices.size() / layers;
    for (std::size_t l = 0; l < layers; ++l)
      now[l].insert(now[l].end(), choices.begin() + static_cast<std::ptrdiff_t>(l * of_layer),
                    choices.begin() + static_cast<std::ptrdiff_t>((l + 1) * of_layer));
  }
  context.activations.rewind({});
  context.scratch.rewind({});

  const std::vector<std::vector<std::int32_t>> before = std::exchange(before_, std::move(now));
  if (before.empty()) return {};
  std::vector<double> sums;  // [L] of what is new, and how many assignments a layer has
  for (std::size_t l = 0; l < layers; ++l)
    sums.push_back(count_new(before_[l], before[l], static_cast<std::size_t>(per_token)));
  const auto assigned = [](std::int32_t expert) { return expert >= 0; };  // padding's are not
  sums.push_back(static_cast<double>(std::count_if(before_.front().begin(), before_.front().end(), assigned)));
  context.mesh.group(Axis::world).all_reduce(std::span(sums), Reduce::sum, "probe.changed");
  const double assignments = sums.back();
  sums.pop_back();
  for (double& sum : sums) sum /= assignments;
  return sums;
}

}  // namespace smoe
