// Router, dispatch, the experts' products, SwiGLU.
#include <fmt/format.h>

#include <memory>

#include "tests/bench/op_calls.h"
#include "tests/kernels/op_cases_moe.h"

namespace smoe::bench {
namespace {

using namespace op_cases;

struct Routing {
  Tensor probabilities, logsumexp, experts, weights;
};

Routing routing_outputs(Inputs& in, Index tokens, Index experts, Index top_k) {
  return {in.output({tokens, experts}), in.output({tokens}), in.output_i32({tokens, top_k}), in.output({tokens, top_k})};
}

Routing routed(Inputs& in, Index tokens, Index experts, Index top_k) {
  const Routing r = routing_outputs(in, tokens, experts, top_k);
  in.backend().router_forward({}, in.uniform({tokens, experts}, 2), {}, r.probabilities, r.logsumexp, r.experts, r.weights);
  return r;
}

void add_router(std::vector<OpCall>& calls, const RouterCase& c) {
  const Index T = c.tokens, E = c.experts, K = c.top_k, N = c.groups;
  const std::string what = fmt::format("T{} E{} K{}{}{}", T, E, K, c.rule.score == Score::sigmoid ? " sigmoids" : "", c.bias > 0 ? " biased" : "");
  const RoutingRule rule = c.rule;
  const bool biased = c.bias > 0;
  calls.push_back({"router_forward", what, c.forward(), [=](Inputs& in) {
    return [&b = in.backend(), rule, logits = in.uniform({T, E}, 2), bias = biased ? in.uniform({E}) : Tensor(),
            r = routing_outputs(in, T, E, K)] {
      b.router_forward(rule, logits, bias, r.probabilities, r.logsumexp, r.experts, r.weights);
    };
  }});
  calls.push_back({"router_backward", what, c.backward(), [=](Inputs& in) {
    return [&b = in.backend(), rule, logits = in.uniform({T, E}, 2), r = routed(in, T, E, K), dweights = in.uniform({T, K}), balance = in.uniform({N, E}),
            dlogits = in.output({T, E})] {
      b.router_backward(rule, logits, r.probabilities, r.logsumexp, r.experts, r.weights, dweights, balance, 0.01, dlogits);
    };
  }});
  if (biased) return;
  calls.push_back({"balance_statistics", fmt::format("{} N{}", what, N), op_work::balance_statistics(T, E, K), [=](Inputs& in) {
    return [&b = in.backend(), r = routed(in, T, E, K), counts = in.output({N, E}), sums = in.output({N, E}),
            z_sums = in.output({N})] { b.balance_statistics(r.probabilities, r.logsumexp, r.experts, counts, sums, z_sums); };
  }});
}

void add_jitter(std::vector<OpCall>& calls, const JitterCase& c) {
  calls.push_back({"jitter", fmt::format("T{} D{}", c.tokens, c.hidden), c.forward(), [=](Inputs& in) {
    return [&b = in.backend(), noise = c.noise, x = in.uniform({c.tokens, c.hidden}), y = in.output({c.tokens, c.hidden})] {
      b.jitter(noise, x, y, Write::assign);
    };
  }});
}

struct Map {
  Tensor experts, row_of, assignment_of, offsets;
};

Map unmapped(Inputs& in, const DispatchCase& c) {
  return {routed(in, c.tokens, c.experts, c.top_k).experts, in.output_i32({c.tokens, c.top_k}),
          in.output_i32({c.tokens * c.top_k}), in.output_i32({c.experts + 1})};
}

Map mapped(Inputs& in, const DispatchCase& c) {
  const Map m = unmapped(in, c);
  in.backend().routing_map(m.experts, {}, m.row_of, m.assignment_of, m.offsets);
  return m;
}

void add_dispatch(std::vector<OpCall>& calls, const DispatchCase& c) {
  const Index T = c.tokens, K = c.top_k, R = T * K, D = c.hidden;
  const std::string what = fmt::format("T{} E{} K{} D{}", T, c.experts, K, D);
  calls.push_back({"routing_map", what, op_work::routing_map(R), [=](Inputs& in) {
    return [&b = in.backend(), m = unmapped(in, c)] { b.routing_map(m.experts, {}, m.row_of, m.assignment_of, m.offsets); };
  }});
  calls.push_back({"permute", what, c.forward(), [=](Inputs& in) {
    return [&b = in.backend(), K, m = mapped(in, c), x = in.uniform({T, D}), rows = in.output({R, D})] {
      b.permute(x, m.assignment_of, K, rows);
    };
  }});
  calls.push_back({"unpermute", what, c.backward(), [=](Inputs& in) {
    return [&b = in.backend(), m = mapped(in, c), rows = in.uniform({R, D}), x = in.output({T, D})] {
      b.unpermute(rows, m.row_of, {}, x);
    };
  }});
  calls.push_back({"permute_weights", what, op_work::permute_weights(R), [=](Inputs& in) {
    return [&b = in.backend(), m = mapped(in, c), weights = in.uniform({T, K}), row_weights = in.output({R})] {
      b.permute_weights(weights, m.row_of, row_weights);
    };
  }});
  calls.push_back({"unpermute_weights", what, op_work::permute_weights(R), [=](Inputs& in) {
    return [&b = in.backend(), m = mapped(in, c), row_weights = in.uniform({R}), weights = in.output({T, K})] {
      b.unpermute_weights(row_weights, m.row_of, weights);
    };
  }});
}

void add_grouped_gemm(std::vector<OpCall>& calls, const GroupedGemmCase& c) {
  const Index E = static_cast<Index>(c.rows.size()), R = c.total_rows();
  const auto offsets = std::make_shared<std::vector<std::int32_t>>(1, 0);
  for (const Index rows : c.rows) offsets->push_back(offsets->back() + static_cast<std::int32_t>(rows));
  const Shape x{R, c.in}, w{E, c.out, c.in}, y{R, c.out};
  const auto add = [&](const char* name, Gemm kind, Shape sa, Shape sb, Shape sc) {
    const Write write = kind == Gemm::tn ? Write::add : Write::assign;  // as the experts call it: weight gradients accumulate
    calls.push_back({"grouped_gemm", fmt::format("{} {}: {} {} to {}", name, c.name.substr(6), sa.to_string(), sb.to_string(), sc.to_string()),
                     c.forward(), [=](Inputs& in) {
      return [&backend = in.backend(), a = in.uniform(sa), b = in.uniform(sb), c = in.output(sc), kind, write, offsets,
              device_offsets = in.i32({E + 1}, *offsets)] {
        backend.grouped_gemm(kind, a, b, c, {device_offsets, *offsets}, write);
      };
    }});
  };
  add("nt", Gemm::nt, x, w, y);
  add("nn", Gemm::nn, y, w, x);
  add("tn", Gemm::tn, y, x, w);
}

void add_swiglu(std::vector<OpCall>& calls, const SwigluCase& c) {
  const Index R = c.rows, F = c.ffn;
  const std::string what = fmt::format("R{} F{}", R, F);
  const float scale = static_cast<float>(c.scale);
  calls.push_back({"swiglu_forward", what, c.forward(), [=](Inputs& in) {
    return [&b = in.backend(), h = in.uniform({R, 2 * F}, scale), weights = in.uniform({R}), a = in.output({R, F})] {
      b.swiglu_forward(h, weights, a);
    };
  }});
  calls.push_back({"swiglu_backward", what, c.backward(), [=](Inputs& in) {
    return [&b = in.backend(), h = in.uniform({R, 2 * F}, scale), weights = in.uniform({R}), da = in.uniform({R, F}),
            dh = in.output({R, 2 * F}), dweights = in.output({R}), a = in.output({R, F})] {
      b.swiglu_backward(h, weights, da, dh, dweights, a);
    };
  }});
}

}  // namespace

std::vector<OpCall> moe_calls() {
  std::vector<OpCall> calls;
  for (const auto& c : bench_cases(router_cases())) add_router(calls, c);
  for (const auto& c : bench_cases(jitter_cases())) add_jitter(calls, c);
  for (const auto& c : bench_cases(dispatch_cases())) add_dispatch(calls, c);
  for (const auto& c : bench_cases(grouped_gemm_cases())) add_grouped_gemm(calls, c);
  for (const auto& c : bench_cases(swiglu_cases())) add_swiglu(calls, c);
  return calls;
}

}  // namespace smoe::bench
