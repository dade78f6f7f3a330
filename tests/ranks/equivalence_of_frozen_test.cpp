// Parameters that are not trained, at every layout of as many ranks as this job has, in fp32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/freeze.h"
#include "tests/ranks/equivalence_basic.h"
#include "tests/ranks/test_session.h"
#include "trainer/equivalence.h"
#include "trainer/layout_check.h"

namespace smoe {
namespace {

bool is_frozen(const EquivalenceCase& what, const std::string& name) {
  const auto patterns = frozen_patterns(what.router, what.freeze);
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches_pattern(pattern, name); });
}

// What a run of this rank does with its frozen parameters that it must not. initial: their values, by name.
std::vector<std::string> wrongs_of_frozen(const EquivalenceCase& what, const CaseRun& run,
                                          const std::map<std::string, std::vector<float>>& initial) {
  std::vector<std::string> wrongs;
  for (const StepNumbers& step : run.steps)
    for (std::size_t i = 0; i < run.parameters.size(); ++i) {
      const std::string& name = run.parameters[i].name;
      const bool moved = step.weights[i] != initial.at(name), has_gradient = !step.gradients[i].empty();
      if (is_frozen(what, name) && moved) wrongs.push_back(name + " has moved");
      if (is_frozen(what, name) == has_gradient)
        wrongs.push_back(name + (has_gradient ? " has a gradient" : " has no gradient"));
    }
  return wrongs;
}

// Of one rank's run, from its gradients.
double norm_of_trained(const EquivalenceCase& what, const CaseRun& run, std::size_t step) {
  double squares = 0;
  for (std::size_t i = 0; i < run.parameters.size(); ++i)
    if (!is_frozen(what, run.parameters[i].name))
      for (const float g : run.steps[step].gradients[i]) squares += static_cast<double>(g) * static_cast<double>(g);
  return std::sqrt(squares);
}

class equivalence_of_frozen : public ::testing::Test {
 protected:
  equivalence_of_frozen() : what_(basic()) {
    what_.adjust = [this](const Parameter& p, std::span<float> values) {
      initial_[p.name] = {values.begin(), values.end()};
    };
  }
  std::vector<std::vector<std::string>> freezes_ = {
      {"*.gate.weight"}, {"*.experts.*"},
      {"*.w2.weight"},   {"*.q_proj.*", "*.k_proj.*", "*.v_proj.*", "*norm*"},
      {"model.*"},       {"lm_head.weight", "model.embed*"}};
  EquivalenceCase what_;
  std::map<std::string, std::vector<float>> initial_;
};

TEST_F(equivalence_of_frozen, the_frozen_keep_their_bits_and_count_nowhere) {
  for (const auto& freeze : freezes_) {
    what_.freeze = freeze;
    const CaseRun alone = run_case(what_, Mesh::single(), 1);
    EXPECT_EQ(wrongs_of_frozen(what_, alone, initial_), std::vector<std::string>{});
    for (std::size_t step = 0; step < alone.steps.size(); ++step)
      EXPECT_NEAR(alone.steps[step].grad_norm, norm_of_trained(what_, alone, step), 1e-9 * alone.steps[step].grad_norm);
    for (const Layout& layout : layouts_of(test_session().size())) {
      SCOPED_TRACE(layout.to_string() + " " + freeze.front());
      const Mesh mesh = Mesh::over(test_session(), layout, {.kind = device_of(DeviceChoice::automatic)});
      initial_.clear();
      const CaseRun run = run_case(what_, mesh, 1);
      EXPECT_EQ(wrongs_of_frozen(what_, run, initial_), std::vector<std::string>{});
      EXPECT_EQ(violations(compare(run, alone, mesh)), std::vector<std::string>{});
    }
  }
}

// A trainer that trains what it should freeze, and one whose norm counts what is frozen: both are seen, in every freeze.
TEST_F(equivalence_of_frozen, training_the_frozen_is_found) {
  const Mesh mesh = Mesh::over(test_session(), {.ranks = test_session().size()});
  const CaseRun all_trained = run_case(what_, mesh, 1);
  for (const auto& freeze : freezes_) {
    what_.freeze.clear();
    EXPECT_EQ(wrongs_of_frozen(what_, all_trained, initial_), std::vector<std::string>{});
    what_.freeze = freeze;
    const auto wrongs = wrongs_of_frozen(what_, all_trained, initial_);
    EXPECT_TRUE(
        std::any_of(wrongs.begin(), wrongs.end(), [](const std::string& text) { return text.ends_with("has moved"); }));
    EXPECT_TRUE(std::any_of(wrongs.begin(), wrongs.end(),
                            [](const std::string& text) { return text.ends_with("has a gradient"); }));

    const CaseRun alone = run_case(what_, Mesh::single(), 1);
    EXPECT_GT(std::abs(all_trained.steps[0].grad_norm - norm_of_trained(what_, alone, 0)),
              1e-4 * all_trained.steps[0].grad_norm);
    CaseRun counted = run_case(what_, mesh, 1);
    counted.steps[0].grad_norm = all_trained.steps[0].grad_norm;
    const auto found = violations(compare(counted, alone, mesh));
    ASSERT_EQ(found.size(), 1u);
    EXPECT_NE(found[0].find("gradient norm of step 1"), std::string::npos) << found[0];
  }
}

}  // namespace
}  // namespace smoe
