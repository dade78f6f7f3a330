// What holds layouts against one rank must see what it holds: the matrix itself is in tests/ranks.
#include "trainer/equivalence.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace smoe {
namespace {

const CaseRun& short_run() {
  static const CaseRun run = [] {
    EquivalenceCase what;
    what.model.vocab_size = 11;
    what.model.hidden_size = 8;
    what.model.intermediate_size = 8;
    what.model.num_hidden_layers = 1;
    what.model.num_attention_heads = 2;
    what.model.num_key_value_heads = 1;
    what.model.num_local_experts = 4;
    what.router.z_loss_coef = 0.01;
    what.sequence_length = 4;
    what.at_once = 2;
    what.steps = 2;
    return run_case(what, Mesh::single(), 1);
  }();
  return run;
}

std::vector<std::string> found_in(const CaseRun& found, const CaseRun& expected) {
  return violations(compare(found, expected, Mesh::single()));
}

struct Place {
  const char* name;  // as a violation says it
  std::function<void(StepNumbers&, double)> plant;
};

const std::vector<Place> places = {
    {"the language-model loss", [](StepNumbers& s, double x) { s.lm_loss = x; }},
    {"the balance loss", [](StepNumbers& s, double x) { s.aux_loss = x; }},
    {"the z loss", [](StepNumbers& s, double x) { s.z_loss = x; }},
    {"the gradient norm", [](StepNumbers& s, double x) { s.grad_norm = x; }},
    {"a measure", [](StepNumbers& s, double x) { s.measures.mean_entropy.front() = x; }},
    {"a gradient", [](StepNumbers& s, double x) { s.gradients[3].back() = static_cast<float>(x); }},
    {"a weight", [](StepNumbers& s, double x) { s.weights[0].front() = static_cast<float>(x); }},
};

TEST(Equivalence, APlantedNaNFailsEveryComparison) {
  EXPECT_EQ(found_in(short_run(), short_run()), std::vector<std::string>{});
  using limits = std::numeric_limits<double>;
  for (const double planted : {limits::quiet_NaN(), limits::infinity(), -limits::infinity()})
    for (const Place& place : places)
      for (std::size_t step = 0; step < 2; ++step) {
        SCOPED_TRACE(std::string(place.name) + " of step " + std::to_string(step + 1));
        CaseRun bad = short_run();
        place.plant(bad.steps[step], planted);
        const std::vector<std::pair<const CaseRun*, const CaseRun*>> pairs = {
            {&bad, &short_run()}, {&short_run(), &bad}, {&bad, &bad}};
        for (const auto& [found, expected] : pairs) {
          const auto seen = found_in(*found, *expected);
          ASSERT_EQ(seen.size(), 1u) << planted << (found == &bad ? " found" : "")
                                     << (expected == &bad ? " expected" : "");
          EXPECT_EQ(seen[0].find(std::string(place.name) + " of step " + std::to_string(step + 1)), 0u) << seen[0];
        }
      }
}

TEST(Equivalence, ADifferenceBeyondTheToleranceIsAViolation) {
  for (const Place& place : places) {
    CaseRun other = short_run();
    place.plant(other.steps[1], 0.125);
    EXPECT_EQ(found_in(other, short_run()).size(), 1u) << place.name;
  }
}

TEST(Equivalence, RunsOfDifferentLengthsAreNotCompared) {
  CaseRun shorter = short_run();
  shorter.steps.pop_back();
  EXPECT_THROW(found_in(shorter, short_run()), std::logic_error);
}

}  // namespace
}  // namespace smoe
