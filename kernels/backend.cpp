// The checked side of the op table: memory, elementwise ops, embedding, norm, products, rotary embedding, cross-entropy
// and the optimizer. Attention, router and experts are in backend_moe.cpp.
#include "kernels/backend.h"

#include <algorithm>

#include "kernels/checks.h"

namespace smoe {

// Of a backend that works at the call, the host's clock.
Stamp Backend::stamp() { return {static_cast<std::uint64_t>(host_nanoseconds())}; }

double Backend::seconds_between(Stamp from, Stamp to) {
  return 1e-9 * static_cast<double>(static_cast<std::int64_t>(to.number - from.number));
}

double Backend::measure_memory_rate(const Tensor& room) {
  const Expect expect("measure_memory_rate", device());
  expect.here("room", room);
  expect.that(room.type() == DType::f32 && room.elements() >= 3, "f32 for three arrays expected");
  return do_measure_memory_rate(room);
}

// ---- memory ----

void Backend::copy_to_host(void* host, const Tensor& from) {
  Expect("copy_to_host", device()).here("from", from);
  do_copy_to_host(host, from);
}

void Backend::copy_from_host(const Tensor& to, const void* host) {
  Expect("copy_from_host", device()).here("to", to);
  do_copy_from_host(to, host);
}

void Backend::start_copy_to_host(void* host, const Tensor& from) {
  Expect("start_copy_to_host", device()).here("from", from);
  do_start_copy_to_host(host, from);
}

void Backend::copy(const Tensor& to, const Tensor& from) {
  const Expect expect("copy", device());
  expect.here("from", from);
  expect("to", to, from.shape(), from.type());
  expect.apart({{"to", to}}, {{"from", from}});
  do_copy(to, from);
}

void Backend::fill(const Tensor& to, float value) {
  const Expect expect("fill", device());
  expect.here("to", to);
  do_fill(to, value);
}

// ---- elementwise and reductions ----

void Backend::add(const Tensor& a, const Tensor& b, const Tensor& out) {
  const Expect expect("add", device());
  const DType type = expect.computing_type("out", out);
  expect("a", a, out.shape(), type);
  expect("b", b, out.shape(), type);
  expect("out", out, out.shape(), type);
  expect.apart_or_same({"out", out}, {"a", a});
  expect.apart_or_same({"out", out}, {"b", b});
  do_add(a, b, out);
}

void Backend::sum_rows(const Tensor& parts, const Tensor& out) {
  const Expect expect("sum_rows", device());
  const DType type = expect.computing_type("out", out);
  expect("out", out, {out.elements()}, type);
  expect("parts", parts, {parts.dim(0), out.elements()}, type);
  expect.apart({{"out", out}}, {{"parts", parts}});
  do_sum_rows(parts, out);
}

void Backend::sum(const Tensor& x, const Tensor& out) {
  const Expect expect("sum", device());
  expect("x", x, x.shape());
  expect("out", out, {1}, DType::f64);
  expect.apart({{"out", out}}, {{"x", x}});
  do_sum(x, out);
}

void Backend::sum_of_squares(const Tensor& x, const Tensor& out) {
  const Expect expect("sum_of_squares", device());
  expect("x", x, x.shape());
  expect("out", out, {1}, DType::f64);
  expect.apart({{"out", out}}, {{"x", x}});
  do_sum_of_squares(x, out);
}

// ---- embedding ----

void Backend::embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first, std::int64_t vocabulary,
                                const Tensor& out) {
  const std::int64_t T = out.dim(0), V = table.dim(0), D = out.dim(1);
  const Expect expect("embedding_forward", device());
  expect.indices("ids", ids, {T});
  const DType type = expect.computing_type("table", table);
  expect("table", table, {V, D}, type);
  expect("out", out, {T, D}, type);
  expect.that(first >= 0 && first + V <= vocabulary, "the table's rows must lie in the vocabulary");
  expect.apart({{"out", out}}, {{"ids", ids}, {"table", table}});
  do_embedding_forward(ids, table, first, vocabulary, out);
}

