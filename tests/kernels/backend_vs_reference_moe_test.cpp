// Checks of the router, of dispatch and of the experts (see backend_vs_reference.h; tolerances as for the dense ops).
#include "tests/kernels/backend_vs_reference.h"
#include "tests/kernels/op_cases_moe.h"
#include "tests/reference/dispatch.h"
#include "tests/reference/linear.h"
#include "tests/reference/noise.h"
#include "tests/reference/router.h"
#include "tests/reference/swiglu.h"

namespace smoe::checks {
namespace {

using namespace op_cases;

constexpr double pointwise = 1e-6, summed = 2e-6;

Matrix<double> router_logits(const RouterCase& c, Random& random) {
  Matrix<double> logits = f32_matrix(random, c.tokens, c.experts, 2.0);
  for (Index t = 0; t < c.tokens; ++t)
    for (Index e = 0; e < c.experts; ++e) {
      double& logit = logits(t, e);
      logit = static_cast<float>(logit + c.shift);
      if (c.logits == RouterCase::Logits::tied) logit = std::floor(logit);
      if (c.logits == RouterCase::Logits::equal) logit = 0.75;
      if (c.logits == RouterCase::Logits::extreme) logit *= t % 5 == 0 ? 512 : 8;
    }
  return logits;
}

reference::RoutingRule reference_rule(const RoutingRule& rule) {
  return {rule.score == Score::softmax ? reference::Score::softmax : reference::Score::sigmoid, rule.renormalise, rule.scale};
}

void check_router(Backend& backend, const RouterCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Index T = c.tokens, E = c.experts, K = c.top_k, N = c.groups;
  const Matrix<double> logits = router_logits(c, random);
  const Values bias = c.bias > 0 ? f32_values(random, E, c.bias) : Values();
  const Tensor tlogits = ws.f32(logits), tbias = c.bias > 0 ? ws.f32({E}, bias) : Tensor();
  const reference::RoutingRule rule = reference_rule(c.rule);
  const Tensor probabilities = ws.output({T, E}), logsumexp = ws.output({T}), experts = ws.output_i32({T, K}),
               weights = ws.output({T, K});
  backend.router_forward(c.rule, tlogits, tbias, probabilities, logsumexp, experts, weights);
  const reference::Routing<double> truth = reference::router_forward(logits, K, rule, bias);
  report.close("probabilities", ws.read(probabilities), truth.probabilities.values, pointwise);
  report.close("logsumexp", ws.read(logsumexp), truth.logsumexp, pointwise);
  report.exact("experts", ws.read(experts), as_values(truth.experts.values));
  report.close("weights", ws.read(weights), truth.weights.values, pointwise);

  const reference::Routing<double> saved{ws.read_matrix(probabilities, T, E), ws.read(logsumexp), truth.experts,
                                         ws.read_matrix(weights, T, K)};
  const Matrix<double> dweights = f32_matrix(random, T, K), balance = f32_matrix(random, N, E);
  const double z_scale = 0.03;
  const Tensor tdweights = ws.f32(dweights), all = ws.output({T, E});
  backend.router_backward(c.rule, tlogits, probabilities, logsumexp, experts, weights, tdweights, ws.f32(balance), z_scale, all);
  report.close("dlogits of everything", ws.read(all),
               reference::router_backward(logits, saved, dweights, balance, z_scale, rule).values, summed);
  const Tensor alone = ws.output({T, E});
  backend.router_backward(c.rule, tlogits, probabilities, logsumexp, experts, weights, tdweights, Tensor(), 0.0, alone);
  const Matrix<double> dlogits = reference::router_backward(logits, saved, dweights, Matrix<double>(), 0.0, rule);
  const Values found = ws.read(alone);
  Values chosen_found, chosen_truth, others;
  for (Index t = 0; t < T; ++t)
    for (Index e = 0; e < E; ++e) {
      bool chosen = false;
      for (Index k = 0; k < K; ++k) chosen = chosen || truth.experts(t, k) == e;
      if (c.rule.score == Score::softmax && !c.rule.renormalise) chosen = true;  // one score moves all
      (chosen ? chosen_found : others).push_back(found[t * E + e]);
      if (chosen) chosen_truth.push_back(dlogits(t, e));
    }
  report.close("dlogits of the chosen experts", chosen_found, chosen_truth, summed);
  report.exact("dlogits of the others", others, Values(others.size(), 0.0));

  const Tensor counts = ws.output({N, E}), probability_sums = ws.output({N, E}), z_sums = ws.output({N});
  backend.balance_statistics(probabilities, logsumexp, experts, counts, probability_sums, z_sums);
  const reference::BalanceStatistics<double> statistics = reference::balance_statistics(saved, N);
  report.exact("counts", ws.read(counts), statistics.counts.values);
  report.close("probability sums", ws.read(probability_sums), statistics.probability_sums.values, summed);
  report.close("z sums", ws.read(z_sums), statistics.z_sums, summed);
}

void check_jitter(Backend& backend, const JitterCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const TokenNoise& n = c.noise;
  const Matrix<double> x = f32_matrix(random, c.tokens, c.hidden), start = f32_matrix(random, c.tokens, c.hidden);
  const Matrix<double> factors = reference::noise_factors({n.key, n.first_token, n.layer, n.width}, c.tokens, c.hidden);
  const Matrix<double> truth = reference::apply_noise(x, factors);
  const Tensor tx = ws.f32(x), assigned = ws.output({c.tokens, c.hidden}), added = ws.f32(start);
  backend.jitter(n, tx, assigned, Write::assign);
  report.close("assigned", ws.read(assigned), truth.values, pointwise);
  backend.jitter(n, tx, added, Write::add);
  report.close("added", ws.read(added), reference::add(start, truth).values, pointwise);
  backend.jitter(n, tx, tx, Write::assign);
  report.exact("in place", ws.read(tx), ws.read(assigned));
}

Matrix<std::int32_t> chosen_experts(const DispatchCase& c, Random& random) {
  using Choice = DispatchCase::Choice;
  Matrix<double> preference = random.matrix(c.tokens, c.experts);
  for (Index t = 0; t < c.tokens; ++t)
    for (Index e = 0; e < c.experts; ++e) {
      if (c.choice == Choice::first_experts) preference(t, e) = -double(e);
      if (c.choice == Choice::half_idle && e % 2 == 0) preference(t, e) = -100;
    }
  return reference::router_forward(preference, c.top_k).experts;
}

void check_dispatch(Backend& backend, const DispatchCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Index T = c.tokens, K = c.top_k, D = c.hidden;
  const Matrix<std::int32_t> experts = chosen_experts(c, random);
  const Matrix<std::int32_t> kept = reference::within_capacity(experts, {c.capacity.rows, c.capacity.group});
  const reference::RoutingMap truth = reference::routing_map(kept, c.experts);
  const Index R = truth.offsets.back();

  const Tensor row_of = ws.output_i32({T, K}), all_assignments = ws.output_i32({T * K}), offsets = ws.output_i32({c.experts + 1});
  backend.routing_map(ws.i32({T, K}, experts.values), c.capacity, row_of, all_assignments, offsets);
  report.exact("row_of", ws.read(row_of), as_values(truth.row_of));
  Ids padded = truth.assignment_of;
  padded.resize(static_cast<std::size_t>(T * K), -1);
  report.exact("assignment_of", ws.read(all_assignments), as_values(padded));
  const Tensor assignment_of = all_assignments.rows(0, R);
  report.exact("offsets", ws.read(offsets), as_values(truth.offsets));

  const Matrix<double> x = f32_matrix(random, T, D), expert_rows = f32_matrix(random, R, D), none(T, D);
  const Tensor tx = ws.f32(x), trows = ws.f32(expert_rows), permuted = ws.output({R, D});
  backend.permute(tx, assignment_of, K, permuted);
  report.exact("permuted", ws.read(permuted), reference::permute(x, truth.assignment_of, K).values);
  const Tensor alone = ws.output({T, D}), based = ws.output({T, D});
  backend.unpermute(trows, row_of, Tensor(), alone);
  report.close("unpermuted", ws.read(alone), reference::unpermute(expert_rows, truth.row_of, K, none).values, pointwise);
  const Values sum = reference::unpermute(expert_rows, truth.row_of, K, x).values;
  backend.unpermute(trows, row_of, tx, based);
  report.close("unpermuted onto a base", ws.read(based), sum, pointwise);
  backend.unpermute(trows, row_of, tx, tx);
  report.close("unpermuted onto itself", ws.read(tx), sum, pointwise);

  const Matrix<double> weights = f32_matrix(random, T, K);
  const Tensor row_weights = ws.output({R}), back = ws.output({T, K});
  backend.permute_weights(ws.f32(weights), row_of, row_weights);
  report.exact("row weights", ws.read(row_weights), reference::permute_weights(weights, truth.assignment_of));
  backend.unpermute_weights(row_weights, row_of, back);
  report.exact("weights back", ws.read(back),
               reference::unpermute_weights(reference::permute_weights(weights, truth.assignment_of), truth.row_of, K).values);
}

void check_grouped_gemm(Backend& backend, const GroupedGemmCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Index E = static_cast<Index>(c.rows.size()), R = c.total_rows();
  Ids offsets{0};
  for (const Index rows : c.rows) offsets.push_back(offsets.back() + static_cast<std::int32_t>(rows));
  const ExpertRows rows{ws.i32({E + 1}, offsets), offsets};
  const Matrix<double> x = f32_matrix(random, R, c.in), w = f32_matrix(random, E * c.out, c.in);
  const Matrix<double> dy = f32_matrix(random, R, c.out);
  const Tensor tx = ws.f32(x), tw = ws.f32({E, c.out, c.in}, w), tdy = ws.f32(dy);
  const auto compare = [&](const char* name, Gemm kind, const Tensor& a, const Tensor& b, Shape shape,
                           const Matrix<double>& product) {
    const Tensor assigned = ws.output(shape);
    backend.grouped_gemm(kind, a, b, assigned, rows, Write::assign);
    report.close(std::string(name) + " assigned", ws.read(assigned), product.values, summed);
    const Matrix<double> start = f32_matrix(random, product.rows, product.cols);
    const Tensor accumulated = ws.f32(shape, start);
    backend.grouped_gemm(kind, a, b, accumulated, rows, Write::add);
    report.close(std::string(name) + " accumulated", ws.read(accumulated), reference::add(start, product).values, summed);
  };
  compare("nt", Gemm::nt, tx, tw, {R, c.out}, reference::grouped_gemm_nt(x, w, offsets));
  compare("nn", Gemm::nn, tdy, tw, {R, c.in}, reference::grouped_gemm_nn(dy, w, offsets));
  compare("tn", Gemm::tn, tdy, tx, {E, c.out, c.in}, reference::grouped_gemm_tn(dy, x, offsets));
}

void check_swiglu(Backend& backend, const SwigluCase& c, Report& report) {
  Random random = random_for(c.name);
  Workspace ws(backend);
  const Index R = c.rows, F = c.ffn;
  const Matrix<double> h = f32_matrix(random, R, 2 * F, c.scale), da = f32_matrix(random, R, F);
  const Values weights = c.weighted ? f32_values(random, R) : Values();
  const Tensor th = ws.f32(h), tda = ws.f32(da), tweights = c.weighted ? ws.f32({R}, weights) : Tensor();
  const Values a = reference::swiglu_forward(h, weights).values;
  const reference::SwigluGradients<double> truth = reference::swiglu_backward(h, weights, da);

  const Tensor forward = ws.output({R, F});
  backend.swiglu_forward(th, tweights, forward);
  report.close("a", ws.read(forward), a, pointwise);

  const Tensor dh = ws.output({R, 2 * F}), drow_weights = ws.output({R}), a_again = ws.output({R, F});
  backend.swiglu_backward(th, tweights, tda, dh, drow_weights, a_again);
  report.close("dh", ws.read(dh), truth.dh.values, pointwise);
  report.close("drow_weights", ws.read(drow_weights), truth.drow_weights, summed);
  report.close("a again", ws.read(a_again), a, pointwise);

  const Tensor a_third = ws.output({R, F});
  backend.swiglu_backward(th, tweights, tda, th, Tensor(), a_third);
  report.close("dh where h was", ws.read(th), truth.dh.values, pointwise);
  report.close("a beside dh where h was", ws.read(a_third), a, pointwise);
}

}  // namespace

std::vector<Check> moe_checks() {
  std::vector<Check> checks;
  add_checks(checks, "router", router_cases(), check_router);
  add_checks(checks, "jitter", jitter_cases(), check_jitter);
  add_checks(checks, "dispatch", dispatch_cases(), check_dispatch);
  add_checks(checks, "grouped_gemm", grouped_gemm_cases(), check_grouped_gemm);
  add_checks(checks, "swiglu", swiglu_cases(), check_swiglu);
  return checks;
}

}  // namespace smoe::checks
