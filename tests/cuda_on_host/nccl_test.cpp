// What NcclCommunicator asks of NCCL, call by call, and that device and collectives wait for each other where they must. The other
// ranks of the group are this one's mirror (nccl.h): what it sends to a rank comes from there.
#include "nccl.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "parallel/comm/device_calls.h"
#include "parallel/comm/nccl_communicator.h"
#include "parallel/comm/traffic.h"
#include "parallel/gradient_reducer.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "parallel/shards.h"
#include "tests/cuda_on_host/block.h"

namespace smoe {
namespace {

using cuda_on_host::NcclCall;

constexpr int ranks = 3, rank = 1;

// The host's part of a group whose ranks all say the same.
class MirrorHost final : public Communicator {
 public:
  int rank() const override { return smoe::rank; }
  int size() const override { return ranks; }
  void all_reduce(const Tensor&, Reduce, std::string_view) override {}
  void all_reduce(std::span<double>, Reduce, std::string_view) override {}
  void all_gather(const Tensor&, const Tensor&, std::string_view) override { throw std::logic_error("not here"); }
  void reduce_scatter(const Tensor&, const Tensor&, std::string_view) override { throw std::logic_error("not here"); }
  void start_reduce_scatter(const Tensor&, std::string_view) override { throw std::logic_error("not here"); }
  void finish_started() override {}
  void all_to_all_v(const Tensor&, std::span<const std::int64_t>, const Tensor&, std::span<const std::int64_t>,
                    std::string_view) override {
    throw std::logic_error("not here");
  }
  void broadcast(const Tensor&, int, std::string_view) override {}
  void barrier(std::string_view) override { ++barriers; }

  int barriers = 0;
};

class Noted final : public Ledger, public NumberedLedger {
 public:
  void enter(const CollectiveCall& call) override { entered.emplace_back(call.operation); }
  void enter(const CollectiveCall& call, std::uint64_t number) override {
    entered.push_back(std::to_string(number) + " " + std::string(call.operation) + " " + std::string(call.label));
  }
  void waits_for(std::span<const int>) override {}
  void leave() override { entered.emplace_back("left"); }

  std::vector<std::string> entered;
};

class NcclCalls : public testing::Test {
 protected:
  ~NcclCalls() override {
    end_group();
    cuda_on_host::set_late(false);
    cuda_on_host::nccl() = {};
  }

  NcclCommunicator& group(Lane lane = Lane::foreground, bool check_calls = false) {
    group_ = make({"tp", lane, check_calls});
    cuda_on_host::take_nccl_calls();
    return *group_;
  }
  Tensor numbers(const std::vector<float>& values) {
    const Tensor x = arena_->take({static_cast<std::int64_t>(values.size())});
    backend_->copy_from_host(x, values.data());
    return x;
  }
  std::vector<float> read(const Tensor& x) {
    std::vector<float> values(static_cast<std::size_t>(x.elements()));
    backend_->copy_to_host(values.data(), x);
    return values;
  }
  cuda_on_host::Stream* stream_of(Lane lane) {
    return static_cast<cuda_on_host::Stream*>(backend_->communication(lane)->native());
  }
  std::unique_ptr<NcclCommunicator> make(const NcclCommunicator::Place& place) {
    return std::make_unique<NcclCommunicator>(host_, *backend_, join_by_nccl(host_, place.axis, calls_), place,
                                              traffic_, calls_);
  }
  // Takes from the group whatever it has.
  void end_group() { group_.reset(); }

  const std::vector<std::string>& shown() const { return gpu_.entered; }

  MirrorHost host_;
  Noted noted_, gpu_;  // what the ledgers of the host and of its GPU are told
  Traffic traffic_;
  DeviceCalls calls_{noted_};
  std::unique_ptr<Backend> backend_ = make_cuda_backend();
  std::unique_ptr<Arena> arena_ = std::make_unique<Arena>(*backend_);
  std::unique_ptr<NcclCommunicator> group_;
};

std::vector<float> counting(std::size_t n, float from = 1) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), from);
  return values;
}
std::vector<float> times(std::vector<float> values, float by) {
  for (float& x : values) x *= by;
  return values;
}

