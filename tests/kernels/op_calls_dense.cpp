// Copies, elementwise ops, embedding, norm, products, rotary embedding, AdamW (see op_calls.h).
#include <fmt/format.h>

#include <cmath>

#include "kernels/host_mirror.h"
#include "tests/kernels/bench_cases.h"
#include "tests/kernels/op_calls.h"
#include "tests/kernels/op_cases.h"
#include "tests/reference/adamw.h"
#include "tests/reference/embedding.h"
#include "tests/reference/linear.h"
#include "tests/reference/rms_norm.h"
#include "tests/reference/rope.h"

namespace smoe::checks {
namespace {

using namespace op_cases;

void add_copies(OpCase& list, const ElementwiseCase& c) {
  const std::string shape = fmt::format("n{}", c.n);
  const Work work = op_work::copy(c.n);  // of f32, to and from the host
  // What has come to the host is taken back to the device, where it is read like any output.
  list.add("copy_to_host", shape, work, [c](Inputs& in) {
    const Values a = in.normals(c.n);
    const auto host = std::make_shared<std::vector<float>>(static_cast<std::size_t>(c.n));
    const Tensor out = in.output({c.n});
    return Prepared{[&b = in.backend(), from = in.f32({c.n}, a), host, out, compared = !in.for_bench()] {
                      b.copy_to_host(host->data(), from);
                      if (compared) b.copy_from_host(out, host->data());
                    },
                    {{"copy", out, exact, given(a)}}};
  });
  list.add("start_copy_to_host", shape, work, [c](Inputs& in) {
    const Values a = in.normals(c.n);
    const auto mirror = std::make_shared<HostMirror<float>>();
    const Tensor out = in.output({c.n});
    return Prepared{[&b = in.backend(), from = in.f32({c.n}, a), mirror, out, compared = !in.for_bench()] {
                      mirror->start_fetch(b, from);
                      b.wait(b.record());
                      if (compared) b.copy_from_host(out, mirror->numbers().data());
                    },
                    {{"copy", out, exact, given(a)}}};
  });
  list.add("copy_from_host", shape, work, [c](Inputs& in) {
    const Values a = in.normals(c.n);
    auto host = reference::cast<float>(a);
    host.resize(static_cast<std::size_t>(c.n));
    const Tensor out = in.output({c.n});
    return Prepared{[&b = in.backend(), host, out] { b.copy_from_host(out, host.data()); },
                    {{"copy", out, exact, given(a)}}};
  });
  list.add("copy", shape, op_work::copy(c.n, list.a), [c](Inputs& in) {
    const Values a = in.normals(c.n);
    const Tensor out = in.typed_output({c.n});
    return Prepared{[&b = in.backend(), from = in.typed({c.n}, a), out] { b.copy(out, from); },
                    {{"copy", out, exact, given(a)}}};
  });
  list.add("fill", shape, op_work::fill(c.n, list.a), [c](Inputs& in) {
    const Tensor out = in.typed_output({c.n});
    return Prepared{[&b = in.backend(), out] { b.fill(out, 0.25f); },
                    {{"fill", out, exact, [c] { return Values(c.n, 0.25); }}}};
  });
  list.vary("fill", "integers", [c](Inputs& in) {
    const Tensor out = in.output_i32({c.n});
    return Prepared{[&b = in.backend(), out] { b.fill(out, -7.0f); }, {{"fill", out, exact, given(Values(c.n, -7))}}};
  });
}

void add_elementwise(OpCase& list, const ElementwiseCase& c) {
  add_copies(list, c);
  const std::string shape = fmt::format("n{}", c.n);
  const auto add_into = [c](int where) {  // 0: apart, 1: into a, 2: into b
    return [c, where](Inputs& in) {
      const Values a = in.normals(c.n, 1.0, 0.5), b = in.normals(c.n);
      const Tensor ta = in.typed({c.n}, a), tb = in.typed({c.n}, b),
                   out = where == 0   ? in.typed_output({c.n})
                         : where == 1 ? ta
                                      : tb;
      return Prepared{[&on = in.backend(), ta, tb, out] { on.add(ta, tb, out); },
                      {{"sum", out, exact,
                        [a, b] { return reference::cast<double>(reference::cast<float>(reference::add(a, b))); }}}};
    };
  };
  list.add("add", shape, c.forward(list.a), add_into(0));
  list.vary("add", "into the first", add_into(1));
  list.vary("add", "into the second", add_into(2));
  // Five in another order have other last bits.
  for (const std::int64_t parts : {2, 1, 5}) {
    const auto sum_rows = [c, parts](Inputs& in) {
      const Values a = in.normals(parts * c.n, 1.0, 0.5);
      const Tensor out = in.typed_output({c.n});
      return Prepared{[&b = in.backend(), x = in.typed({parts, c.n}, a), out] { b.sum_rows(x, out); },
                      {{"sum", out, exact, [a, parts, n = c.n] {
                          std::vector<float> sums(static_cast<std::size_t>(n));
                          const std::vector<float> numbers = reference::cast<float>(a);
                          for (std::size_t i = 0; i < numbers.size(); ++i) sums[i % sums.size()] += numbers[i];
                          return reference::cast<double>(sums);
                        }}}};
    };
    if (parts == 2)
      list.add("sum_rows", shape, op_work::sum_rows(parts, c.n, list.a), sum_rows);
    else
      list.vary("sum_rows", fmt::format("of {}", parts), sum_rows);
  }
  // Sums are made in double, and added to what is there. The mean keeps them away from zero, where a relative error means
  // nothing.
  list.add("sum", shape, op_work::sum(c.n), [c](Inputs& in) {
    const Values a = in.normals(c.n, 1.0, 0.5);
    const Tensor out = in.f64(0.75);
    return Prepared{[&b = in.backend(), x = in.f32({c.n}, a), out] { b.sum(x, out); },
                    {{"sum", out, 1e-12, [a] { return Values{0.75 + reference::sum(a)}; }}}};
  });
  list.add("sum_of_squares", shape, op_work::sum_of_squares(c.n), [c](Inputs& in) {
    const Values a = in.normals(c.n, 1.0, 0.5);
    const Tensor out = in.f64(0.75);
    return Prepared{[&b = in.backend(), x = in.f32({c.n}, a), out] { b.sum_of_squares(x, out); },
                    {{"sum", out, 1e-12, [a] { return Values{0.75 + reference::sum_of_squares(a)}; }}}};
  });
}

// The table's rows [first, first + count), as a rank that holds a part of the vocabulary has them.
void add_embedding(OpCase& list, const EmbeddingCase& c) {
  const std::string shape = fmt::format("T{} V{} D{}", c.tokens, c.vocab, c.hidden);
  const auto ids_of = [c](Inputs& in) {
    Ids ids = c.one_id ? Ids(c.tokens, 3) : in.ids(c.tokens, c.vocab);
    if (!c.one_id && c.tokens > 1)
      ids.front() = static_cast<std::int32_t>(c.vocab - 1);  // the last row is some token's
    return ids;
  };
  const auto forward = [=](Index first, Index count) {
    return [=](Inputs& in) {
      const Ids ids = ids_of(in);
      const Matrix<double> table = in.matrix(count, c.hidden);
      const Tensor out = in.typed_output({c.tokens, c.hidden});
      return Prepared{[&b = in.backend(), c, first, tids = in.i32({c.tokens}, ids), ttable = in.typed(table), out] {
                        b.embedding_forward(tids, ttable, first, c.vocab, out);
                      },
                      {{"out", out, exact, [=] {
                          Matrix<double> whole(c.vocab, c.hidden);  // zero outside the part
                          std::copy(table.values.begin(), table.values.end(), whole.values.begin() + first * c.hidden);
                          return reference::embedding_forward(ids, whole).values;
                        }}}};
    };
  };
  const auto backward = [=](Index first, Index count) {
    return [=](Inputs& in) {
      const Ids ids = ids_of(in);
      const Matrix<double> dout = in.matrix(c.tokens, c.hidden), start = in.matrix(count, c.hidden);
      const Tensor dtable = in.f32(start);
      return Prepared{[&b = in.backend(), c, first, tids = in.i32({c.tokens}, ids), tdout = in.typed(dout), dtable] {
                        b.embedding_backward(tids, tdout, first, c.vocab, dtable);
                      },
                      {{"dtable", dtable, summed, [=] {
                          Matrix<double> whole(c.vocab, c.hidden);
                          std::copy(start.values.begin(), start.values.end(), whole.values.begin() + first * c.hidden);
                          reference::embedding_backward(ids, dout, whole);
                          return reference::rows(whole, first, count).values;
                        }}}};
    };
  };
  list.add("embedding_forward", shape, c.forward(list.a), forward(0, c.vocab));
  list.add("embedding_backward", shape, c.backward(list.a), backward(0, c.vocab));
  const Index split = c.vocab / 3;
  for (const auto& [first, last] : {std::pair<Index, Index>{0, split}, {split, c.vocab}}) {
    const std::string rows = fmt::format("rows {} to {}", first, last);
    list.vary("embedding_forward", rows, forward(first, last - first));
    list.vary("embedding_backward", rows, backward(first, last - first));
  }
}

void add_rms_norm(OpCase& list, const RmsNormCase& c) {
  const Index T = c.tokens, D = c.hidden;
  const std::string shape = fmt::format("T{} D{}", T, D);
  list.add("rms_norm_forward", shape, c.forward(list.a), [=](Inputs& in) {
    const Matrix<double> x = in.matrix(T, D, c.scale);
    const Values weight = in.normals(D, 0.3, 1.0);
    const Tensor y = in.typed_output({T, D}), rstd = in.output({T});
    const auto truth = [=] { return reference::rms_norm_forward(x, weight, double(c.epsilon)); };
    return Prepared{[&b = in.backend(), c, tx = in.typed(x), tweight = in.typed({D}, weight), y, rstd] {
                      b.rms_norm_forward(tx, tweight, c.epsilon, y, rstd);
                    },
                    {{"y", y, rooted(D), [=] { return truth().y.values; }},
                     {"rstd", rstd, rooted(D), [=] { return truth().rstd; }}}};
  });
  enum class Residual { apart, in_place, none };
  const auto backward = [=](Residual residual, bool trained) {
    return [=](Inputs& in) {
      const Matrix<double> x = in.matrix(T, D, c.scale), dy = in.matrix(T, D), dresidual = in.matrix(T, D);
      const Values weight = in.normals(D, 0.3, 1.0), start = in.normals(D);
      const Tensor tx = in.typed(x), tweight = in.typed({D}, weight), rstd = in.output({T});
      in.backend().rms_norm_forward(tx, tweight, c.epsilon, in.typed_output({T, D}), rstd);
      const Tensor tresidual = residual == Residual::none ? Tensor() : in.typed(dresidual);
      const Tensor dx = residual == Residual::in_place ? tresidual : in.typed_output({T, D});
      const Tensor dweight = trained ? in.f32({D}, start) : Tensor();
      const auto truth = [=, saved = in.read(rstd)] {
        Values sum = start;
        Values gradient = reference::rms_norm_backward(
                              dy, x, weight, saved, residual == Residual::none ? Matrix<double>(T, D) : dresidual, sum)
                              .values;
        return std::pair(std::move(gradient), std::move(sum));
      };
      Prepared prepared{[&b = in.backend(), tdy = in.typed(dy), tx, tweight, rstd, tresidual, dx, dweight] {
                          b.rms_norm_backward(tdy, tx, tweight, rstd, tresidual, dx, dweight);
                        },
                        {{"dx", dx, summed, [=] { return truth().first; }}}};
      if (trained) prepared.outputs.push_back({"dweight", dweight, summed, [=] { return truth().second; }});
      return prepared;
    };
  };
  list.add("rms_norm_backward", shape, c.backward(list.a), backward(Residual::apart, true));
  list.vary("rms_norm_backward", "where the residual was", backward(Residual::in_place, true));
  list.vary("rms_norm_backward", "without a residual", backward(Residual::none, true));
  list.vary("rms_norm_backward", "of a frozen weight", backward(Residual::apart, false));
}

void add_gemm(OpCase& list, const GemmCase& c) {
  struct Kind {
    const char* name;
    Gemm kind;
    Index a_rows, a_cols, b_rows, b_cols, c_rows, c_cols;
    Matrix<double> (*truth)(const Matrix<double>&, const Matrix<double>&);
  };
  const Index m = c.rows, n = c.out, k = c.in;
  for (const Kind& x : {Kind{"nt", Gemm::nt, m, k, n, k, m, n, reference::gemm_nt<double>},
                        Kind{"nn", Gemm::nn, m, n, n, k, m, k, reference::gemm_nn<double>},
                        Kind{"tn", Gemm::tn, m, n, m, k, n, k, reference::gemm_tn<double>}}) {
    // wide: into f32, as the weights' gradients and the router's logits are.
    const auto call = [x](Write write, bool wide) {
      return [x, write, wide](Inputs& in) {
        const Matrix<double> a = in.matrix(x.a_rows, x.a_cols), b = in.matrix(x.b_rows, x.b_cols),
                             start = in.matrix(x.c_rows, x.c_cols);
        const Shape shape{x.c_rows, x.c_cols};
        const Tensor out = write == Write::add ? (wide ? in.f32(start) : in.typed(start))
                           : wide              ? in.output(shape)
                                               : in.typed_output(shape);
        return Prepared{[&on = in.backend(), x, ta = in.typed(a), tb = in.typed(b), out, write] {
                          on.gemm(x.kind, ta, tb, out, write);
                        },
                        {{"c", out, summed, [=] {
                            const Matrix<double> product = x.truth(a, b);
                            return write == Write::add ? reference::add(start, product).values : product.values;
                          }}}};
      };
    };
    // As the layers call it: weight gradients accumulate.
    const bool is_gradient = x.kind == Gemm::tn;
    const bool wide = is_gradient || (x.kind == Gemm::nt && c.wide);
    const Write usual = is_gradient ? Write::add : Write::assign, other = is_gradient ? Write::assign : Write::add;
    const auto add = [&](const std::string& name, Write write, bool into_f32) {
      const Index inner = x.kind == Gemm::tn ? x.a_rows : x.a_cols;
      list.add("gemm",
               fmt::format("{} {}: [{}, {}] [{}, {}] to [{}, {}]", x.name, name, x.a_rows, x.a_cols, x.b_rows, x.b_cols,
                           x.c_rows, x.c_cols),
               op_work::gemm(x.c_rows, x.c_cols, inner, list.a, into_f32 ? 4 : list.a), call(write, into_f32));
    };
    add(c.name, usual, wide);
    if (is_gradient && c.assigned_too) add(c.name + "_assigned", Write::assign, false);
    list.vary("gemm", is_gradient ? "assigned" : "added", call(other, is_gradient));
    list.vary("gemm", wide ? "not widened" : "widened", call(usual, !wide));
  }
}

void add_rope(OpCase& list, const RopeCase& c) {
  const Shape table{c.positions, c.head_dim};
  list.add("rope_table", fmt::format("P{} C{}", c.positions, c.head_dim), op_work::rope_table(table.elements()),
           [=](Inputs& in) {
             const Tensor out = in.output(table);
             // The angles are f32 by convention, and the same on both sides: only the rounding of cosine and sine is left.
             return Prepared{[&b = in.backend(), frequencies = c.frequencies(), scale = c.scale, out] {
                               b.rope_table(frequencies, scale, out);
                             },
                             {{"table", out, 1.2e-7 * c.scale,
                               [=] { return reference::rope_table(c.frequencies(), c.scale, c.positions).values; }}}};
           });
  const auto add = [&](const char* op,
                       void (Backend::*rotate)(const Tensor&, std::int64_t, const Tensor&, const Tensor&),
                       void (*truth)(Matrix<double>&, Index, const Ids&, const Matrix<double>&)) {
    list.add(op, fmt::format("T{} heads {} of {} C{}", c.tokens, c.rotated_heads, c.heads, c.head_dim),
             c.forward(list.a), [=](Inputs& in) {
               const Tensor angles = in.output(table);
               in.backend().rope_table(c.frequencies(), c.scale, angles);
               const Ids positions = in.ids(c.tokens, c.positions);
               const Matrix<double> x = in.matrix(c.tokens, c.heads * c.head_dim);
               const Tensor rotated = in.typed({c.tokens, c.heads, c.head_dim}, x);
               return Prepared{[&b = in.backend(), rotate, c, rotated, tpositions = in.i32({c.tokens}, positions),
                                angles] { (b.*rotate)(rotated, c.rotated_heads, tpositions, angles); },
                               {{"rotated", rotated, pointwise, [=, saved = in.read(angles, c.positions, c.head_dim)] {
                                   Matrix<double> turned = x;
                                   truth(turned, c.rotated_heads, positions, saved);
                                   return turned.values;
                                 }}}};
             });
  };
  add("rope_forward", &Backend::rope_forward, reference::rope_forward<double>);
  add("rope_backward", &Backend::rope_backward, reference::rope_backward<double>);
}

void add_adamw(OpCase& list, const AdamWCase& c) {
  list.add("adamw", fmt::format("n{}", c.n), c.forward(list.a < 4 ? list.a : 0), [c](Inputs& in) {
    // The bench makes thousands of updates, all but the first without a gradient, since an update clears it: its betas keep
    // the moments from decaying into denormals.
    const double beta1 = in.for_bench() ? 0.9999 : 0.9, beta2 = in.for_bench() ? 0.9999 : 0.95;
    const auto step_of = [=](int t) {
      return AdamWStep{
          0.05, beta1, beta2, 1e-8, c.weight_decay, 1 - std::pow(beta1, t), 1 - std::pow(beta2, t), c.gradient_scale};
    };
    // Parameters as small as the updates, so that an error of an update shows.
    const Values start = in.normals(c.n, 0.05);
    const bool rounds = in.type() == DType::bf16;
    const Tensor parameter = in.f32({c.n}, start), value = rounds ? in.typed_output({c.n}) : Tensor(),
                 first = in.zeros({c.n}), second = in.zeros({c.n});
    std::vector<Values> gradients;
    std::vector<Tensor> tensors;
    for (int t = 1; t <= c.steps; ++t)
      tensors.push_back(in.f32({c.n}, gradients.emplace_back(in.normals(c.n, c.gradient_size))));
    struct State {
      Values parameter, first, second;
    };
    const auto truth = [=] {
      State s{start, Values(c.n), Values(c.n)};
      for (int t = 1; t <= c.steps; ++t) {
        Values gradient = gradients[static_cast<std::size_t>(t - 1)];
        const AdamWStep a = step_of(t);
        reference::adamw({a.learning_rate, a.beta1, a.beta2, a.epsilon, a.weight_decay, a.bias_correction1,
                          a.bias_correction2, a.gradient_scale},
                         s.parameter, gradient, s.first, s.second);
      }
      return s;
    };
    Prepared prepared{[&b = in.backend(), step_of, parameter, tensors, first, second, value] {
                        for (std::size_t t = 0; t < tensors.size(); ++t)
                          b.adamw(step_of(static_cast<int>(t) + 1), parameter, tensors[t], first, second, value);
                      },
                      {{"parameter", parameter, summed, [=] { return truth().parameter; }},
                       {"first moment", first, pointwise, [=] { return truth().first; }},
                       {"second moment", second, pointwise, [=] { return truth().second; }}}};
    if (rounds) prepared.outputs.push_back({"value", value, exact, [=, &in] { return in.read(parameter); }});
    for (const Tensor& gradient : tensors)
      prepared.outputs.push_back({"cleared gradient", gradient, exact, [c] { return Values(c.n); }});
    return prepared;
  });
}

}  // namespace

std::vector<OpCase> dense_calls() {
  std::vector<OpCase> list;
  add_cases(list, "elementwise", elementwise_cases(), add_elementwise);
  add_cases(list, "embedding", embedding_cases(), add_embedding);
  add_cases(list, "rms_norm", rms_norm_cases(), add_rms_norm);
  add_cases(list, "gemm", gemm_cases(), add_gemm);
  add_cases(list, "rope", rope_cases(), add_rope);
  add_cases(list, "adamw", adamw_cases(), add_adamw);
  return list;
}

std::vector<OpCase> dense_calls(const BenchShape& shape, DType type) {
  std::vector<OpCase> list;
  const OpCase timed = timed_in(type);
  add_cases(list, "elementwise", bench_cases::elementwise(shape), add_elementwise, timed);
  add_cases(list, "embedding", bench_cases::embedding(shape), add_embedding, timed);
  add_cases(list, "rms_norm", bench_cases::rms_norm(shape), add_rms_norm, timed);
  add_cases(list, "gemm", bench_cases::gemm(shape), add_gemm, timed);
  add_cases(list, "rope", bench_cases::rope(shape), add_rope, timed);
  add_cases(list, "adamw", bench_cases::adamw(shape), add_adamw, timed);
  return list;
}

}  // namespace smoe::checks
