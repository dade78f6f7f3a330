// Cross-entropy over the columns of a vocabulary, whole and in slices (see op_calls.h).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/bench_cases.h"
#include "tests/kernels/op_calls.h"
#include "tests/kernels/op_cases.h"
#include "tests/reference/cross_entropy.h"

namespace smoe::checks {
namespace {

using namespace op_cases;
using Statistics = reference::CrossEntropyStatistics<double>;

// The logits of a case and what each target is; the same for all of its ops.
struct Rows {
  Matrix<double> logits;
  Ids targets;

  Rows(const CrossEntropyCase& c, Inputs& in)
      : logits(in.matrix(c.rows, c.vocab(), c.logit_scale)), targets(in.ids(c.rows, c.vocab())) {
    using Mask = CrossEntropyCase::Mask;
    for (auto& target : targets)
      if (c.mask == Mask::all || (c.mask == Mask::some && in.random().uniform() < 0.3))
        target = in.random().uniform() < 0.5 ? -100 : -1;
  }
  // As the owner of these columns holds them.
  Matrix<double> slice(Index first, Index columns) const {
    return columns == logits.cols ? logits : reference::columns(logits, first, columns);
  }
  std::vector<Statistics> of_slices(const CrossEntropyCase& c) const {
    std::vector<Statistics> all;
    Index first = 0;
    for (const Index columns : c.slices) {
      all.push_back(reference::cross_entropy_statistics(slice(first, columns), targets, first));
      first += columns;
    }
    return all;
  }
};

Statistics merged(const std::vector<Statistics>& slices) {
  Statistics all = slices.front();
  for (std::size_t s = 1; s < slices.size(); ++s)
    for (std::size_t n = 0; n < all.sums.size(); ++n) {
      const double top = std::max(all.maxima[n], slices[s].maxima[n]);
      all.sums[n] =
          all.sums[n] * std::exp(all.maxima[n] - top) + slices[s].sums[n] * std::exp(slices[s].maxima[n] - top);
      all.maxima[n] = top;
      all.target_logits[n] += slices[s].target_logits[n];
      all.logit_sums[n] += slices[s].logit_sums[n];
    }
  return all;
}

Statistics rounded(Statistics s) {
  for (Values* values : {&s.maxima, &s.sums, &s.target_logits, &s.logit_sums})
    *values = reference::cast<double>(reference::cast<float>(*values));
  return s;
}

// Of whole rows; for the bench, numbers of their size.
Statistics of_rows(const CrossEntropyCase& c, const Rows& rows, Inputs& in) {
  if (in.for_bench()) return {Values(c.rows, 3), Values(c.rows, 100), Values(c.rows, 1), Values(c.rows, 10)};
  return rounded(merged(rows.of_slices(c)));
}

// Of one column nothing is left of a gradient: exactly, where no part of it is rounded.
LabelSmoothing smoothing_of(const CrossEntropyCase& c, bool smoothed) {
  return smoothed ? LabelSmoothing{c.vocab() == 1 ? 0.5 : 0.1, c.vocab()} : LabelSmoothing{};
}

// A sum of logits, which may nearly vanish, is held against the root of that of their squares.
Output logit_sums_output(const Tensor& tensor, const std::function<Statistics()>& truth, double terms) {
  return {"logit sums", tensor, summed, [=] { return truth().logit_sums; }, {}, [=] { return terms; }};
}
double largest_norm(const Matrix<double>& logits) {
  double largest = 0;
  for (Index n = 0; n < logits.rows; ++n) {
    double squares = 0;
    for (Index v = 0; v < logits.cols; ++v) squares += logits(n, v) * logits(n, v);
    largest = std::max(largest, std::sqrt(squares));
  }
  return largest;
}

void add_statistics(OpCase& list, const CrossEntropyCase& c, Index first, Index columns, bool smoothed) {
  const auto prepare = [=](Inputs& in) {
    const Rows rows(c, in);
    const Matrix<double> slice = rows.slice(first, columns);
    const Tensor maxima = in.output({c.rows}), sums = in.output({c.rows}), target_logits = in.output({c.rows}),
                 logit_sums = smoothed ? in.output({c.rows}) : Tensor();
    const auto truth = [=, targets = rows.targets] {
      return reference::cross_entropy_statistics(slice, targets, first);
    };
    Prepared prepared{[&b = in.backend(), first, logits = in.f32(slice), targets = in.i32({c.rows}, rows.targets),
                       maxima, sums, target_logits, logit_sums] {
                        b.cross_entropy_statistics(logits, targets, first, maxima, sums, target_logits, logit_sums);
                      },
                      {{"maxima", maxima, exact, [=] { return truth().maxima; }},
                       {"sums", sums, summed, [=] { return truth().sums; }},
                       {"target logits", target_logits, exact, [=] { return truth().target_logits; }}}};
    if (smoothed && !in.for_bench())
      prepared.outputs.push_back(logit_sums_output(logit_sums, truth, largest_norm(slice)));
    return prepared;
  };
  const std::string shape = fmt::format("N{} V{}", c.rows, c.vocab());
  if (first == 0 && !smoothed)
    list.add("cross_entropy_statistics", shape, c.forward(), prepare);
  else
    list.vary("cross_entropy_statistics", fmt::format("columns from {}{}", first, smoothed ? ", labels smoothed" : ""),
              prepare);
}

// From what each slice's owner found, as the ranks would send it to each other.
Prepared prepare_merge(const CrossEntropyCase& c, bool smoothed, Inputs& in) {
  const Rows rows(c, in);
  const Index N = c.rows, numbers = smoothed ? 4 : 3;
  const auto slices = in.for_bench() ? std::vector<Statistics>(4) : rows.of_slices(c);
  std::vector<Statistics> sent;
  Values parts;
  for (const Statistics& found : slices) {
    const Statistics& s = sent.emplace_back(rounded(found));
    const auto append = [&](const Values& values) { parts.insert(parts.end(), values.begin(), values.end()); };
    append(s.maxima), append(s.sums), append(s.target_logits);
    if (smoothed) append(s.logit_sums);
  }
  const Tensor maxima = in.output({N}), sums = in.output({N}), target_logits = in.output({N}),
               logit_sums = smoothed ? in.output({N}) : Tensor();
  Prepared prepared{
      [&b = in.backend(), tparts = in.f32({static_cast<Index>(slices.size()), numbers, N}, parts), maxima, sums,
       target_logits, logit_sums] { b.cross_entropy_merge(tparts, maxima, sums, target_logits, logit_sums); },
      {{"maxima", maxima, exact, [=] { return merged(sent).maxima; }},
       {"sums", sums, summed, [=] { return merged(sent).sums; }},
       {"target logits", target_logits, exact, [=] { return merged(sent).target_logits; }}}};
  if (smoothed)
    prepared.outputs.push_back(logit_sums_output(
        logit_sums, [=] { return merged(sent); }, largest_norm(rows.logits)));
  return prepared;
}

Prepared prepare_losses(const CrossEntropyCase& c, Inputs& in) {
  const Rows rows(c, in);
  const Index N = c.rows;
  const Statistics s = of_rows(c, rows, in);
  const Tensor logsumexp = in.output({N}), losses = in.output({N});
  const auto truth = [s, targets = rows.targets] { return reference::cross_entropy_losses(targets, s); };
  return {[&b = in.backend(), targets = in.i32({N}, rows.targets), maxima = in.f32({N}, s.maxima),
           sums = in.f32({N}, s.sums), target_logits = in.f32({N}, s.target_logits), logsumexp,
           losses] { b.cross_entropy_losses(targets, maxima, sums, target_logits, logsumexp, losses); },
          {{"logsumexp", logsumexp, pointwise, [=] { return truth().logsumexp; }},
           {"losses", losses, summed, [=] { return truth().losses; }}}};  // a difference of two larger numbers
}

Prepared prepare_uniform_losses(const CrossEntropyCase& c, Inputs& in) {
  const Rows rows(c, in);
  const Index N = c.rows, V = c.vocab();
  const Statistics s = of_rows(c, rows, in);
  const Tensor losses = in.output({N});
  return {[&b = in.backend(), targets = in.i32({N}, rows.targets), maxima = in.f32({N}, s.maxima),
           sums = in.f32({N}, s.sums), logit_sums = in.f32({N}, s.logit_sums), V,
           losses] { b.cross_entropy_uniform_losses(targets, maxima, sums, logit_sums, V, losses); },
          {{"losses", losses, summed,
            [s, V, targets = rows.targets] { return reference::uniform_losses(targets, s, V); }}}};
}

void add_backward(OpCase& list, const CrossEntropyCase& c, Index first, Index columns, bool by_token, bool smoothed) {
  const auto prepare = [=](Inputs& in) {
    const Rows rows(c, in);
    const Index N = c.rows;
    const double scale = 1.0 / 37;
    const LabelSmoothing smoothing = smoothing_of(c, smoothed);
    const Matrix<double> slice = rows.slice(first, columns);
    const Values token_scales = by_token ? in.normals(N) : Values();
    const Values logsumexp = reference::cast<double>(
        reference::cast<float>(reference::cross_entropy_losses(rows.targets, of_rows(c, rows, in)).logsumexp));
    const Tensor logits = in.f32(slice), dlogits = in.type() == DType::f32 ? logits : in.typed_output({N, columns});
    return Prepared{[&b = in.backend(), first, logits, dlogits, targets = in.i32({N}, rows.targets),
                     tlogsumexp = in.f32({N}, logsumexp), scale,
                     scales = by_token ? in.f32({N}, token_scales) : Tensor(), smoothing] {
                      b.cross_entropy_backward(logits, targets, first, tlogsumexp, scale, scales, smoothing, dlogits);
                    },
                    {{"dlogits", dlogits, summed, [=, targets = rows.targets] {
                        return reference::cross_entropy_backward(
                                   slice, targets, first, logsumexp, scale, token_scales,
                                   {smoothing.amount, std::max<Index>(1, smoothing.vocabulary)})
                            .values;
                      }}}};
  };
  if (first == 0 && !by_token && !smoothed)
    list.add("cross_entropy_backward", fmt::format("N{} V{}", c.rows, c.vocab()), c.backward(list.a), prepare);
  else
    list.vary("cross_entropy_backward",
              fmt::format("columns from {}{}{}", first, by_token ? ", scaled by token" : "",
                          smoothed ? ", labels smoothed" : ""),
              prepare);
}

void add_cross_entropy(OpCase& list, const CrossEntropyCase& c) {
  const std::string shape = fmt::format("N{} V{}", c.rows, c.vocab());
  const Index ranges = list.bench ? 4 : static_cast<Index>(c.slices.size());
  list.add("cross_entropy_merge", shape, op_work::cross_entropy_merge(ranges, c.rows),
           [c](Inputs& in) { return prepare_merge(c, false, in); });
  list.vary("cross_entropy_merge", "labels smoothed", [c](Inputs& in) { return prepare_merge(c, true, in); });
  list.add("cross_entropy_losses", shape, op_work::cross_entropy_losses(c.rows),
           [c](Inputs& in) { return prepare_losses(c, in); });
  list.add("cross_entropy_uniform_losses", shape, op_work::cross_entropy_uniform_losses(c.rows),
           [c](Inputs& in) { return prepare_uniform_losses(c, in); });
  Index first = 0;
  for (const Index columns : c.slices) {
    for (const bool smoothed : {false, true}) {
      add_statistics(list, c, first, columns, smoothed);
      for (const bool by_token : {false, true}) add_backward(list, c, first, columns, by_token, smoothed);
    }
    first += columns;
  }
}

}  // namespace

std::vector<OpCase> cross_entropy_calls() {
  std::vector<OpCase> list;
  add_cases(list, "cross_entropy", cross_entropy_cases(), add_cross_entropy);
  return list;
}

std::vector<OpCase> cross_entropy_calls(const BenchShape& shape, DType type) {
  std::vector<OpCase> list;
  add_cases(list, "cross_entropy", bench_cases::cross_entropy(shape), add_cross_entropy, timed_in(type));
  return list;
}

}  // namespace smoe::checks
