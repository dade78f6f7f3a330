#include "kernels/timed_backend.h"

#include <algorithm>
#include <chrono>

namespace smoe {
namespace {
using Clock = std::chrono::steady_clock;

double size_of(const Tensor& tensor) { return static_cast<double>(bytes_of(tensor.type())); }

const char* name_of(Gemm kind) { return kind == Gemm::nt ? "nt" : kind == Gemm::nn ? "nn" : "tn"; }

}  // namespace

void TimedBackend::reset() {
  records_.fill({});
  rest_ = {};
  used_ = 0;
}

TimedBackend::Record& TimedBackend::find(const Key& key) {
  std::uint64_t hash = reinterpret_cast<std::uintptr_t>(key.op) ^ reinterpret_cast<std::uintptr_t>(key.kind) * 31;
  for (const std::int64_t dim : key.dims) hash = (hash ^ static_cast<std::uint64_t>(dim)) * 0x9E3779B97F4A7C15ull;
  for (std::size_t i = hash >> 32;; ++i) {
    Record& record = records_[i % slots];
    if (record.key.op == nullptr) {
      if (used_ == slots - 1) break;  // one stays free, so that a search ends
      record.key = key;
      record.order = used_++;
      return record;
    }
    if (record.key == key) return record;
  }
  rest_.key.op = "other shapes";
  rest_.order = slots;
  return rest_;
}

std::vector<OpTime> TimedBackend::times() const {
  std::vector<const Record*> found;
  for (const Record& record : records_)
    if (record.calls > 0) found.push_back(&record);
  if (rest_.calls > 0) found.push_back(&rest_);
  std::sort(found.begin(), found.end(), [](const Record* a, const Record* b) { return a->order < b->order; });
  std::vector<OpTime> times;
  for (const Record* record : found) {
    std::string shape = record->key.kind;
    for (std::size_t i = 0; record->key.letters[i] != '\0'; ++i) {
      if (record->key.letters[i] == 'W' && record->key.dims[i] == 0) continue;  // no window
      if (!shape.empty()) shape += ' ';
      shape += record->key.letters[i] + std::to_string(record->key.dims[i]);
    }
    times.push_back({record->key.op, shape, record->rows, record->calls, record->seconds, record->work});
  }
  return times;
}

template <class Call>
void TimedBackend::timed(const Key& key, const Work& work, const Call& call, std::int64_t rows) {
  if (!times_ops_) return call();
  Record& record = find(key);
  record.rows = rows;
  ++record.calls;
  record.work += work;
  if (waits_) inner_.synchronize();
  const Clock::time_point start = Clock::now();
  call();
  if (waits_) inner_.synchronize();
  record.seconds += std::chrono::duration<double>(Clock::now() - start).count();
}

// ---- memory, elementwise, reductions ----

void TimedBackend::do_copy_to_host(void* host, const Tensor& from) {
  timed({"copy_to_host", "n", {from.elements()}}, op_work::copy(from.elements(), size_of(from)),
        [&] { inner_.copy_to_host(host, from); });
}

void TimedBackend::do_copy_from_host(const Tensor& to, const void* host) {
  timed({"copy_from_host", "n", {to.elements()}}, op_work::copy(to.elements(), size_of(to)),
        [&] { inner_.copy_from_host(to, host); });
}

void TimedBackend::do_start_copy_to_host(void* host, const Tensor& from) {
  timed({"start_copy_to_host", "n", {from.elements()}}, op_work::copy(from.elements(), size_of(from)),
        [&] { inner_.start_copy_to_host(host, from); });
}

void TimedBackend::do_copy(const Tensor& to, const Tensor& from) {
  timed({"copy", "n", {to.elements()}}, op_work::copy(to.elements(), size_of(to)), [&] { inner_.copy(to, from); });
}

void TimedBackend::do_fill(const Tensor& to, float value) {
  timed({"fill", "n", {to.elements()}}, op_work::fill(to.elements(), size_of(to)), [&] { inner_.fill(to, value); });
}

void TimedBackend::do_add(const Tensor& a, const Tensor& b, const Tensor& out) {
  timed({"add", "n", {out.elements()}}, op_work::add(out.elements(), size_of(out)), [&] { inner_.add(a, b, out); });
}

void TimedBackend::do_sum_rows(const Tensor& parts, const Tensor& out) {
  timed({"sum_rows", "Pn", {parts.dim(0), out.elements()}},
        op_work::sum_rows(parts.dim(0), out.elements(), size_of(out)), [&] { inner_.sum_rows(parts, out); });
}

void TimedBackend::do_sum(const Tensor& x, const Tensor& out) {
  timed({"sum", "n", {x.elements()}}, op_work::sum(x.elements()), [&] { inner_.sum(x, out); });
}

void TimedBackend::do_sum_of_squares(const Tensor& x, const Tensor& out) {
  timed({"sum_of_squares", "n", {x.elements()}}, op_work::sum_of_squares(x.elements()),
        [&] { inner_.sum_of_squares(x, out); });
}

// ---- embedding, norm, rotary embedding ----

void TimedBackend::do_embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first,
                                        std::int64_t vocabulary, const Tensor& out) {
  const std::int64_t T = out.dim(0), D = out.dim(1);
  timed({"embedding_forward", "TVD", {T, table.dim(0), D}}, op_work::embedding_forward(T, D, size_of(out)),
        [&] { inner_.embedding_forward(ids, table, first, vocabulary, out); });
}

