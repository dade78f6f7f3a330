// What is not finite, in one row on one rank, in one layer: the step is refused on all ranks, and nothing is changed by it, bit
// for bit: no weight, master or moment, no selection bias, not the controller. The steps that follow are those of a run that
// never saw it.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/host_view.h"
#include "tests/ranks/adversaries.h"
#include "tests/ranks/test_session.h"
#include "trainer/case_training.h"

namespace smoe {
namespace {

using limits = std::numeric_limits<float>;

// The token that is poisoned: one of the last sequence of a step, which is the last dp rank's.
constexpr std::int64_t poisoned_id = 66;

void place_poisoned_token(EquivalenceCase& c) {
  c.arrange = [](std::int64_t, std::span<std::int32_t> ids, std::span<std::int32_t>) {
    for (std::int32_t& id : ids)
      if (id == poisoned_id) id = 0;
    ids[ids.size() - 7] = poisoned_id;
  };
}
struct Trained {
  const char* name;
  void (*shape)(EquivalenceCase& c);
};
void PrintTo(const Trained& t, std::ostream* out) { *out << t.name; }

const std::vector<Trained>& trained() {
  static const std::vector<Trained> all = {
      {"language_model_alone", [](EquivalenceCase& c) { c.router.aux_loss_coef = c.router.z_loss_coef = 0; }},
      {"where_the_rank_has_no_target",  // its loss knows of nothing: the gradient alone does
       [](EquivalenceCase& c) {
         c.router.aux_loss_coef = c.router.z_loss_coef = 0;
         c.arrange = [arrange = c.arrange, length = c.sequence_length, at_once = c.at_once](
                         std::int64_t step, std::span<std::int32_t> ids, std::span<std::int32_t> targets) {
           arrange(step, ids, targets);
           for (std::size_t i = 0; i < targets.size(); ++i)
             if (static_cast<std::int64_t>(i) / length % at_once >= at_once / 2) targets[i] = masked_target;
         };
       }},
      {"with_all_that_balances",
       [](EquivalenceCase& c) {
         c.router.target_max_vio = 0.2;
         c.routing.capacity_factor = 1;
         c.routing.capacity_order = CapacityOrder::probability;
         c.routing.jitter = 0.1f;
         c.recompute = Recompute::layer;
       }},
      {"sigmoids_top_1",
       [](EquivalenceCase& c) {
         c.router.aux_loss_coef = c.router.z_loss_coef = 0;
         c.router.bias_update_rate = 0.01;
         c.model.scoring_func = Score::sigmoid;
         c.model.num_experts_per_tok = 1;
         c.model.norm_topk_prob = false;
       }},
      {"bf16",
       [](EquivalenceCase& c) {
         c.type = DType::bf16;
         c.router.bias_update_rate = 0.01;
       }},
  };
  return all;
}

// Where it is put: into the last rank's copy of one row of a gate, or of each of its experts, so that an entry of the rows that
// these give is not finite; or into a token's embedding, which the last rank's tp group has between them.
enum class Row { gate, embedding, expert };
struct Poison {
  const char* name;
  Row row;
  float value;
};
void PrintTo(const Poison& p, std::ostream* out) { *out << p.name; }

const std::vector<Poison>& poisons() {
  static const std::vector<Poison> all = {
      {"gate_nan", Row::gate, limits::quiet_NaN()},           {"gate_infinite", Row::gate, limits::infinity()},
      {"gate_below_all", Row::gate, -limits::infinity()},     {"token_nan", Row::embedding, limits::quiet_NaN()},
      {"token_infinite", Row::embedding, limits::infinity()}, {"expert_infinite", Row::expert, limits::infinity()},
  };
  return all;
}

// In this rank's memory alone.
class PoisonedRows {
 public:
  PoisonedRows(CaseTraining& training, Backend& backend, const Mesh& mesh, Row row) : backend_(backend) {
    const bool last = mesh.rank(Axis::world) == mesh.size(Axis::world) - 1,
               with_last = mesh.rank(Axis::dp) == mesh.size(Axis::dp) - 1;
    for (const Parameter& p : training.parameters()) {
      const auto has = [&](const char* part) { return p.name.find(part) != std::string::npos; };
      const std::int64_t local = poisoned_id - p.first[0];
      if (row == Row::gate && last && has("layers.1.") && is_gate(p)) keep(p.value.rows(1, 1));
      if (row == Row::embedding && with_last && has("embed_tokens") && local >= 0 && local < p.slice[0])
        keep(p.value.rows(local, 1));
      if (row == Row::expert && last && has("layers.1.") && has(".w2.")) keep(p.value.rows(3, 1));
    }
  }
  void fill(float value) const {
    for (const auto& [row, before] : rows_) backend_.fill(row, value);
  }
  void restore() const {
    std::vector<float> staging;
    for (const auto& [row, before] : rows_) {
      const HostView view(backend_, row, staging);
      std::copy(before.begin(), before.end(), view.numbers().begin());
      view.store();
    }
  }

