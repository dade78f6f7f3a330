// Gradients summed over whoever holds replicas, bucket by bucket, and weights spread again. Who those are is told by what
// the ranks hold, not by the groups under test. The numbers are small and whole: every sum is exact. Frozen parameters lie
// among the others and take no part.
#include "parallel/gradient_reducer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/parallel/parameter_fixture.h"
#include "tests/ranks/test_session.h"

namespace smoe {
namespace {

float gradient_number(const Parameter& p, std::int64_t element, int rank) {
  const std::int64_t at = global_index(p.shape, p.slice, p.first, element);
  return static_cast<float>((rank + 1) * (rank + 2) + static_cast<std::int64_t>(p.name.size()) + at % 97);
}
float weight_number(const Parameter& p, std::int64_t element) {
  return static_cast<float>(static_cast<std::int64_t>(p.name.size()) * 1000 +
                            global_index(p.shape, p.slice, p.first, element));
}

class Reducer {
 public:
  Reducer(const Layout& layout, std::int64_t bucket_elements) : mesh(Mesh::over(test_session(), layout)) {
    test::declare_parameters(parameters, mesh);
    parameters.allocate(*backend_, arena_, mesh, true);
    shards = std::make_unique<Shards>(parameters, mesh, bucket_elements);
    reducer = std::make_unique<GradientReducer>(*backend_, mesh, parameters, *shards);
    find_replicas();
  }

  void fill_gradient(const Parameter& p) {
    write(p.gradient, [&](std::int64_t i) { return gradient_number(p, i, mesh.rank(Axis::world)); });
  }
  void fill_gradients() {
    for (const Parameter& p : parameters) fill_gradient(p);
  }
  // Over the replicas of element i of the slice.
  float sum(const Parameter& p, std::int64_t i) const {
    float total = 0;
    for (const int rank : replicas_.at(p.name)) total += gradient_number(p, i, rank);
    return total;
  }
  template <class Number>
  void write(const Tensor& t, const Number& number) {
    if (t.empty()) return;  // a frozen parameter has no gradient
    std::vector<float> values;
    for (std::int64_t i = 0; i < t.elements(); ++i) values.push_back(number(i));
    backend_->copy_from_host(t, values.data());
  }
  std::vector<float> read(const Tensor& t) const {
    std::vector<float> values(static_cast<std::size_t>(t.elements()));
    if (!values.empty()) backend_->copy_to_host(values.data(), t);
    return values;
  }
  // Which elements of a parameter's slice this rank owns.
  std::vector<bool> owned(const Parameter& p) const {
    std::vector<bool> mine(static_cast<std::size_t>(p.slice.elements()));
    shards->for_each_owned(
        p, [&](std::int64_t first, const OwnedRun& run) { std::fill_n(mine.begin() + first, run.size, true); });
    return mine;
  }
  void expect_owned_sums() const {
    for (const Parameter& p : parameters) {
      const auto found = read(p.gradient);
      const auto mine = owned(p);
      for (std::int64_t i = 0; i < p.gradient.elements(); ++i)
        if (mine[static_cast<std::size_t>(i)]) {
          ASSERT_EQ(found[static_cast<std::size_t>(i)], sum(p, i)) << p.name << " element " << i;
        }
    }
  }

  const Mesh mesh;

 private:
  // Every rank tells the world, for each parameter of a set that holds everything, where its slice begins, or -1.
  void find_replicas() {
    ParameterSet whole;
    test::declare_parameters(whole, Mesh::single());
    const auto rank = static_cast<std::size_t>(mesh.rank(Axis::world)),
               ranks = static_cast<std::size_t>(mesh.size(Axis::world));
    std::vector<double> corners(whole.size() * ranks * 2);  // [parameter, rank, dim]
    const auto corner = [&](const Parameter& p, std::size_t r, std::size_t dim) -> double& {
      return corners[(p.index * ranks + r) * 2 + dim];
    };
    for (const Parameter& all : whole) {
      const Parameter* p = parameters.find(all.name);
      for (std::size_t dim = 0; dim < 2; ++dim) corner(all, rank, dim) = p ? static_cast<double>(p->first[dim]) : -1.0;
    }
    mesh.group(Axis::world).all_reduce(std::span<double>(corners), Reduce::sum, "test.corners");
    for (const Parameter& all : whole)
      for (std::size_t r = 0; r < ranks; ++r)
        if (corner(all, r, 0) == corner(all, rank, 0) && corner(all, r, 1) == corner(all, rank, 1))
          replicas_[all.name].push_back(static_cast<int>(r));
  }

  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  Arena arena_{*backend_};
  std::map<std::string, std::vector<int>> replicas_;  // of each parameter, the world ranks with the same slice

