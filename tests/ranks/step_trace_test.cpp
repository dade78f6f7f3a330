// The timeline of a step over ranks: each of them is in it, with the collectives of its layout, and what is on its way beside ops.
#include "trainer/step_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda_device.h"
#include "parallel/comm/device_calls.h"
#include "tests/ranks/test_session.h"
#include "tests/support/tiny_run.h"
#include "tests/support/trace_reader.h"

namespace smoe {
namespace {

using test::read_trace;
using test::ReadRank;
using test::ReadSlice;

TrainerConfig tiny_step() {
  TrainerConfig config = test::tiny_config("", "");
  config.train.output_dir.clear();
  config.train.micro_batch_size = 2;
  return config;
}

// All ranks'; on the root alone there is something to read.
std::map<int, ReadRank> trace_of(const Mesh& mesh, std::unique_ptr<Backend> backend) {
  const StepTrace trace = trace_step(tiny_step(), mesh, std::move(backend));
  EXPECT_EQ(trace.shares.size(), static_cast<std::size_t>(mesh.size(Axis::world)));
  for (const StepShares& shares : trace.shares) {
    EXPECT_GT(shares.ops, 0);
    EXPECT_LE(shares.ops + shares.waiting, shares.step * (1 + 1e-9));
  }
  EXPECT_EQ(trace.file.empty(), !mesh.is_root());
  return mesh.is_root() ? read_trace(trace.file) : std::map<int, ReadRank>();
}

// The labels of the collectives that a layout needs, by the axis that they go over.
std::map<std::string, std::set<std::string>> expected(const Layout& layout) {
  std::map<std::string, std::set<std::string>> labels;
  if (layout.dp() > 1) labels["dp"] = {"gradients.reduce_scatter", "weights.all_gather", "step.count", "step.loss"};
  if (layout.edp() > 1) labels["edp"] = {"gradients.reduce_scatter", "weights.all_gather"};
  if (layout.tp > 1) labels["tp"] = {"attention.gather", "attention.sum", "head.statistics"};
  return labels;
}

TEST(StepTraceOverRanks, HasEveryRankAndTheCollectivesOfItsLayout) {
  for (const Layout& layout : layouts_of(test_session().size())) {
    if (layout.tp > 2) continue;  // key-value heads
    SCOPED_TRACE(layout.to_string());
    const Mesh mesh = Mesh::over(test_session(), layout);
    const std::map<int, ReadRank> ranks = trace_of(mesh, make_cpu_backend(1));
    if (!mesh.is_root()) continue;
    ASSERT_EQ(ranks.size(), static_cast<std::size_t>(layout.ranks));
    std::int64_t earliest = ranks.at(0).slices.at("parts").front().begin;
    for (const auto& [number, rank] : ranks) {
      EXPECT_TRUE(rank.name.starts_with("rank " + std::to_string(number))) << rank.name;
      EXPECT_TRUE(rank.names("ops").contains("adamw"));
      EXPECT_TRUE(rank.names("parts").contains("micro_batch 0"));
      for (const auto& [axis, labels] : expected(layout))
        for (const std::string& label : labels)
          EXPECT_TRUE(rank.names("collectives " + axis).contains(label)) << axis << " " << label;
      EXPECT_EQ(rank.has_track("collectives ep"), layout.ep > 1);
      EXPECT_EQ(rank.has_track("collectives tp"), layout.tp > 1);
      // Every reduce-scatter that was started is on its way to where it was waited for.
      std::size_t starts = 0;
      for (const auto& [track, slices] : rank.slices)
        for (const ReadSlice& slice : slices)
          if (slice.args.value("collective", "") == start_of_reduce_scatter) {
            ++starts;
            EXPECT_GT(slice.args.at("bytes"), 0);
          }
      EXPECT_EQ(rank.flights.size(), starts);
      EXPECT_EQ(starts > 0, layout.ranks > 1);  // some weights lie whole on every rank
      for (const ReadSlice& flight : rank.flights) EXPECT_EQ(flight.name, "gradients.reduce_scatter");
      earliest = std::min(earliest, rank.slices.at("parts").front().begin);
    }
    EXPECT_GE(earliest, 0);
    EXPECT_LT(earliest, 1'000'000'000);
  }
}

// What was asked for stays where it was asked for: the next step is not watched, and its numbers are those of one that never was.
TEST(StepTraceOverRanks, LeavesNobodyWatching) {
  const Layout layout{test_session().size(), 1, 1};
  const Mesh mesh = Mesh::over(test_session(), layout);
  trace_of(mesh, make_cpu_backend(1));
  EXPECT_EQ(test_session().device_calls().observer(), nullptr);
}

// On GPUs, each rank with one of its own: collectives lie on the streams beside the ops'.
TEST(OnGpusStepTrace, HasTheStreamsOfEveryRank) {
  if (cuda_devices() < test_session().local_size()) GTEST_SKIP() << "fewer GPUs than ranks";
  use_cuda_device(test_session().local_rank());
  for (const Layout& layout : layouts_of(test_session().size())) {
    if (layout.tp > 2) continue;
    SCOPED_TRACE(layout.to_string());
    const Mesh mesh = Mesh::over(test_session(), layout, {.kind = Device::cuda});
    for (const auto& [number, rank] : trace_of(mesh, make_cuda_backend())) {
      EXPECT_TRUE(rank.names("GPU: ops").contains("grouped_gemm"));
      EXPECT_TRUE(rank.names("GPU: parts").contains("optimizer"));
      EXPECT_TRUE(rank.names("host: calls").contains("grouped_gemm"));
      EXPECT_TRUE(rank.names("host: calls").contains("wait"));
      for (const char* label : {"gradients.reduce_scatter", "weights.all_gather"})
        EXPECT_EQ(rank.names("GPU: background").contains(label), layout.ranks > 1) << label;
      EXPECT_EQ(rank.names("GPU: foreground").contains("attention.gather"), layout.tp > 1);
      EXPECT_EQ(rank.has_track("GPU: foreground"), layout.tp > 1 || layout.ep > 1);
    }
  }
}

}  // namespace
}  // namespace smoe
