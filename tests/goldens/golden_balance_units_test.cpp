// model/balance_units.h against transformers' own function, and against what Megatron-LM and MegaBlocks compute, by hand from their
// sources: the same loss and the same gradient, at the coefficients that the conversion gives.
#include <gtest/gtest.h>

#include <complex>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/host_view.h"
#include "model/balance_loss.h"
#include "model/balance_units.h"
#include "tests/goldens/golden.h"
#include "tests/reference/complex_step.h"
#include "tests/reference/router.h"

namespace smoe {
namespace {

using Numbers = std::vector<double>;
using Complex = std::complex<double>;

struct LossAndGradient {
  double loss = 0;
  Numbers gradient;  // by the logits, [L,T,E]
};

class BalanceUnits : public testing::Test {
 protected:
  const Json file = read_json_file(test::source_folder() + "/tests/goldens/balance_units.json");
  const std::int64_t tokens = file.at("tokens"), experts = file.at("experts"), top_k = file.at("top_k");
  static constexpr std::int64_t layers = 3;
  const LayerCount of{layers, top_k};

  double theirs(const char* name) const { return file.at("cases").at(name).at("coefficient"); }
  Numbers all_layers(const char* name, const char* key) const {
    Numbers all;
    for (const Json& layer : file.at("cases").at(name).at(key))
      for (const Json& number : layer) all.push_back(number);
    return all;
  }
  LossAndGradient transformers(const char* name) const {
    return {file.at("cases").at(name).at("loss"), all_layers(name, "gradient")};
  }

  // By the layers of this model: BalanceLoss, and the router's backward.
  LossAndGradient smoe(const Numbers& logits, double coefficient, AuxLossScope scope) const {
    const std::unique_ptr<Backend> backend = make_cpu_backend(1);
    Arena arena(*backend), scratch(*backend);
    const Mesh mesh = Mesh::single();
    Context context{*backend, mesh, arena, scratch};
    ModelConfig model;
    model.num_hidden_layers = layers, model.num_local_experts = experts, model.num_experts_per_tok = top_k;
    RouterConfig router;
    router.aux_loss_coef = coefficient, router.aux_loss_scope = scope;
    BalanceLoss balance(model, router);
    const auto statistics = balance.take_statistics(context, 1, tokens);
    struct Layer {
      Tensor logits, probabilities, logsumexp, chosen, weights;
    };
    std::vector<Layer> all;
    for (std::int64_t l = 0; l < layers; ++l) {
      const Shape scores{tokens, experts}, choices{tokens, top_k};
      const Layer& x = all.emplace_back(Layer{arena.take(scores), arena.take(scores), arena.take({tokens}),
                                              arena.take(DType::i32, choices), arena.take(choices)});
      for (std::int64_t i = 0; i < tokens * experts; ++i)
        x.logits.f32()[i] = static_cast<float>(logits[static_cast<std::size_t>(l * tokens * experts + i)]);
      backend->router_forward({}, x.logits, {}, x.probabilities, x.logsumexp, x.chosen, x.weights);
      const RouterStatistics sums = statistics.layer(l);
      backend->balance_statistics(x.probabilities, x.logsumexp, x.chosen, sums.counts, sums.probability_sums,
                                  sums.z_sums);
    }
    std::vector<RouterGradient> gradients;
    balance.begin_step(1);
    balance.add_micro_batch(context, statistics, gradients);
    LossAndGradient found{coefficient * balance.values().trained(scope), {}};
    for (std::int64_t l = 0; l < layers; ++l) {
      const Layer& x = all[static_cast<std::size_t>(l)];
      const Tensor none = arena.take({tokens, top_k}), dlogits = arena.take({tokens, experts});
      backend->fill(none, 0);
      backend->router_backward({}, x.logits, x.probabilities, x.logsumexp, x.chosen, x.weights, none,
                               gradients[static_cast<std::size_t>(l)].balance, 0, dlogits);
      for (const float number : numbers_of(*backend, dlogits)) found.gradient.push_back(number);
    }
    return found;
  }

  // Of a layer: n_i assignments and sum_t p_ti of each expert.
  struct Sums {
    Numbers assignments;
    std::vector<Complex> probabilities;
  };
  std::vector<Sums> sums_of(const std::vector<Complex>& logits) const {
    std::vector<Sums> all;
    for (std::int64_t l = 0; l < layers; ++l) {
      reference::Matrix<Complex> layer(tokens, experts);
      for (std::size_t i = 0; i < layer.values.size(); ++i)
        layer.values[i] = logits[static_cast<std::size_t>(l) * layer.values.size() + i];
      const auto statistics = reference::balance_statistics(reference::router_forward(layer, top_k), 1);
      all.push_back({statistics.counts.values, statistics.probability_sums.values});
    }
    return all;
  }
  LossAndGradient by_hand(const Numbers& logits, const std::function<Complex(const std::vector<Sums>&)>& loss) const {
    const auto of_logits = [&](const std::vector<Complex>& at) { return loss(sums_of(at)); };
    return {of_logits({logits.begin(), logits.end()}).real(), reference::complex_step_gradient(logits, of_logits)};
  }