TEST_F(NcclCalls, ArePassedOnWithSizeTypeAndStream) {
  NcclCommunicator& group = this->group();
  cuda_on_host::Stream* const stream = stream_of(Lane::foreground);
  const Tensor all = numbers(counting(12)), part = numbers(counting(4));
  float *const x = all.f32(), *const y = part.f32();

  group.all_reduce(all, Reduce::sum, "x");
  group.all_gather(part, all, "x");
  group.reduce_scatter(all, part, "x");
  group.broadcast(part, 2, "x");
  EXPECT_EQ(cuda_on_host::take_nccl_calls(),
            (std::vector<NcclCall>{{"all_reduce", 12, ncclFloat32, -1, x, x, stream, 0},
                                   {"all_gather", 4, ncclFloat32, -1, y, x, stream, 0},
                                   {"reduce_scatter", 4, ncclFloat32, -1, x, y, stream, 0},
                                   {"broadcast", 4, ncclFloat32, 2, y, y, stream, 0}}));
  group.start_reduce_scatter(all, "x");
  group.finish_started();
  EXPECT_EQ(cuda_on_host::take_nccl_calls(),
            (std::vector<NcclCall>{{"reduce_scatter", 4, ncclFloat32, -1, x, x + 4, stream, 0}}));

  const Tensor integers(all.raw(), DType::i32, {12}, Device::cuda);
  group.all_reduce(integers, Reduce::max, "x");
  EXPECT_EQ(cuda_on_host::take_nccl_calls(),
            (std::vector<NcclCall>{{"all_reduce max", 12, ncclInt32, -1, x, x, stream, 0}}));
  group.all_reduce(Tensor(x, DType::f32, {0}, Device::cuda), Reduce::sum, "x");
  EXPECT_TRUE(cuda_on_host::take_nccl_calls().empty());
  EXPECT_THROW(group.all_reduce(Tensor(x, DType::f64, {2}, Device::cuda), Reduce::sum, "x"), std::logic_error);
  EXPECT_THROW(group.all_gather(all, part, "x"), std::logic_error);
  EXPECT_THROW(group.broadcast(part, ranks, "x"), std::logic_error);
}

TEST_F(NcclCalls, OfRowsAreOneGroupWithoutEmptyParcels) {
  NcclCommunicator& group = this->group(Lane::background);
  cuda_on_host::Stream* const stream = stream_of(Lane::background);
  const Tensor in = numbers(counting(10)), out = numbers(std::vector<float>(8));
  const std::vector<std::int64_t> sent{2, 3, 0}, received{0, 3, 1};
  group.all_to_all_v(in.reshape({5, 2}), sent, out.reshape({4, 2}), received, "rows");
  float *const x = in.f32(), *const y = out.f32();
  const auto found = cuda_on_host::take_nccl_calls();
  ASSERT_EQ(found.size(), 4u);
  const int together = found[0].together;
  EXPECT_GT(together, 0);
  EXPECT_EQ(found, (std::vector<NcclCall>{{"send", 24, ncclInt8, 1, x + 4, nullptr, stream, together},
                                          {"receive", 24, ncclInt8, 1, nullptr, y, stream, together},
                                          {"send", 16, ncclInt8, 0, x, nullptr, stream, together},
                                          {"receive", 8, ncclInt8, 2, nullptr, y + 6, stream, together}}));
  EXPECT_EQ(traffic_.bytes("rows"), 16);
  const std::vector<std::int64_t> none(ranks, 0);
  group.all_to_all_v(in.rows(0, 0).reshape({0, 2}), none, out.rows(0, 0).reshape({0, 2}), none, "rows");
  EXPECT_TRUE(cuda_on_host::take_nccl_calls().empty());
  EXPECT_THROW(group.all_to_all_v(in.reshape({5, 2}), received, out.reshape({4, 2}), sent, "rows"), std::logic_error);
}

