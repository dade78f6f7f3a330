#include "model/lm_head.h"

#include <algorithm>

namespace smoe {
namespace {
// Enough rows for the products to run at full rate and for the weight's gradient to be read and written seldom; few
// enough for the logits to stay small beside the weights.
constexpr std::int64_t chunk_bytes = std::int64_t{64} << 20;

std::int64_t chunk_rows(std::int64_t tokens, std::int64_t vocabulary) {
  const std::int64_t most = std::max<std::int64_t>(16, chunk_bytes / (4 * vocabulary));
  const std::int64_t chunks = (tokens + most - 1) / most;
  return chunks == 0 ? 0 : (tokens + chunks - 1) / chunks;  // equal chunks: no small last one
}
}  // namespace

LmHead::LmHead(ParameterSet& parameters, const ModelConfig& config)
    : weight_(parameters.add({.name = "lm_head.weight", .shape = {config.vocab_size, config.hidden_size},
                              .replicas = Replicas::tensor_parallel, .initial_std = static_cast<float>(config.initializer_range)})) {}

double LmHead::loss(Context& context, const Tensor& x, const Tensor& targets, const Tensor& losses) const {
  return run(context, x, targets, nullptr, losses, {});
}

double LmHead::loss_and_gradient(Context& context, const Tensor& x, const Tensor& targets, double scale, const Tensor& losses,
                                 const Tensor& dx) const {
  return run(context, x, targets, &scale, losses, dx);
}

double LmHead::run(Context& context, const Tensor& x, const Tensor& targets, const double* scale, const Tensor& losses,
                   const Tensor& dx) const {
  Backend& backend = context.backend;
  const ArenaScope scope(context.scratch);
  Arena& scratch = context.scratch;
  const std::int64_t tokens = x.dim(0), vocabulary = weight_.slice[0], first = weight_.first[0];
  const std::int64_t rows = chunk_rows(tokens, vocabulary);
  const Tensor chunk = scratch.take({rows, vocabulary});
  const Tensor maxima = scratch.take({rows}), sums = scratch.take({rows}), target_logits = scratch.take({rows}), lse = scratch.take({rows});
  for (std::int64_t begin = 0; begin < tokens; begin += rows) {
    const std::int64_t n = std::min(rows, tokens - begin);
    const Tensor xs = x.rows(begin, n), ts = targets.rows(begin, n), logits = chunk.rows(0, n);
    backend.gemm(Gemm::nt, xs, weight_.value, logits, false);
    backend.cross_entropy_statistics(logits, ts, first, maxima.rows(0, n), sums.rows(0, n), target_logits.rows(0, n));
    backend.cross_entropy_losses(ts, maxima.rows(0, n), sums.rows(0, n), target_logits.rows(0, n), lse.rows(0, n), losses.rows(begin, n));
    if (!scale) continue;
    backend.cross_entropy_backward(logits, ts, first, lse.rows(0, n), *scale);
    backend.gemm(Gemm::nn, logits, weight_.value, dx.rows(begin, n), false);
    backend.gemm(Gemm::tn, logits, xs, weight_.gradient, true);
  }
  return backend.sum(losses);
}

void LmHead::logits(Context& context, const Tensor& x, const Tensor& logits) const {
  context.backend.gemm(Gemm::nt, x, weight_.value, logits, false);
}

}  // namespace smoe
