// Checks of the ops that know nothing of attention or experts (see backend_vs_reference.h).
//
// Tolerances. fp32 rounds by at most u = 6e-8. A sum of n terms of either sign, added one after another, is off by about
// sqrt(n) u of its terms' size, which is sqrt(n) times less than the sum's own spread: 2e-6 leaves a factor of 10 to 30 at
// the sizes here and is far below any wrong term. Ops without sums get 1e-6; what is only moved is exact.
#include "kernels/device_sums.h"
#include "tests/kernels/backend_vs_reference.h"
#include "tests/kernels/op_cases.h"
#include "tests/reference/adamw.h"
#include "tests/reference/cross_entropy.h"
#include "tests/reference/embedding.h"
#include "tests/reference/linear.h"
#include "tests/reference/rms_norm.h"
#include "tests/reference/rope.h"

namespace smoe::checks {
namespace {

using namespace op_cases;

constexpr double pointwise = 1e-6, summed = 2e-6;

void check_elementwise(Backend& backend, const ElementwiseCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  // The mean keeps the sums away from zero, where a relative error means nothing.
  const Values a = f32_values(random, c.n, 1.0, 0.5), b = f32_values(random, c.n);
  const Values sum = reference::cast<double>(reference::cast<float>(reference::add(a, b)));  // f32 addition, exactly
  const Tensor ta = ws.f32({c.n}, a), tb = ws.f32({c.n}, b), out = ws.output({c.n});
  backend.add(ta, tb, out);
  report.exact("add", ws.read(out), sum);
  // Sums are made in double.
  DeviceSums sums(backend);
  sums.reset(2);
  for (int times = 1; times <= 2; ++times) {  // they add up
    backend.sum(ta, sums[0]);
    backend.sum_of_squares(ta, sums[1]);
    report.close("sum", {sums.read()[0]}, {times * reference::sum(a)}, 1e-12);
    report.close("sum_of_squares", {sums.read()[1]}, {times * reference::sum_of_squares(a)}, 1e-12);
  }
  const Tensor copied = ws.output({c.n});
  backend.copy(copied, ta);
  report.exact("copy", ws.read(copied), a);
  backend.fill(copied, 0.25f);
  report.exact("fill", ws.read(copied), Values(c.n, 0.25));
  const Tensor first = ws.f32({c.n}, a), second = ws.f32({c.n}, b);
  backend.add(first, tb, first);
  report.exact("add into the first", ws.read(first), sum);
  backend.add(ta, second, second);
  report.exact("add into the second", ws.read(second), sum);
}

void check_embedding(Backend& backend, const EmbeddingCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Ids ids = c.one_id ? Ids(c.tokens, 3) : random.ids(c.tokens, c.vocab);
  const Matrix<double> table = f32_matrix(random, c.vocab, c.hidden), dout = f32_matrix(random, c.tokens, c.hidden);
  Matrix<double> dtable = f32_matrix(random, c.vocab, c.hidden);
  const Tensor tids = ws.i32({c.tokens}, ids), out = ws.output({c.tokens, c.hidden}), tdtable = ws.f32(dtable);
  backend.embedding_forward(tids, ws.f32(table), 0, c.vocab, out);
  const Matrix<double> whole = reference::embedding_forward(ids, table);
  report.exact("out", ws.read(out), whole.values);

  // Two ranks that hold a part of the rows each: their results add up to the whole, and gradients stay apart.
  const Index split = c.vocab / 3;
  Matrix<double> sum(c.tokens, c.hidden), parts = dtable;
  for (const auto& [first, last] : {std::pair<Index, Index>{0, split}, {split, c.vocab}}) {
    if (first == last) continue;
    const Matrix<double> rows = reference::rows(table, first, last - first), start = reference::rows(dtable, first, last - first);
    backend.embedding_forward(tids, ws.f32(rows), first, c.vocab, out);
    const Values part = ws.read(out);
    for (std::size_t i = 0; i < part.size(); ++i) sum.values[i] += part[i];
    const Tensor tpart = ws.f32(start);
    backend.embedding_backward(tids, ws.f32(dout), first, c.vocab, tpart);
    const Values found = ws.read(tpart);
    std::copy(found.begin(), found.end(), parts.values.begin() + first * c.hidden);
  }
  report.exact("sum of the parts of out", sum.values, whole.values);

  backend.embedding_backward(tids, ws.f32(dout), 0, c.vocab, tdtable);
  reference::embedding_backward(ids, dout, dtable);
  report.close("dtable", ws.read(tdtable), dtable.values, summed);
  report.close("parts of dtable", parts.values, dtable.values, summed);
}

void check_rms_norm(Backend& backend, const RmsNormCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Matrix<double> x = f32_matrix(random, c.tokens, c.hidden, c.scale), dy = f32_matrix(random, c.tokens, c.hidden);
  const Matrix<double> residual = f32_matrix(random, c.tokens, c.hidden), none(c.tokens, c.hidden);
  const Values weight = f32_values(random, c.hidden, 0.3, 1.0), start = f32_values(random, c.hidden);

  const Tensor tx = ws.f32(x), tweight = ws.f32({c.hidden}, weight), tdy = ws.f32(dy);
  const Tensor y = ws.output({c.tokens, c.hidden}), rstd = ws.output({c.tokens});
  backend.rms_norm_forward(tx, tweight, c.epsilon, y, rstd);
  const reference::RmsNorm<double> forward = reference::rms_norm_forward(x, weight, double(c.epsilon));
  report.close("y", ws.read(y), forward.y.values, pointwise);
  report.close("rstd", ws.read(rstd), forward.rstd, pointwise);

  const Values saved_rstd = ws.read(rstd);
  Values dweight = start;
  const Matrix<double> dx = reference::rms_norm_backward(dy, x, weight, saved_rstd, residual, dweight);
  Values again = start;
  const Matrix<double> dx_alone = reference::rms_norm_backward(dy, x, weight, saved_rstd, none, again);

  const Tensor tdx = ws.output({c.tokens, c.hidden}), tdweight = ws.f32({c.hidden}, start);
  backend.rms_norm_backward(tdy, tx, tweight, rstd, ws.f32(residual), tdx, tdweight);
  report.close("dx", ws.read(tdx), dx.values, summed);
  report.close("dweight", ws.read(tdweight), dweight, summed);

  const Tensor in_place = ws.f32(residual);
  backend.rms_norm_backward(tdy, tx, tweight, rstd, in_place, in_place, ws.f32({c.hidden}, start));
  report.close("dx where the residual was", ws.read(in_place), dx.values, summed);

  const Tensor alone = ws.output({c.tokens, c.hidden});
  backend.rms_norm_backward(tdy, tx, tweight, rstd, Tensor(), alone, ws.f32({c.hidden}, start));
  report.close("dx without a residual", ws.read(alone), dx_alone.values, summed);

  const Tensor frozen = ws.output({c.tokens, c.hidden});
  backend.rms_norm_backward(tdy, tx, tweight, rstd, ws.f32(residual), frozen, Tensor());
  report.close("dx of a frozen weight", ws.read(frozen), dx.values, summed);
}

void check_gemm(Backend& backend, const GemmCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Matrix<double> x = f32_matrix(random, c.rows, c.in), w = f32_matrix(random, c.out, c.in);
  const Matrix<double> dy = f32_matrix(random, c.rows, c.out);
  const auto compare = [&](const char* name, Gemm kind, const Matrix<double>& a, const Matrix<double>& b,
                           const Matrix<double>& product) {
    const Tensor ta = ws.f32(a), tb = ws.f32(b), assigned = ws.output({product.rows, product.cols});
    backend.gemm(kind, ta, tb, assigned, Write::assign);
    report.close(std::string(name) + " assigned", ws.read(assigned), product.values, summed);
    const Matrix<double> start = f32_matrix(random, product.rows, product.cols);
    const Tensor accumulated = ws.f32(start);
    backend.gemm(kind, ta, tb, accumulated, Write::add);
    report.close(std::string(name) + " accumulated", ws.read(accumulated), reference::add(start, product).values, summed);
  };
  compare("nt", Gemm::nt, x, w, reference::gemm_nt(x, w));
  compare("nn", Gemm::nn, dy, w, reference::gemm_nn(dy, w));
  compare("tn", Gemm::tn, dy, x, reference::gemm_tn(dy, x));
}

void check_cross_entropy(Backend& backend, const CrossEntropyCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Matrix<double> logits = f32_matrix(random, c.rows, c.vocab(), c.logit_scale);
  Ids targets = random.ids(c.rows, c.vocab());
  for (auto& target : targets)
    if (c.mask == CrossEntropyCase::Mask::all || (c.mask == CrossEntropyCase::Mask::some && random.uniform() < 0.3))
      target = random.uniform() < 0.5 ? -100 : -1;
  const Tensor ttargets = ws.i32({c.rows}, targets);
  const double scale = 1.0 / 37;

  // Each slice by itself, as the owner of a part of the vocabulary does.
  reference::CrossEntropyStatistics<double> merged{Values(c.rows, -1e30), Values(c.rows), Values(c.rows)};
  std::vector<Tensor> slices;
  Values parts;  // of all slices, as the ranks would send them to each other
  Index first = 0;
  for (const Index columns : c.slices) {
    const Matrix<double> slice = reference::columns(logits, first, columns);
    slices.push_back(ws.f32(slice));
    const Tensor maxima = ws.output({c.rows}), sums = ws.output({c.rows}), target_logits = ws.output({c.rows});
    backend.cross_entropy_statistics(slices.back(), ttargets, first, maxima, sums, target_logits);
    const auto truth = reference::cross_entropy_statistics(slice, targets, first);
    const std::string at = " of columns from " + std::to_string(first);
    report.exact("maxima" + at, ws.read(maxima), truth.maxima);
    report.close("sums" + at, ws.read(sums), truth.sums, summed);
    report.exact("target logits" + at, ws.read(target_logits), truth.target_logits);
    for (const Tensor& t : {maxima, sums, target_logits}) {
      const Values values = ws.read(t);
      parts.insert(parts.end(), values.begin(), values.end());
    }
    for (Index n = 0; n < c.rows; ++n) {
      const double top = std::max(merged.maxima[n], truth.maxima[n]);
      merged.sums[n] =
          merged.sums[n] * std::exp(merged.maxima[n] - top) + truth.sums[n] * std::exp(truth.maxima[n] - top);
      merged.maxima[n] = top;
      merged.target_logits[n] += truth.target_logits[n];
    }
    first += columns;
  }
  const Tensor maxima = ws.output({c.rows}), sums = ws.output({c.rows}), target_logits = ws.output({c.rows});
  backend.cross_entropy_merge(ws.f32({static_cast<Index>(c.slices.size()), 3, c.rows}, parts), maxima, sums, target_logits);
  report.exact("merged maxima", ws.read(maxima), merged.maxima);
  report.close("merged sums", ws.read(sums), merged.sums, summed);
  report.exact("merged target logits", ws.read(target_logits), merged.target_logits);

  const auto truth = reference::cross_entropy_losses(targets, merged);
  const Tensor logsumexp = ws.output({c.rows}), losses = ws.output({c.rows});
  backend.cross_entropy_losses(ttargets, ws.f32({c.rows}, merged.maxima), ws.f32({c.rows}, merged.sums),
                               ws.f32({c.rows}, merged.target_logits), logsumexp, losses);
  report.close("logsumexp", ws.read(logsumexp), truth.logsumexp, pointwise);
  report.close("losses", ws.read(losses), truth.losses, summed);  // a difference of two larger numbers

  const Values saved = ws.read(logsumexp), token_scales = f32_values(random, c.rows);
  first = 0;
  for (std::size_t s = 0; s < slices.size(); ++s) {
    const Matrix<double> slice = reference::columns(logits, first, c.slices[s]);
    backend.cross_entropy_backward(slices[s], ttargets, first, logsumexp, scale, Tensor());
    report.close("dlogits of columns from " + std::to_string(first), ws.read(slices[s]),
                 reference::cross_entropy_backward(slice, targets, first, saved, scale).values, summed);
    const Tensor scaled = ws.f32(slice);
    backend.cross_entropy_backward(scaled, ttargets, first, logsumexp, scale, ws.f32({c.rows}, token_scales));
    report.close("dlogits scaled by token, of columns from " + std::to_string(first), ws.read(scaled),
                 reference::cross_entropy_backward(slice, targets, first, saved, scale, token_scales).values, summed);
    first += c.slices[s];
  }
}

void check_rope(Backend& backend, const RopeCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Tensor table = ws.output({c.positions, c.head_dim});
  backend.rope_table(c.frequencies(), c.scale, table);
  // The angles are f32 by convention, and the same on both sides: only the rounding of cosine and sine is left.
  report.close("table", ws.read(table), reference::rope_table(c.frequencies(), c.scale, c.positions).values, 1.2e-7 * c.scale);

  const Matrix<double> saved_table = ws.read_matrix(table, c.positions, c.head_dim);
  const Ids positions = random.ids(c.tokens, c.positions);
  const Tensor tpositions = ws.i32({c.tokens}, positions);
  Matrix<double> x = f32_matrix(random, c.tokens, c.heads * c.head_dim), dx = x;
  const Tensor forward = ws.f32({c.tokens, c.heads, c.head_dim}, x), backward = ws.f32({c.tokens, c.heads, c.head_dim}, x);
  backend.rope_forward(forward, c.rotated_heads, tpositions, table);
  reference::rope_forward(x, c.rotated_heads, positions, saved_table);
  report.close("rotated", ws.read(forward), x.values, pointwise);
  backend.rope_backward(backward, c.rotated_heads, tpositions, table);
  reference::rope_backward(dx, c.rotated_heads, positions, saved_table);
  report.close("gradient", ws.read(backward), dx.values, pointwise);
}

void check_adamw(Backend& backend, const AdamWCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  // Parameters as small as the updates, so that an error of an update shows.
  Values parameter = f32_values(random, c.n, 0.05), first(c.n), second(c.n), gradient;
  const Tensor tparameter = ws.f32({c.n}, parameter), tfirst = ws.f32({c.n}, first), tsecond = ws.f32({c.n}, second);
  for (int t = 1; t <= c.steps; ++t) {
    gradient = f32_values(random, c.n, c.gradient_size);
    const Tensor tgradient = ws.f32({c.n}, gradient);
    const double beta1 = 0.9, beta2 = 0.95, rate = 0.05, epsilon = 1e-8;
    const double correction1 = 1 - std::pow(beta1, t), correction2 = 1 - std::pow(beta2, t);
    backend.adamw({rate, beta1, beta2, epsilon, c.weight_decay, correction1, correction2, c.gradient_scale}, tparameter,
                  tgradient, tfirst, tsecond);
    reference::adamw({rate, beta1, beta2, epsilon, c.weight_decay, correction1, correction2, c.gradient_scale}, parameter,
                     gradient, first, second);
    report.exact("cleared gradient", ws.read(tgradient), gradient);
  }
  report.close("parameter", ws.read(tparameter), parameter, summed);
  report.close("first moment", ws.read(tfirst), first, pointwise);
  report.close("second moment", ws.read(tsecond), second, pointwise);
}

}  // namespace

std::vector<Check> dense_checks() {
  std::vector<Check> checks;
  add_checks(checks, "elementwise", elementwise_cases(), check_elementwise);
  add_checks(checks, "embedding", embedding_cases(), check_embedding);
  add_checks(checks, "rms_norm", rms_norm_cases(), check_rms_norm);
  add_checks(checks, "gemm", gemm_cases(), check_gemm);
  add_checks(checks, "cross_entropy", cross_entropy_cases(), check_cross_entropy);
  add_checks(checks, "rope", rope_cases(), check_rope);
  add_checks(checks, "adamw", adamw_cases(), check_adamw);
  return checks;
}

}  // namespace smoe::checks
