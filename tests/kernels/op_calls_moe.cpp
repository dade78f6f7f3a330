// Router, dispatch, the experts' products, SwiGLU (see op_calls.h).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "tests/kernels/bench_cases.h"
#include "tests/kernels/op_calls.h"
#include "tests/kernels/op_cases_moe.h"
#include "tests/reference/dispatch.h"
#include "tests/reference/linear.h"
#include "tests/reference/noise.h"
#include "tests/reference/router.h"
#include "tests/reference/swiglu.h"

namespace smoe::checks {
namespace {

using namespace op_cases;

// ---- router ----

Matrix<double> router_logits(const RouterCase& c, Inputs& in) {
  using Logits = RouterCase::Logits;
  Matrix<double> logits = in.matrix(c.tokens, c.experts, 2.0);
  if (in.for_bench()) return logits;
  for (Index t = 0; t < c.tokens; ++t)
    for (Index e = 0; e < c.experts; ++e) {
      double& logit = logits(t, e);
      logit = static_cast<float>(logit + c.shift);
      if (c.logits == Logits::tied) logit = std::floor(logit);
      if (c.logits == Logits::equal) logit = 0.75;
      if (c.logits == Logits::extreme) logit *= t % 5 == 0 ? 512 : 8;
    }
  return logits;
}

reference::RoutingRule reference_rule(const RoutingRule& rule) {
  return {rule.score == Score::softmax ? reference::Score::softmax : reference::Score::sigmoid, rule.renormalise,
          rule.scale};
}

// A forward pass: what it is given, and what it leaves on the backend.
struct Routed {
  Matrix<double> logits;
  Values bias;
  Tensor tlogits, tbias, probabilities, logsumexp, experts, weights;

