// The equivalence matrix: every layout of as many ranks as this job has, against one rank, in fp32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <ostream>
#include <span>
#include <string>

#include "tests/ranks/faulty_communicators.h"
#include "tests/ranks/routed_cases.h"
#include "tests/ranks/test_session.h"
#include "tests/support/weighted_cross_entropy.h"
#include "trainer/equivalence.h"
#include "trainer/layout_check.h"

namespace smoe {
namespace {

struct Case {
  const char* name;
  EquivalenceCase what;
  // Which experts of a layer must be without tokens, or have them all, for the case to be what its name says.
  void (*check)(const StepNumbers& step) = nullptr;
  bool some_layouts = false;  // those that do not fit the case are left out
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

const CaseRun& one_rank(const Case& c);

std::vector<Case> cases() {
  std::vector<Case> all;
  all.push_back({"plain", basic()});
  {
    auto c = basic();
    c.accumulation = 3;
    all.push_back({"accumulation", c});
    c.router.aux_loss_scope = AuxLossScope::micro_batch;
    c.recompute = Recompute::layer;
    all.push_back({"micro_batch_scope_recompute", c});
  }
  {
    auto c = basic();
    c.documents = true;
    c.masked = 0.4;
    c.masked_unevenly = true;
    all.push_back({"documents_and_targets_masked_unevenly", c});
    c.router.aux_loss_scope = AuxLossScope::sequence;
    c.accumulation = 2;
    all.push_back({"sequence_scope", c});
  }
  {
    auto c = basic();  // whole documents and padding: of some ranks all tokens but one, or all
    c.documents = c.padded = true;
    c.masked = 0.4;
    c.accumulation = 2;
    all.push_back({"padded", c});
    c.router.aux_loss_scope = AuxLossScope::sequence;
    c.recompute = Recompute::layer;
    c.routing.capacity_factor = 1;
    c.routing.jitter = 0.3f;
    c.model.scoring_func = Score::sigmoid;
    all.push_back({"padded_sequence_scope_capacity_jitter", c, nullptr, true});
  }
  {
    auto c = basic();  // another objective: each target weighs what its id says, some nothing
    c.masked = 0.4;
    c.masked_unevenly = true;
    c.accumulation = 2;
    c.objective = [] { return std::make_unique<test::WeightedCrossEntropy>(test::uneven_weights(67)); };
    all.push_back({"weighted_targets", c});
  }
  {
    auto c = basic();
    c.label_smoothing = 0.2;
    c.neftune_alpha = 5;
    c.documents = true;
    c.masked = 0.4;
    c.masked_unevenly = true;
    c.accumulation = 2;
    c.recompute = Recompute::layer;
    all.push_back({"smoothed_labels_noisy_embeddings", c, [](const StepNumbers& step) {
                     auto without = basic();
                     without.documents = true;
                     without.masked = 0.4;
                     without.masked_unevenly = true;
                     without.accumulation = 2;
                     const StepNumbers& plain = one_rank({"documents", without}).steps.front();
                     without.neftune_alpha = 5;
                     const StepNumbers& noisy = one_rank({"noisy_documents", without}).steps.front();
                     EXPECT_NE(noisy.lm_loss, plain.lm_loss);
                     EXPECT_EQ(step.lm_loss, noisy.lm_loss) << "what is told of the targets is smoothed";
                     EXPECT_NE(step.loss, noisy.loss) << "nothing is smoothed";
                   }});
  }
  {
    auto c = basic();  // everything that an adapter can be beside, with half of their input dropped
    c.lora =
        LoraConfig{.r = 3, .alpha = 4, .dropout = 0.5, .target_modules = {lora_targets.begin(), lora_targets.end()}};
    c.documents = true;
    c.masked = 0.4;
    c.masked_unevenly = true;
    c.accumulation = 2;
    c.recompute = Recompute::layer;
    all.push_back(
        {"adapters", c, [](const StepNumbers& step) {
           auto without = basic();
           without.lora = LoraConfig{.r = 3, .alpha = 4, .target_modules = {lora_targets.begin(), lora_targets.end()}};
           without.documents = true;
           without.masked = 0.4;
           without.masked_unevenly = true;
           without.accumulation = 2;
           EXPECT_NE(step.lm_loss, one_rank({"whole_adapters", without}).steps.front().lm_loss);
         }});
    c.lora = LoraConfig{
        .r = 2, .dropout = 0.25, .rslora = true, .target_modules = {"v_proj", "o_proj", "w3"}, .layers = {1, 1}};
    all.push_back({"adapters_of_one_layer", c});
  }
  {
    auto c = basic();
    c.router.aux_loss_scope = AuxLossScope::hf;
    c.router.aux_loss_coef = 3;
    c.router.z_loss_coef = 0.5;
    c.optimizer.max_grad_norm = 0.05;  // every step is clipped
    all.push_back({"large_balance_losses_hf_scope", c});
  }
  {
    auto c = basic();
    c.accumulation = 2;
    c.router.frozen = true;
    all.push_back({"frozen_routers", c});
    c.router.frozen = false;
    c.freeze = {"*.experts.*", "model.embed_tokens.weight"};
    c.recompute = Recompute::layer;
    all.push_back({"frozen_experts", c});
    c.freeze = {"model.*"};
    all.push_back({"all_but_the_head_frozen", c});
  }
  all.push_back({"an_expert_without_tokens", with_preferences({{3, -5.0f}}), [](const StepNumbers& step) {
                   for (const auto& layer : step.expert_load) EXPECT_EQ(layer[3], 0.0);
                 }});
  all.push_back({"ranks_without_tokens", with_preferences({{4, -5.0f}, {5, -5.0f}, {6, -5.0f}, {7, -5.0f}}),
                 [](const StepNumbers& step) {
                   for (const auto& layer : step.expert_load)
                     for (std::size_t e = 4; e < 8; ++e) EXPECT_EQ(layer[e], 0.0);
                 }});
  {
    auto c = with_preferences({{5, 5.0f}});
    c.model.num_experts_per_tok = 1;
    all.push_back({"one_expert_gets_all", c, [](const StepNumbers& step) {
                     for (const auto& layer : step.expert_load) EXPECT_EQ(layer[5], 1.0);
                   }});
  }
  {
    auto c = basic();
    c.model.sliding_window = 7;
    c.model.num_experts_per_tok = 3;
    c.documents = true;
    all.push_back({"window_top_3", c});
  }
  {
    // Fewer sequences than ranks: a rank of a tp group has a part of one, or the end of one and the start of the next.
    auto c = basic();
    c.at_once = 1;
    c.accumulation = 2;
    c.documents = true;
    c.masked = 0.4;
    c.router.aux_loss_scope = AuxLossScope::sequence;
    all.push_back({"one_sequence_over_ranks", c, nullptr, true});
    c.at_once = 3;
    c.sequence_length = 8;
    all.push_back({"three_sequences_over_ranks", c, nullptr, true});
    c.at_once = 6;
    c.router.aux_loss_scope = AuxLossScope::global_batch;
    c.recompute = Recompute::layer;
    all.push_back({"six_sequences_over_ranks", c, nullptr, true});
  }
  {
    auto c = basic();  // so many logits that the head takes them in several chunks, the last one smaller
    c.model.vocab_size = 131073;
    c.model.hidden_size = c.model.intermediate_size = 8;
    c.model.head_dim = 2;
    c.sequence_length = 96;
    c.steps = 1;
    c.masked = 0.2;
    all.push_back({"large_vocabulary", c});
  }
  {
    auto c = basic();
    c.model.num_experts_per_tok = 1;
    c.model.norm_topk_prob = false;
    c.routing.capacity_factor = 1;
    c.routing.jitter = 0.3f;
    c.recompute = Recompute::layer;
    c.accumulation = 2;
    all.push_back({"switch_capacity_jitter_recompute", c, [](const StepNumbers& step) {
                     auto without = basic();
                     without.model.num_experts_per_tok = 1;
                     without.model.norm_topk_prob = false;
                     without.accumulation = 2;
                     const double plain = one_rank({"switch", without}).steps.front().lm_loss;
                     EXPECT_NE(step.lm_loss, plain);
                     without.routing.jitter = 0.3f;
                     const double jittered = one_rank({"switch_jitter", without}).steps.front().lm_loss;
                     EXPECT_NE(jittered, plain);
                     EXPECT_NE(step.lm_loss, jittered) << "nothing is dropped";
                   }});
    c = basic();
    c.model.scoring_func = Score::sigmoid, c.model.routed_scaling_factor = 2.5;
    c.selection_bias = {0.5f, 0, 0, -0.5f, 0, 0.25f, 0, 0, 0, 0.5f, 0, 0, -0.25f, 0, 0.5f, 0};
    all.push_back(
        {"sigmoids_scaled_with_selection_bias", c, [](const StepNumbers& step) {
           auto without = basic();
           without.model.scoring_func = Score::sigmoid, without.model.routed_scaling_factor = 2.5;
           EXPECT_NE(step.lm_loss, one_rank({"sigmoids", without}).steps.front().lm_loss) << "the bias decides nothing";
         }});
    c = basic();
    c.router.bias_update_rate = 0.02;  // so that it decides after an update or two
    c.accumulation = 2;
    c.steps = 6;
    c.recompute = Recompute::layer;
    all.push_back({"selection_bias_updated", c, [](const StepNumbers& step) {
                     EXPECT_NE(step.selection_bias, std::vector<float>(16));
                     auto without = basic();
                     without.accumulation = 2;
                     without.steps = 6;
                     const auto& plain = one_rank({"bias_without_a_rate", without}).steps;
                     EXPECT_EQ(step.expert_load, plain.front().expert_load) << "zeros change no choice";
                     const auto& updated = one_rank({"selection_bias_updated", {}}).steps;
                     EXPECT_NE(updated.back().expert_load, plain.back().expert_load) << "the bias decides nothing";
                   }});
  }
  {
    auto c = basic();  // uneven by force, so that an expert has too much at once, and another room left
    c.router.forced_routing = {ForcedRoutingType::skewed, 1.5};
    c.routing.capacity_factor = 1;
    c.routing.capacity_order = CapacityOrder::probability;
    c.recompute = Recompute::layer;
    c.accumulation = 2;
    all.push_back({"forced_routing_capacity_by_probability", c, [](const StepNumbers& step) {
                     for (const auto& layer : step.expert_load) EXPECT_NEAR(layer[0], 2.5 / 8, 0.01);
                     for (const double dropped : step.measures.dropped) EXPECT_GT(dropped, 0);
                     auto by_position = basic();
                     by_position.router.forced_routing = {ForcedRoutingType::skewed, 1.5};
                     by_position.routing.capacity_factor = 1;
                     by_position.accumulation = 2;
                     const StepNumbers& other = one_rank({"forced_routing_capacity", by_position}).steps.front();
                     EXPECT_EQ(step.measures.dropped.front(), other.measures.dropped.front());
                     EXPECT_NE(step.lm_loss, other.lm_loss) << "others are dropped";
                   }});
    c = basic();
    c.router.forced_routing = {ForcedRoutingType::uniform, {}};
    all.push_back({"forced_uniform_routing", c, [](const StepNumbers& step) {
                     for (const auto& layer : step.expert_load) EXPECT_EQ(layer, std::vector<double>(8, 1.0 / 8));
                   }});
  }
  {
    auto c = basic();
    c.router.aux_loss_coef_by_layer = {0.5, 0.1};
    c.router.aux_loss_schedule.type = AuxLossScheduleType::cosine;
    c.router.aux_loss_schedule.from = 0;
    c.router.aux_loss_schedule.to = 1;
    c.router.aux_loss_schedule.steps = 2;
    c.accumulation = 2;
    all.push_back({"coefficients_by_layer_scheduled", c});
  }
  {
    auto c = basic();
    c.router.target_max_vio = 0.2;
    c.steps = 6;
    c.accumulation = 2;
    all.push_back({"steered_to_a_max_vio", c, [](const StepNumbers&) {
                     auto without = basic();
                     without.steps = 6;
                     without.accumulation = 2;
                     const auto &free = one_rank({"steered_to_none", without}).steps,
                                &steered = one_rank({"steered_to_a_max_vio", {}}).steps;
                     EXPECT_EQ(steered[0].weights, free[0].weights) << "it begins with the configured coefficient";
                     EXPECT_NE(steered[1].weights, free[1].weights) << "nothing is steered";
                   }});
  }
  {
    auto c = basic();  // no power of two anywhere
    c.model.num_attention_heads = c.model.num_key_value_heads = c.model.num_local_experts = 6;
    c.at_once = 12;
    c.accumulation = 2;
    c.masked = 0.3;
    all.push_back({"six_heads_six_experts", c});
  }
  all.push_back({"bf16", in_bf16()});
  {
    auto c = in_bf16();
    c.accumulation = 2;
    c.documents = true;
    c.masked = 0.4;
    c.masked_unevenly = true;
    c.router.aux_loss_scope = AuxLossScope::sequence;
    c.recompute = Recompute::layer;
    all.push_back({"bf16_accumulation_documents_recompute", c});
    c = in_bf16();
    c.router.frozen = true;
    c.freeze = {"*.self_attn.*", "model.embed_tokens.weight"};
    all.push_back({"bf16_frozen", c});
    c = in_bf16();  // an assignment too many is dropped, and each token's weights are its own
    c.model.scoring_func = Score::sigmoid, c.model.norm_topk_prob = false, c.model.routed_scaling_factor = 0.5;
    c.routing.capacity_factor = 1;
    all.push_back({"bf16_sigmoids_capacity", c});
    // Weights that stay as they are; of each A and B an f32 master is trained. A and B are small beside Adam's step, which where
    // a gradient is nothing but rounding goes the one way or the other: as in basic(), for the rounding of bf16.
    c = in_bf16();
    c.optimizer.epsilon = 1e-3;
    c.lora =
        LoraConfig{.r = 3, .alpha = 4, .dropout = 0.5, .target_modules = {lora_targets.begin(), lora_targets.end()}};
    c.accumulation = 2;
    c.documents = true;
    c.masked = 0.4;
    c.masked_unevenly = true;
    c.recompute = Recompute::layer;
    all.push_back({"bf16_adapters", c, [](const StepNumbers& step) {
                     EXPECT_NE(step.lm_loss, one_rank({"bf16_without_adapters", in_bf16()}).steps.front().lm_loss);
                   }});
  }
  return all;
}

// The run of one rank, the same numbers on every rank that makes it.
const CaseRun& one_rank(const Case& c) {
  static std::map<std::string, CaseRun> runs;
  const auto known = runs.find(c.name);
  return known != runs.end() ? known->second : runs.emplace(c.name, run_case(c.what, Mesh::single(), 1)).first->second;
}

class equivalence : public ::testing::TestWithParam<Case> {};

TEST_P(equivalence, every_layout_equals_one_rank) {
  const Case& c = GetParam();
  const CaseRun& expected = one_rank(c);
  if (c.check) c.check(expected.steps.front());
  EXPECT_GT(expected.steps.front().grad_norm, 1e-3) << "nothing is compared where nothing happens";
  int compared = 0;
  for (const Layout& layout : layouts_of(test_session().size())) {
    const auto problems = layout_problems(c.what.model, {c.what.sequence_length, c.what.at_once, 1}, layout);
    if (c.some_layouts && !problems.empty()) continue;
    ASSERT_EQ(problems, std::vector<std::string>{}) << "this case is for other numbers of ranks";
    ++compared;
    const Mesh mesh = Mesh::over(test_session(), layout, {.kind = device_of(DeviceChoice::automatic)});
    const CaseRun run = run_case(c.what, mesh, 1);
    const Deviations first = compare(run, expected, mesh, {}, 1), d = compare(run, expected, mesh);
    for (const std::string& violation : violations(first, tolerances_of(c.what.type, layout, 1)))
      ADD_FAILURE() << layout.to_string() << ", the first step: " << violation;
    for (const std::string& violation : violations(d, tolerances_of(c.what.type, layout, c.what.steps)))
      ADD_FAILURE() << layout.to_string() << ": " << violation;
    if (mesh.is_root())
      std::printf("%-40s %-18s loss %.1e aux %.1e z %.1e norm %.1e gradient %.1e weight %.1e\n", c.name,
                  layout.to_string().c_str(), d.lm_loss.value, d.aux_loss.value, d.z_loss.value, d.grad_norm.value,
                  d.gradient.value, d.weight.value);
  }
  EXPECT_GT(compared, 0);
}

INSTANTIATE_TEST_SUITE_P(cases, equivalence, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

// With one sequence a rank, the balance of each rank's tokens is that of each sequence.
TEST(equivalence_of_scopes, rank_scope_is_sequence_scope_where_a_rank_has_one_sequence) {
  EquivalenceCase by_sequence = basic();
  by_sequence.at_once = test_session().size();
  by_sequence.accumulation = 2;
  by_sequence.router.aux_loss_scope = AuxLossScope::sequence;
  EquivalenceCase by_rank = by_sequence;
  by_rank.router.aux_loss_scope = AuxLossScope::rank;
  const CaseRun expected = run_case(by_sequence, Mesh::single(), 1);
  for (const Layout& layout : layouts_of(test_session().size())) {
    if (layout.tp != 1) continue;
    const Mesh mesh = Mesh::over(test_session(), layout, {.kind = device_of(DeviceChoice::automatic)});
    for (const std::string& violation : violations(compare(run_case(by_rank, mesh, 1), expected, mesh)))
      ADD_FAILURE() << layout.to_string() << ": " << violation;
  }
}

// What a token draws and who is dropped belong to the step, not to the micro-batches it is cut into.
TEST(equivalence_of_cuts, other_micro_batches_drop_and_draw_the_same) {
  EquivalenceCase together = basic();
  together.at_once = 2 * test_session().size();
  together.router.aux_loss_scope = AuxLossScope::sequence;
  together.routing.capacity_factor = 1;
  together.routing.jitter = 0.3f;
  together.neftune_alpha = 5;
  EquivalenceCase apart = together;
  apart.at_once = test_session().size();
  apart.accumulation = 2;
  const CaseRun expected = run_case(together, Mesh::single(), 1);
  for (const Layout& layout : layouts_of(test_session().size())) {
    const Mesh mesh = Mesh::over(test_session(), layout, {.kind = device_of(DeviceChoice::automatic)});
    for (const std::string& violation : violations(compare(run_case(apart, mesh, 1), expected, mesh)))
      ADD_FAILURE() << layout.to_string() << ": " << violation;
  }
}

// The two rules that implementations most often get wrong, planted: the matrix must see them, in the gradients that they
// spoil and in no others, where the loss of the first step is right.
class equivalence_finds : public ::testing::TestWithParam<DType> {
 protected:
  equivalence_finds() : what_(GetParam() == DType::bf16 ? in_bf16() : basic()) {
    what_.accumulation = 3;
    what_.steps = 1;
    expected_ = run_case(what_, Mesh::single(), 1);
  }
  void expect_found(const Layout& layout, Mesh& mesh, const std::string& spoiled) {
    SCOPED_TRACE(layout.to_string());
    const CaseRun run = run_case(what_, mesh, 1);
    const Tolerances tolerances = tolerances_of(what_.type, layout, what_.steps);
    const auto is_spoiled = [&](const std::string& name) { return name.find(spoiled) != std::string::npos; };
    const Deviations bad = compare(run, expected_, mesh, is_spoiled);
    const Deviations good = compare(run, expected_, mesh, [&](const std::string& name) { return !is_spoiled(name); });
    EXPECT_LT(bad.lm_loss.value, tolerances.loss) << "the first loss is before any gradient";
    EXPECT_GT(bad.gradient.value, std::max(1e-2, 4 * tolerances.gradient));
    EXPECT_GT(bad.grad_norm.value, tolerances.grad_norm);
    EXPECT_LT(good.gradient.value, tolerances.gradient) << good.gradient.tensor;
    const auto found = violations(compare(run, expected_, mesh), tolerances);
    ASSERT_FALSE(found.empty());
    EXPECT_TRUE(std::any_of(found.begin(), found.end(),
                            [&](const std::string& text) {
                              return text.find("a gradient of step 1") != std::string::npos && is_spoiled(text);
                            }))
        << "the message must name the tensor: " << found.front();
    ++found_;
  }
  ~equivalence_finds() override { EXPECT_GT(found_, 0) << "run with two ranks or more"; }

  EquivalenceCase what_;
  CaseRun expected_;
  int found_ = 0;
};

INSTANTIATE_TEST_SUITE_P(types, equivalence_finds, ::testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return name_of(info.param); });

TEST_P(equivalence_finds, a_mean_over_replicas_of_experts_where_a_sum_belongs) {
  for (const Layout& layout : layouts_of(test_session().size())) {
    if (layout.edp() == 1) continue;
    Mesh mesh = Mesh::over(test_session(), layout, {.kind = device_of(DeviceChoice::automatic)});
    mesh.replace(Axis::edp, std::make_shared<MeanCommunicator>(mesh.share(Axis::edp)));
    expect_found(layout, mesh, ".experts.");
  }
}

TEST_P(equivalence_finds, a_missing_reduction_of_the_router) {
  std::vector<Tensor> routers;
  what_.adjust = [&, route = what_.adjust](const Parameter& p, std::span<float> values) {
    if (route) route(p, values);
    if (p.name.find(".gate.") != std::string::npos) routers.push_back(p.gradient);
  };
  for (const Layout& layout : layouts_of(test_session().size())) {
    routers.clear();
    Mesh mesh = Mesh::over(test_session(), layout, {.kind = device_of(DeviceChoice::automatic)});
    mesh.replace(Axis::world, std::make_shared<LeavingOutCommunicator>(mesh.share(Axis::world), routers));
    expect_found(layout, mesh, ".gate.");
  }
}

}  // namespace
}  // namespace smoe