// NCCL's own sum of bf16 is asked for by nobody.
TEST_F(NcclCalls, OfBf16SumsSendTheRanksTheirParts) {
  NcclCommunicator& group = this->group();
  const Tensor all = arena_->take(DType::bf16, {12}), part = arena_->take(DType::bf16, {4});
  backend_->fill(all, 1.0f);
  group.reduce_scatter(all, part, "x");
  for (const NcclCall& call : cuda_on_host::take_nccl_calls()) {
    EXPECT_TRUE(call.name == "send" || call.name == "receive") << call.name;
    EXPECT_EQ(call.count, 8u);
  }
  group.all_reduce(all, Reduce::sum, "x");
  const auto calls = cuda_on_host::take_nccl_calls();
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_EQ(calls[0].name, "all_gather");
  std::vector<Bf16> sums(4);
  backend_->copy_to_host(sums.data(), part);
  for (const Bf16 x : sums) EXPECT_EQ(widened(x), 3.0f);
}

TEST_F(NcclCalls, MeetOnTheHostFirstWhereCallsAreChecked) {
  NcclCommunicator& group = this->group(Lane::foreground, true);
  group.all_reduce(numbers(counting(3)), Reduce::sum, "x");
  EXPECT_EQ(host_.barriers, 1);
}

// ---- who waits for whom ----
// Streams work when they are waited for, and each runs ahead of the others where nothing holds it: with others_first the
// collectives do, else the ops do.
class NcclOrder : public NcclCalls, public testing::WithParamInterface<bool> {
 protected:
  void SetUp() override { cuda_on_host::set_late(true, GetParam()); }
};

TEST_P(NcclOrder, ACollectiveReadsWhatOpsBeforeItWroteAndOpsAfterItWhatItWrote) {
  NcclCommunicator& group = this->group();
  const Tensor x = numbers(counting(6)), all = numbers(std::vector<float>(18)), twice = numbers(std::vector<float>(18));
  backend_->add(x, x, x);
  group.all_gather(x, all, "x");
  backend_->add(all, all, twice);
  backend_->fill(x, -1.0f);  // what comes after it changes nothing of it
  std::vector<float> expected;
  for (int q = 0; q < ranks; ++q)
    for (const float value : times(counting(6), 4)) expected.push_back(value);
  EXPECT_EQ(read(twice), expected);
}

TEST_P(NcclOrder, HoldsForEachCollective) {
  NcclCommunicator& group = this->group(Lane::background);
  const std::vector<std::int64_t> each(ranks, 2);
  const auto after = [&](const std::function<void(const Tensor& x)>& collective) {
    const Tensor x = numbers(counting(6)), out = numbers(std::vector<float>(6));
    backend_->add(x, x, x);
    collective(x);
    backend_->add(x, x, out);
    return read(out);
  };
  EXPECT_EQ(after([&](const Tensor& x) { group.all_reduce(x, Reduce::sum, "x"); }), times(counting(6), 4 * ranks));
  EXPECT_EQ(after([&](const Tensor& x) { group.broadcast(x, rank, "x"); }), times(counting(6), 4));
  const auto scattered = after([&](const Tensor& x) { group.reduce_scatter(x, x.rows(2, 2), "x"); });
  EXPECT_EQ(scattered[2], 4 * 3 * ranks);
  EXPECT_EQ(after([&](const Tensor& x) {
              group.start_reduce_scatter(x, "x");
              group.finish_started();
            }),
            scattered);
  EXPECT_EQ(after([&](const Tensor& x) {
              const Tensor rows = numbers(std::vector<float>(6));
              group.all_to_all_v(x, each, rows, each, "x");
              backend_->copy(x, rows);
            }),
            times(counting(6), 4));
  EXPECT_EQ(after([&](const Tensor& x) {
              const Tensor gathered = numbers(std::vector<float>(18));
              group.finish(group.start_all_gather(x, gathered, "x"));
              backend_->copy(x, gathered.rows(12, 6));
            }),
            times(counting(6), 4));
}