void Backend::embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first, std::int64_t vocabulary,
                                 const Tensor& dtable) {
  const std::int64_t T = dout.dim(0), V = dtable.dim(0), D = dout.dim(1);
  const Expect expect("embedding_backward", device());
  expect.indices("ids", ids, {T});
  expect("dout", dout, {T, D}, expect.computing_type("dout", dout));
  expect("dtable", dtable, {V, D});
  expect.that(first >= 0 && first + V <= vocabulary, "the table's rows must lie in the vocabulary");
  expect.apart({{"dtable", dtable}}, {{"ids", ids}, {"dout", dout}});
  do_embedding_backward(ids, dout, first, vocabulary, dtable);
}

void Backend::add_noise(const TokenNoise& noise, const Tensor& row_scales, const Tensor& x) {
  const Expect expect("add_noise", device());
  expect("row_scales", row_scales, {x.dim(0)});
  expect("x", x, {x.dim(0), x.dim(1)}, expect.computing_type("x", x));
  expect.apart({{"x", x}}, {{"row_scales", row_scales}});
  do_add_noise(noise, row_scales, x);
}

// ---- RMSNorm ----

void Backend::rms_norm_forward(const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y,
                               const Tensor& rstd) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  const Expect expect("rms_norm_forward", device());
  const DType type = expect.computing_type("x", x);
  expect("x", x, {T, D}, type);
  expect("weight", weight, {D}, type);
  expect("y", y, {T, D}, type);
  expect("rstd", rstd, {T});
  expect.apart({{"y", y}, {"rstd", rstd}}, {{"x", x}, {"weight", weight}});
  do_rms_norm_forward(x, weight, epsilon, y, rstd);
}

void Backend::rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                                const Tensor& dresidual, const Tensor& dx, const Tensor& dweight) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  const Expect expect("rms_norm_backward", device());
  const DType type = expect.computing_type("x", x);
  expect("dy", dy, {T, D}, type);
  expect("x", x, {T, D}, type);
  expect("weight", weight, {D}, type);
  expect("rstd", rstd, {T});
  expect.optional("dresidual", dresidual, {T, D}, type);
  expect("dx", dx, {T, D}, type);
  expect.optional("dweight", dweight, {D});
  expect.apart({{"dx", dx}, {"dweight", dweight}}, {{"dy", dy}, {"x", x}, {"weight", weight}, {"rstd", rstd}});
  expect.apart_or_same({"dx", dx}, {"dresidual", dresidual});
  expect.apart({{"dweight", dweight}}, {{"dresidual", dresidual}});
  do_rms_norm_backward(dy, x, weight, rstd, dresidual, dx, dweight);
}

// ---- matrix products ----

void Backend::gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, Write write) {
  const std::int64_t m = c.dim(0), n = c.dim(1), k = kind == Gemm::tn ? a.dim(0) : a.dim(1);
  const Expect expect("gemm", device());
  const DType type = expect.computing_type("a", a);
  expect("a", a, kind == Gemm::tn ? Shape{k, m} : Shape{m, k}, type);
  expect("b", b, kind == Gemm::nt ? Shape{n, k} : Shape{k, n}, type);
  expect.either("c", c, {m, n}, type);
  expect.apart({{"c", c}}, {{"a", a}, {"b", b}});
  do_gemm(kind, a, b, c, write);
}