void TimedBackend::do_embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first,
                                         std::int64_t vocabulary, const Tensor& dtable) {
  const std::int64_t T = dout.dim(0), D = dout.dim(1);
  timed({"embedding_backward", "TVD", {T, dtable.dim(0), D}}, op_work::embedding_backward(T, D, size_of(dout)),
        [&] { inner_.embedding_backward(ids, dout, first, vocabulary, dtable); });
}

void TimedBackend::do_add_noise(const TokenNoise& noise, const Tensor& row_scales, const Tensor& x) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  timed({"add_noise", "TD", {T, D}}, op_work::add_noise(T * D, size_of(x)),
        [&] { inner_.add_noise(noise, row_scales, x); });
}

void TimedBackend::do_rms_norm_forward(const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y,
                                       const Tensor& rstd) {
  timed({"rms_norm_forward", "TD", {x.dim(0), x.dim(1)}}, op_work::rms_norm_forward(x.dim(0), x.dim(1), size_of(x)),
        [&] { inner_.rms_norm_forward(x, weight, epsilon, y, rstd); });
}

void TimedBackend::do_rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                                        const Tensor& dresidual, const Tensor& dx, const Tensor& dweight) {
  timed({"rms_norm_backward", "TD", {x.dim(0), x.dim(1)}}, op_work::rms_norm_backward(x.dim(0), x.dim(1), size_of(x)),
        [&] { inner_.rms_norm_backward(dy, x, weight, rstd, dresidual, dx, dweight); });
}

void TimedBackend::do_dropout(const Dropout& dropout, const Tensor& rows, const Tensor& x, const Tensor& y,
                              Write write) {
  timed({"dropout", "RD", {x.dim(0), x.dim(1)}}, op_work::dropout(x.elements(), size_of(x)),
        [&] { inner_.dropout(dropout, rows, x, y, write); });
}

void TimedBackend::do_spread_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& stack,
                                    const Tensor& matrices) {
  timed({"spread_blocks", "ENM", {matrices.dim(0), matrices.dim(1), matrices.dim(2)}},
        op_work::spread_blocks(stack.elements(), matrices.elements(), size_of(stack)),
        [&] { inner_.spread_blocks(blocks, scale, stack, matrices); });
}

void TimedBackend::do_gather_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& matrices,
                                    const Tensor& stack) {
  timed({"gather_blocks", "ENM", {matrices.dim(0), matrices.dim(1), matrices.dim(2)}},
        op_work::gather_blocks(stack.elements()), [&] { inner_.gather_blocks(blocks, scale, matrices, stack); });
}