// Ops go on while it is on its way: those that were called between have another result in each order, those behind do not.
TEST_P(NcclOrder, WhatWasStartedIsWaitedForWhereItIsFinished) {
  NcclCommunicator& group = this->group(Lane::background);
  const Tensor x = numbers(counting(6)), other = numbers(counting(6)), out = numbers(std::vector<float>(2));
  group.start_reduce_scatter(x, "x");
  backend_->add(other, other, other);
  EXPECT_EQ(read(other), times(counting(6), 2));
  group.finish_started();
  backend_->copy(out, x.rows(2, 2));
  EXPECT_EQ(read(out), (std::vector<float>{3 * ranks, 4 * ranks}));

  std::vector<Tensor> parts, wholes;
  std::vector<Started> started;
  for (int i = 0; i < 3; ++i) {
    parts.push_back(numbers(counting(2, 1.0f + static_cast<float>(i))));
    wholes.push_back(numbers(std::vector<float>(6)));
    started.push_back(group.start_all_gather(parts.back(), wholes.back(), "x"));
  }
  for (std::size_t i = 3; i-- > 0;) {
    group.finish(started[i]);
    const float first = 1.0f + static_cast<float>(i);
    EXPECT_EQ(read(wholes[i])[4], first);
  }
}

// Weights are on their way while forward begins: each parameter's are there when it is read, if forward says so before.
TEST_P(NcclOrder, WeightsHaveArrivedWhenForwardReadsThem) {
  const std::shared_ptr<Communicator> replicas = make({"dp", Lane::background, false});
  Mesh mesh = Mesh::single();
  for (const Axis axis : {Axis::world, Axis::dp, Axis::edp}) mesh.replace(axis, replicas);
  ParameterSet parameters;
  for (const char* name : {"a", "b", "c", "d"})
    parameters.add({.name = name, .shape = {80}, .slice = {80}, .split = Split::none});
  parameters.allocate(*backend_, *arena_, mesh, true);
  const Shards shards(parameters, mesh, 48);
  ASSERT_GT(shards.buckets().size(), 6u);
  GradientReducer reducer(*backend_, mesh, parameters, shards);

  for (const bool says_so : {true, false}) {
    for (const FlatBuffer& flat : parameters.flat_buffers()) backend_->fill(flat.values, -1.0f);
    for (const Bucket& bucket : shards.buckets())  // as the optimizer leaves them
      backend_->fill(parameters.flat_buffers()[bucket.flat].values.rows(bucket.owned.place, bucket.owned.size), 1.0f);
    backend_->synchronize();
    reducer.start_gathering_values();
    std::vector<Tensor> found;
    for (const Parameter& p : parameters) {
      if (says_so) reducer.expect_values_before(p.index + 1);
      backend_->copy(found.emplace_back(arena_->take({80})), p.value);
    }
    bool all = true;
    for (const Tensor& of : found)
      for (const float x : read(of)) all = all && x == 1.0f;
    EXPECT_EQ(all, says_so || GetParam()) << says_so;
    reducer.finish_gathering_values();
    backend_->synchronize();
  }
}

// The room that bf16 comes into is used again: not before it has been summed.
TEST_P(NcclOrder, RoomForBf16IsNotOverwrittenBeforeItIsSummed) {
  NcclCommunicator& group = this->group();
  const Tensor a = arena_->take(DType::bf16, {6}), b = arena_->take(DType::bf16, {6});
  const Tensor sum_of_a = arena_->take(DType::bf16, {2}), sum_of_b = arena_->take(DType::bf16, {2});
  backend_->fill(a, 1.0f);
  backend_->fill(b, 2.0f);
  group.reduce_scatter(a, sum_of_a, "a");
  group.reduce_scatter(b, sum_of_b, "b");
  std::vector<Bf16> found(2);
  backend_->copy_to_host(found.data(), sum_of_a);
  EXPECT_EQ(widened(found[1]), 3.0f);
  backend_->copy_to_host(found.data(), sum_of_b);
  EXPECT_EQ(widened(found[1]), 6.0f);
}