void Backend::grouped_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows& rows,
                           Write write) {
  const bool rows_are_summed = kind == Gemm::tn;
  const std::int64_t R = a.dim(0), E = rows.offsets.dim(0) - 1;
  const std::int64_t n = rows_are_summed ? c.dim(2) : c.dim(1), m = a.dim(1), k = a.dim(1);
  const Expect expect("grouped_gemm", device());
  expect.that(E >= 1, "offsets must hold one entry more than there are experts");
  expect.indices("offsets", rows.offsets, {E + 1});
  const DType type = expect.computing_type("a", a);
  expect("a", a, {R, a.dim(1)}, type);
  if (rows_are_summed) {
    expect("b", b, {R, n}, type);
    expect.either("c", c, {E, m, n}, type);
  } else {
    expect("b", b, kind == Gemm::nt ? Shape{E, n, k} : Shape{E, k, n}, type);
    expect.either("c", c, {R, n}, type);
  }
  expect.that(static_cast<std::int64_t>(rows.host.size()) == E + 1, "the host must have the offsets too");
  expect.that(rows.host.front() == 0 && rows.host.back() == R && std::is_sorted(rows.host.begin(), rows.host.end()),
              "offsets must rise from 0 to the number of rows");
  expect.apart({{"c", c}}, {{"a", a}, {"b", b}, {"offsets", rows.offsets}});
  do_grouped_gemm(kind, a, b, c, rows, write);
}

// ---- rotary position embedding ----

namespace {
void expect_rotation(const Expect& expect, const Tensor& x, std::int64_t rotated_heads, const Tensor& positions,
                     const Tensor& table) {
  const std::int64_t T = x.dim(0), heads = x.dim(1), C = x.dim(2), P = table.dim(0);
  expect("x", x, {T, heads, C}, expect.computing_type("x", x));
  expect.indices("positions", positions, {T});
  expect("table", table, {P, C});
  expect.that(C % 2 == 0, "the head dim must be even");
  expect.that(rotated_heads >= 0 && rotated_heads <= heads, "more rotated heads than heads");
  expect.apart({{"x", x}}, {{"positions", positions}, {"table", table}});
}
}  // namespace

void Backend::rope_table(std::span<const float> frequencies, float scale, const Tensor& table) {
  const std::int64_t P = table.dim(0), C = table.dim(1);
  const Expect expect("rope_table", device());
  expect("table", table, {P, C});
  expect.that(C % 2 == 0, "the head dim must be even");
  expect.that(static_cast<std::int64_t>(frequencies.size()) == C / 2,
              "there must be a frequency for each pair of a head");
  do_rope_table(frequencies, scale, table);
}

void Backend::rope_forward(const Tensor& x, std::int64_t rotated_heads, const Tensor& positions, const Tensor& table) {
  expect_rotation(Expect("rope_forward", device()), x, rotated_heads, positions, table);
  do_rope_forward(x, rotated_heads, positions, table);
}

void Backend::rope_backward(const Tensor& dx, std::int64_t rotated_heads, const Tensor& positions,
                            const Tensor& table) {
  expect_rotation(Expect("rope_backward", device()), dx, rotated_heads, positions, table);
  do_rope_backward(dx, rotated_heads, positions, table);
}

// ---- cross-entropy ----

void Backend::cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                       const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                                       const Tensor& logit_sums) {
  const std::int64_t N = logits.dim(0), V = logits.dim(1);
  const Expect expect("cross_entropy_statistics", device());
  expect("logits", logits, {N, V});
  expect.indices("targets", targets, {N});
  expect("maxima", maxima, {N});
  expect("sums", sums, {N});
  expect("target_logits", target_logits, {N});
  expect.optional("logit_sums", logit_sums, {N});
  expect.apart({{"maxima", maxima}, {"sums", sums}, {"target_logits", target_logits}, {"logit_sums", logit_sums}},
               {{"logits", logits}, {"targets", targets}});
  do_cross_entropy_statistics(logits, targets, first, maxima, sums, target_logits, logit_sums);
}