void TimedBackend::do_rope_table(std::span<const float> frequencies, float scale, const Tensor& table) {
  timed({"rope_table", "PC", {table.dim(0), table.dim(1)}}, op_work::rope_table(table.elements()),
        [&] { inner_.rope_table(frequencies, scale, table); });
}

void TimedBackend::do_rope_forward(const Tensor& x, std::int64_t rotated_heads, const Tensor& positions,
                                   const Tensor& table) {
  timed({"rope_forward", "THC", {x.dim(0), rotated_heads, x.dim(2)}},
        op_work::rope(x.dim(0), rotated_heads, x.dim(2), size_of(x)),
        [&] { inner_.rope_forward(x, rotated_heads, positions, table); });
}

void TimedBackend::do_rope_backward(const Tensor& dx, std::int64_t rotated_heads, const Tensor& positions,
                                    const Tensor& table) {
  timed({"rope_backward", "THC", {dx.dim(0), rotated_heads, dx.dim(2)}},
        op_work::rope(dx.dim(0), rotated_heads, dx.dim(2), size_of(dx)),
        [&] { inner_.rope_backward(dx, rotated_heads, positions, table); });
}

// ---- matrix products ----

void TimedBackend::do_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, Write write) {
  const std::int64_t m = c.dim(0), n = c.dim(1), k = kind == Gemm::tn ? a.dim(0) : a.dim(1);
  timed(
      {"gemm", "mnk", {m, n, k}, name_of(kind)}, op_work::gemm(m, n, k, size_of(a), size_of(c)),
      [&] { inner_.gemm(kind, a, b, c, write); }, kind == Gemm::tn ? k : m);
}

void TimedBackend::do_grouped_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows& rows,
                                   Write write) {
  const bool tn = kind == Gemm::tn;
  const std::int64_t R = a.dim(0), E = tn ? c.dim(0) : b.dim(0), out = c.dim(1), in = tn ? c.dim(2) : a.dim(1);
  std::int64_t with_rows = 0;
  for (std::size_t e = 0; e + 1 < rows.host.size(); ++e) with_rows += rows.host[e + 1] > rows.host[e];
  timed(
      {"grouped_gemm", tn ? "ERmn" : "ERnk", {E, R, out, in}, name_of(kind)},
      op_work::grouped_gemm(with_rows, R, out, in, size_of(a), size_of(tn ? c : b)),
      [&] { inner_.grouped_gemm(kind, a, b, c, rows, write); }, R / std::max<std::int64_t>(with_rows, 1));
}

// ---- attention ----

void TimedBackend::do_attention_forward(const AttentionShape& s, const Tensor& qkv, const Tensor& document_start,
                                        const Tensor& out, const Tensor& lse) {
  timed({"attention_forward", "BSHGCW", {s.sequences, s.sequence_length, s.heads, s.kv_heads, s.head_dim, s.window}},
        op_work::attention_forward(s.sequences, s.sequence_length, s.heads, s.kv_heads, s.head_dim, s.window,
                                   size_of(qkv)),
        [&] { inner_.attention_forward(s, qkv, document_start, out, lse); });
}

void TimedBackend::do_attention_backward(const AttentionShape& s, const Tensor& qkv, const Tensor& document_start,
                                         const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv) {
  timed({"attention_backward", "BSHGCW", {s.sequences, s.sequence_length, s.heads, s.kv_heads, s.head_dim, s.window}},
        op_work::attention_backward(s.sequences, s.sequence_length, s.heads, s.kv_heads, s.head_dim, s.window,
                                    size_of(qkv)),
        [&] { inner_.attention_backward(s, qkv, document_start, out, lse, dout, dqkv); });
}

void TimedBackend::do_attention_cached(const AttentionShape& s, const Tensor& qkv, std::int64_t past,
                                       const Tensor& key_cache, const Tensor& value_cache, const Tensor& out) {
  const std::int64_t N = qkv.dim(0);  // `past` is no part of the key: it grows with every token
  timed({"attention_cached", "NHGCW", {N, s.heads, s.kv_heads, s.head_dim, s.window}},
        op_work::attention_cached(N, past, s.heads, s.kv_heads, s.head_dim, s.window, size_of(qkv)),
        [&] { inner_.attention_cached(s, qkv, past, key_cache, value_cache, out); });
}