// Memory that is taken behind what a collective follows is not there for it.
TEST_P(NcclOrder, MemoryIsThereForACollectiveThatFollowsItsTaking) {
  CommunicationStream& lane = *backend_->communication(Lane::foreground);
  auto* const stream = static_cast<cuda_on_host::Stream*>(lane.native());
  const auto result = [&](bool takes_before) {
    backend_->synchronize();
    if (!takes_before) lane.follow_ops();
    void* const room = backend_->allocate(64);
    if (takes_before) lane.follow_ops();
    cuda_on_host::queue(stream, [stream, room] { cuda_on_host::expect_taken(stream, room); });
    lane.lead_ops(lane.mark());
    try {
      backend_->synchronize();
      backend_->release(room, 64);
      return true;
    } catch (const std::logic_error&) {
      backend_->release(room, 64);
      return false;
    }
  };
  EXPECT_TRUE(result(true));
  EXPECT_EQ(result(false), !GetParam());
}

// The tests above see it where one of the two waits is missing.
TEST_P(NcclOrder, AWaitThatIsMissingIsSeen) {
  CommunicationStream& lane = *backend_->communication(Lane::foreground);
  auto* const stream = static_cast<cuda_on_host::Stream*>(lane.native());
  const auto result = [&](bool follows, bool leads) {
    const Tensor x = numbers({1, 1}), out = numbers({0, 0});
    read(out);  // all is done so far
    float* const data = x.f32();
    backend_->add(x, x, x);
    if (follows) lane.follow_ops();
    cuda_on_host::queue(stream, [data] { data[0] += 10, data[1] += 10; });
    const std::uint64_t point = lane.mark();
    if (leads) lane.lead_ops(point);
    backend_->add(x, x, out);
    const float found = read(out)[0];
    backend_->communication(Lane::foreground)->lead_ops(point);
    backend_->synchronize();
    return found;
  };
  EXPECT_EQ(result(true, true), 24);
  const bool collectives_run_ahead = GetParam();
  EXPECT_EQ(result(false, true) == 24, !collectives_run_ahead);
  EXPECT_EQ(result(true, false) == 24, collectives_run_ahead);
}

INSTANTIATE_TEST_SUITE_P(RunAhead, NcclOrder, testing::Bool(),
                         [](const auto& info) { return info.param ? "collectives" : "ops"; });

// ---- what the watchdog is told ----

TEST_F(NcclCalls, ThatAreNotDoneAreShownOldestFirst) {
  const std::unique_ptr<NcclCommunicator> replicas = make({"dp", Lane::background, false});
  NcclCommunicator &group = this->group(), &gradients = *replicas;
  cuda_on_host::set_late(true);
  const Tensor x = numbers(counting(6));
  EXPECT_EQ(calls_.look(gpu_), "");
  EXPECT_TRUE(shown().empty());
  gradients.start_reduce_scatter(x, "gradients");
  group.all_reduce(x, Reduce::sum, "activations");
  EXPECT_EQ(calls_.look(gpu_), "");
  EXPECT_EQ(calls_.look(gpu_), "");
  EXPECT_EQ(shown(), (std::vector<std::string>{"1 reduce_scatter gradients"}));
  gradients.finish_started();
  backend_->synchronize();
  EXPECT_EQ(calls_.look(gpu_), "");
  EXPECT_EQ(shown(), (std::vector<std::string>{"1 reduce_scatter gradients", "left"}));
}

