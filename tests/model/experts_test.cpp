// The experts of a layer alone, on rows that lie by expert: as in the reference, where each row is a token of one expert.
#include "model/experts.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "tests/model/layer_harness.h"
#include "tests/reference/experts.h"

namespace smoe {
namespace {

using Values = reference::Matrix<double>;
using reference::ExpertParameters;

struct ExpertsCase {
  const char* name;
  std::int64_t hidden, intermediate;
  reference::Ids rows;     // of each expert here
  std::int64_t first = 0;  // of the model's experts, the first that is here
};
void PrintTo(const ExpertsCase& c, std::ostream* out) { *out << c.name; }

const std::vector<ExpertsCase> experts_cases = {
    {"balanced", 24, 32, {6, 6, 6, 6}},
    {"idle_experts", 20, 17, {0, 7, 0, 0, 3, 0}},
    {"one_expert_has_all", 16, 24, {0, 0, 25, 0}},
    {"one_expert", 13, 10, {9}},
    {"one_row_each", 16, 24, {1, 1, 1}},
    {"no_rows", 16, 24, {0, 0, 0}},
    {"those_of_a_later_rank", 18, 22, {4, 0, 11}, 5},
    {"rows_cross_tiles", 64, 96, {130, 1, 259, 70}},
};

class ExpertsAlone : public ::testing::TestWithParam<ExpertsCase> {};

TEST_P(ExpertsAlone, ForwardAndBackwardAreTheReferences) {
  const ExpertsCase& c = GetParam();
  const auto count = static_cast<std::int64_t>(c.rows.size());
  ModelConfig config;
  config.hidden_size = c.hidden;
  config.intermediate_size = c.intermediate;
  config.num_local_experts = c.first + count;
  LayerHarness harness("experts", 37);
  const Experts experts(harness.parameters, "", config, c.first, count);
  harness.allocate();

  reference::Ids offsets{0}, expert_of;
  std::vector<ExpertParameters<double>> weights, gradients;
  const std::vector<std::pair<std::string, Values ExpertParameters<double>::*>> matrices = {
      {".w1.weight", &ExpertParameters<double>::w1},
      {".w2.weight", &ExpertParameters<double>::w2},
      {".w3.weight", &ExpertParameters<double>::w3}};
  const auto name_of = [&](std::int64_t e, const std::string& matrix) {
    return "experts." + std::to_string(c.first + e) + matrix;
  };
  for (std::int64_t e = 0; e < count; ++e) {
    const std::int32_t rows = c.rows[static_cast<std::size_t>(e)];
    offsets.push_back(offsets.back() + rows);
    expert_of.insert(expert_of.end(), static_cast<std::size_t>(rows), static_cast<std::int32_t>(e));
    weights.emplace_back(), gradients.emplace_back();
    for (const auto& [matrix, of] : matrices) {
      weights.back().*of = harness.weight(name_of(e, matrix));
      gradients.back().*of = harness.gradient(name_of(e, matrix));
    }
  }
  const std::int64_t R = offsets.back(), D = c.hidden;
  const Values x = harness.random_floats(R, D), dy = harness.random_floats(R, D),
               row_weights = harness.random_floats(R, 1);
  reference::Routing<double> routing;
  routing.experts = {R, 1, expert_of};
  routing.weights = row_weights;
  const Values expected_y = reference::experts_forward(x, routing, weights);
  const auto expected = reference::experts_backward(dy, x, routing, weights, gradients);

  const ExpertRows rows{harness.tensor(offsets), offsets};
  const Tensor y = harness.unwritten({R, D}), drow_weights = harness.unwritten({R}), dy_then_dx = harness.tensor(dy);
  Experts::Saved saved;
  experts.forward(harness.context, harness.tensor(x), harness.tensor(row_weights.values), rows, {}, saved, y);
  harness.expect_close("y", y, expected_y.values, layer_tolerance);

  experts.backward(harness.context, dy_then_dx, saved, drow_weights);
  harness.expect_close("dx", dy_then_dx, expected.dx.values, layer_tolerance);
  harness.expect_close("drow_weights", drow_weights, expected.dweights.values, layer_tolerance);
  for (std::int64_t e = 0; e < count; ++e)
    for (const auto& [matrix, of] : matrices)
      harness.expect_gradient(name_of(e, matrix), gradients[static_cast<std::size_t>(e)].*of);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ExpertsAlone, ::testing::ValuesIn(experts_cases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace smoe
