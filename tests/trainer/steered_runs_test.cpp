// A target for MaxVio in small runs of real routers: one that is pushed aside at every step, one that begins collapsed; and
// its state in checkpoints.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "data/files/files.h"
#include "kernels/philox.h"
#include "tests/trainer/training_fixture.h"

namespace smoe {
namespace {

constexpr double target = 0.3;

// Every token has a large first component. The gates read it, and by nothing else do they choose at first.
class SteeredRouter : public TrainingTest {
 protected:
  struct Course {
    std::vector<double> coefficient, max_vio;  // by step
    double mean_of_last(std::size_t steps) const {
      double sum = 0;
      for (std::size_t i = max_vio.size() - steps; i < max_vio.size(); ++i) sum += max_vio[i];
      return sum / static_cast<double>(steps);
    }
    double swing_of_last(std::size_t steps) const {
      const auto from = coefficient.end() - static_cast<std::ptrdiff_t>(steps);
      const auto [least, most] = std::minmax_element(from, coefficient.end());
      return *most / *least;
    }
  };

  // preference: of two experts over the others at first; push: what is added to the first expert's gates each step.
  Course course(bool steered, float preference, float push, std::int64_t last) const {
    TrainerConfig c = config("");
    c.model.num_hidden_layers = 1;
    c.model.intermediate_size = 8;
    c.router.aux_loss_coef = 1.5e-4;
    c.router.z_loss_coef = 0;
    if (steered) c.router.target_max_vio = target;
    c.optimizer.learning_rate = 2e-3;
    c.optimizer.weight_decay = 0;
    // Far above the gradients of gates: an update is in proportion to the coefficient, as where the language model's noise
    // decides how far Adam goes, and not of one size however small it is.
    c.optimizer.epsilon = 1e-3;
    c.data.sequence_length = length;
    c.train.micro_batch_size = c.train.global_batch_size = sequences;
    TrainingParts parts(make_cpu_backend(1), c.model, c, mesh(), all_but_the_gates);
    std::vector<Tensor> gates;
    parts.model->parameters().initialize(*parts.backend, 1, [&](const Parameter& p, std::span<float> values) {
      const auto width = static_cast<std::size_t>(p.shape.rank() == 2 ? p.shape[1] : 1);
      if (p.name == "model.embed_tokens.weight")
        for (std::size_t at = 0; at < values.size(); at += width) values[at] = 0.1f;
      if (p.name.find(".gate.weight") == std::string::npos) return;
      values[0] = values[width] = preference;
      gates.push_back(p.value);
    });
    Course course;
    const std::vector<std::int32_t> starts(sequences * length, 0);
    std::vector<std::int32_t> ids(starts.size()), targets(starts.size());
    for (std::int64_t n = 1; n <= last; ++n) {
      for (std::size_t i = 0; i < ids.size(); ++i) {
        ids[i] = static_cast<std::int32_t>(philox(5, i, static_cast<std::uint64_t>(n))[0] % 61);
        targets[i] = (ids[i] * 7 + 3) % 61;
      }
      for (const Tensor& gate : gates) gate.f32()[0] += push;
      parts.step->steer(n);
      const StepResult result = parts.step->compute_gradients({sequences, length, ids, targets, starts});
      parts.step->apply(result, n, c.optimizer.learning_rate);
      course.coefficient.push_back(parts.step->aux_loss_coef().front());
      course.max_vio.push_back(max_violation(parts.step->balance().load));
    }
    std::printf("%s: coefficient %.2g, MaxVio %.3f, swing %.3f\n", steered ? "steered" : "free   ",
                course.coefficient.back(), course.mean_of_last(200), course.swing_of_last(200));
    return course;
  }