// The first of its kind makes connections, and the host waits for the others in that: seen as every collective of the host is.
TEST_F(NcclCalls, HoldTheHostInsideWhileTheyAreQueued) {
  struct Slow final : cuda_on_host::Wire {
    explicit Slow(std::function<void()> see) : on_exchange(std::move(see)) {}
    void fill(ncclUniqueId&) override {}
    int join(const ncclUniqueId&, int, int) override { return 0; }
    void exchange(int, int, const std::vector<cuda_on_host::Parcel>&,
                  const std::vector<cuda_on_host::Parcel>&) override {
      on_exchange();
    }
    std::function<void()> on_exchange;
  };
  NcclCommunicator& group = this->group();
  std::vector<std::string> during;
  noted_.entered.clear();
  cuda_on_host::set_wire(std::make_unique<Slow>([&] { during = noted_.entered; }));
  group.all_reduce(numbers(counting(6)), Reduce::sum, "x");
  cuda_on_host::set_wire(nullptr);
  EXPECT_EQ(during, (std::vector<std::string>{"all_reduce"}));
  EXPECT_EQ(noted_.entered, (std::vector<std::string>{"all_reduce", "left"}));
}

// An exception between the sends of one call leaves nothing open: the next call is carried out.
TEST_F(NcclCalls, OfRowsAreClosedWhereAnExceptionComesBetween) {
  NcclCommunicator& group = this->group();
  const Tensor in = numbers(counting(3)), out = numbers(std::vector<float>(3));
  const std::vector<std::int64_t> each(ranks, 1);
  cuda_on_host::nccl().failing_send = 2;
  EXPECT_THROW(group.all_to_all_v(in, each, out, each, "rows"), std::runtime_error);
  group.all_reduce(in, Reduce::sum, "x");
  EXPECT_EQ(read(in)[0], ranks);
}

TEST_F(NcclCalls, OfTwoAxesOverOneGroupShareIt) {
  const auto joined = join_by_nccl(host_, "world", calls_);
  EXPECT_EQ(cuda_on_host::nccl().groups, 1);
  {
    NcclCommunicator world(host_, *backend_, joined, {"world", Lane::background, false}, traffic_, calls_);
    {
      NcclCommunicator dp(host_, *backend_, joined, {"dp", Lane::background, false}, traffic_, calls_);
      dp.all_reduce(numbers(counting(3)), Reduce::sum, "x");
    }
    cuda_on_host::nccl().async_error = ncclSystemError;  // still watched
    EXPECT_NE(calls_.look(noted_), "");
    cuda_on_host::nccl().async_error = ncclSuccess;
    world.all_reduce(numbers(counting(3)), Reduce::sum, "x");
  }
  EXPECT_EQ(cuda_on_host::nccl().groups, 1);
}

TEST_F(NcclCalls, TroubleOfAGroupIsTold) {
  group();
  EXPECT_EQ(calls_.look(noted_), "");
  cuda_on_host::nccl().async_error = ncclRemoteError;
  EXPECT_EQ(calls_.look(noted_), "nccl: remote process exited or there was a network error");
  cuda_on_host::nccl().async_error = ncclSuccess;
  EXPECT_EQ(calls_.look(noted_), "");
}

TEST_F(NcclCalls, AGroupThatEndsWaitsForItsCallsAndIsGivenBack) {
  group();
  EXPECT_EQ(cuda_on_host::nccl().groups, 1);
  cuda_on_host::set_late(true);
  const Tensor x = numbers(counting(6));
  group_->start_reduce_scatter(x, "x");
  end_group();
  EXPECT_EQ(cuda_on_host::nccl().groups, 0);
  EXPECT_EQ(cuda_on_host::nccl().aborted, 0);
  EXPECT_EQ(read(x)[2], 3 * ranks);
  EXPECT_EQ(calls_.look(noted_), "");
}

// Another rank may never come to what this one has called: nothing is waited for on the way out of a failure.
TEST_F(NcclCalls, AGroupThatEndsInAFailureIsAborted) {
  try {
    const std::unique_ptr<NcclCommunicator> group = make({"tp", Lane::foreground, false});
    throw std::runtime_error("no more memory");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(cuda_on_host::nccl().aborted, 1);
  EXPECT_EQ(cuda_on_host::nccl().groups, 0);
}

}  // namespace
}  // namespace smoe