  static void expect_same(const LossAndGradient& found, const LossAndGradient& expected) {
    EXPECT_LE(test::deviation(found.loss, expected.loss), 1e-6);
    EXPECT_LE(test::deviation(found.gradient, expected.gradient), 3e-6);
  }
};

TEST_F(BalanceUnits, HfIsTransformersOwnWhereLayersBalanceAlike) {
  const double ours = converted(theirs("alike"), BalanceUnit::hf, BalanceUnit::smoe, of);
  EXPECT_DOUBLE_EQ(ours, theirs("alike") * 2 / 3);
  expect_same(smoe(all_layers("alike", "logits"), ours, AuxLossScope::micro_batch), transformers("alike"));
}

TEST_F(BalanceUnits, TheHfScopeIsTransformersOwnEverywhere) {
  for (const char* name : {"alike", "unlike"})
    expect_same(smoe(all_layers(name, "logits"), theirs(name), AuxLossScope::hf), transformers(name));
}

// Why `hf` says "where they balance alike": imbalances of different layers cancel in it, and no factor makes up for that.
TEST_F(BalanceUnits, NoFactorMakesTransformersPoolingALossOfEachLayer) {
  const double ours = converted(theirs("unlike"), BalanceUnit::hf, BalanceUnit::smoe, of);
  const LossAndGradient found = smoe(all_layers("unlike", "logits"), ours, AuxLossScope::micro_batch);
  EXPECT_GT(found.loss, 1.1 * transformers("unlike").loss);
  EXPECT_GT(test::deviation(found.gradient, transformers("unlike").gradient), 0.1);
}

// switch_load_balancing_loss_func of Megatron-LM (core/transformer/moe/moe_utils.py), called by each layer's router with
// --moe-aux-loss-coeff: sum_i (sum_t p_ti) n_i * E c / (K T^2).
TEST_F(BalanceUnits, MegatronsIsByHand) {
  const double ours = 0.013, c = converted(ours, BalanceUnit::smoe, BalanceUnit::megatron, of);
  const auto T = static_cast<double>(tokens), E = static_cast<double>(experts), K = static_cast<double>(top_k);
  const Numbers logits = all_layers("unlike", "logits");
  expect_same(smoe(logits, ours, AuxLossScope::micro_batch), by_hand(logits, [&](const std::vector<Sums>& all) {
                Complex loss = 0;
                for (const Sums& layer : all)
                  for (std::size_t i = 0; i < layer.assignments.size(); ++i)
                    loss += layer.probabilities[i] * layer.assignments[i] * (E * c / (K * T * T));
                return loss;
              }));
}

// batched_load_balancing_loss of MegaBlocks (layers/moe.py): the layers' tokens_per_expert and mean scores side by side, their dot
// product times E c / (L T K).
TEST_F(BalanceUnits, MegaBlocksIsByHand) {
  const double ours = 0.013, c = converted(ours, BalanceUnit::smoe, BalanceUnit::megablocks, of);
  EXPECT_DOUBLE_EQ(c, 3 * ours);
  const auto T = static_cast<double>(tokens), E = static_cast<double>(experts), K = static_cast<double>(top_k);
  const Numbers logits = all_layers("unlike", "logits");
  expect_same(smoe(logits, ours, AuxLossScope::micro_batch), by_hand(logits, [&](const std::vector<Sums>& all) {
                Complex dot = 0;
                for (const Sums& layer : all)
                  for (std::size_t i = 0; i < layer.assignments.size(); ++i)
                    dot += layer.probabilities[i] / T * layer.assignments[i];
                return dot * (E * c / (static_cast<double>(layers) * T * K));
              }));
}

TEST_F(BalanceUnits, ConversionsAreThoseOfThePublishedModels) {
  const LayerCount mixtral{32, 2}, olmoe{16, 8};
  EXPECT_DOUBLE_EQ(converted(0.02, BalanceUnit::hf, BalanceUnit::smoe, mixtral), 1.25e-3);
  EXPECT_DOUBLE_EQ(converted(0.001, BalanceUnit::hf, BalanceUnit::megatron, mixtral), 6.25e-5);
  EXPECT_DOUBLE_EQ(converted(0.01, BalanceUnit::megatron, BalanceUnit::hf, mixtral), 0.16);
  EXPECT_DOUBLE_EQ(converted(0.01, BalanceUnit::megablocks, BalanceUnit::smoe, olmoe), 6.25e-4);
  for (const auto& [a, name] : balance_units)
    for (const auto& [b, other] : balance_units)
      EXPECT_DOUBLE_EQ(converted(converted(0.3, a, b, olmoe), b, a, olmoe), 0.3) << name << " " << other;
  EXPECT_EQ(in_every_unit(1.25e-3, BalanceUnit::smoe, mixtral),
            "0.00125 here is megatron 0.00125, megablocks 0.04, deepspeed 0.00125, hf 0.02");
}

}  // namespace
}  // namespace smoe
