// Checks of attention (see backend_vs_reference.h).
//
// Tolerances. A score of size s is rounded by s u (u = 6e-8), and the exponential turns that into a relative error of the
// probability: for scores up to about 5, as random queries and keys give, a few 1e-7, with sums over the keys on top.
// Hence 2e-6 forward, and 3e-6 backward where probabilities meet a difference of two sums; in proportion for larger scores.
#include "tests/kernels/backend_vs_reference.h"
#include "tests/kernels/op_cases_attention.h"
#include "tests/reference/attention.h"

namespace smoe::checks {
namespace {

using namespace op_cases;

void check_attention(Backend& backend, const AttentionCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Index T = c.tokens(), all_heads = c.heads + 2 * c.kv_heads;
  Matrix<double> qkv = f32_matrix(random, T, all_heads * c.head_dim);
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < c.heads * c.head_dim; ++i) qkv(t, i) *= c.score_scale;  // a power of two: still floats
  const Matrix<double> dout = f32_matrix(random, T, c.heads * c.head_dim);
  Ids starts;
  if (c.document_length > 0)
    starts = reference::random_documents(random, c.sequences, c.sequence_length, c.document_length);
  const Tensor tstarts = starts.empty() ? Tensor() : ws.i32({T}, starts);
  const double forward_tolerance = 2e-6 * std::max(1.0, c.score_scale), backward_tolerance = 1.5 * forward_tolerance;

  const AttentionShape shape{c.sequences, c.sequence_length, c.heads, c.kv_heads, c.head_dim, c.window};
  const reference::AttentionShape truth_shape{c.sequences, c.sequence_length, c.heads, c.kv_heads, c.head_dim, c.window};
  const Tensor tqkv = ws.f32({T, all_heads, c.head_dim}, qkv);
  const Tensor out = ws.output({T, c.heads, c.head_dim}), lse = ws.output({c.heads, T});
  backend.attention_forward(shape, tqkv, tstarts, out, lse);
  const reference::Attention<double> truth = reference::attention_forward(truth_shape, qkv, starts);
  report.close("out", ws.read(out), truth.out.values, forward_tolerance);
  report.close("lse", ws.read(lse), truth.lse.values, forward_tolerance);

  const Tensor dqkv = ws.output({T, all_heads, c.head_dim});
  backend.attention_backward(shape, tqkv, tstarts, out, lse, ws.f32({T, c.heads, c.head_dim}, dout), dqkv);
  const reference::Attention<double> saved{ws.read_matrix(out, T, c.heads * c.head_dim), ws.read_matrix(lse, c.heads, T)};
  const Matrix<double> gradient = reference::attention_backward(truth_shape, qkv, starts, saved, dout);
  const Matrix<double> found = ws.read_matrix(dqkv, T, all_heads * c.head_dim);
  // Apart, because the values' gradients are larger than those of queries and keys.
  const Index score_columns = (c.heads + c.kv_heads) * c.head_dim, value_columns = c.kv_heads * c.head_dim;
  const auto part = [](const Matrix<double>& m, Index first, Index count) { return reference::columns(m, first, count).values; };
  // Where every query sees itself alone there is no such gradient, only the rounding of a difference.
  if (c.window != 1 && c.sequence_length != 1 && c.document_length != 1)
    report.close("dq and dk", part(found, 0, score_columns), part(gradient, 0, score_columns), backward_tolerance);
  report.close("dv", part(found, score_columns, value_columns), part(gradient, score_columns, value_columns),
               backward_tolerance);
  report.close("dqkv", found.values, gradient.values, backward_tolerance);
}

void check_cached_attention(Backend& backend, const CachedAttentionCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Index all_heads = c.heads + 2 * c.kv_heads, kv_size = c.kv_heads * c.head_dim;
  const Matrix<double> qkv = f32_matrix(random, c.tokens, all_heads * c.head_dim);
  // Rows behind the past hold NaN: they may be neither read nor written beyond past + tokens.
  Matrix<double> keys(c.capacity, kv_size, std::nan("")), values = keys;
  for (Index row = 0; row < c.past; ++row)
    for (Index i = 0; i < kv_size; ++i) {
      keys(row, i) = f32_values(random, 1)[0];
      values(row, i) = f32_values(random, 1)[0];
    }
  const Tensor tkeys = ws.f32({c.capacity, c.kv_heads, c.head_dim}, keys);
  const Tensor tvalues = ws.f32({c.capacity, c.kv_heads, c.head_dim}, values);
  const Tensor out = ws.output({c.tokens, c.heads, c.head_dim});
  backend.attention_cached({1, c.tokens, c.heads, c.kv_heads, c.head_dim, c.window},
                           ws.f32({c.tokens, all_heads, c.head_dim}, qkv), c.past, tkeys, tvalues, out);
  const reference::AttentionShape shape{1, c.tokens, c.heads, c.kv_heads, c.head_dim, c.window};
  const Matrix<double> truth = reference::attention_cached(shape, qkv, c.past, keys, values);
  report.close("out", ws.read(out), truth.values, 2e-6);
  report.exact("key cache", ws.read(tkeys), keys.values);
  report.exact("value cache", ws.read(tvalues), values.values);
}

}  // namespace

std::vector<Check> attention_checks() {
  std::vector<Check> checks;
  add_checks(checks, "attention", attention_cases(), check_attention);
  add_checks(checks, "attention_cached", cached_attention_cases(), check_cached_attention);
  return checks;
}

}  // namespace smoe::checks
