// The balance losses by their definitions, on routings whose values are known in closed form.
#include "model/balance_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

namespace smoe {
namespace {

constexpr std::int64_t experts = 4, length = 8;

class Balance : public ::testing::Test {
 protected:
  // One layer's statistics for `sequences` sequences: counts and mean probabilities given for each.
  BalanceValues measure(const std::vector<std::vector<std::vector<double>>>& shares_of_layers, std::int64_t k,
                        AuxLossScope scope) {
    ModelConfig model;
    model.num_hidden_layers = static_cast<std::int64_t>(shares_of_layers.size());
    model.num_local_experts = experts;
    model.num_experts_per_tok = k;
    RouterConfig router;
    router.aux_loss_coef = 0.5;
    router.aux_loss_scope = scope;
    router.z_loss_coef = 0.25;
    BalanceLoss balance(model, router);
    const auto sequences = static_cast<std::int64_t>(shares_of_layers[0].size());
    const Mesh mesh = Mesh::single();
    Arena scratch(*backend);
    Context context{*backend, mesh, arena, scratch};
    const auto statistics = balance.take_statistics(context, sequences, length);
    for (std::size_t l = 0; l < shares_of_layers.size(); ++l)
      for (std::int64_t s = 0; s < sequences; ++s) {
        for (std::int64_t e = 0; e < experts; ++e) {
          const double share = shares_of_layers[l][static_cast<std::size_t>(s)][static_cast<std::size_t>(e)];
          const auto layer = statistics.layer(static_cast<std::int64_t>(l));
          layer.counts.f32()[s * experts + e] = static_cast<float>(share * static_cast<double>(k * length));
          layer.probability_sums.f32()[s * experts + e] = static_cast<float>(share * static_cast<double>(length));
        }
        statistics.layer(static_cast<std::int64_t>(l)).z_sums.f32()[s] = 3.0f * static_cast<float>(length);
      }
    balance.begin_step(1);
    balance.add_micro_batch(context, statistics, gradients);
    return balance.values();
  }

