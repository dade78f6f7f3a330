// Attention, whole and from a cache (see op_calls.h).
//
// Tolerances. A score of size s is rounded by s u (u = 6e-8), and the exponential turns that into a relative error of the
// probability: for scores up to about 5, as random queries and keys give, a few 1e-7, with sums over the keys on top.
// Hence 2e-6 forward, and 3e-6 backward where probabilities meet a difference of two sums; in proportion for larger scores.
//
// In bf16, tensor cores take the scores' gradients as bf16 once more before they are multiplied with queries and keys: a
// backward has two roundings. (Over 300 draws of numbers one is passed thrice, by 42% at the most.)
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/bench_cases.h"
#include "tests/kernels/op_calls.h"
#include "tests/kernels/op_cases_attention.h"
#include "tests/reference/attention.h"

namespace smoe::checks {
namespace {

using namespace op_cases;

// The work of a call whose documents begin at `starts`: what they hide is none.
Work of_documents(Work work, const AttentionCase& c, const Ids& starts) {
  if (starts.empty()) return work;
  double seen = 0;
  for (Index t = 0; t < c.tokens(); ++t)
    seen += static_cast<double>(t % c.sequence_length - starts[static_cast<std::size_t>(t)] + 1);
  work.flops *= seen / op_work::visible_pairs(c.sequences, c.sequence_length, 0);
  return work;
}

void add_attention(OpCase& list, const AttentionCase& c) {
  const AttentionShape shape{c.sequences, c.sequence_length, c.heads, c.kv_heads, c.head_dim, c.window};
  const reference::AttentionShape truth_shape{c.sequences, c.sequence_length, c.heads,
                                              c.kv_heads,  c.head_dim,        c.window};
  const std::string what =
      fmt::format("B{} S{} H{} G{} C{}{}{}", c.sequences, c.sequence_length, c.heads, c.kv_heads, c.head_dim,
                  c.window ? fmt::format(" window {}", c.window) : "",
                  c.document_length > 0 ? fmt::format(" documents {:.0f}", c.document_length) : "");
  const Index T = c.tokens(), all_heads = c.heads + 2 * c.kv_heads, width = c.heads * c.head_dim;
  const double forward_tolerance = 2e-6 * std::max(1.0, c.score_scale), backward_tolerance = 1.5 * forward_tolerance;
  const auto drawn_starts = [=](Random& random) {
    return c.document_length > 0
               ? reference::random_documents(random, c.sequences, c.sequence_length, c.document_length)
               : Ids();
  };
  Random of_bench(1);
  const Ids timed_starts = list.bench ? drawn_starts(of_bench) : Ids();  // work is counted of these
  struct Arguments {
    Matrix<double> qkv;
    Ids starts;
    Tensor tqkv, tstarts, out, lse;
  };
  const auto arguments = [=](Inputs& in) {
    Matrix<double> qkv = in.matrix(T, all_heads * c.head_dim);
    if (c.score_scale != 1 && !in.for_bench())
      for (Index t = 0; t < T; ++t)
        for (Index i = 0; i < width; ++i) qkv(t, i) *= c.score_scale;  // a power of two: still floats
    Ids starts = in.for_bench() ? timed_starts : drawn_starts(in.random());
    const Tensor tstarts = starts.empty() ? Tensor() : in.i32({T}, starts),
                 tqkv = in.typed({T, all_heads, c.head_dim}, qkv);
    return Arguments{
        std::move(qkv),         std::move(starts), tqkv, tstarts, in.typed_output({T, c.heads, c.head_dim}),
        in.output({c.heads, T})};
  };
  list.add("attention_forward", what, of_documents(c.forward(list.a), c, timed_starts), [=](Inputs& in) {
    const Arguments a = arguments(in);
    const auto truth = [=, qkv = a.qkv, starts = a.starts] {
      return reference::attention_forward(truth_shape, qkv, starts);
    };
    return Prepared{[&b = in.backend(), shape, qkv = a.tqkv, starts = a.tstarts, out = a.out, lse = a.lse] {
                      b.attention_forward(shape, qkv, starts, out, lse);
                    },
                    {{"out", a.out, forward_tolerance, [=] { return truth().out.values; }},
                     {"lse", a.lse, forward_tolerance, [=] { return truth().lse.values; }}}};
  });
  list.add("attention_backward", what, of_documents(c.backward(list.a), c, timed_starts), [=](Inputs& in) {
    const Arguments a = arguments(in);
    const Matrix<double> dout = in.matrix(T, width);
    in.backend().attention_forward(shape, a.tqkv, a.tstarts, a.out, a.lse);
    const Tensor dqkv = in.typed_output({T, all_heads, c.head_dim});
    const reference::Attention<double> saved{in.read(a.out, T, width), in.read(a.lse, c.heads, T)};
    const auto truth = [=, qkv = a.qkv, starts = a.starts] {
      return reference::attention_backward(truth_shape, qkv, starts, saved, dout).values;
    };
    // Apart, because the values' gradients are larger than those of queries and keys.
    const auto columns = [=](Index first, Index count) {
      return [=](const Values& all) {
        return reference::columns(Matrix<double>{T, all_heads * c.head_dim, all}, first, count).values;
      };
    };
    const Index score_columns = (c.heads + c.kv_heads) * c.head_dim, value_columns = c.kv_heads * c.head_dim;
    Prepared prepared{[&b = in.backend(), shape, qkv = a.tqkv, starts = a.tstarts, out = a.out, lse = a.lse,
                       tdout = in.typed({T, c.heads, c.head_dim}, dout),
                       dqkv] { b.attention_backward(shape, qkv, starts, out, lse, tdout, dqkv); },
                      {{"dqkv", dqkv, backward_tolerance, truth, {}, {}, 2},
                       {"dv", dqkv, backward_tolerance, truth, columns(score_columns, value_columns), {}, 2}}};
    // Where every query sees itself alone there is no such gradient, only the rounding of a difference.
    if (c.window != 1 && c.sequence_length != 1 && c.document_length != 1)
      prepared.outputs.push_back({"dq and dk", dqkv, backward_tolerance, truth, columns(0, score_columns), {}, 2});
    return prepared;
  });
}

void add_cached_attention(OpCase& list, const CachedAttentionCase& c) {
  const Index all_heads = c.heads + 2 * c.kv_heads, kv_size = c.kv_heads * c.head_dim;
  const Shape cache{c.capacity, c.kv_heads, c.head_dim};
  const std::string what = fmt::format("N{} past {} H{} G{} C{}", c.tokens, c.past, c.heads, c.kv_heads, c.head_dim);
  list.add("attention_cached", what, c.forward(list.a), [=](Inputs& in) {
    const Matrix<double> qkv = in.matrix(c.tokens, all_heads * c.head_dim);
    // Rows behind the past hold NaN: they may be neither read nor written beyond past + tokens.
    const auto filled = [&] {
      Matrix<double> rows = in.matrix(c.capacity, kv_size);
      if (!in.for_bench()) std::fill(rows.values.begin() + c.past * kv_size, rows.values.end(), std::nan(""));
      return rows;
    };
    const Matrix<double> keys = filled(), values = filled();
    const Tensor tkeys = in.typed(cache, keys), tvalues = in.typed(cache, values),
                 out = in.typed_output({c.tokens, c.heads, c.head_dim});
    struct Truth {
      Matrix<double> keys, values, out;
    };
    const auto truth = [=] {
      Truth t{keys, values, {}};
      t.out = reference::attention_cached({1, c.tokens, c.heads, c.kv_heads, c.head_dim, c.window}, qkv, c.past, t.keys,
                                          t.values);
      return t;
    };
    return Prepared{
        [&b = in.backend(), c, tqkv = in.typed({c.tokens, all_heads, c.head_dim}, qkv), tkeys, tvalues, out] {
          b.attention_cached({1, c.tokens, c.heads, c.kv_heads, c.head_dim, c.window}, tqkv, c.past, tkeys, tvalues,
                             out);
        },
        {{"out", out, 2e-6, [=] { return truth().out.values; }},
         {"key cache", tkeys, exact, [=] { return truth().keys.values; }},
         {"value cache", tvalues, exact, [=] { return truth().values.values; }}}};
  });
}

}  // namespace

std::vector<OpCase> attention_calls() {
  std::vector<OpCase> list;
  add_cases(list, "attention", attention_cases(), add_attention);
  add_cases(list, "attention_cached", cached_attention_cases(), add_cached_attention);
  return list;
}

std::vector<OpCase> attention_calls(const BenchShape& shape, DType type) {
  std::vector<OpCase> list;
  add_cases(list, "attention", bench_cases::attention(shape), add_attention, timed_in(type));
  add_cases(list, "attention_cached", bench_cases::cached_attention(shape), add_cached_attention, timed_in(type));
  return list;
}

}  // namespace smoe::checks
