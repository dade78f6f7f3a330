#include "model/lm_head.h"

#include <algorithm>

#include "model/vocabulary_split.h"
#include "parallel/token_split.h"

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

LmHead::LmHead(ParameterSet& parameters, const ModelConfig& config, const Mesh& mesh)
    : weight_(parameters.add(vocabulary_parameter("lm_head.weight", config, mesh))), largest_slice_(largest_vocabulary_slice(config, mesh)) {}

void LmHead::loss(Context& context, const Tensor& x, const Tensor& targets, const Tensor& losses, const Tensor& total) const {
  run(context, x, targets, nullptr, losses, total, {});
}

void LmHead::loss_and_gradient(Context& context, const Tensor& x, const Tensor& targets, double scale, const Tensor& losses,
                               const Tensor& total, const Tensor& dx) const {
  run(context, x, targets, &scale, losses, total, dx);
}

void LmHead::run(Context& context, const Tensor& local, const Tensor& targets, const double* scale, const Tensor& losses,
                 const Tensor& total, const Tensor& dlocal) const {
  Backend& backend = context.backend;
  Communicator& group = context.mesh.group(Axis::tp);
  const TokenSplit split(context.mesh);
  const ArenaScope scope(context.scratch);
  Arena& scratch = context.scratch;
  const Tensor x = split.gather(scratch, local, "head.gather");
  const Tensor dx = scale ? split.term(scratch, dlocal) : Tensor{};
  const std::int64_t tokens = x.dim(0), first = weight_.first[0], ranks = group.size();
  const std::int64_t rows = chunk_rows(tokens, largest_slice_);
  const Tensor chunk = scratch.take({rows * weight_.slice[0]}), own = scratch.take({3 * rows}), merged = scratch.take({3 * rows});
  const Tensor parts = scratch.take({3 * rows * ranks}), lse = scratch.take({rows});
  for (std::int64_t begin = 0; begin < tokens; begin += rows) {
    const std::int64_t n = std::min(rows, tokens - begin);
    const Tensor xs = x.rows(begin, n), ts = targets.rows(begin, n);
    const Tensor logits = chunk.rows(0, n * weight_.slice[0]).reshape({n, weight_.slice[0]});
    Tensor maxima = own.rows(0, n), sums = own.rows(n, n), target_logits = own.rows(2 * n, n);
    backend.gemm(Gemm::nt, xs, weight_.value, logits, false);
    backend.cross_entropy_statistics(logits, ts, first, maxima, sums, target_logits);
    if (ranks > 1) {
      group.all_gather(own.rows(0, 3 * n), parts.rows(0, 3 * n * ranks), "head.statistics");
      maxima = merged.rows(0, n), sums = merged.rows(n, n), target_logits = merged.rows(2 * n, n);
      backend.cross_entropy_merge(parts.rows(0, 3 * n * ranks).reshape({ranks, 3, n}), maxima, sums, target_logits);
    }
    backend.cross_entropy_losses(ts, maxima, sums, target_logits, lse.rows(0, n), losses.rows(begin, n));
    if (!scale) continue;
    backend.cross_entropy_backward(logits, ts, first, lse.rows(0, n), *scale);
    backend.gemm(Gemm::nn, logits, weight_.value, dx.rows(begin, n), false);
    backend.gemm(Gemm::tn, logits, xs, weight_.gradient, true);
  }
  if (scale) split.sum_back(dx, dlocal, "head.sum_gradient");
  backend.sum(losses, total);
}

void LmHead::logits(Context& context, const Tensor& x, const Tensor& logits) const {
  context.backend.gemm(Gemm::nt, x, weight_.value, logits, false);
}

}  // namespace smoe