void Backend::cross_entropy_merge(const Tensor& parts, const Tensor& maxima, const Tensor& sums,
                                  const Tensor& target_logits, const Tensor& logit_sums) {
  const std::int64_t P = parts.dim(0), N = maxima.dim(0);
  const Expect expect("cross_entropy_merge", device());
  const bool with_logit_sums = logit_sums.rank() > 0;
  expect("parts", parts, {P, with_logit_sums ? 4 : 3, N});
  expect("maxima", maxima, {N});
  expect("sums", sums, {N});
  expect("target_logits", target_logits, {N});
  expect.optional("logit_sums", logit_sums, {N});
  expect.that(P >= 1, "at least one range of columns");
  expect.apart({{"maxima", maxima}, {"sums", sums}, {"target_logits", target_logits}, {"logit_sums", logit_sums}},
               {{"parts", parts}});
  do_cross_entropy_merge(parts, maxima, sums, target_logits, logit_sums);
}

void Backend::cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                   const Tensor& target_logits, const Tensor& logsumexp, const Tensor& losses) {
  const std::int64_t N = losses.dim(0);
  const Expect expect("cross_entropy_losses", device());
  expect.indices("targets", targets, {N});
  expect("maxima", maxima, {N});
  expect("sums", sums, {N});
  expect("target_logits", target_logits, {N});
  expect("logsumexp", logsumexp, {N});
  expect("losses", losses, {N});
  expect.apart({{"logsumexp", logsumexp}, {"losses", losses}},
               {{"targets", targets}, {"maxima", maxima}, {"sums", sums}, {"target_logits", target_logits}});
  do_cross_entropy_losses(targets, maxima, sums, target_logits, logsumexp, losses);
}

void Backend::cross_entropy_uniform_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                           const Tensor& logit_sums, std::int64_t vocabulary, const Tensor& losses) {
  const std::int64_t N = losses.dim(0);
  const Expect expect("cross_entropy_uniform_losses", device());
  expect.indices("targets", targets, {N});
  expect("maxima", maxima, {N});
  expect("sums", sums, {N});
  expect("logit_sums", logit_sums, {N});
  expect("losses", losses, {N});
  expect.that(vocabulary >= 1, "the vocabulary must hold a column");
  expect.apart({{"losses", losses}},
               {{"targets", targets}, {"maxima", maxima}, {"sums", sums}, {"logit_sums", logit_sums}});
  do_cross_entropy_uniform_losses(targets, maxima, sums, logit_sums, vocabulary, losses);
}

void Backend::cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                     const Tensor& logsumexp, double scale, const Tensor& token_scales,
                                     const LabelSmoothing& smoothing, const Tensor& dlogits) {
  const std::int64_t N = logits.dim(0), V = logits.dim(1);
  const Expect expect("cross_entropy_backward", device());
  expect("logits", logits, {N, V});
  expect.indices("targets", targets, {N});
  expect("logsumexp", logsumexp, {N});
  expect.optional("token_scales", token_scales, {N});
  expect("dlogits", dlogits, {N, V}, expect.computing_type("dlogits", dlogits));
  expect.apart({{"dlogits", dlogits}},
               {{"targets", targets}, {"logsumexp", logsumexp}, {"token_scales", token_scales}});
  expect.apart_or_same({"dlogits", dlogits}, {"logits", logits});
  expect.that(smoothing.amount == 0 || (smoothing.amount > 0 && smoothing.amount < 1 && smoothing.vocabulary >= V),
              "smoothing must be in [0, 1), of a vocabulary that holds these columns");
  do_cross_entropy_backward(logits, targets, first, logsumexp, scale, token_scales, smoothing, dlogits);
}

// ---- AdamW ----

void Backend::adamw(const AdamWStep& step, const Tensor& master, const Tensor& gradient, const Tensor& first_moment,
                    const Tensor& second_moment, const Tensor& value) {
  const Shape shape = master.shape();
  const Expect expect("adamw", device());
  expect("master", master, shape);
  expect("gradient", gradient, shape);
  expect("first_moment", first_moment, shape);
  expect("second_moment", second_moment, shape);
  expect.optional("value", value, shape, DType::bf16);
  expect.apart({{"master", master},
                {"gradient", gradient},
                {"first_moment", first_moment},
                {"second_moment", second_moment},
                {"value", value}},
               {});
  do_adamw(step, master, gradient, first_moment, second_moment, value);
}

}  // namespace smoe
