#include "model/lm_head.h"

#include <algorithm>

#include "kernels/range.h"
#include "model/vocabulary_split.h"
#include "parallel/token_split.h"

namespace smoe {
namespace {
// Enough rows for the products to run at full rate and for the weight's gradient to be read and written seldom; few
// enough for the logits to stay small beside the weights. A GPU multiplies so much faster than it reads that it wants more: of
// [32000, 4096] a chunk of 512 rows takes about as long to multiply as the gradient to pass through memory.
constexpr std::int64_t chunk_bytes(Device device) { return std::int64_t{device == Device::cpu ? 64 : 512} << 20; }

std::int64_t chunk_rows(Device device, std::int64_t tokens, std::int64_t vocabulary) {
  const std::int64_t most = std::max<std::int64_t>(16, chunk_bytes(device) / (4 * vocabulary));
  const std::int64_t chunks = (tokens + most - 1) / most;
  return chunks == 0 ? 0 : (tokens + chunks - 1) / chunks;  // equal chunks: no small last one
}
}  // namespace

LmHead::LmHead(ParameterSet& parameters, const ModelConfig& config, const Mesh& mesh)
    : projection_(parameters, {vocabulary_parameter("lm_head.weight", config, mesh)}),
      vocabulary_(config.vocab_size),
      largest_slice_(largest_vocabulary_slice(config, mesh)) {}

LmHead::Logits LmHead::forward(Context& context, const Tensor& x, const Tensor& targets, const Tensor& losses,
                               const Tensor& uniform_losses) const {
  Backend& backend = context.backend;
  Communicator& group = context.mesh.group(Axis::tp);
  Arena& scratch = context.scratch;
  const std::int64_t n = x.dim(0), ranks = group.size();
  const Logits logits{scratch.take({n, projection_.first_matrix().slice[0]}), scratch.take({n})};
  projection_.forward(context, x, logits.values);

  const ArenaScope scope(scratch);
  const bool smoothed = !uniform_losses.empty();
  const std::int64_t numbers = smoothed ? 4 : 3;  // of a token
  const Tensor own = scratch.take({numbers * n});
  Tensor maxima = own.rows(0, n), sums = own.rows(n, n), target_logits = own.rows(2 * n, n),
         logit_sums = smoothed ? own.rows(3 * n, n) : Tensor();
  backend.cross_entropy_statistics(logits.values, targets, first_column(), maxima, sums, target_logits, logit_sums);
  if (ranks > 1) {
    const Tensor parts = scratch.take({ranks, numbers, n});
    group.all_gather(own, parts.reshape({numbers * n * ranks}), "head.statistics");
    maxima = scratch.take({n}), sums = scratch.take({n}), target_logits = scratch.take({n});
    if (smoothed) logit_sums = scratch.take({n});
    backend.cross_entropy_merge(parts, maxima, sums, target_logits, logit_sums);
  }
  backend.cross_entropy_losses(targets, maxima, sums, target_logits, logits.logsumexp, losses);
  if (smoothed) backend.cross_entropy_uniform_losses(targets, maxima, sums, logit_sums, vocabulary_, uniform_losses);
  return logits;
}

void LmHead::losses(Context& context, const Tensor& local, const Tensor& targets, const Tensor& losses) const {
  const Range range(context.backend, "head");
  const ArenaScope scope(context.scratch);
  const Tensor x = TokenSplit(context.mesh).gather(context.scratch, local, "head.gather");
  const std::int64_t tokens = x.dim(0), rows = chunk_rows(context.backend.device(), tokens, largest_slice_);
  for (std::int64_t begin = 0; begin < tokens; begin += rows) {
    const ArenaScope chunk(context.scratch);
    const std::int64_t n = std::min(rows, tokens - begin);
    forward(context, x.rows(begin, n), targets.rows(begin, n), losses.rows(begin, n), {});
  }
}

void LmHead::losses_and_gradient(Context& context, const Tensor& local, const Tensor& targets, double scale,
                                 const Tensor& token_scales, double label_smoothing, const Tensor& losses,
                                 const Tensor& uniform_losses, const Tensor& dlocal) const {
  const Range range(context.backend, "head");
  const TokenSplit split(context.mesh);
  const ArenaScope scope(context.scratch);
  const Tensor x = split.gather(context.scratch, local, "head.gather");
  const Tensor dx = dlocal.empty() ? dlocal : split.term(context.scratch, dlocal);
  const std::int64_t tokens = x.dim(0), rows = chunk_rows(context.backend.device(), tokens, largest_slice_);
  for (std::int64_t begin = 0; begin < tokens; begin += rows) {
    const ArenaScope chunk(context.scratch);
    const std::int64_t n = std::min(rows, tokens - begin);
    const auto part = [&](const Tensor& of) { return of.empty() ? of : of.rows(begin, n); };
    const Logits logits = forward(context, part(x), part(targets), part(losses), part(uniform_losses));
    const bool in_place = x.type() == logits.values.type();
    const Tensor dlogits = in_place ? logits.values : context.scratch.take(x.type(), logits.values.shape());
    context.backend.cross_entropy_backward(logits.values, part(targets), first_column(), logits.logsumexp, scale,
                                           part(token_scales), {label_smoothing, vocabulary_}, dlogits);
    projection_.backward(context, dlogits, part(x), part(dx), Write::assign);
  }
  if (!dlocal.empty()) split.sum_back(dx, dlocal, "head.sum_gradient");
}

void LmHead::logits(Context& context, const Tensor& x, const Tensor& logits) const {
  const Range range(context.backend, "head");
  projection_.forward(context, x, logits);
}

std::int64_t lm_head_scratch_bytes(Device device, DType type, std::int64_t tokens, std::int64_t vocabulary) {
  const auto of_a_number = static_cast<std::int64_t>(bytes_of(DType::f32) + (type == DType::f32 ? 0 : bytes_of(type)));
  return chunk_rows(device, tokens, vocabulary) * vocabulary * of_a_number;
}

}  // namespace smoe