 private:
  void keep(const Tensor& row) { rows_.emplace_back(row, numbers_of(backend_, row)); }

  Backend& backend_;
  std::vector<std::pair<Tensor, std::vector<float>>> rows_;  // none where this rank keeps out of it
};

using Bits = std::vector<std::uint32_t>;
void append(Bits& bits, const std::vector<float>& numbers) {
  for (const float x : numbers) bits.push_back(std::bit_cast<std::uint32_t>(x));
}

// All that a step may change on this rank.
struct State {
  Bits values, masters, moments, selection_bias;
  std::optional<MaxVioController::State> controller;
};
State state_of(CaseTraining& training, Backend& backend) {
  State state;
  const AdamW& optimizer = training.optimizer();
  for (const Parameter& p : training.parameters()) {
    append(state.values, numbers_of(backend, p.value));
    optimizer.shards().for_each_owned(p, [&](std::int64_t, const OwnedRun& run) {
      append(state.masters, numbers_of(backend, optimizer.shards().masters(p.flat, run)));
    });
    append(state.moments, numbers_of(backend, optimizer.first_moments(p.flat)));
    append(state.moments, numbers_of(backend, optimizer.second_moments(p.flat)));
  }
  append(state.selection_bias, training.selection_bias().values());
  if (training.controller()) state.controller = training.controller()->state();
  return state;
}
void expect_same(const State& found, const State& expected) {
  EXPECT_TRUE(found.values == expected.values) << "a weight has changed";
  EXPECT_TRUE(found.masters == expected.masters) << "a master has changed";
  EXPECT_TRUE(found.moments == expected.moments) << "a moment has changed";
  EXPECT_TRUE(found.selection_bias == expected.selection_bias) << "a selection bias has changed";
  EXPECT_TRUE(found.controller == expected.controller) << "the controller has seen the step";
}
void expect_same(const StepNumbers& found, const StepNumbers& expected) {
  EXPECT_TRUE(found.finite);
  EXPECT_EQ(found.lm_loss, expected.lm_loss);
  EXPECT_EQ(found.aux_loss, expected.aux_loss);
  EXPECT_EQ(found.z_loss, expected.z_loss);
  EXPECT_EQ(found.grad_norm, expected.grad_norm);
  EXPECT_EQ(found.expert_load, expected.expert_load);
  EXPECT_TRUE(found.measures == expected.measures);
  EXPECT_TRUE(found.gradients == expected.gradients);
  EXPECT_TRUE(found.weights == expected.weights);
  EXPECT_EQ(found.selection_bias, expected.selection_bias);
}

// The few layouts, and one where an expert computes its own rank's tokens alone.
std::vector<Layout> layouts_of_experts() {
  std::vector<Layout> all = few_layouts();
  if (test_session().size() > 1) all.push_back({.ranks = test_session().size()});
  return all;
}

class refused_steps : public ::testing::TestWithParam<std::tuple<Trained, Poison>> {
 protected:
  static EquivalenceCase what() {
    EquivalenceCase c = small();
    c.steps = 3;
    c.accumulation = 2;
    place_poisoned_token(c);
    std::get<0>(GetParam()).shape(c);
    return c;
  }
  // Three healthy steps.
  static const std::vector<StepNumbers>& expected(const Layout& layout) {
    static std::map<std::string, CaseRun> runs;
    const std::string name = layout.to_string() + std::get<0>(GetParam()).name;
    const auto known = runs.find(name);
    if (known != runs.end()) return known->second.steps;
    return runs.emplace(name, run_case(what(), mesh_of(layout), 1)).first->second.steps;
  }
};

TEST_P(refused_steps, change_nothing_on_any_rank) {
  const Poison& poison = std::get<1>(GetParam());
  const EquivalenceCase c = what();
  for (const Layout& layout : layouts_of_experts()) {
    SCOPED_TRACE(layout.to_string());
    const Mesh& mesh = mesh_of(layout);
    const std::vector<StepNumbers>& healthy = expected(layout);
    const auto backend = make_backend(c.device, 1);
    CaseTraining training(c, mesh, *backend);
    expect_same(training.step(1), healthy[0]);
    const PoisonedRows rows(training, *backend, mesh, poison.row);
    const State before = state_of(training, *backend);
    rows.fill(poison.value);
    const State poisoned = state_of(training, *backend);
    EXPECT_FALSE(training.step(2).finite);
    expect_same(state_of(training, *backend), poisoned);
    rows.restore();
    expect_same(state_of(training, *backend), before);
    expect_same(training.step(2), healthy[1]);
    expect_same(training.step(3), healthy[2]);
  }
}

INSTANTIATE_TEST_SUITE_P(cases, refused_steps,
                         ::testing::Combine(::testing::ValuesIn(trained()), ::testing::ValuesIn(poisons())),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param).name;
                         });

}  // namespace
}  // namespace smoe
