// Measures by layer, on loads and probabilities whose values are known.
#include "trainer/layer_metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace smoe {
namespace {

using Layers = std::vector<std::vector<double>>;

// What two steps do wrong in opposite ways, they do right together.
TEST(LayerMetrics, TheIntervalsMaxVioIsOfTheSumOfItsSteps) {
  LoadInterval interval;
  interval.add({{0.75, 0.25}, {1, 0}});
  interval.add({{0.25, 0.75}, {1, 0}});
  EXPECT_EQ(interval.take_max_violations(), (std::vector<double>{0, 1}));
  interval.add({{0.75, 0.25}, {0.5, 0.5}});  // the one before is forgotten
  EXPECT_EQ(interval.take_max_violations(), (std::vector<double>{0.5, 0}));
  EXPECT_EQ(interval.take_max_violations(), std::vector<double>{});
}

TEST(LayerMetrics, EntropyIsOneWhereAllExpertsAreAsLikelyAndZeroWhereOneIsCertain) {
  const std::vector<double> found = mean_entropies({{.25, .25, .25, .25}, {.5, .5, 0, 0}, {0, 1, 0, 0}, {1}});
  ASSERT_EQ(found.size(), 4u);
  EXPECT_NEAR(found[0], 1, 1e-15);
  EXPECT_NEAR(found[1], 0.5, 1e-15);
  EXPECT_EQ(found[2], 0);
  EXPECT_EQ(found[3], 0);
  EXPECT_TRUE(std::isnan(mean_entropies(Layers{{std::numeric_limits<double>::quiet_NaN(), 1}})[0]));
}

TEST(LayerMetrics, DroppedAssignmentsAreToldOfWhereThereIsACapacity) {
  RouterMeasures routers;
  routers.dropped = {3, 0};
  EXPECT_TRUE(layer_metrics({}, routers, false).dropped.empty());
  EXPECT_EQ(layer_metrics({}, routers, true).dropped, routers.dropped);
}

}  // namespace
}  // namespace smoe