  // So that what the gates read stays as it is.
  const std::vector<std::string> all_but_the_gates = {"*.self_attn.*", "*.experts.*", "*norm*", "lm_head*", "*embed*"};
  static constexpr std::int64_t sequences = 16, length = 32;
};

TEST_F(SteeredRouter, ThatIsPushedAsideComesToTheTargetAndTheCoefficientToRest) {
  const Course free = course(false, 0, 5e-4f, 600), steered = course(true, 0, 5e-4f, 3000);
  EXPECT_GT(free.mean_of_last(300), 2 * target) << "nothing is to be steered";
  EXPECT_NEAR(steered.mean_of_last(500), target, 0.1 * target);
  EXPECT_LT(steered.swing_of_last(500), 1.4);
}

TEST_F(SteeredRouter, ThatBeganCollapsedComesToTheTargetAndTheCoefficientToRest) {
  const Course free = course(false, 0.8f, 5e-4f, 600), steered = course(true, 0.8f, 5e-4f, 3000);
  EXPECT_EQ(steered.max_vio.front(), 1) << "all tokens on the same two of four experts";
  EXPECT_GT(free.mean_of_last(300), 2 * target) << "nothing is to be steered";
  EXPECT_NEAR(steered.mean_of_last(500), target, 0.1 * target);
  EXPECT_LT(steered.swing_of_last(500), 1.4);
}

class SteeredToATarget : public TrainingTest {
 protected:
  TrainerConfig steered(const std::string& output) const {
    TrainerConfig c = config(output);
    c.router.target_max_vio = target;
    return c;
  }
  void forget_after_ten(const std::string& output) const {
    std::filesystem::remove_all(checkpoint(output, 20));
    std::ofstream(root() / output / "checkpoints" / "latest") << checkpoint_name(10) << "\n";
  }
};

TEST_F(SteeredToATarget, IsResumedToTheBit) {
  ASSERT_EQ(train(steered("whole")), 0);
  EXPECT_NE(metrics("whole").steps[0].aux_loss_coef, metrics("whole").steps[19].aux_loss_coef);
  std::filesystem::copy(root() / "whole", root() / "halves", std::filesystem::copy_options::recursive);
  forget_after_ten("halves");
  ASSERT_EQ(train(steered("halves")), 0);
  EXPECT_EQ(state_hash("whole", 20), state_hash("halves", 20));
  EXPECT_EQ(read_file(checkpoint("whole", 20) / "state.json", 1 << 20),
            read_file(checkpoint("halves", 20) / "state.json", 1 << 20));
  for (std::size_t i = 0; i < 20; ++i)
    EXPECT_EQ(metrics("whole").steps[i].aux_loss_coef, metrics("halves").steps[i].aux_loss_coef);
  EXPECT_EQ(log_of("halves").find("steered"), std::string::npos) << "nothing is to be said";
}

TEST_F(SteeredToATarget, WhereTheOtherHalfOfTheRunIsNotItIsSaid) {
  ASSERT_EQ(train(config("begun")), 0);
  forget_after_ten("begun");
  ASSERT_EQ(train(steered("begun")), 0);
  EXPECT_TRUE(mentions(log_of("begun"), {"the checkpoint steered to no MaxVio", "router.target_max_vio"}));
  EXPECT_EQ(metrics("begun").steps[10].aux_loss_coef, std::vector<double>{0.01});

  ASSERT_EQ(train(steered("ended")), 0);
  forget_after_ten("ended");
  ASSERT_EQ(train(config("ended")), 0);
  EXPECT_TRUE(mentions(log_of("ended"), {"left behind", "router.target_max_vio"}));
  EXPECT_EQ(metrics("ended").steps[10].aux_loss_coef, std::vector<double>{0.01});
  EXPECT_EQ(read_file(checkpoint("ended", 20) / "state.json", 1 << 20).find("controller"), std::string::npos);
}

TEST_F(SteeredToATarget, ARefusedStepIsNotSeen) {
  const auto c = steered("");
  TrainingParts parts(make_cpu_backend(1), c.model, c, mesh(), {});
  parts.model->parameters().initialize(*parts.backend, 1, {});
  const std::vector<std::int32_t> ids(64, 5), starts(64, 0);
  parts.step->steer(1);
  StepResult result = parts.step->compute_gradients({4, 16, ids, ids, starts});
  result.outlier = true;
  parts.step->apply(result, 1, 1e-3);
  EXPECT_EQ(parts.step->controller()->state(), MaxVioController::State());
  parts.step->steer(2);
  result = parts.step->compute_gradients({4, 16, ids, ids, starts});
  EXPECT_EQ(parts.step->aux_loss_coef().front(), 0.01);
  parts.step->apply(result, 1, 1e-3);
  EXPECT_EQ(parts.step->controller()->state().steps, 1);
}

}  // namespace
}  // namespace smoe
