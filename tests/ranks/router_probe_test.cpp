// The share of assignments that changed is that of all tokens of the probe, however they are divided over ranks: also where
// some ranks have no sequence of it.
#include "trainer/router_probe.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/ranks/test_session.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/tiny_run.h"
#include "trainer/assemble.h"

namespace smoe {
namespace {

// Before and after the gates of two layers are changed in one row.
std::vector<double> changed_at(const Mesh& mesh, const std::shared_ptr<const Dataset>& dataset,
                               std::int64_t sequences) {
  TrainerConfig c = test::tiny_config({}, "");
  c.model.num_attention_heads = c.model.num_key_value_heads = c.model.num_local_experts = 8;
  c.train.micro_batch_size = 1;
  TrainingParts parts(make_backend(DeviceChoice::automatic, 1), c.model, c, mesh, {});
  RouterProbe probe(dataset, sequences, 1);
  const auto set = [&](float first) {
    parts.model->parameters().initialize(*parts.backend, 1, [&](const Parameter& p, std::span<float> values) {
      if (p.name.find(".gate.weight") != std::string::npos) values[0] += first;
    });
    return probe.changed(*parts.model, parts.step->context());
  };
  EXPECT_TRUE(set(0).empty());
  return set(0.5f);
}

TEST(RouterProbeOverRanks, IsThatOfOneRank) {
  const test::ScratchDir dir;
  test::write_tiny_corpus(dir.path(), "alpha", 3, 9);
  const auto dataset = std::make_shared<const Dataset>(dir.path(), 16, true);
  for (const std::int64_t sequences : {3, 11}) {
    const std::vector<double> expected = changed_at(Mesh::single(), dataset, sequences);
    ASSERT_EQ(expected.size(), 2u);
    EXPECT_GT(expected[0], 0);
    EXPECT_LT(expected[0], 1);
    for (const Layout& layout : layouts_of(test_session().size())) {
      const Mesh mesh = Mesh::over(test_session(), layout, {.kind = device_of(DeviceChoice::automatic)});
      EXPECT_EQ(changed_at(mesh, dataset, sequences), expected) << layout.to_string() << ", " << sequences;
    }
  }
}

}  // namespace
}  // namespace smoe
