// The configurations that ship: all are read without a complaint, and have the sizes that they claim.
#include <filesystem>

#include "configs/validate.h"
#include "tests/configs/config_test_support.h"

namespace smoe {
namespace {

const std::filesystem::path folder = SMOE_SOURCE_DIR "/configs";

RunConfig shipped(const char* name) { return read_config(folder / name); }

TEST(ShippedConfig, AllAreValid) {
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".yaml") continue;
    const RunConfig config = read_config(entry.path());
    EXPECT_EQ(config.train.output_dir, "runs/" + entry.path().stem().string());
    EXPECT_TRUE(find_warnings(config).empty()) << entry.path();
    EXPECT_FALSE(config.data.eval.empty()) << entry.path();
    ++seen;
  }
  EXPECT_EQ(seen, 8);
}

TEST(ShippedConfig, Mixtral8x7BHasItsPublishedCounts) {
  const RunConfig config = shipped("mixtral-8x7b.yaml");
  const ParameterCounts counts = count_parameters(config.model);
  EXPECT_EQ(counts.total, 46'702'792'704);
  EXPECT_EQ(counts.active, 12'879'925'248);
  EXPECT_EQ(counts.attention, 1'342'177'280);
  EXPECT_EQ(counts.experts, 45'097'156'608);
  EXPECT_EQ(counts.routers, 1'048'576);
  EXPECT_EQ(counts.norms, 266'240);
  EXPECT_EQ(counts.embedding, 262'144'000);
  EXPECT_EQ(config.model.head_size(), 128);
}

TEST(ShippedConfig, Mixtral8x22BHasItsPublishedCounts) {
  const RunConfig config = shipped("mixtral-8x22b.yaml");
  const ParameterCounts counts = count_parameters(config.model);
  EXPECT_EQ(counts.total, 140'620'634'112);
  EXPECT_EQ(counts.active, 39'152'031'744);
  EXPECT_EQ(counts.attention, 4'932'501'504);
  EXPECT_EQ(counts.experts, 135'291'469'824);
  EXPECT_EQ(counts.routers, 2'752'512);
  EXPECT_EQ(counts.norms, 694'272);

  const RunConfig instruct = read_config(folder / "mixtral-8x22b.yaml", {"model.vocab_size=32768"});
  EXPECT_EQ(count_parameters(instruct.model).total, 140'630'071'296);
  EXPECT_EQ(count_parameters(instruct.model).active, 39'161'468'928);
}

TEST(ShippedConfig, SmallOnesHaveTheSizesOfTheirComments) {
  EXPECT_EQ(count_parameters(shipped("quickstart.yaml").model).total, 12'200'192);
  EXPECT_EQ(count_parameters(shipped("quickstart.yaml").model).active, 5'122'304);
  EXPECT_EQ(count_parameters(shipped("mixtral-30m.yaml").model).total, 29'632'768);
  EXPECT_EQ(count_parameters(shipped("mixtral-30m.yaml").model).active, 20'195'584);
  EXPECT_EQ(count_parameters(shipped("mixtral-123m.yaml").model).total, 123'490'816);
  EXPECT_EQ(count_parameters(shipped("mixtral-123m.yaml").model).active, 57'430'528);
}

TEST(ShippedConfig, BalanceCoefficientsAreThePublishedOnesInOurUnit) {
  EXPECT_DOUBLE_EQ(shipped("mixtral-8x7b.yaml").router.aux_loss_coef, 0.02 * 2 / 32);
  EXPECT_NEAR(shipped("mixtral-8x22b.yaml").router.aux_loss_coef, 0.001 * 2 / 56, 1e-9);
}

TEST(ParameterCounts, LargestShapeDoesNotOverflow) {
  ModelConfig largest;
  largest.vocab_size = 2147483647;
  largest.hidden_size = 262144;
  largest.intermediate_size = 1048576;
  largest.num_hidden_layers = 1024;
  largest.num_attention_heads = 65536;
  largest.num_key_value_heads = 65536;
  largest.head_dim = 65536;
  largest.num_local_experts = 4096;
  const long double d = largest.hidden_size, layers = largest.num_hidden_layers;
  const long double expected = 2.0L * largest.vocab_size * d + layers * 4 * d * 65536 * 65536 +
                               layers * 4096 * 3 * d * largest.intermediate_size + layers * 4096 * d +
                               (2 * layers + 1) * d;
  EXPECT_EQ(static_cast<long double>(count_parameters(largest).total), expected);
}

}  // namespace
}  // namespace smoe
