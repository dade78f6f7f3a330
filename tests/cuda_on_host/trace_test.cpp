// A timeline of a device that works behind its host: moments of each stream in their order, of two streams beside each other.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/range.h"
#include "kernels/trace_backend.h"
#include "nccl.h"
#include "parallel/comm/collective_trace.h"
#include "parallel/comm/device_calls.h"
#include "parallel/comm/nccl_communicator.h"
#include "parallel/comm/traffic.h"
#include "tests/cuda_on_host/block.h"

namespace smoe {
namespace {

class DeviceTrace : public testing::Test {
 protected:
  ~DeviceTrace() override { cuda_on_host::set_late(false); }

  TraceBackend trace_{make_cuda_backend()};
  Arena arena_{trace_};
};

TEST_F(DeviceTrace, OpsFollowEachOtherBehindTheHost) {
  const Tensor x = arena_.take({4, 8});
  cuda_on_host::set_late(true);
  trace_.start();
  const std::size_t waits = cuda_on_host::waits();
  {
    const Range layer(trace_, "layer", 1);
    for (int i = 0; i < 5; ++i) trace_.fill(x, 1);
  }
  EXPECT_EQ(cuda_on_host::waits(), waits) << "an op is waited for";
  EXPECT_THROW(trace_.host_time(trace_.ops().front().begin), std::runtime_error) << "nothing has run by now";
  trace_.stop();
  ASSERT_EQ(trace_.ops().size(), 5u);
  std::int64_t last = trace_.host_time(trace_.ranges().at(0).begin);
  for (const TracedOp& op : trace_.ops())
    for (const Stamp stamp : {op.begin, op.end}) {
      EXPECT_GE(trace_.host_time(stamp), last);
      last = trace_.host_time(stamp);
    }
  EXPECT_GE(trace_.host_time(trace_.ranges()[0].end), last);
}

TEST_F(DeviceTrace, EventsAreKeptForTheNext) {
  const Tensor x = arena_.take({4});
  const auto record = [&] {
    trace_.start();
    for (int i = 0; i < 20; ++i) trace_.fill(x, 1);
    trace_.stop();
    return cuda_on_host::live().events;
  };
  const int events = record();
  EXPECT_EQ(record(), events);
}

TEST_F(DeviceTrace, WaitsOfTheHostAreRecorded) {
  const Tensor x = arena_.take({4});
  trace_.start();
  trace_.fill(x, 1);
  trace_.wait(trace_.record());
  trace_.synchronize();
  trace_.stop();
  ASSERT_EQ(trace_.waits().size(), 2u);
  EXPECT_EQ(trace_.waits()[0].name, std::string("wait"));
  EXPECT_EQ(trace_.waits()[1].name, std::string("synchronize"));
}

TEST_F(DeviceTrace, StampsThatAreForgottenOrNotYetPassedAreRefused) {
  const Stamp first = trace_.stamp(), second = trace_.stamp();
  EXPECT_GE(trace_.seconds_between(first, second), 0);
  EXPECT_LE(trace_.seconds_between(second, first), 0);
  cuda_on_host::set_late(true);
  EXPECT_THROW(trace_.seconds_between(first, trace_.stamp()), std::runtime_error);
  trace_.synchronize();
  trace_.forget_stamps();
  EXPECT_THROW(trace_.seconds_between(first, second), std::logic_error);
}

// ---- collectives beside ops ----

// Of two ranks that say the same; nothing of the host's is asked for.
class TwinHost final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  void all_reduce(const Tensor&, Reduce, std::string_view) override {}
  void all_reduce(std::span<double>, Reduce, std::string_view) override {}
  void all_gather(const Tensor&, const Tensor&, std::string_view) override {}
  void reduce_scatter(const Tensor&, const Tensor&, std::string_view) override {}
  void start_reduce_scatter(const Tensor&, std::string_view) override {}
  void finish_started() override {}
  void all_to_all_v(const Tensor&, std::span<const std::int64_t>, const Tensor&, std::span<const std::int64_t>,
                    std::string_view) override {}
  void broadcast(const Tensor&, int, std::string_view) override {}
  void barrier(std::string_view) override {}
};

class NoLedger final : public Ledger {
  void enter(const CollectiveCall&) override {}
  void waits_for(std::span<const int>) override {}
  void leave() override {}
};

class CollectivesOfADevice : public DeviceTrace {
 protected:
  ~CollectivesOfADevice() override { cuda_on_host::nccl() = {}; }