// ---- router and dispatch ----

void TimedBackend::do_router_forward(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                     const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                     const Tensor& weights) {
  const std::int64_t T = logits.dim(0), E = logits.dim(1), K = experts.dim(1);
  timed({"router_forward", "TEK", {T, E, K}}, op_work::router_forward(T, E, K),
        [&] { inner_.router_forward(rule, logits, selection_bias, probabilities, logsumexp, experts, weights); });
}

void TimedBackend::do_router_backward(const RoutingRule& rule, const Tensor& logits, const Tensor& probabilities,
                                      const Tensor& logsumexp, const Tensor& experts, const Tensor& weights,
                                      const Tensor& dweights, const Tensor& balance_gradient, double z_scale,
                                      const Tensor& dlogits) {
  const std::int64_t T = probabilities.dim(0), E = probabilities.dim(1), K = experts.dim(1);
  timed({"router_backward", "TEK", {T, E, K}}, op_work::router_backward(T, E, K), [&] {
    inner_.router_backward(rule, logits, probabilities, logsumexp, experts, weights, dweights, balance_gradient,
                           z_scale, dlogits);
  });
}

void TimedBackend::do_balance_statistics(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                         const Tensor& counts, const Tensor& probability_sums, const Tensor& z_sums) {
  const std::int64_t T = probabilities.dim(0), E = probabilities.dim(1), K = experts.dim(1);
  timed({"balance_statistics", "TEKN", {T, E, K, counts.dim(0)}}, op_work::balance_statistics(T, E, K),
        [&] { inner_.balance_statistics(probabilities, logsumexp, experts, counts, probability_sums, z_sums); });
}

void TimedBackend::do_router_measures(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                      const Tensor& probabilities, const Tensor& experts, const Tensor& sums) {
  const std::int64_t T = logits.dim(0), E = logits.dim(1), K = experts.dim(1);
  timed({"router_measures", "TEK", {T, E, K}}, op_work::router_measures(T, E, K),
        [&] { inner_.router_measures(rule, logits, selection_bias, probabilities, experts, sums); });
}

void TimedBackend::do_jitter(const TokenNoise& noise, const Tensor& x, const Tensor& y, Write write) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  timed({"jitter", "TD", {T, D}}, op_work::jitter(T * D, size_of(x)), [&] { inner_.jitter(noise, x, y, write); });
}

void TimedBackend::do_routing_map(const Tensor& experts, const Tensor& probabilities, const Capacity& capacity,
                                  const Tensor& row_of, const Tensor& assignment_of, const Tensor& offsets) {
  const std::int64_t T = experts.dim(0), K = experts.dim(1);
  timed({"routing_map", "TK", {T, K}}, op_work::routing_map(T * K),
        [&] { inner_.routing_map(experts, probabilities, capacity, row_of, assignment_of, offsets); });
}

void TimedBackend::do_permute(const Tensor& x, const Tensor& assignment_of, std::int64_t experts_per_token,
                              const Tensor& rows) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  timed({"permute", "TKD", {T, experts_per_token, D}}, op_work::permute(T, experts_per_token, D, size_of(x)),
        [&] { inner_.permute(x, assignment_of, experts_per_token, rows); });
}

void TimedBackend::do_unpermute(const Tensor& rows, const Tensor& row_of, const Tensor& base, const Tensor& x) {
  const std::int64_t T = x.dim(0), K = row_of.dim(1), D = x.dim(1);
  timed({"unpermute", "TKD", {T, K, D}}, op_work::unpermute(T, K, D, size_of(x)),
        [&] { inner_.unpermute(rows, row_of, base, x); });
}

void TimedBackend::do_permute_weights(const Tensor& weights, const Tensor& row_of, const Tensor& row_weights) {
  const std::int64_t R = row_of.elements();
  timed({"permute_weights", "R", {R}}, op_work::permute_weights(R),
        [&] { inner_.permute_weights(weights, row_of, row_weights); });
}