  std::unique_ptr<Backend> backend = make_cpu_backend(1);
  Arena arena{*backend};
  std::vector<RouterGradient> gradients;
};

const std::vector<double> uniform = {.25, .25, .25, .25}, first_two = {.5, .5, 0, 0}, last_two = {0, 0, .5, .5};

TEST_F(Balance, APerfectlyBalancedLayerScoresOneInEveryScopeAndKInHf) {
  const auto v = measure({{uniform, uniform}, {uniform, uniform}}, 2, AuxLossScope::micro_batch);
  for (const auto* scope : {&v.micro_batch, &v.global_batch, &v.sequence, &v.rank})
    for (double b : *scope) EXPECT_NEAR(b, 1.0, 1e-6);
  EXPECT_NEAR(v.hf, 2.0, 1e-6);
  EXPECT_NEAR(v.z_total(), 6.0, 1e-6);
}

TEST_F(Balance, CollapseOntoKExpertsScoresEOverK) {
  const auto v = measure({{first_two, first_two}}, 2, AuxLossScope::micro_batch);
  EXPECT_NEAR(v.micro_batch[0], 2.0, 1e-6);
  EXPECT_NEAR(v.hf, 4.0, 1e-6);
}

// What hf hides: two layers collapsed on different pairs look perfect once pooled.
TEST_F(Balance, HfPoolsLayersSoOppositeCollapsesCancel) {
  const auto v = measure({{first_two}, {last_two}}, 2, AuxLossScope::hf);
  EXPECT_NEAR(v.hf, 2.0, 1e-6);
  EXPECT_NEAR(v.trained(AuxLossScope::micro_batch), 4.0, 1e-6);
}

// What micro_batch hides and sequence shows: each sequence collapsed, the batch balanced.
TEST_F(Balance, SequencesAreScoredApart) {
  const auto v = measure({{first_two, last_two}}, 2, AuxLossScope::sequence);
  EXPECT_NEAR(v.micro_batch[0], 1.0, 1e-6);
  EXPECT_NEAR(v.sequence[0], 2.0, 1e-6);
}

TEST_F(Balance, TheGradientIsTheSlopeInPButForWhatAllExpertsHaveInCommon) {
  // dB/dp[t,e] = E f_e / T, T = 2 * length tokens, times the coefficient 0.5.
  measure({{first_two, last_two}}, 2, AuxLossScope::micro_batch);
  ASSERT_EQ(gradients[0].balance.dim(0), 1);
  for (int e = 0; e < experts; ++e) EXPECT_EQ(gradients[0].balance.f32()[e], 0.0f) << "even loads, to the last bit";
  measure({{{0.375, 0.125, 0.25, 0.25}, {0.375, 0.125, 0.25, 0.25}}}, 2, AuxLossScope::micro_batch);
  for (const auto& [e, f] : std::map<int, double>{{0, 0.375}, {1, 0.125}, {2, 0.25}, {3, 0.25}})
    EXPECT_NEAR(gradients[0].balance.f32()[e], 0.5 * 4 * (f - 0.125) / 16, 1e-8);
  measure({{first_two, last_two}}, 2, AuxLossScope::sequence);
  ASSERT_EQ(gradients[0].balance.dim(0), 2);
  EXPECT_NEAR(gradients[0].balance.f32()[0], 0.5 * 4 * 0.5 / 16, 1e-8);
  EXPECT_EQ(gradients[0].balance.f32()[2], 0.0f);
  EXPECT_NEAR(gradients[0].z_scale, 0.25 / 16, 1e-12);
}

TEST_F(Balance, GlobalBatchSeesTheAssignmentsOfEarlierMicroBatches) {
  ModelConfig model;
  model.num_hidden_layers = 1;
  model.num_local_experts = experts;
  model.num_experts_per_tok = 2;
  RouterConfig router;
  router.aux_loss_scope = AuxLossScope::global_batch;
  router.aux_loss_coef = 1.0;
  BalanceLoss balance(model, router);
  const Mesh mesh = Mesh::single();
  Arena scratch(*backend);
  Context context{*backend, mesh, arena, scratch};
  for (int step = 0; step < 2; ++step) {  // the second has forgotten the first
    balance.begin_step(2);
    for (const auto& shares : {first_two, last_two}) {
      const auto statistics = balance.take_statistics(context, 1, length);
      for (int e = 0; e < experts; ++e) {
        statistics.counts.f32()[e] = static_cast<float>(shares[static_cast<std::size_t>(e)] * 2 * length);
        statistics.probability_sums.f32()[e] = static_cast<float>(shares[static_cast<std::size_t>(e)] * length);
      }
      statistics.z_sums.f32()[0] = 0;
      balance.add_micro_batch(context, statistics, gradients);
      const bool first = shares == first_two;
      for (int e = 0; e < experts; ++e)
        EXPECT_NEAR(gradients[0].balance.f32()[e], first && e < 2 ? 4 * 0.5 / length / 2 : 0, 1e-8);
    }
    EXPECT_NEAR(balance.values().micro_batch[0], 2.0, 1e-6);               // each collapsed
    EXPECT_NEAR(balance.values().global_batch[0], (2.0 + 1.0) / 2, 1e-6);  // the second is balanced against the first
    for (double load : balance.values().load[0]) EXPECT_NEAR(load, 0.25, 1e-6);
  }
}

// Two micro-batches of two sequences: 8 and 4 tokens, then 2 and none.
TEST_F(Balance, PaddingIsInNoGroup) {
  ModelConfig model;
  model.num_hidden_layers = 1;
  model.num_local_experts = experts;
  model.num_experts_per_tok = 2;
  struct Sequence {
    int tokens;
    std::vector<double> shares;
  };
  const std::vector<std::vector<Sequence>> micro_batches = {{{8, first_two}, {4, uniform}},
                                                            {{2, last_two}, {0, uniform}}};
  for (const AuxLossScope scope : {AuxLossScope::sequence, AuxLossScope::micro_batch, AuxLossScope::global_batch,
                                   AuxLossScope::rank, AuxLossScope::hf}) {
    RouterConfig router;
    router.aux_loss_scope = scope;
    router.aux_loss_coef = 1.0;
    router.z_loss_coef = 0.5;
    BalanceLoss balance(model, router);
    const Mesh mesh = Mesh::single();
    Arena scratch(*backend);
    Context context{*backend, mesh, arena, scratch};
    balance.begin_step({.tokens = 14, .sequences = 3});
    for (const auto& sequences : micro_batches) {
      std::vector<std::int32_t> ids;
      for (const Sequence& sequence : sequences)
        for (int t = 0; t < length; ++t) ids.push_back(t < sequence.tokens ? 3 : -1);
      const TokenBatch batch = make_token_batch(*backend, arena, 2, length, ids);
      const auto statistics = balance.take_statistics(context, batch);
      EXPECT_EQ(statistics.tokens, sequences[0].tokens + sequences[1].tokens);
      for (std::size_t s = 0; s < 2; ++s) {
        const auto tokens = static_cast<double>(sequences[s].tokens);
        for (std::size_t e = 0; e < experts; ++e) {
          statistics.counts.f32()[s * experts + e] = static_cast<float>(sequences[s].shares[e] * 2 * tokens);
          statistics.probability_sums.f32()[s * experts + e] = static_cast<float>(sequences[s].shares[e] * tokens);
        }
        statistics.z_sums.f32()[s] = static_cast<float>(3 * tokens);
      }
      balance.add_micro_batch(context, statistics, gradients);
      EXPECT_NEAR(gradients[0].z_scale, 0.5 / 14, 1e-12);
      for (std::int64_t i = 0; i < gradients[0].balance.elements(); ++i)
        EXPECT_TRUE(std::isfinite(gradients[0].balance.f32()[i]));
      // dB/dp of expert 0, ahead of the least: E f / T, times the weight of the micro-batch, or the sequence, in the step.
      const float slope = &sequences == &micro_batches[0] ? gradients[0].balance.f32()[0] : NAN;
      if (scope == AuxLossScope::sequence && !std::isnan(slope)) {
        EXPECT_NEAR(slope, 4 * 0.5 / 8 / 3, 1e-7);
      }
      if (scope == AuxLossScope::micro_batch && !std::isnan(slope)) {
        EXPECT_NEAR(slope, 4 * (8 * 0.5 + 4 * 0.25 - 4 * 0.25) / 12 / 14, 1e-7);
      }
    }
    const BalanceValues& v = balance.values();
    const double first = 4 * 2 * (5. / 12 * 5. / 12 + 1. / 12 * 1. / 12);
    EXPECT_NEAR(v.micro_batch[0], 12. / 14 * first + 2. / 14 * 2, 1e-6);
    EXPECT_NEAR(v.rank[0], v.micro_batch[0], 1e-12);
    EXPECT_NEAR(v.sequence[0], (2. + 1 + 2) / 3, 1e-6);
    // f over 14 tokens: 5, 5, 2, 2 of them; P of the second micro-batch on the last two.
    EXPECT_NEAR(v.global_batch[0], 12. / 14 * first + 2. / 14 * 4 * 2 * (2. / 14 * 0.5), 1e-6);
    EXPECT_NEAR(v.hf, 2 * v.micro_batch[0], 1e-6);
    EXPECT_NEAR(v.z[0], 3, 1e-6);
    EXPECT_NEAR(v.load[0][0], 5. / 14, 1e-6);
    EXPECT_NEAR(v.load[0][3], 2. / 14, 1e-6);
    EXPECT_NEAR(v.probability[0][3], 2. / 14, 1e-6);
  }
}

}  // namespace
}  // namespace smoe
