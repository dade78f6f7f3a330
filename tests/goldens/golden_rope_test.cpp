// Scaled rotary embedding against transformers, under every spelling of a config.json: frequencies, logits past the
// original positions, and the gradients that pass through the rotation.
#include <fmt/format.h>

#include <algorithm>

#include "model/rope_frequencies.h"
#include "tests/goldens/golden.h"

namespace smoe {
namespace {

constexpr double rope_logits_tolerance = 2e-5;    // of the largest logit
constexpr double rope_gradient_tolerance = 1e-4;  // of the tensor's largest entry
constexpr double frequency_tolerance = 3e-7;      // of each frequency: transformers raises to powers in f32

const std::vector<std::string>& kinds() {
  static const std::vector<std::string> names{"standard", "linear", "linear_type_only", "linear_without_theta",
                                              "dynamic",  "yarn",   "yarn_mscale",      "yarn_beside",
                                              "llama3"};
  return names;
}

class GoldenRope : public testing::TestWithParam<std::string> {
 protected:
  GoldenRope() { read_rope(GetParam()); }

  // The model's rotary embedding as `kind` spells it, read as a directory's is.
  void read_rope(const std::string& kind) {
    const Json metadata = parse_json(golden.file.metadata().at("config"), golden.file.path());
    Json config = metadata.at("model");
    config.erase("rope_theta");
    config["max_position_embeddings"] = 64;
    config.update(metadata.at("ropes").at(kind));
    golden.model = model_of(config);
  }

  std::vector<float> logits() const {
    GoldenModel real(golden);
    Mixtral::Saved saved;
    return real.on_host(real.logits(saved));
  }

  GoldenFile golden{"rope"};
};

TEST_P(GoldenRope, Frequencies) {
  const RopeFrequencies rope = rope_frequencies(golden.model);
  const std::vector<float> expected = golden.values("inv_freq." + GetParam());
  EXPECT_LE(test::elementwise_deviation(rope.frequencies, expected), frequency_tolerance);
  EXPECT_EQ(rope.scale, golden.values("scale." + GetParam()).at(0));
}

TEST_P(GoldenRope, LogitsPastTheOriginalPositions) {
  ASSERT_GT(golden.sequence_length, 16);
  const double found = deviation(logits(), golden.values("logits." + GetParam()));
  EXPECT_LE(found, rope_logits_tolerance);
  fmt::print("  {} logits: {:.2e}, allowed {:.0e}\n", GetParam(), found, rope_logits_tolerance);
}

TEST_P(GoldenRope, GradientsOfQueriesAndKeys) {
  GoldenModel real(golden);
  real.step->compute_gradients(golden.batch(1));
  for (const char* name : {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight"}) {
    const Tensor gradient = real.model.parameters().find(name)->gradient;
    EXPECT_LE(deviation(real.on_host(gradient), golden.values(fmt::format("grad.{}.{}", GetParam(), name))),
              rope_gradient_tolerance)
        << name;
  }
}

TEST_P(GoldenRope, AnotherKindIsNoticed) {
  const std::vector<float> expected = golden.values("logits." + GetParam());
  for (const std::string& other : kinds()) {
    if (other == GetParam()) continue;
    read_rope(other);
    EXPECT_GT(deviation(logits(), expected), 1000 * rope_logits_tolerance) << other;
  }
}

TEST(GoldenRopeFile, HoldsTheKindsThatAreTested) {
  const GoldenFile golden("rope");
  const Json metadata = parse_json(golden.file.metadata().at("config"), golden.file.path());
  std::vector<std::string> held, tested = kinds();
  for (const auto& [kind, config] : metadata.at("ropes").items()) held.push_back(kind);
  std::sort(tested.begin(), tested.end());
  EXPECT_EQ(held, tested);
}

INSTANTIATE_TEST_SUITE_P(Transformers, GoldenRope, testing::ValuesIn(kinds()),
                         [](const testing::TestParamInfo<std::string>& info) { return info.param; });

}  // namespace
}  // namespace smoe
