// The update of the selection bias by its definition, and that routers choose by it.
#include "model/selection_bias.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "kernels/host_view.h"

namespace smoe {
namespace {

class Bias : public ::testing::Test {
 protected:
  static ModelConfig shape() {
    ModelConfig c;
    c.vocab_size = 29;
    c.hidden_size = 16;
    c.intermediate_size = 8;
    c.num_hidden_layers = 2;
    c.num_attention_heads = 2;
    c.num_key_value_heads = 1;
    c.num_local_experts = 4;
    c.initializer_range = 0.5;
    return c;
  }
  Bias() {
    model_.allocate(*backend_, persistent_, length, false);
    model_.parameters().initialize(*backend_, 1, {});
  }
  // The assignments [L][E] of a batch of ids that are all different.
  std::vector<std::vector<double>> chosen() {
    Arena activations(*backend_), scratch(*backend_);
    Context context{*backend_, mesh_, activations, scratch};
    std::vector<std::int32_t> ids(length), starts(length, 0);
    std::iota(ids.begin(), ids.end(), 1);
    const TokenBatch batch = make_token_batch(*backend_, activations, 1, length, ids, ids, starts);
    BalanceLoss balance(shape(), {});
    balance.begin_step(1);
    Mixtral::Saved saved;
    saved.statistics = balance.take_statistics(context, 1, length);
    model_.forward(context, batch, Keep::nothing, saved);
    std::vector<RouterGradient> unused;
    balance.add_micro_batch(context, saved.statistics, unused);
    counts_.assign(balance.counts().begin(), balance.counts().end());
    return balance.values().load;
  }

  static constexpr std::int64_t length = 24;
  Mesh mesh_ = Mesh::single();
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  Arena persistent_{*backend_};
  Mixtral model_{shape(), mesh_};
  SelectionBias bias_{*backend_, persistent_, model_};
  std::vector<double> counts_;
};

TEST_F(Bias, GoesUpWhereLoadIsBelowTheMeanAndDownWhereItIsAbove) {
  bias_.begin_at_zero();
  // Of mean 4: two below, one above, one at it; and a layer that is balanced.
  bias_.update(std::vector<double>{0, 3, 9, 4, 4, 4, 4, 4}, 0.5);
  // +u, +u, -u, 0, less the mean u / 4
  EXPECT_EQ(bias_.values(), (std::vector<float>{0.375f, 0.375f, -0.625f, -0.125f, 0, 0, 0, 0}));
  bias_.update(std::vector<double>{4, 4, 4, 4, 16, 0, 0, 0}, 0.5);
  EXPECT_EQ(bias_.values(), (std::vector<float>{0.375f, 0.375f, -0.625f, -0.125f, -0.75f, 0.25f, 0.25f, 0.25f}));
}

// 7 assignments over 4 experts have the mean 1.75, which is no load that an expert can have.
TEST_F(Bias, AMeanThatIsNoWholeNumberStandsBetweenTwo) {
  bias_.begin_at_zero();
  bias_.update(std::vector<double>{1, 2, 2, 2, 2, 2, 2, 1}, 1.0);
  EXPECT_EQ(bias_.values(), (std::vector<float>{1.5f, -0.5f, -0.5f, -0.5f, -0.5f, -0.5f, -0.5f, 1.5f}));
}

TEST_F(Bias, BalancesWhatItsRoutersChoose) {
  const auto busiest = [this] {
    double most = 0;
    for (const auto& layer : chosen()) most = std::max(most, *std::max_element(layer.begin(), layer.end()));
    return most;
  };
  const double before = busiest();
  ASSERT_GT(before, 0.3) << "nothing is to be balanced";
  bias_.begin_at_zero();
  EXPECT_EQ(busiest(), before) << "zeros decide nothing";
  for (int step = 0; step < 600; ++step) {
    chosen();
    bias_.update(counts_, step < 200 ? 0.01 : 0.001);
  }
  // Of 48 assignments an expert's share is 12. A step moves a bias by 0.001: hardly two scores lie so near to each other.
  EXPECT_LE(busiest(), 13.0 / 48);
  for (std::size_t first = 0; first < 8; first += 4)
    EXPECT_NEAR(std::accumulate(bias_.values().begin() + static_cast<std::ptrdiff_t>(first),
                                bias_.values().begin() + static_cast<std::ptrdiff_t>(first + 4), 0.0),
                0.0, 1e-6);
}

TEST_F(Bias, IsGivenWholeAndUpdatedOnlyWhereThereIsOne) {
  EXPECT_TRUE(bias_.empty());
  EXPECT_THROW(bias_.set(std::vector<float>(4)), std::logic_error);
  EXPECT_THROW(bias_.update(std::vector<double>(8), 0.1), std::logic_error);
  bias_.begin_at_zero();
  EXPECT_THROW(bias_.update(std::vector<double>(4), 0.1), std::logic_error);
}

}  // namespace
}  // namespace smoe
