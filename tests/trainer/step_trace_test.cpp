// The timeline of a step: what lies on which track, and what a step's time is said to have gone into.
#include "trainer/step_trace.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/trace_backend.h"
#include "tests/support/tiny_run.h"
#include "tests/support/trace_reader.h"
#include "trainer/trace_events.h"

namespace smoe {
namespace {

using test::read_trace;
using test::ReadRank;
using test::ReadSlice;

RankTrace made_up(std::vector<TraceSlice> slices, std::vector<TraceFlight> flights = {}) {
  return {.rank = 0,
          .name = "rank 0",
          .begin = 0,
          .end = 1'000'000,
          .tracks = {"ops", "collectives dp"},
          .slices = std::move(slices),
          .flights = std::move(flights)};
}
TraceSlice op(std::int64_t begin, std::int64_t end) { return {TraceKind::op, "ops", "gemm", begin, end, {}}; }
TraceSlice collective(TraceKind kind, std::int64_t begin, std::int64_t end) {
  return {kind, "collectives dp", "gradients", begin, end, {}};
}

TEST(StepShares, OfAHostAreWhatItWaitsForAndWhatGoesOnBesideIt) {
  const StepShares shares = shares_of(made_up({op(0, 100'000), collective(TraceKind::wait, 100'000, 110'000),
                                               op(110'000, 500'000), collective(TraceKind::wait, 600'000, 700'000)},
                                              {{"collectives dp", "gradients", 100'000, 700'000, {}}}));
  EXPECT_DOUBLE_EQ(shares.step, 1e-3);
  EXPECT_DOUBLE_EQ(shares.ops, 490e-6);
  EXPECT_DOUBLE_EQ(shares.waiting, 110e-6);
  EXPECT_DOUBLE_EQ(shares.overlapped, 390e-6);
}

TEST(StepShares, OfAGpuAreByWhatItsStreamsDo) {
  const StepShares shares =
      shares_of(made_up({op(0, 400'000), op(600'000, 900'000), collective(TraceKind::device, 300'000, 500'000),
                         collective(TraceKind::device, 450'000, 650'000)}));
  EXPECT_DOUBLE_EQ(shares.ops, 700e-6);
  EXPECT_DOUBLE_EQ(shares.waiting, 200e-6);
  EXPECT_DOUBLE_EQ(shares.overlapped, 150e-6);
}

TEST(StepShares, OpsThatAreNotApartCountOnce) {
  EXPECT_DOUBLE_EQ(shares_of(made_up({op(0, 400'000), op(100'000, 200'000), op(300'000, 500'000)})).ops, 500e-6);
  EXPECT_EQ(shares_of(made_up({})).ops, 0);
}

TEST(TraceEvents, AreReadBackAsTheyWere) {
  RankTrace trace = made_up({{TraceKind::op, "ops", "a \"quoted\"\n name", 1'000'001, 1'000'002, {{"x", "[2, 3] f32"}}},
                             {TraceKind::wait, "collectives dp", "gradients", 1'000'500, 2'000'500, {}, 4096}},
                            {{"collectives dp", "gradients", 1'000'500, 3'000'000, {{"axis", "dp"}}, 77},
                             {"collectives dp", "gradients", 1'500'000, 2'500'000, {}}});
  RankTrace other = trace;
  other.rank = 3, other.name = "rank 3, ep 1";
  const std::string text =
      trace_file({trace_events(trace, 1'000'000), trace_events(other, 0)}, {{"layout", "dp 2 tp 1 ep 1"}});
  const std::map<int, ReadRank> ranks = read_trace(text);
  ASSERT_EQ(ranks.size(), 2u);
  EXPECT_EQ(ranks.at(3).name, "rank 3, ep 1");
  const ReadRank& first = ranks.at(0);
  ASSERT_EQ(first.slices.at("ops").size(), 1u);
  const ReadSlice& slice = first.slices.at("ops")[0];
  EXPECT_EQ(slice.name, "a \"quoted\"\n name");
  EXPECT_EQ(slice.begin, 1);
  EXPECT_EQ(slice.end, 2);
  EXPECT_EQ(slice.args.at("x"), "[2, 3] f32");
  EXPECT_EQ(first.slices.at("collectives dp").at(0).args.at("bytes"), 4096);
  ASSERT_EQ(first.flights.size(), 2u);
  EXPECT_EQ(first.flights[0].end - first.flights[0].begin, 1'999'500);
  EXPECT_EQ(first.flights[0].args.at("bytes"), 77);
  EXPECT_EQ(parse_json(text, "trace").at("otherData").at("layout"), "dp 2 tp 1 ep 1");
}

TEST(TraceEvents, OfNoRankAtAllAreAFile) { EXPECT_TRUE(read_trace(trace_file({}, {})).empty()); }

// ---- a step ----

TrainerConfig tiny_step() {
  TrainerConfig config = test::tiny_config("", "");
  config.train.output_dir.clear();
  return config;
}

TEST(StepTrace, OfOneRankHasEveryPartOfTheStepAndEveryOpOfTraining) {
  const Mesh mesh = Mesh::single();
  const StepTrace trace = trace_step(tiny_step(), mesh, make_cpu_backend(1));
  const std::map<int, ReadRank> ranks = read_trace(trace.file);
  ASSERT_EQ(ranks.size(), 1u);
  const ReadRank& rank = ranks.at(0);
  EXPECT_EQ(rank.name, "rank 0");
  EXPECT_EQ(rank.slices.size(), 2u);
  const std::set<std::string> parts = rank.names("parts"), ops = rank.names("ops");
  for (const char* part : {"optimizer", "micro_batch 0", "micro_batch 1", "forward", "backward", "layer 0", "layer 1",
                           "attention", "router", "dispatch", "experts", "combine", "head", "reduce"})
    EXPECT_TRUE(parts.contains(part)) << part;
  for (const char* op : {"adamw",
                         "embedding_forward",
                         "embedding_backward",
                         "rms_norm_forward",
                         "rms_norm_backward",
                         "gemm",
                         "grouped_gemm",
                         "rope_forward",
                         "rope_backward",
                         "attention_forward",
                         "attention_backward",
                         "router_forward",
                         "router_backward",
                         "routing_map",
                         "permute",
                         "unpermute",
                         "swiglu_forward",
                         "swiglu_backward",
                         "cross_entropy_backward",
                         "sum_of_squares"})
    EXPECT_TRUE(ops.contains(op)) << op;
  EXPECT_TRUE(rank.flights.empty());
  EXPECT_EQ(rank.slices.at("ops").front().name, "adamw");
  EXPECT_EQ(rank.slices.at("parts").front().name, "optimizer");
  ASSERT_EQ(trace.shares.size(), 1u);
  EXPECT_GT(trace.shares[0].ops, 0);
  EXPECT_LE(trace.shares[0].ops, trace.shares[0].step);
  EXPECT_EQ(trace.shares[0].waiting, 0);
  EXPECT_NE(describe(trace).find("rank 0: "), std::string::npos);
}

TEST(StepTrace, IsOfOneTurnOfTheLoop) {
  const Mesh mesh = Mesh::single();
  TrainerConfig config = tiny_step();
  config.train.micro_batch_size = 2;
  const auto count = [](const ReadRank& rank, const std::string& name) {
    const auto& parts = rank.slices.at("parts");
    return std::count_if(parts.begin(), parts.end(), [&](const ReadSlice& slice) { return slice.name == name; });
  };
  const std::map<int, ReadRank> ranks = read_trace(trace_step(config, mesh, make_cpu_backend(1)).file);
  EXPECT_EQ(count(ranks.at(0), "micro_batch 3"), 1);
  EXPECT_EQ(count(ranks.at(0), "micro_batch 4"), 0);
  EXPECT_EQ(count(ranks.at(0), "forward"), 4);
  EXPECT_EQ(count(ranks.at(0), "optimizer"), 1);
}

}  // namespace
}  // namespace smoe