void TimedBackend::do_unpermute_weights(const Tensor& row_weights, const Tensor& row_of, const Tensor& weights) {
  const std::int64_t R = row_of.elements();
  timed({"unpermute_weights", "R", {R}}, op_work::permute_weights(R),
        [&] { inner_.unpermute_weights(row_weights, row_of, weights); });
}

// ---- SwiGLU ----

void TimedBackend::do_swiglu_forward(const Tensor& h, const Tensor& row_weights, const Tensor& a) {
  timed({"swiglu_forward", "RF", {a.dim(0), a.dim(1)}}, op_work::swiglu_forward(a.dim(0), a.dim(1), size_of(a)),
        [&] { inner_.swiglu_forward(h, row_weights, a); });
}

void TimedBackend::do_swiglu_backward(const Tensor& h, const Tensor& row_weights, const Tensor& da, const Tensor& dh,
                                      const Tensor& drow_weights, const Tensor& a) {
  timed({"swiglu_backward", "RF", {a.dim(0), a.dim(1)}}, op_work::swiglu_backward(a.dim(0), a.dim(1), size_of(a)),
        [&] { inner_.swiglu_backward(h, row_weights, da, dh, drow_weights, a); });
}

// ---- cross-entropy ----

void TimedBackend::do_cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                               const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                                               const Tensor& logit_sums) {
  timed({"cross_entropy_statistics", "NV", {logits.dim(0), logits.dim(1)}},
        op_work::cross_entropy_statistics(logits.dim(0), logits.dim(1), !logit_sums.empty()),
        [&] { inner_.cross_entropy_statistics(logits, targets, first, maxima, sums, target_logits, logit_sums); });
}

void TimedBackend::do_cross_entropy_merge(const Tensor& parts, const Tensor& maxima, const Tensor& sums,
                                          const Tensor& target_logits, const Tensor& logit_sums) {
  timed({"cross_entropy_merge", "PN", {parts.dim(0), parts.dim(2)}},
        op_work::cross_entropy_merge(parts.dim(0), parts.dim(2), !logit_sums.empty()),
        [&] { inner_.cross_entropy_merge(parts, maxima, sums, target_logits, logit_sums); });
}

void TimedBackend::do_cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                           const Tensor& target_logits, const Tensor& logsumexp, const Tensor& losses) {
  timed({"cross_entropy_losses", "N", {losses.elements()}}, op_work::cross_entropy_losses(losses.elements()),
        [&] { inner_.cross_entropy_losses(targets, maxima, sums, target_logits, logsumexp, losses); });
}

void TimedBackend::do_cross_entropy_uniform_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                                   const Tensor& logit_sums, std::int64_t vocabulary,
                                                   const Tensor& losses) {
  timed({"cross_entropy_uniform_losses", "N", {losses.elements()}},
        op_work::cross_entropy_uniform_losses(losses.elements()),
        [&] { inner_.cross_entropy_uniform_losses(targets, maxima, sums, logit_sums, vocabulary, losses); });
}

void TimedBackend::do_cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                             const Tensor& logsumexp, double scale, const Tensor& token_scales,
                                             const LabelSmoothing& smoothing, const Tensor& dlogits) {
  timed({"cross_entropy_backward", "NV", {logits.dim(0), logits.dim(1)}},
        op_work::cross_entropy_backward(logits.dim(0), logits.dim(1), size_of(dlogits)), [&] {
          inner_.cross_entropy_backward(logits, targets, first, logsumexp, scale, token_scales, smoothing, dlogits);
        });
}

// ---- AdamW ----

void TimedBackend::do_adamw(const AdamWStep& step, const Tensor& master, const Tensor& gradient,
                            const Tensor& first_moment, const Tensor& second_moment, const Tensor& value) {
  timed({"adamw", "n", {master.elements()}}, op_work::adamw(master.elements(), value.empty() ? 0 : size_of(value)),
        [&] { inner_.adamw(step, master, gradient, first_moment, second_moment, value); });
}

}  // namespace smoe