 public:
  ParameterSet parameters;
  std::unique_ptr<Shards> shards;
  std::unique_ptr<GradientReducer> reducer;
};

template <class Visit>
void for_each_reducer(const Visit& visit) {
  for (const Layout& layout : layouts_of(test_session().size()))
    for (const std::int64_t bucket_elements : {1, 1 << 20}) {
      SCOPED_TRACE(layout.to_string() + ", buckets of " + std::to_string(bucket_elements));
      Reducer one(layout, bucket_elements);
      visit(one);
    }
}

TEST(GradientReducerOverRanks, OwnedGradientsAreTheSumOverReplicas) {
  for_each_reducer([](Reducer& one) {
    for (int step = 0; step < 2; ++step) {  // a second step begins anew
      one.fill_gradients();
      one.reducer->finish();
      one.expect_owned_sums();
    }
  });
}

// Backward completes parameters from the last to the first. What is complete is on its way; what is not may still change.
TEST(GradientReducerOverRanks, ABucketStartsWhenItsFirstParameterIsComplete) {
  for_each_reducer([](Reducer& one) {
    one.mesh.traffic().reset();
    for (std::size_t from = one.parameters.size(); from-- > 0;) {
      const Parameter& p = *(one.parameters.begin() + static_cast<std::ptrdiff_t>(from));
      one.fill_gradient(p);
      one.reducer->complete_from(from);
      std::int64_t bytes = 0;
      for (const Bucket& bucket : one.shards->buckets())
        if (bucket.first_parameter >= from) bytes += (bucket.size - bucket.owned.size) * 4;
      EXPECT_EQ(one.mesh.traffic().bytes("gradients.reduce_scatter"), bytes) << p.name;
    }
    one.reducer->finish();
    one.expect_owned_sums();
  });
}

TEST(GradientReducerOverRanks, GatheredGradientsAreWholeOnEveryRank) {
  for_each_reducer([](Reducer& one) {
    one.fill_gradients();
    one.reducer->finish();
    one.reducer->gather_gradients();
    for (const Parameter& p : one.parameters) {
      const auto found = one.read(p.gradient);
      for (std::int64_t i = 0; i < p.gradient.elements(); ++i)
        ASSERT_EQ(found[static_cast<std::size_t>(i)], one.sum(p, i)) << p.name;
    }
  });
}

TEST(GradientReducerOverRanks, EveryRankGetsTheWeightsThatOthersOwn) {
  for_each_reducer([](Reducer& one) {
    for (Parameter& p : one.parameters) {
      const auto mine = one.owned(p);
      one.write(p.value, [&](std::int64_t i) {
        return mine[static_cast<std::size_t>(i)] || !p.trainable ? weight_number(p, i)
                                                                 : std::numeric_limits<float>::quiet_NaN();
      });
    }
    one.reducer->start_gathering_values();
    one.reducer->finish_gathering_values();
    for (const Parameter& p : one.parameters) {
      const auto found = one.read(p.value);
      for (std::int64_t i = 0; i < p.slice.elements(); ++i)
        ASSERT_EQ(found[static_cast<std::size_t>(i)], weight_number(p, i)) << p.name;
    }
  });
}

TEST(GradientReducerOverRanks, ClearingLeavesTheOwnedOrNothing) {
  for_each_reducer([](Reducer& one) {
    one.fill_gradients();
    one.reducer->clear_unowned();
    for (const Parameter& p : one.parameters) {
      const auto found = one.read(p.gradient);
      const auto mine = one.owned(p);
      for (std::int64_t i = 0; i < p.gradient.elements(); ++i) {
        const auto at = static_cast<std::size_t>(i);
        ASSERT_EQ(found[at], mine[at] ? gradient_number(p, i, one.mesh.rank(Axis::world)) : 0.0f) << p.name;
      }
    }
    one.reducer->clear_all();
    for (const Parameter& p : one.parameters)
      for (const float x : one.read(p.gradient)) ASSERT_EQ(x, 0.0f) << p.name;
  });
}

}  // namespace
}  // namespace smoe