  struct Times {
    std::int64_t begin, end;
  };
  Times of(const TracedOp& op) { return {trace_.host_time(op.begin), trace_.host_time(op.end)}; }
  Times of(const DeviceCollective& call) { return {trace_.host_time(call.begin), trace_.host_time(call.end)}; }

  TwinHost host_;
  NoLedger ledger_;
  Traffic traffic_;
  CollectiveTrace collectives_{traffic_};
  DeviceCalls calls_{ledger_};
};

class StartedCollectives : public CollectivesOfADevice, public testing::WithParamInterface<bool> {};

// Whichever stream runs ahead, the timeline shows it: the two are beside each other, and behind what they wait for.
TEST_P(StartedCollectives, LieBesideTheOpsAfterThem) {
  const bool collectives_run_ahead = GetParam();
  NcclCommunicator group(host_, trace_, join_by_nccl(host_, "dp", calls_), {"dp", Lane::background, false}, traffic_,
                         calls_);
  const Tensor gradient = arena_.take({64}), other = arena_.take({64});
  for (const Tensor& tensor : {gradient, other}) trace_.fill(tensor, 1);
  trace_.synchronize();
  cuda_on_host::set_late(true, collectives_run_ahead);
  trace_.start();
  calls_.observe(&collectives_);
  trace_.add(gradient, gradient, gradient);
  group.start_reduce_scatter(gradient, "gradients");
  trace_.add(other, other, other);
  group.finish_started();
  trace_.add(gradient, gradient, gradient);
  calls_.observe(nullptr);
  trace_.stop();

  ASSERT_EQ(collectives_.device().size(), 1u);
  const DeviceCollective& call = collectives_.device()[0];
  EXPECT_EQ(call.call.operation, "reduce_scatter");
  EXPECT_EQ(call.call.label, "gradients");
  EXPECT_EQ(call.lane, Lane::background);
  EXPECT_EQ(call.bytes, 128);
  const Times scatter = of(call), before = of(trace_.ops().at(0)), beside = of(trace_.ops().at(1)),
              behind = of(trace_.ops().at(2));
  EXPECT_GE(scatter.begin, before.end);
  EXPECT_GE(scatter.end, scatter.begin);
  EXPECT_GE(beside.begin, before.end);
  if (collectives_run_ahead)
    EXPECT_GE(beside.begin, scatter.end);
  else
    EXPECT_GE(scatter.begin, beside.end);
  EXPECT_GE(behind.begin, scatter.end);
  EXPECT_GE(behind.begin, beside.end);
}

INSTANTIATE_TEST_SUITE_P(RunAhead, StartedCollectives, testing::Bool(),
                         [](const auto& info) { return info.param ? "collectives" : "ops"; });

TEST_F(CollectivesOfADevice, AreToldInTheOrderOfTheirLaneAndOnlyWhereSomebodyLooks) {
  NcclCommunicator group(host_, trace_, join_by_nccl(host_, "ep", calls_), {"ep", Lane::foreground, false}, traffic_,
                         calls_);
  const Tensor x = arena_.take({64}), parts = arena_.take({128});
  trace_.fill(x, 1);
  group.all_reduce(x, Reduce::sum, "unseen");
  trace_.start();
  calls_.observe(&collectives_);
  group.all_reduce(x, Reduce::sum, "first");
  group.all_gather(x, parts, "second");
  const std::vector<std::int64_t> rows = {32, 32};
  group.all_to_all_v(x, rows, parts.rows(0, 64), rows, "third");
  calls_.observe(nullptr);
  group.all_reduce(x, Reduce::sum, "unseen");
  trace_.stop();
  std::vector<std::string> labels;
  std::int64_t last = 0;
  for (const DeviceCollective& call : collectives_.device()) {
    labels.emplace_back(call.call.label);
    EXPECT_GE(of(call).begin, last);
    EXPECT_GE(of(call).end, of(call).begin);
    last = of(call).end;
    EXPECT_GT(call.bytes, 0) << call.call.label;
  }
  EXPECT_EQ(labels, (std::vector<std::string>{"first", "second", "third"}));
}

}  // namespace
}  // namespace smoe
