// What a step tells of its routers, from sums and gradients that are known.
#include "model/router_measures.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace smoe {
namespace {

class RouterMeterOfTwoLayers : public ::testing::Test {
 protected:
  static ModelConfig config() {
    ModelConfig c;
    c.num_hidden_layers = 2;
    c.num_local_experts = 2;
    c.hidden_size = 1;
    return c;
  }
  // A layer's: 4 tokens of 2 experts each, of whose assignments `rows` have a row.
  DecoderLayer::Saved with_rows(std::int64_t rows) {
    DecoderLayer::Saved saved;
    saved.dispatched.row_of = arena_.take(DType::i32, {4, 2});
    saved.dispatched.assignment_of = arena_.take(DType::i32, {rows});
    saved.dispatched.row_weights = arena_.take({rows});
    return saved;
  }
  void add_micro_batch(std::int64_t rows, std::int64_t rows_of_the_second) {
    std::vector<DecoderLayer::Saved> layers;
    layers.push_back(with_rows(rows));
    layers.push_back(with_rows(rows_of_the_second));
    meter_.add_micro_batch(layers, 4);
  }

  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  Arena arena_{*backend_};
  RouterMeter meter_{*backend_, config()};
};

TEST_F(RouterMeterOfTwoLayers, WithoutMeasuringItCountsRowsAndAsksForNothing) {
  meter_.begin_step(false);
  EXPECT_TRUE(meter_.sums().empty());
  std::vector<RouterGradient> gradients(2);
  meter_.ask_for_parts(gradients);
  EXPECT_TRUE(gradients[0].gate_parts.empty());
  add_micro_batch(8, 5);
  add_micro_batch(8, 6);
  const RouterMeasures& found = meter_.measures(Mesh::single());
  EXPECT_EQ(found.dropped, (std::vector<double>{0, 5}));
  EXPECT_EQ(found.rank_load, (std::vector<double>{1, 1}));
  EXPECT_TRUE(found.entropy.empty() && found.gradient_lm.empty() && found.cosine_lm_z.empty());
}

TEST_F(RouterMeterOfTwoLayers, SumsBecomeMeansOverTokensAndPartsNormsAndCosines) {
  for (int step = 0; step < 2; ++step) {  // the second has forgotten the first
    meter_.begin_step(true);
    for (const double sum : {8.0, 16.0, 24.0})
      meter_.sums().f64()[3 + static_cast<int>(sum / 8) - 1] += sum;  // of the second layer
    std::vector<RouterGradient> gradients(2);
    meter_.ask_for_parts(gradients);
    ASSERT_EQ(gradients[1].gate_parts.shape(), (Shape{3, 2, 1}));
    const std::vector<float> parts = {3, 4, 0, 2, 0, 0};  // the last was not trained
    for (std::size_t i = 0; i < parts.size(); ++i) gradients[1].gate_parts.f32()[i] += parts[i];
    add_micro_batch(8, 8);
    add_micro_batch(8, 8);
    const RouterMeasures& found = meter_.measures(Mesh::single());
    EXPECT_EQ(found.entropy, (std::vector<double>{0, 1}));
    EXPECT_EQ(found.logit_norm, (std::vector<double>{0, 2}));
    EXPECT_EQ(found.margin, (std::vector<double>{0, 3}));
    EXPECT_EQ(found.gradient_lm, (std::vector<double>{0, 5}));
    EXPECT_EQ(found.gradient_balance, (std::vector<double>{0, 2}));
    EXPECT_EQ(found.gradient_z, (std::vector<double>{0, 0}));
    EXPECT_EQ(found.cosine_lm_balance, (std::vector<double>{0, 0.8}));
    EXPECT_EQ(found.cosine_balance_z, (std::vector<double>{0, 0}));
    EXPECT_EQ(&meter_.measures(Mesh::single()), &found);  // sums over ranks are taken once
  }
}

}  // namespace
}  // namespace smoe