  Routed(const RouterCase& c, Inputs& in)
      : logits(router_logits(c, in)),
        // f32 in either type: of bf16 two are soon the same, and then the choice is that of rounding.
        bias(c.bias > 0 ? reference::cast<double>(reference::cast<float>(
                              in.random().normals((c.bias_of_token ? c.tokens : 1) * c.experts, c.bias)))
                        : Values()),
        tlogits(in.f32(logits)),
        tbias(c.bias <= 0       ? Tensor()
              : c.bias_of_token ? in.f32({c.tokens, c.experts}, bias)
                                : in.f32({c.experts}, bias)),
        probabilities(in.output({c.tokens, c.experts})),
        logsumexp(in.output({c.tokens})),
        experts(in.output_i32({c.tokens, c.top_k})),
        weights(in.output({c.tokens, c.top_k})) {}
  void forward(Backend& backend, const RouterCase& c) const {
    backend.router_forward(c.rule, tlogits, tbias, probabilities, logsumexp, experts, weights);
    for (Index n = 1; n <= c.groups && c.padding > 0; ++n) {
      const Index first = n * (c.tokens / c.groups) - c.padding;
      backend.fill(experts.rows(first, c.padding), -1.0f);
      for (const Tensor& numbers : {probabilities, logsumexp, weights})
        backend.fill(numbers.rows(first, c.padding), 0.0f);
    }
  }
  reference::Routing<double> read(const RouterCase& c, Inputs& in) const {
    if (in.for_bench()) return {};
    return {in.read(probabilities, c.tokens, c.experts),
            in.read(logsumexp),
            {c.tokens, c.top_k, in.workspace().read_ids(experts)},
            in.read(weights, c.tokens, c.top_k)};
  }
};

// Columns of [T,E] that a token chose, or the others.
std::function<Values(const Values&)> where(bool chosen, const Matrix<std::int32_t>& experts, Index experts_of_all) {
  return [=](const Values& all) {
    Values part;
    for (Index t = 0; t < experts.rows; ++t)
      for (Index e = 0; e < experts_of_all; ++e) {
        bool is_chosen = false;
        for (Index k = 0; k < experts.cols; ++k) is_chosen = is_chosen || experts(t, k) == e;
        if (is_chosen == chosen) part.push_back(all[static_cast<std::size_t>(t * experts_of_all + e)]);
      }
    return part;
  };
}

void add_router(OpCase& list, const RouterCase& c) {
  const Index T = c.tokens, E = c.experts, K = c.top_k, N = c.groups;
  const std::string shape = fmt::format("T{} E{} K{}{}{}{}", T, E, K, c.rule.score == Score::sigmoid ? " sigmoids" : "",
                                        c.bias > 0 ? " biased" : "", c.bias_of_token ? " by token" : "");
  const reference::RoutingRule rule = reference_rule(c.rule);
  list.add("router_forward", shape, c.forward(), [=](Inputs& in) {
    RouterCase whole = c;
    whole.padding = 0;
    const Routed r(whole, in);
    const auto truth = [=] { return reference::router_forward(r.logits, K, rule, r.bias); };
    return Prepared{[&b = in.backend(), whole, r] { r.forward(b, whole); },
                    {{"probabilities", r.probabilities, pointwise, [=] { return truth().probabilities.values; }},
                     {"logsumexp", r.logsumexp, pointwise, [=] { return truth().logsumexp; }},
                     {"experts", r.experts, exact, [=] { return as_values(truth().experts.values); }},
                     {"weights", r.weights, pointwise, [=] { return truth().weights.values; }}}};
  });
  const auto backward = [=](bool balanced) {
    return [=](Inputs& in) {
      const Routed r(c, in);
      r.forward(in.backend(), c);
      const reference::Routing<double> saved = r.read(c, in);
      const Matrix<double> dweights = in.matrix(T, K), balance = in.matrix(N, E);
      const double z_scale = balanced ? 0.03 : 0.0;
      const Tensor dlogits = in.typed_output({T, E});
      const auto truth = [=] {
        return reference::router_backward(r.logits, saved, dweights, balanced ? balance : Matrix<double>(), z_scale,
                                          rule)
            .values;
      };
      Prepared prepared{[&b = in.backend(), c, r, tdweights = in.f32(dweights),
                         tbalance = balanced ? in.f32(balance) : Tensor(), z_scale, dlogits] {
                          b.router_backward(c.rule, r.tlogits, r.probabilities, r.logsumexp, r.experts, r.weights,
                                            tdweights, tbalance, z_scale, dlogits);
                        },
                        {}};
      // Of the chosen, whose gradients are differences of weighted dweights.
      const auto terms = [=] {
        double largest = 0;
        for (std::size_t i = 0; i < dweights.values.size(); ++i)
          largest = std::max(largest, std::abs(saved.weights.values[i] * dweights.values[i]));
        return largest;
      };
      // Of the weights alone: exactly zero where the token did not choose the expert, unless one score moves all.
      if (balanced || (c.rule.score == Score::softmax && !c.rule.renormalise)) {
        prepared.outputs.push_back({"dlogits", dlogits, summed, truth, {}, terms});
      } else {
        prepared.outputs.push_back(
            {"dlogits of the chosen experts", dlogits, summed, truth, where(true, saved.experts, E), terms});
        prepared.outputs.push_back(
            {"dlogits of the others", dlogits, exact, [=] { return Values(T * E); }, where(false, saved.experts, E)});
      }
      return prepared;
    };
  };
  list.add("router_backward", shape, c.backward(), backward(true));
  list.vary("router_backward", "of the weights alone", backward(false));
  list.add("router_measures", shape, op_work::router_measures(T, E, K), [=](Inputs& in) {
    const Routed r(c, in);
    r.forward(in.backend(), c);
    const Tensor sums = in.workspace().f64({0.75, -0.5, 0.25});
    const auto truth = [rule, r, saved = r.read(c, in)] {
      return reference::router_measures(r.logits, saved, rule, r.bias);
    };
    const auto number = [](std::size_t i) { return [i](const Values& all) { return Values{all[i]}; }; };
    return Prepared{[&b = in.backend(), c, r, sums] {
                      b.router_measures(c.rule, r.tlogits, r.tbias, r.probabilities, r.experts, sums);
                    },
                    {{"entropy", sums, summed,
                      [=] {
                        return Values{0.75 + truth().entropy, 0, 0};
                      },
                      number(0)},
                     {"norm of the logits", sums, summed,
                      [=] {
                        return Values{0, truth().norm - 0.5, 0};
                      },
                      number(1)},
                     {"margin", sums, summed,
                      [=] {
                        return Values{0, 0, 0.25 + truth().margin};
                      },
                      number(2)}}};
  });
  if (list.bench && c.bias > 0) return;
  list.add("balance_statistics", fmt::format("{} N{}", shape, N), op_work::balance_statistics(T, E, K),
           [=](Inputs& in) {
             const Routed r(c, in);
             r.forward(in.backend(), c);
             const Tensor counts = in.output({N, E}), probability_sums = in.output({N, E}), z_sums = in.output({N});
             const auto truth = [N, saved = r.read(c, in)] { return reference::balance_statistics(saved, N); };
             return Prepared{
                 [&b = in.backend(), r, counts, probability_sums, z_sums] {
                   b.balance_statistics(r.probabilities, r.logsumexp, r.experts, counts, probability_sums, z_sums);
                 },
                 {{"counts", counts, exact, [=] { return truth().counts.values; }},
                  {"probability sums", probability_sums, summed, [=] { return truth().probability_sums.values; }},
                  {"z sums", z_sums, summed, [=] { return truth().z_sums; }}}};
           });
}

void add_jitter(OpCase& list, const JitterCase& c) {
  enum class To { apart, onto, in_place };
  const auto call = [=](To to) {
    return [=](Inputs& in) {
      const Matrix<double> x = in.matrix(c.tokens, c.hidden), start = in.matrix(c.tokens, c.hidden);
      const Write write = to == To::onto ? Write::add : Write::assign;
      const Tensor tx = in.typed(x), y = to == To::apart  ? in.typed_output({c.tokens, c.hidden})
                                         : to == To::onto ? in.typed(start)
                                                          : tx;
      return Prepared{[&b = in.backend(), noise = c.noise, tx, y, write] { b.jitter(noise, tx, y, write); },
                      {{"y", y, pointwise, [=] {
                          const TokenNoise& n = c.noise;
                          const auto factors =
                              reference::noise_factors({n.key, n.first_token, n.layer, n.width}, c.tokens, c.hidden);
                          const Matrix<double> truth = reference::apply_noise(x, factors);
                          return to == To::onto ? reference::add(start, truth).values : truth.values;
                        }}}};
    };
  };
  list.add("jitter", fmt::format("T{} D{}", c.tokens, c.hidden), c.forward(list.a), call(To::apart));
  list.vary("jitter", "added", call(To::onto));
  list.vary("jitter", "in place", call(To::in_place));
}

// Every third row gets no noise, the others more than bf16 rounds away.
void add_embedding_noise(OpCase& list, const JitterCase& c) {
  list.add("add_noise", fmt::format("T{} D{}", c.tokens, c.hidden), c.added(list.a), [=](Inputs& in) {
    const Matrix<double> x = in.matrix(c.tokens, c.hidden);
    Values scales = in.normals(c.tokens, 32);
    for (std::size_t t = 0; t < scales.size(); t += 3) scales[t] = 0;
    const Tensor tx = in.typed(x);
    return Prepared{[&b = in.backend(), noise = c.noise, tscales = in.f32({c.tokens}, scales), tx] {
                      b.add_noise(noise, tscales, tx);
                    },
                    {{"x", tx, pointwise, [=] {
                        Matrix<double> truth = x;
                        const auto draws = reference::uniform_noise({c.noise.key, c.noise.first_token, c.noise.layer},
                                                                    c.tokens, c.hidden);
                        for (Index t = 0; t < c.tokens; ++t)
                          for (Index d = 0; d < c.hidden; ++d)
                            truth(t, d) += double(c.noise.width) * scales[t] * draws(t, d);
                        return truth.values;
                      }}}};
  });
}

// ---- dispatch ----

// Many of them equal, and all of them numbers of f32.
Matrix<double> probabilities_of(const DispatchCase& c, Random& random) {
  Matrix<double> p = random.matrix(c.tokens, c.experts);
  for (double& each : p.values) each = std::floor(8 * std::abs(each)) / 32;
  return p;
}

Matrix<std::int32_t> chosen_experts(const DispatchCase& c, Random& random) {
  using Choice = DispatchCase::Choice;
  Matrix<double> preference = random.matrix(c.tokens, c.experts);
  for (Index t = 0; t < c.tokens; ++t)
    for (Index e = 0; e < c.experts; ++e) {
      if (c.choice == Choice::first_experts) preference(t, e) = -double(e);
      if (c.choice == Choice::half_idle && e % 2 == 0) preference(t, e) = -100;
    }
  Matrix<std::int32_t> experts = reference::router_forward(preference, c.top_k).experts;
  const Index group = c.capacity.group > 0 ? c.capacity.group : c.tokens;
  for (Index t = 0; t < c.tokens && c.padding > 0; ++t)
    for (Index k = 0; k < c.top_k && t % group >= group - c.padding; ++k) experts(t, k) = -1;
  return experts;
}

void add_dispatch(OpCase& list, const DispatchCase& c) {
  const Index T = c.tokens, K = c.top_k, D = c.hidden;
  const bool ranked = c.capacity.order == CapacityOrder::probability;
  const std::string shape = fmt::format("T{} E{} K{} D{}{}", T, c.experts, K, D, ranked ? " ranked" : "");
  const auto map_of = [c](const Matrix<std::int32_t>& experts, const Matrix<double>& probabilities = {}) {
    return reference::routing_map(
        reference::within_capacity(experts, {c.capacity.rows, c.capacity.group}, probabilities), c.experts);
  };
  // The bench's sets of tensors are many, for their memory alone: one routing serves them all.
  Random of_bench(1);
  const auto timed = list.bench ? std::make_shared<const Matrix<std::int32_t>>(chosen_experts(c, of_bench)) : nullptr;
  const auto timed_map = timed ? std::make_shared<const reference::RoutingMap>(map_of(*timed)) : nullptr;
  const auto drawn_experts = [=](Inputs& in) { return timed ? *timed : chosen_experts(c, in.random()); };
  const auto drawn_map = [=](Inputs& in) { return timed_map ? *timed_map : map_of(chosen_experts(c, in.random())); };
  const auto rows_of = [](const reference::RoutingMap& map) { return Index{map.offsets.back()}; };
  list.add("routing_map", shape, op_work::routing_map(T * K), [=](Inputs& in) {
    const Matrix<std::int32_t> experts = drawn_experts(in);
    const Tensor row_of = in.output_i32({T, K}), assignment_of = in.output_i32({T * K}),
                 offsets = in.output_i32({c.experts + 1});
    const Matrix<double> probabilities = ranked ? probabilities_of(c, in.random()) : Matrix<double>();
    const auto truth = [=] { return map_of(experts, probabilities); };
    return Prepared{
        [&b = in.backend(), texperts = in.i32({T, K}, experts.values),
         tprobabilities = ranked ? in.f32(probabilities) : Tensor(), capacity = c.capacity, row_of, assignment_of,
         offsets] { b.routing_map(texperts, tprobabilities, capacity, row_of, assignment_of, offsets); },
        {{"row_of", row_of, exact, [=] { return as_values(truth().row_of); }},
         {"assignment_of", assignment_of, exact,
          [=] {
            Ids padded = truth().assignment_of;
            padded.resize(static_cast<std::size_t>(T * K), -1);
            return as_values(padded);
          }},
         {"offsets", offsets, exact, [=] { return as_values(truth().offsets); }}}};
  });
  if (list.bench && ranked) return;
  list.add("permute", shape, c.forward(list.a), [=](Inputs& in) {
    const reference::RoutingMap map = drawn_map(in);
    const Index R = rows_of(map);
    const Matrix<double> x = in.matrix(T, D);
    const Tensor rows = in.typed_output({R, D});
    return Prepared{[&b = in.backend(), K, tx = in.typed(x), assignment_of = in.i32({R}, map.assignment_of), rows] {
                      b.permute(tx, assignment_of, K, rows);
                    },
                    {{"rows", rows, exact, [=] { return reference::permute(x, map.assignment_of, K).values; }}}};
  });
  enum class Base { none, apart, in_place };
  const auto unpermute = [=](Base base) {
    return [=](Inputs& in) {
      const reference::RoutingMap map = drawn_map(in);
      const Index R = rows_of(map);
      const Matrix<double> rows = in.matrix(R, D), start = in.matrix(T, D);
      const Tensor tbase = base == Base::none ? Tensor() : in.typed(start),
                   x = base == Base::in_place ? tbase : in.typed_output({T, D});
      return Prepared{[&b = in.backend(), trows = in.typed(rows), row_of = in.i32({T, K}, map.row_of), tbase, x] {
                        b.unpermute(trows, row_of, tbase, x);
                      },
                      {{"x", x, pointwise, [=] {
                          return reference::unpermute(rows, map.row_of, K,
                                                      base == Base::none ? Matrix<double>(T, D) : start)
                              .values;
                        }}}};
    };
  };
  list.add("unpermute", shape, c.backward(list.a), unpermute(Base::none));
  list.vary("unpermute", "onto a base", unpermute(Base::apart));
  list.vary("unpermute", "onto itself", unpermute(Base::in_place));
  list.add("permute_weights", shape, op_work::permute_weights(T * K), [=](Inputs& in) {
    const reference::RoutingMap map = drawn_map(in);
    const Index R = rows_of(map);
    const Matrix<double> weights = in.matrix(T, K);
    const Tensor row_weights = in.output({R});
    return Prepared{
        [&b = in.backend(), tweights = in.f32(weights), row_of = in.i32({T, K}, map.row_of), row_weights] {
          b.permute_weights(tweights, row_of, row_weights);
        },
        {{"row weights", row_weights, exact, [=] { return reference::permute_weights(weights, map.assignment_of); }}}};
  });
  list.add("unpermute_weights", shape, op_work::permute_weights(T * K), [=](Inputs& in) {
    const reference::RoutingMap map = drawn_map(in);
    const Index R = rows_of(map);
    const Values row_weights = in.normals(R);
    const Tensor weights = in.output({T, K});
    return Prepared{
        [&b = in.backend(), trow_weights = in.f32({R}, row_weights), row_of = in.i32({T, K}, map.row_of), weights] {
          b.unpermute_weights(trow_weights, row_of, weights);
        },
        {{"weights", weights, exact, [=] { return reference::unpermute_weights(row_weights, map.row_of, K).values; }}}};
  });
}

// ---- experts ----

void add_grouped_gemm(OpCase& list, const GroupedGemmCase& c) {
  const Index E = static_cast<Index>(c.rows.size()), R = c.total_rows();
  Ids offsets{0};
  for (const Index rows : c.rows) offsets.push_back(offsets.back() + static_cast<std::int32_t>(rows));
  struct Kind {
    const char* name;
    Gemm kind;
    Shape a, b, c;
    Matrix<double> (*truth)(const Matrix<double>&, const Matrix<double>&, const Ids&);
  };
  const Shape x{R, c.in}, w{E, c.out, c.in}, y{R, c.out};
  for (const Kind& k : {Kind{"nt", Gemm::nt, x, w, y, reference::grouped_gemm_nt<double>},
                        Kind{"nn", Gemm::nn, y, w, x, reference::grouped_gemm_nn<double>},
                        Kind{"tn", Gemm::tn, y, x, w, reference::grouped_gemm_tn<double>}}) {
    const auto call = [=](Write write, bool wide) {  // wide: into f32
      return [=](Inputs& in) {
        // The reference stacks the experts' matrices one below the other.
        const auto drawn = [&](const Shape& s) {
          return in.matrix(s.rank() == 3 ? s[0] * s[1] : s[0], s[s.rank() - 1]);
        };
        const Matrix<double> a = drawn(k.a), b = drawn(k.b), start = drawn(k.c);
        const Tensor out = write == Write::add ? (wide ? in.f32(k.c, start) : in.typed(k.c, start))
                           : wide              ? in.output(k.c)
                                               : in.typed_output(k.c);
        const auto host = std::make_shared<Ids>(offsets);
        return Prepared{[&on = in.backend(), k, ta = in.typed(k.a, a), tb = in.typed(k.b, b), out,
                         device = in.i32({E + 1}, offsets), host, write] {
                          on.grouped_gemm(k.kind, ta, tb, out, {device, *host}, write);
                        },
                        {{"c", out, summed, [=] {
                            const Matrix<double> product = k.truth(a, b, offsets);
                            return write == Write::add ? reference::add(start, product).values : product.values;
                          }}}};
      };
    };
    // As the experts call it: weight gradients accumulate.
    const bool is_gradient = k.kind == Gemm::tn;
    const Write usual = is_gradient ? Write::add : Write::assign, other = is_gradient ? Write::assign : Write::add;
    const auto add = [&](const std::string& name, Write write, bool wide) {
      list.add("grouped_gemm",
               fmt::format("{} {}: {} {} to {}", k.name, name, k.a.to_string(), k.b.to_string(), k.c.to_string()),
               c.work(list.a, wide ? 4 : list.a), call(write, wide));
    };
    add(c.name, usual, is_gradient);
    if (is_gradient && c.assigned_too) add(c.name + "_assigned", Write::assign, false);
    list.vary("grouped_gemm", is_gradient ? "assigned" : "added", call(other, is_gradient));
    list.vary("grouped_gemm", is_gradient ? "not widened" : "widened", call(usual, !is_gradient));
  }
}

void add_swiglu(OpCase& list, const SwigluCase& c) {
  const Index R = c.rows, F = c.ffn;
  const std::string shape = fmt::format("R{} F{}", R, F);
  list.add("swiglu_forward", shape, c.forward(list.a), [=](Inputs& in) {
    const Matrix<double> h = in.matrix(R, 2 * F, c.scale);
    const Values weights = c.weighted ? in.normals(R) : Values();
    const Tensor a = in.typed_output({R, F});
    return Prepared{[&b = in.backend(), th = in.typed(h), tweights = c.weighted ? in.f32({R}, weights) : Tensor(), a] {
                      b.swiglu_forward(th, tweights, a);
                    },
                    {{"a", a, pointwise, [=] { return reference::swiglu_forward(h, weights).values; }}}};
  });
  const auto backward = [=](bool in_place) {
    return [=](Inputs& in) {
      const Matrix<double> h = in.matrix(R, 2 * F, c.scale), da = in.matrix(R, F);
      const Values weights = c.weighted ? in.normals(R) : Values();
      const Tensor th = in.typed(h), dh = in_place ? th : in.typed_output({R, 2 * F}), a = in.typed_output({R, F});
      const Tensor drow_weights = in_place ? Tensor() : in.output({R});
      const auto truth = [=] { return reference::swiglu_backward(h, weights, da); };
      Prepared prepared{
          [&b = in.backend(), th, tweights = c.weighted ? in.f32({R}, weights) : Tensor(), tda = in.typed(da), dh,
           drow_weights, a] { b.swiglu_backward(th, tweights, tda, dh, drow_weights, a); },
          {{"dh", dh, pointwise, [=] { return truth().dh.values; }},
           {"a again", a, pointwise, [=] { return reference::swiglu_forward(h, weights).values; }}}};
      if (!in_place)
        prepared.outputs.push_back({"drow_weights",
                                    drow_weights,
                                    summed,
                                    [=] { return truth().drow_weights; },
                                    {},
                                    [=] {
                                      const Values unweighted = reference::swiglu_forward(h, {}).values;
                                      double largest = 0;
                                      for (Index r = 0; r < R; ++r) {
                                        double squares = 0;
                                        for (Index f = 0; f < F; ++f)
                                          squares += std::pow(da(r, f) * unweighted[r * F + f], 2);
                                        largest = std::max(largest, std::sqrt(squares));
                                      }
                                      return largest;
                                    }});
      return prepared;
    };
  };
  list.add("swiglu_backward", shape, c.backward(list.a), backward(false));
  list.vary("swiglu_backward", "dh where h was, no gradient of the weights", backward(true));
}

}  // namespace

std::vector<OpCase> moe_calls() {
  std::vector<OpCase> list;
  add_cases(list, "router", router_cases(), add_router);
  add_cases(list, "jitter", jitter_cases(), add_jitter);
  add_cases(list, "embedding_noise", jitter_cases(), add_embedding_noise);
  add_cases(list, "dispatch", dispatch_cases(), add_dispatch);
  add_cases(list, "grouped_gemm", grouped_gemm_cases(), add_grouped_gemm);
  add_cases(list, "swiglu", swiglu_cases(), add_swiglu);
  return list;
}

std::vector<OpCase> moe_calls(const BenchShape& shape, DType type) {
  std::vector<OpCase> list;
  const OpCase timed = timed_in(type);
  add_cases(list, "router", bench_cases::router(shape), add_router, timed);
  add_cases(list, "jitter", bench_cases::jitter(shape), add_jitter, timed);
  add_cases(list, "embedding_noise", bench_cases::jitter(shape), add_embedding_noise, timed);
  add_cases(list, "dispatch", bench_cases::dispatch(shape), add_dispatch, timed);
  add_cases(list, "grouped_gemm", bench_cases::grouped_gemm(shape), add_grouped_gemm, timed);
  add_cases(list, "swiglu", bench_cases::swiglu(shape), add_swiglu, timed);
  return list;
}

}  // namespace smoe::checks
