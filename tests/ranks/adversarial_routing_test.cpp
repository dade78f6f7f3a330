// Routings that break software (adversaries.h), each under every balancer, on every number of ranks: every number is finite, the
// routing is what it was forced to be in every layer and step, and each layout has the numbers of one rank.
//
// The plan, which keeps it cheap: a balancer alone runs at the layout with the most ep (where a hot or an idle expert is a hot or
// an idle rank), and at one where sequences are cut over tp as well, on 8 ranks at these two in turn; `all_at_once`, in which all of
// them meet, at every layout, on 3 and 6 ranks too. Known values of the same routings are in adversarial_values_test.cpp, what is not
// finite in refused_steps_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "tests/ranks/adversaries.h"
#include "tests/ranks/test_session.h"
#include "trainer/equivalence.h"
#include "trainer/layout_check.h"

namespace smoe {
namespace {

struct Balancer {
  const char* name;
  void (*use)(EquivalenceCase& c);
};
void PrintTo(const Balancer& b, std::ostream* out) { *out << b.name; }

void use_scope(EquivalenceCase& c, AuxLossScope scope) {
  c.router.aux_loss_scope = scope;
  c.router.z_loss_coef = 0;
}

const std::vector<Balancer>& balancers() {
  static const std::vector<Balancer> all = {
      {"none", [](EquivalenceCase& c) { c.router.aux_loss_coef = c.router.z_loss_coef = 0; }},
      {"global_batch",
       [](EquivalenceCase& c) {
         use_scope(c, AuxLossScope::global_batch);
         c.accumulation = 2;
       }},
      {"micro_batch",
       [](EquivalenceCase& c) {
         use_scope(c, AuxLossScope::micro_batch);
         c.accumulation = 2;
       }},
      {"sequence", [](EquivalenceCase& c) { use_scope(c, AuxLossScope::sequence); }},
      {"hf", [](EquivalenceCase& c) { use_scope(c, AuxLossScope::hf); }},
      {"z_loss",
       [](EquivalenceCase& c) {
         c.router.aux_loss_coef = 0;
         c.router.z_loss_coef = 0.5;
       }},
      {"selection_bias",
       [](EquivalenceCase& c) {
         c.router.aux_loss_coef = c.router.z_loss_coef = 0;
         c.router.bias_update_rate = 0.01;
       }},
      {"sigmoids_selection_bias",
       [](EquivalenceCase& c) {
         c.router.bias_update_rate = 0.01;
         c.model.scoring_func = Score::sigmoid;
         c.model.routed_scaling_factor = 2.5;
       }},
      {"target_max_vio", [](EquivalenceCase& c) { c.router.target_max_vio = 0.2; }},
      {"by_layer_scheduled",
       [](EquivalenceCase& c) {
         c.router.aux_loss_coef_by_layer = {0.5, 0};
         c.router.aux_loss_schedule.type = AuxLossScheduleType::linear;
         c.router.aux_loss_schedule.from = 0;
         c.router.aux_loss_schedule.to = 1;
         c.router.aux_loss_schedule.steps = 2;
       }},
      {"jitter_recompute",
       [](EquivalenceCase& c) {
         c.routing.jitter = 0.1f;
         c.recompute = Recompute::layer;
       }},
      {"capacity", [](EquivalenceCase& c) { c.routing.capacity_factor = 1; }},
      {"capacity_by_probability",
       [](EquivalenceCase& c) {
         c.routing.capacity_factor = 1;
         c.routing.capacity_order = CapacityOrder::probability;
       }},
      {"top_1", [](EquivalenceCase& c) { c.model.num_experts_per_tok = 1; }},
      {"top_1_by_probability",
       [](EquivalenceCase& c) {
         c.model.num_experts_per_tok = 1;
         c.model.norm_topk_prob = false;
       }},
      {"all_at_once",
       [](EquivalenceCase& c) {
         c.router.aux_loss_scope = AuxLossScope::sequence;
         c.router.bias_update_rate = 0.01;
         c.routing.jitter = 0.1f;
         c.routing.capacity_factor = 1.25;
         c.routing.capacity_order = CapacityOrder::probability;
         c.accumulation = 2;
         c.recompute = Recompute::layer;
       }},
  };
  return all;
}

template <class Named>
std::size_t place_of(const std::vector<Named>& all, std::string_view name) {
  return static_cast<std::size_t>(std::find_if(all.begin(), all.end(), [&](const Named& x) { return x.name == name; }) -
                                  all.begin());
}
std::vector<Layout> plan(const Adversary& adversary, const Balancer& balancer) {
  const int ranks = test_session().size();
  if (std::string_view(balancer.name) == "all_at_once") return layouts_of(ranks);
  const std::vector<Layout> few = few_layouts();
  if (ranks < 8) return few;
  return {few[(place_of(adversaries(), adversary.name) + place_of(balancers(), balancer.name)) % few.size()]};
}

void expect_finite(const CaseRun& run) {
  for (const StepNumbers& step : run.steps) {
    EXPECT_TRUE(step.finite);
    for (const auto* tensors : {&step.gradients, &step.weights})
      for (std::size_t i = 0; i < tensors->size(); ++i)
        for (const float x : (*tensors)[i]) ASSERT_TRUE(std::isfinite(x)) << run.parameters[i].name;
  }
}

void expect_routed(const Adversary& adversary, const EquivalenceCase& what, const CaseRun& run) {
  for (std::size_t n = 0; n < run.steps.size(); ++n)
    for (const std::vector<double>& load : run.steps[n].expert_load)
      adversary.check(what, static_cast<std::int64_t>(n) + 1, load);
}

class adversarial_routing : public ::testing::TestWithParam<std::tuple<Adversary, Balancer>> {
 protected:
  EquivalenceCase what() const {
    EquivalenceCase c = small();
    std::get<1>(GetParam()).use(c);
    std::get<0>(GetParam()).force(c);
    return c;
  }
};

TEST_P(adversarial_routing, has_the_numbers_of_one_rank) {
  const auto& [adversary, balancer] = GetParam();
  const EquivalenceCase c = what();
  const CaseRun expected = run_case(c, Mesh::single(), 1);
  expect_finite(expected);
  expect_routed(adversary, c, expected);
  EXPECT_GT(expected.steps.front().grad_norm, 1e-3) << "nothing is compared where nothing happens";
  for (const Layout& layout : plan(adversary, balancer)) {
    SCOPED_TRACE(layout.to_string());
    ASSERT_EQ(layout_problems(c.model, {c.sequence_length, c.at_once, 1}, layout), std::vector<std::string>{});
    const CaseRun run = run_case(c, mesh_of(layout), 1);
    expect_finite(run);
    expect_routed(adversary, c, run);
    EXPECT_EQ(violations(compare(run, expected, mesh_of(layout))), std::vector<std::string>{});
  }
}

INSTANTIATE_TEST_SUITE_P(cases, adversarial_routing,
                         ::testing::Combine(::testing::ValuesIn(adversaries()), ::testing::ValuesIn(balancers())),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param).name;
                         });

// The one scope that depends on the layout: with one sequence a rank it is the scope of sequences.
class adversarial_rank_scope : public ::testing::TestWithParam<Adversary> {};

TEST_P(adversarial_rank_scope, is_sequence_scope_where_a_rank_has_one_sequence) {
  EquivalenceCase c = small();
  c.at_once = test_session().size();
  c.router.aux_loss_scope = AuxLossScope::sequence;
  GetParam().force(c);
  const CaseRun expected = run_case(c, Mesh::single(), 1);
  c.router.aux_loss_scope = AuxLossScope::rank;
  const Layout layout{.ranks = test_session().size(), .ep = test_session().size()};
  const CaseRun run = run_case(c, mesh_of(layout), 1);
  expect_finite(run);
  expect_routed(GetParam(), c, run);
  EXPECT_EQ(violations(compare(run, expected, mesh_of(layout))), std::vector<std::string>{});
}

INSTANTIATE_TEST_SUITE_P(cases, adversarial_rank_scope, ::testing::ValuesIn(adversaries()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace smoe
