#include "kernels/device_sums.h"
#include "optim/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "parallel/gradient_reducer.h"

namespace smoe {
namespace {

class AdamWTest : public ::testing::Test {
 protected:
  AdamWTest() {
    parameters.add({.name = "norm", .shape = {3}, .decays = false});
    parameters.add({.name = "matrix", .shape = {2, 5}, .split = Split::tp, .initial_std = 0.5f});
    parameters.add({.name = "frozen", .shape = {2, 2}, .split = Split::tp, .initial_std = 0.5f, .trainable = false});
    parameters.add({.name = "tail",
                    .shape = {1, 3},
                    .split = Split::tp,
                    .initial_std = 0.5f,
                    .decays = false,  // beside one that does
                    .learning_rate_scale = 0.25});
    parameters.allocate(*backend, arena, mesh, true);
    parameters.initialize(*backend, 11);
  }
  static std::vector<double> values(const Tensor& t) { return {t.f32(), t.f32() + t.elements()}; }
  void set_gradients(int step) {
    for (auto& p : parameters)
      if (p.trainable)
        for (std::int64_t i = 0; i < p.gradient.elements(); ++i)
          p.gradient.f32()[i] = static_cast<float>(
              std::sin(1.3 * static_cast<double>(i + 7 * step) + static_cast<double>(p.name.size())));
  }

  double norm_of(AdamW& adamw) {
    sums.reset(1);
    adamw.sum_squares(sums[0]);
    return AdamW::gradient_norm(sums.read()[0], mesh);
  }

  const Mesh mesh = Mesh::single();
  std::unique_ptr<Backend> backend = make_cpu_backend(2);
  Arena arena{*backend};
  DeviceSums sums{*backend};
  ParameterSet parameters;
  OptimizerConfig config{
      .learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1, .max_grad_norm = 1.0};
};

// The textbook formula in double, parameter by parameter: decay only where it belongs, clip factor folded in.
TEST_F(AdamWTest, FollowsTheFormulaOverSeveralSteps) {
  AdamW adamw(*backend, arena, parameters, mesh, config);
  struct State {
    std::vector<double> w, m, v;
  };
  std::vector<State> expected;
  for (auto& p : parameters)
    expected.push_back({values(p.value), std::vector<double>(static_cast<std::size_t>(p.value.elements())),
                        std::vector<double>(static_cast<std::size_t>(p.value.elements()))});

  for (int t = 1; t <= 4; ++t) {
    set_gradients(t);
    double squares = 0;
    for (auto& p : parameters)
      for (double g : values(p.gradient)) squares += g * g;  // none of what is frozen
    const double norm = norm_of(adamw), lr = 0.01 * t;
    EXPECT_NEAR(norm, std::sqrt(squares), 1e-6 * norm);
    const double clip = adamw.clip_factor(norm);
    EXPECT_NEAR(clip, 1.0 / (norm + 1e-6), 1e-12);
    std::size_t k = 0;
    for (auto& p : parameters) {
      State& s = expected[k++];
      const auto gradient = values(p.gradient);
      for (std::size_t i = 0; p.trainable && i < s.w.size(); ++i) {
        const double g = gradient[i] * clip;
        s.m[i] = 0.9 * s.m[i] + 0.1 * g;
        s.v[i] = 0.95 * s.v[i] + 0.05 * g * g;
        const double m = s.m[i] / (1 - std::pow(0.9, t)), v = s.v[i] / (1 - std::pow(0.95, t));
        s.w[i] -= lr * p.learning_rate_scale * ((p.decays ? 0.1 : 0.0) * s.w[i] + m / (std::sqrt(v) + 1e-8));
      }
    }
    adamw.step(t, lr, clip);
    k = 0;
    for (auto& p : parameters) {
      const State& s = expected[k++];
      for (std::size_t i = 0; i < s.w.size(); ++i) {
        EXPECT_NEAR(p.value.f32()[i], s.w[i], 3e-7) << p.name << " " << i << " step " << t;
        if (!p.trainable) continue;
        const std::size_t place = static_cast<std::size_t>(p.place) + i;  // one rank owns it all
        EXPECT_NEAR(adamw.first_moments(p.flat).f32()[place], s.m[i], 1e-7) << p.name;
        EXPECT_NEAR(adamw.second_moments(p.flat).f32()[place], s.v[i], 1e-7) << p.name;
        EXPECT_EQ(p.gradient.f32()[i], 0.0f) << "the gradient is cleared by the step that uses it";
      }
    }
  }
}

TEST_F(AdamWTest, AFrozenParameterHasNoGradientAndNoMomentsAndKeepsItsBits) {
  AdamW adamw(*backend, arena, parameters, mesh, config);
  const Parameter& frozen = *parameters.find("frozen");
  EXPECT_TRUE(frozen.gradient.empty());
  EXPECT_TRUE(adamw.first_moments(frozen.flat).empty());
  EXPECT_TRUE(adamw.second_moments(frozen.flat).empty());
  // Lines of 64 bytes: norm 1, matrix and tail 2, frozen 1; gradients and two moments of the first two buffers.
  EXPECT_EQ(parameters.bytes(true), 64 * (4 + 3));
  EXPECT_EQ(AdamW::bytes(parameters, mesh), 64 * 2 * 3);
  EXPECT_EQ(arena.high_water_bytes(), memory_alignment * (3 + 2 + 2 * 2))
      << "a tensor that small takes what it is aligned to";
  const auto before = values(frozen.value);
  set_gradients(1);
  adamw.step(1, 0.1, 1.0);
  EXPECT_EQ(values(frozen.value), before);
}

TEST_F(AdamWTest, ClipIsOneBelowTheLimitAndWhenTurnedOff) {
  AdamW clipping(*backend, arena, parameters, mesh, config);
  EXPECT_EQ(clipping.clip_factor(0.5), 1.0);
  EXPECT_NEAR(clipping.clip_factor(4.0), 0.25, 1e-6);
  config.max_grad_norm = 0;
  AdamW free(*backend, arena, parameters, mesh, config);
  EXPECT_EQ(free.clip_factor(1e9), 1.0);
}

TEST_F(AdamWTest, ARefusedStepOnlyDropsTheGradients) {
  AdamW adamw(*backend, arena, parameters, mesh, config);
  const auto before = values(parameters.find("matrix")->value);
  set_gradients(1);
  GradientReducer(*backend, mesh, parameters, adamw.shards()).clear_all();
  EXPECT_EQ(values(parameters.find("matrix")->value), before);
  EXPECT_EQ(norm_of(adamw), 0.0);
}

}  // namespace
}  // namespace smoe
