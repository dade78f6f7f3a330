// What the op list has no room for: sorts of more than a tile a block, ids out of range, more experts than there is room for.
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {
namespace {

class CudaRouting : public testing::TestWithParam<BackendFactory> {
 protected:
  // Where the device meets an id that is wrong, the host learns it when it waits.
  template <class Call>
  void expect_complaint(const std::string& message, const Call& call) {
    try {
      call();
      backend_->synchronize();
      ADD_FAILURE() << "no complaint: " << message;
    } catch (const std::logic_error& error) {
      EXPECT_EQ(error.what(), message);
    }
    EXPECT_NO_THROW(backend_->synchronize());
  }

  std::unique_ptr<Backend> backend_ = GetParam().make();
  GuardedWorkspace ws_{*backend_};
  Random random_{5};
};

TEST_P(CudaRouting, SortsManyAssignments) {
  const Index T = 70000, K = 2, E = 5;
  Ids experts(static_cast<std::size_t>(T * K));
  for (std::size_t i = 0; i < experts.size(); ++i) experts[i] = static_cast<std::int32_t>(i * i / 7 % E);
  for (const Capacity capacity : {Capacity{}, Capacity{2000, 10000}}) {
    const auto mapped = [&](Backend& on) {
      Workspace ws(on);
      const Tensor row_of = ws.output_i32({T, K}), assignment_of = ws.output_i32({T * K}),
                   offsets = ws.output_i32({E + 1});
      on.routing_map(ws.i32({T, K}, experts), {}, capacity, row_of, assignment_of, offsets);
      return std::vector<Ids>{ws.read_ids(row_of), ws.read_ids(assignment_of), ws.read_ids(offsets)};
    };
    EXPECT_TRUE(mapped(*backend_) == mapped(*make_cpu_backend(1))) << capacity.rows;
  }
}

TEST_P(CudaRouting, DropsWhatIsNoNumberFirst) {
  const Index T = 700, K = 3, E = 6;
  Ids experts;
  for (Index t = 0; t < T; ++t)
    for (Index k = 0; k < K; ++k) experts.push_back(static_cast<std::int32_t>((t / 5 + 2 * k) % E));
  Values probabilities;
  for (Index i = 0; i < T * E; ++i) probabilities.push_back(i % 7 == 0 ? NAN : i % 11 == 0 ? INFINITY : i % 13);
  const Capacity capacity{60, 350, CapacityOrder::probability};
  const auto mapped = [&](Backend& on) {
    Workspace ws(on);
    const Tensor row_of = ws.output_i32({T, K});
    on.routing_map(ws.i32({T, K}, experts), ws.f32({T, E}, probabilities), capacity, row_of, ws.output_i32({T * K}),
                   ws.output_i32({E + 1}));
    return ws.read_ids(row_of);
  };
  const Ids rows = mapped(*backend_);
  EXPECT_TRUE(rows == mapped(*make_cpu_backend(1)));
  const auto dropped = [&](bool number) {
    Index count = 0;
    for (Index a = 0; a < T * K; ++a)
      count += rows[a] < 0 && std::isnan(probabilities[a / K * E + experts[a]]) != number ? 1 : 0;
    return count;
  };
  EXPECT_EQ(dropped(true) + dropped(false), T * K - 2 * E * 60);
  EXPECT_GT(dropped(false), 0);
  for (Index a = 0; a < T * K; ++a) EXPECT_TRUE(rows[a] < 0 || !std::isnan(probabilities[a / K * E + experts[a]])) << a;
}

TEST_P(CudaRouting, PaddingHasARowOfZerosAndTakesNoGradient) {
  const Tensor ids = ws_.i32({3}, {2, -1, 0}), table = ws_.f32({3, 2}, {1, 2, 3, 4, 5, 6}), out = ws_.output({3, 2}),
               dout = ws_.f32({3, 2}, {1, 1, 7, 7, 2, 2}), sums = ws_.f32({3, 2}, Values(6));
  backend_->embedding_forward(ids, table, 0, 7, out);
  EXPECT_EQ(ws_.read(out), (Values{5, 6, 0, 0, 1, 2}));
  backend_->embedding_forward(ids, table, 4, 7, out);
  EXPECT_EQ(ws_.read(out), Values(6));
  backend_->embedding_backward(ids, dout, 0, 7, sums);
  EXPECT_EQ(ws_.read(sums), (Values{2, 2, 0, 0, 1, 1}));
}

TEST_P(CudaRouting, ComplainsOfIdsOutOfRange) {
  const Tensor floats = ws_.f32(f32_matrix(random_, 2, 4)), out = ws_.output({2, 4}), table = ws_.output({9, 4}),
               sums = ws_.f32({9, 4}, Values(36)), rows = ws_.output({4, 4}), numbers = ws_.output({4});
  for (const std::int32_t id : {-7, 9, 1 << 30}) {
    const std::string is = "[1] is " + std::to_string(id) + ", expected ";
    const Tensor ids = ws_.i32({2}, {3, id}), wide = ws_.i32({2, 2}, {0, id, 1, 2});
    expect_complaint("embedding_forward: ids" + is + "-1 .. 8",
                     [&] { backend_->embedding_forward(ids, table, 0, 9, out); });
    expect_complaint("embedding_backward: ids" + is + "-1 .. 8",
                     [&] { backend_->embedding_backward(ids, floats, 0, 9, sums); });
    for (const Capacity capacity : {Capacity{}, Capacity{1, 1}})
      expect_complaint("routing_map: experts" + is + "-1 .. 3", [&] {
        backend_->routing_map(wide, {}, capacity, ws_.output_i32({2, 2}), ws_.output_i32({4}), ws_.output_i32({5}));
      });
    expect_complaint("permute: assignment_of" + is + "0 .. 3", [&] {
      backend_->permute(floats, ids.reshape({2}), 2, ws_.output({2, 4}));
    });
    expect_complaint("unpermute: row_of" + is + "-1 .. 3", [&] { backend_->unpermute(rows, wide, floats, out); });
    expect_complaint("permute_weights: row_of" + is + "-1 .. 3", [&] {
      backend_->permute_weights(ws_.output({2, 2}), wide, numbers);
    });
    expect_complaint("unpermute_weights: row_of" + is + "-1 .. 3", [&] {
      backend_->unpermute_weights(numbers, wide, ws_.output({2, 2}));
    });
    expect_complaint("router_backward: experts" + is + "-1 .. 3", [&] {
      backend_->router_backward({}, floats, floats, ws_.output({2}), wide, ws_.output({2, 2}), ws_.output({2, 2}), {},
                                0, ws_.output({2, 4}));
    });
    expect_complaint("router_measures: experts" + is + "-1 .. 3", [&] {
      backend_->router_measures({}, floats, {}, floats, wide, ws_.f64({0, 0, 0}));
    });
    expect_complaint("balance_statistics: experts" + is + "-1 .. 3", [&] {
      backend_->balance_statistics(floats, ws_.output({2}), wide, ws_.output({1, 4}), ws_.output({1, 4}),
                                   ws_.output({1}));
    });
  }
  EXPECT_EQ(ws_.overwritten(), "");
}

TEST_P(CudaRouting, NamesTheMostExperts) {
  const Tensor logits = ws_.output({1, 1025}), experts = ws_.output_i32({1, 1});
  EXPECT_THROW(
      backend_->router_forward({}, logits, {}, ws_.output({1, 1025}), ws_.output({1}), experts, ws_.output({1, 1})),
      std::invalid_argument);
  EXPECT_THROW(
      backend_->routing_map(experts, {}, {}, ws_.output_i32({1, 1}), ws_.output_i32({1}), ws_.output_i32({1026})),
      std::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(Backends, CudaRouting, testing::ValuesIn(backend_factories()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace smoe::checks
