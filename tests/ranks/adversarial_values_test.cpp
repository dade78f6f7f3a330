// What is measured of routings that break software, and what the balancers make of them: values known by hand, on 1, 2, 4 or 8 ranks;
// what depends on the layout at every layout. E = 8 experts, 8 sequences of 24 tokens a micro-batch, two layers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "tests/ranks/adversaries.h"
#include "tests/ranks/test_session.h"
#include "trainer/case_training.h"
#include "trainer/equivalence.h"

namespace smoe {
namespace {

constexpr double rounding = 1e-6;

using Steps = std::vector<StepNumbers>;
void at_layouts(const std::vector<Layout>& layouts, const EquivalenceCase& c,
                const std::function<void(const Layout&, const Steps&)>& check) {
  for (const Layout& layout : layouts) {
    SCOPED_TRACE(layout.to_string());
    check(layout, run_case(c, mesh_of(layout), 1).steps);
  }
}
// The numbers of all layers are this one.
void expect_all(const std::vector<double>& found, double expected, double within, const char* what) {
  EXPECT_FALSE(found.empty()) << what;
  for (const double x : found) EXPECT_NEAR(x, expected, within * std::max(1.0, std::abs(expected))) << what;
}
void expect_balances(const LayerMetrics& m, double sequence, double micro_batch, double global_batch) {
  expect_all(m.balance_sequence, sequence, rounding, "sequence");
  expect_all(m.balance_micro_batch, micro_batch, rounding, "micro_batch");
  expect_all(m.balance_global_batch, global_batch, rounding, "global_batch");
}

EquivalenceCase top(std::int64_t k) {
  EquivalenceCase c = small();
  c.model.num_experts_per_tok = k;
  return c;
}
// Routers that are sure: the best expert has a probability of 1.
void be_sure(EquivalenceCase& c) { route_by_id(c, 100.0f); }

TEST(adversarial_values, a_hot_expert_is_collapse) {
  for (const std::int64_t k : {1, 2}) {
    EquivalenceCase c = top(k);
    route_to_hot_expert(c);
    be_sure(c);
    c.steps = 1;
    const double K = static_cast<double>(k);
    for (const bool hf : {false, true}) {
      if (hf) c.router.aux_loss_scope = AuxLossScope::hf;
      at_layouts(few_layouts(), c, [&](const Layout&, const Steps& steps) {
        const LayerMetrics& m = steps[0].measures;
        expect_all(m.max_vio, 8 / K - 1, 1e-12, "MaxVio");
        expect_balances(m, 8 / K, 8 / K, 8 / K);
        expect_all(m.mean_entropy, 0, rounding, "entropy of the mean");
        expect_all(m.entropy, 0, rounding, "entropy");
        EXPECT_NEAR(steps[0].aux_loss, hf ? 8 : 2 * 8 / K, 8 * rounding);  // K E sum f P; or the sum over two layers
      });
    }
  }
}

// Here B, which is no distance, reads balance, where MaxVio reads what there is.
TEST(adversarial_values, equal_logits_go_to_the_lowest_experts) {
  for (const std::int64_t k : {1, 2}) {
    EquivalenceCase c = top(k);
    route_by_ties(c);
    at_layouts(few_layouts(), c, [&](const Layout&, const Steps& steps) {
      const LayerMetrics& m = steps[0].measures;
      expect_all(m.max_vio, 8 / static_cast<double>(k) - 1, 1e-12, "MaxVio");
      expect_balances(m, 1, 1, 1);
      expect_all(m.mean_entropy, 1, rounding, "entropy of the mean");
      expect_all(m.entropy, 1, rounding, "entropy");
      expect_all(m.margin, 0, 0, "margin");
      expect_all(m.logit_norm, 0, 0, "norm of the logits");
      EXPECT_NEAR(steps[0].z_loss, 2 * std::log(8.0) * std::log(8.0), rounding);
    });
  }
}

TEST(adversarial_values, a_bias_alone_decides) {
  EquivalenceCase c = top(2);
  route_by_bias(c);
  c.steps = 1;
  at_layouts(few_layouts(), c, [&](const Layout&, const Steps& steps) {
    expect_all(steps[0].measures.max_vio, 3, 1e-12, "MaxVio");
    expect_balances(steps[0].measures, 1, 1, 1);
    expect_all(steps[0].measures.margin, 0.4, rounding, "margin");  // of the second, before those without a bias
  });
}

// Where every token takes every expert, or there is one expert, nothing can be out of balance.
TEST(adversarial_values, all_experts_for_every_token_balance) {
  EquivalenceCase every = top(8);
  route_to_hot_expert(every);
  be_sure(every);
  EquivalenceCase single = top(1);
  single.model.num_local_experts = 1;
  for (EquivalenceCase* c : {&every, &single}) {
    c->steps = 1;
    const bool one = c == &single;
    at_layouts(one ? std::vector<Layout>{{.ranks = test_session().size()}} : few_layouts(), *c,
               [&](const Layout&, const Steps& steps) {
                 EXPECT_TRUE(steps[0].finite);
                 expect_all(steps[0].measures.max_vio, 0, 1e-12, "MaxVio");
                 expect_balances(steps[0].measures, 1, 1, 1);
                 expect_all(steps[0].measures.rank_load, 1, 1e-12, "rank_load");
                 expect_all(steps[0].measures.margin, 0, 0, "margin");
                 for (const double norm : steps[0].measures.gradient_balance) EXPECT_LT(norm, rounding);
               });
  }
}

// Two micro-batches; then, in step 3, sequences in turn. In `global_batch` the second micro-batch sees both: (8 + 4) / 2.
TEST(adversarial_values, scopes_tell_bursts_apart) {
  EquivalenceCase c = top(1);
  route_in_bursts(c);
  be_sure(c);
  at_layouts(few_layouts(), c, [&](const Layout&, const Steps& steps) {
    for (const std::size_t n : {1u, 2u}) expect_all(steps[n].measures.max_vio, 3, 1e-12, "MaxVio");
    expect_balances(steps[1].measures, 8, 8, 6);
    expect_balances(steps[2].measures, 8, 4, 4);
  });
}

// Of the busiest rank over the mean rank's, in each micro-batch: not what the experts' load over the step would say.
TEST(adversarial_values, rank_load) {
  struct Known {
    const char* name;
    std::int64_t k;
    void (*force)(EquivalenceCase& c);
    std::size_t step;  // from 0
    double of_ep[9];   // 1, 2, 4 and 8
  };
  const std::vector<Known> all = {
      {"even", 2, route_evenly, 0, {0, 1, 1, 0, 1, 0, 0, 0, 1}},
      {"hot expert", 1, route_to_hot_expert, 0, {0, 1, 2, 0, 4, 0, 0, 0, 8}},
      {"hot rank", 2, route_to_hot_rank, 0, {0, 1, 2, 0, 4, 0, 0, 0, 4}},
      {"hot rank, top 1", 1, route_to_hot_rank, 0, {0, 1, 2, 0, 4, 0, 0, 0, 4}},
      {"idle ranks", 2, route_past_ranks, 0, {0, 1, 2, 0, 2, 0, 0, 0, 2}},
      {"equal logits", 2, route_by_ties, 0, {0, 1, 2, 0, 4, 0, 0, 0, 4}},
      {"bias", 2, route_by_bias, 0, {0, 1, 1, 0, 2, 0, 0, 0, 4}},  // experts 6 and 1
      {"burst of micro-batches", 1, route_in_bursts, 1, {0, 1, 2, 0, 4, 0, 0, 0, 8}},
  };
  for (const Known& known : all) {
    SCOPED_TRACE(known.name);
    EquivalenceCase c = top(known.k);
    known.force(c);
    c.steps = static_cast<std::int64_t>(known.step) + 1;
    at_layouts(layouts_of(test_session().size()), c, [&](const Layout& layout, const Steps& steps) {
      expect_all(steps[known.step].measures.rank_load, known.of_ep[layout.ep], 1e-12, "rank_load");
    });
  }
}

// A factor of 1 has room for 3 K of a sequence's 24 K assignments at each expert.
TEST(adversarial_values, what_is_over_capacity_is_dropped) {
  struct Known {
    const char* name;
    std::int64_t k;
    void (*force)(EquivalenceCase& c);
    double factor, dropped;  // of each sequence
  };
  const std::vector<Known> all = {
      {"even", 2, route_evenly, 1, 0},
      {"hot expert, top 1", 1, route_to_hot_expert, 1, 24 - 3},
      {"hot expert, a part of a row is a row", 1, route_to_hot_expert, 1.1, 24 - 4},
      {"hot expert with room for all", 1, route_to_hot_expert, 8, 0},
      {"hot expert with room for all but one", 1, route_to_hot_expert, 23.0 / 3, 1},
      {"hot rank", 2, route_to_hot_rank, 1, 2 * (24 - 6)},
      {"idle ranks", 2, route_past_ranks, 1, 4 * (12 - 6)},
      {"equal logits", 2, route_by_ties, 1, 2 * (24 - 6)},
      {"bias, top 1", 1, route_by_bias, 1, 24 - 3},
  };
  for (const Known& known : all) {
    SCOPED_TRACE(known.name);
    EquivalenceCase c = top(known.k);
    c.accumulation = 2;
    known.force(c);
    c.steps = 1;
    EquivalenceCase dropless = c;
    c.routing.capacity_factor = known.factor;
    const StepNumbers all_kept = run_case(dropless, Mesh::single(), 1).steps[0];
    EXPECT_TRUE(all_kept.measures.dropped.empty());
    at_layouts(few_layouts(), c, [&](const Layout&, const Steps& steps) {
      expect_all(steps[0].measures.dropped, 2 * 8 * known.dropped, 0, "dropped");
      // What was chosen counts, kept or not. (Who is dropped in the first layer is another token in the second.)
      EXPECT_EQ(steps[0].expert_load[0], all_kept.expert_load[0]);
      if (known.dropped == 0)
        EXPECT_NEAR(steps[0].lm_loss, all_kept.lm_loss, rounding);
      else
        EXPECT_GT(std::abs(steps[0].lm_loss - all_kept.lm_loss), 10 * rounding);
    });
  }
}

// Seven of eight go up, so that taking out the mean leaves a quarter of the rate to them, and takes 7 quarters from the hot one.
TEST(adversarial_values, a_hot_experts_bias_goes_down) {
  EquivalenceCase c = top(1);
  c.router.bias_update_rate = 0.01;
  route_to_hot_expert(c);
  at_layouts(few_layouts(), c, [&](const Layout&, const Steps& steps) {
    for (std::size_t n = 0; n < 2; ++n) {
      ASSERT_EQ(steps[n].selection_bias.size(), 16u);
      for (std::size_t i = 0; i < 16; ++i) {
        const bool hot = static_cast<std::int64_t>(i % 8) == hot_expert_of(c);
        EXPECT_NEAR(static_cast<double>(steps[n].selection_bias[i]),
                    static_cast<double>(n + 1) * 0.01 * (hot ? -1.75 : 0.25), 1e-8)
            << i;
      }
      const auto& bias = steps[n].selection_bias;
      EXPECT_NEAR(std::accumulate(bias.begin(), bias.end(), 0.0), 0, 1e-8) << "a mean is left";
    }
  });
}

// Half a point ahead, at a rate of a tenth the hot expert meets the others, who rise as it falls, after two and a half updates.
TEST(adversarial_values, a_bias_spreads_after_so_many_updates) {
  EquivalenceCase c = top(1);
  route_by_bias(c);
  for (float& b : c.selection_bias) b = b == 0.5f ? 0.5f : 0.0f;
  c.router.frozen = true;  // gates stay zero
  c.router.bias_update_rate = 0.1;
  c.steps = 5;
  at_layouts(few_layouts(), c, [&](const Layout&, const Steps& steps) {
    std::vector<std::int64_t> chosen;
    for (const StepNumbers& step : steps)
      for (const std::vector<double>& load : step.expert_load) {
        const auto most = std::max_element(load.begin(), load.end());
        EXPECT_EQ(*most, 1.0);
        chosen.push_back(most - load.begin());
      }
    EXPECT_EQ(chosen, (std::vector<std::int64_t>{6, 6, 6, 6, 6, 6, 0, 0, 1, 1})) << "of two layers each";
  });
}

// The gate's gradient where every logit is 0: row i is (c E / T) (1/8) (f_i - 1/8) times the sum of all inputs.
class adversarial_gradients : public ::testing::Test {
 protected:
  static EquivalenceCase ties(std::int64_t k) {
    EquivalenceCase c = top(k);
    c.router.z_loss_coef = 0;
    route_by_ties(c);
    return c;
  }
  // Of each layer's gate, [E,D].
  static std::vector<std::vector<float>> gates(const CaseRun& run) {
    std::vector<std::vector<float>> found;
    for (std::size_t i = 0; i < run.parameters.size(); ++i)
      if (run.parameters[i].name.find(".gate.weight") != std::string::npos) found.push_back(run.steps[0].gradients[i]);
    EXPECT_EQ(found.size(), 2u);
    return found;
  }
};

// With one expert a token the language model's loss has no gradient here: all that moves the gate is the balance.
TEST_F(adversarial_gradients, the_balance_loss_pushes_the_hot_expert_down_and_the_others_up_alike) {
  for (const AuxLossScope scope : {AuxLossScope::global_batch, AuxLossScope::micro_batch, AuxLossScope::sequence,
                                   AuxLossScope::rank, AuxLossScope::hf}) {
    EquivalenceCase c = ties(1);
    c.router.aux_loss_scope = scope;
    for (const Layout& layout : few_layouts()) {
      SCOPED_TRACE(layout.to_string());
      const CaseRun run = run_case(c, mesh_of(layout), 1);
      expect_all(run.steps[0].measures.gradient_lm, 0, 0, "lm");
      for (const std::vector<float>& gate : gates(run)) {
        double largest = 0;
        for (const float g : gate) largest = std::max(largest, std::abs(static_cast<double>(g)));
        EXPECT_GT(largest, 1e-4);
        for (std::size_t i = 0; i < 32; ++i)
          for (std::size_t e = 1; e < 8; ++e)
            EXPECT_NEAR(static_cast<double>(gate[i]), -7 * static_cast<double>(gate[e * 32 + i]), 1e-5 * largest);
      }
    }
  }
}

TEST_F(adversarial_gradients, its_size_is_that_of_the_imbalance) {
  const auto norm = [](EquivalenceCase c, const Layout& layout) {
    const CaseRun run = run_case(c, mesh_of(layout), 1);
    return run.steps[0].measures.gradient_balance[0];  // the first layer's inputs are the same in all of these
  };
  EquivalenceCase pooled = ties(1), doubled = ties(1), twice = ties(1);
  pooled.router.aux_loss_scope = AuxLossScope::hf;
  doubled.router.aux_loss_coef *= 2;
  twice.accumulation = 2;
  for (const Layout& layout : few_layouts()) {
    const double one = norm(ties(1), layout);
    EXPECT_GT(one, 1e-4);
    EXPECT_NEAR(norm(ties(2), layout), std::sqrt(24.0 / 56.0) * one, 1e-5 * one);  // 2 * 3^2 + 6 beside 7^2 + 7
    EXPECT_NEAR(norm(doubled, layout), 2 * one, 1e-5 * one);
    EXPECT_NEAR(norm(pooled, layout), one / 2, 1e-5 * one);  // K / L
  }
}

TEST_F(adversarial_gradients, without_a_coefficient_there_is_none) {
  for (const std::int64_t k : {1, 2}) {
    EquivalenceCase c = ties(k);
    c.router.aux_loss_coef = 0;
    at_layouts(few_layouts(), c, [&](const Layout&, const Steps& steps) {
      expect_all(steps[0].measures.gradient_balance, 0, 0, "balance");
      expect_all(steps[0].measures.gradient_z, 0, 0, "z");
      if (k == 1) expect_all(steps[0].measures.gradient_lm, 0, 0, "lm");
    });
    if (k == 2) continue;
    for (const std::vector<float>& gate : gates(run_case(c, mesh_of(few_layouts().front()), 1)))
      for (const float g : gate) ASSERT_EQ(g, 0.0f);
  }
}

// The z loss draws all logits alike, whoever is chosen: 2 c / T ln(8) (1/8) times the sum of all inputs.
TEST_F(adversarial_gradients, the_z_loss_prefers_nobody) {
  EquivalenceCase c = ties(1);
  c.router.aux_loss_coef = 0;
  c.router.z_loss_coef = 0.5;
  for (const Layout& layout : few_layouts())
    for (const std::vector<float>& gate : gates(run_case(c, mesh_of(layout), 1))) {
      double largest = 0;
      for (const float g : gate) largest = std::max(largest, std::abs(static_cast<double>(g)));
      EXPECT_GT(largest, 1e-3);
      for (std::size_t i = 0; i < 32; ++i)
        for (std::size_t e = 1; e < 8; ++e)
          EXPECT_NEAR(static_cast<double>(gate[i]), static_cast<double>(gate[e * 32 + i]), 1e-6 * largest);
    }
}

// The bias holds every token at one expert, so B is 8 times its mean probability: the update makes that less.
TEST(adversarial_values, an_update_by_the_balance_loss_makes_the_hot_expert_less_probable) {
  for (const double coefficient : {0.0, 0.3}) {
    EquivalenceCase c = top(1);
    c.router.aux_loss_coef = coefficient;
    c.router.z_loss_coef = 0;
    route_by_bias(c);
    at_layouts(few_layouts(), c, [&](const Layout&, const Steps& steps) {
      expect_balances(steps[0].measures, 1, 1, 1);
      if (coefficient == 0) return expect_balances(steps[1].measures, 1, 1, 1);
      for (const double b : steps[1].measures.balance_micro_batch) EXPECT_LT(b, 1 - 1e-4);
    });
  }
}

// log(7 / target) is beyond 1, where an error ends: half of it at once, and five thousandths more with every step.
TEST(adversarial_values, the_controller_answers_collapse_and_balance) {
  EquivalenceCase c = top(1);
  c.router.target_max_vio = 0.5;
  for (const bool hot : {true, false}) {
    (hot ? route_to_hot_expert : route_evenly)(c);
    for (const Layout& layout : few_layouts()) {
      const auto backend = make_backend(c.device, 1);
      CaseTraining training(c, mesh_of(layout), *backend);
      EXPECT_EQ(training.controller()->factor(), 1.0);
      for (const std::int64_t n : {1, 2}) {
        training.step(n);
        const double u = 0.5 + 0.005 * static_cast<double>(n);
        EXPECT_NEAR(training.controller()->factor(), std::exp(hot ? u : -u), 1e-12);
        EXPECT_EQ(training.controller()->state().smoothed, hot ? 7.0 : 0.0);
      }
    }
  }
}

}  // namespace
}  // namespace smoe
