// The record of a backend's ops: what it tells, in which order, and that it changes no bit.
#include "kernels/trace_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "kernels/range.h"
#include "tests/kernels/backend_vs_reference.h"

namespace smoe {
namespace {

using Names = std::vector<std::string>;

class TraceBackendTest : public testing::Test {
 protected:
  Names ops() const {
    Names names;
    for (const TracedOp& op : trace_.ops()) names.emplace_back(op.name);
    return names;
  }

  TraceBackend trace_{make_cpu_backend(1)};
  Arena arena_{trace_};
};

TEST_F(TraceBackendTest, OpsLieInTheRangesThatEncloseThemInTheOrderOfTheirCalls) {
  const Tensor x = arena_.take({4, 8});
  trace_.start();
  const std::int64_t begin = host_nanoseconds();
  {
    const Range layer(trace_, "layer", 3);
    trace_.fill(x, 1);
    {
      const Range attention(trace_, "attention");
      trace_.add(x, x, x);
    }
  }
  trace_.fill(x, 0);
  const std::int64_t end = host_nanoseconds();
  trace_.stop();

  EXPECT_EQ(ops(), (Names{"fill", "add", "fill"}));
  std::vector<std::int64_t> moments{begin - 1'000'000};
  const auto then = [&](std::int64_t moment) {
    EXPECT_GE(moment, moments.back()) << "number " << moments.size();
    moments.push_back(moment);
  };
  ASSERT_EQ(trace_.ranges().size(), 2u);
  const TracedRange &layer = trace_.ranges()[0], &attention = trace_.ranges()[1];
  EXPECT_EQ(layer.name + std::string(" ") + std::to_string(layer.number), "layer 3");
  EXPECT_EQ(attention.name, std::string("attention"));
  EXPECT_LT(attention.number, 0);
  for (const Stamp stamp :
       {layer.begin, trace_.ops()[0].begin, trace_.ops()[0].end, attention.begin, trace_.ops()[1].begin,
        trace_.ops()[1].end, attention.end, layer.end, trace_.ops()[2].begin, trace_.ops()[2].end})
    then(trace_.host_time(stamp));
  then(end + 1'000'000);
  for (const TracedOp& op : trace_.ops()) {  // a CPU works where it is called
    EXPECT_LE(op.call.begin, op.call.end);
    EXPECT_NEAR(static_cast<double>(trace_.host_time(op.begin) - op.call.begin), 0, 1e6);
  }
}

TEST_F(TraceBackendTest, ArgumentsAreThoseThatWereGiven) {
  const Tensor x = arena_.take({4, 8}), weight = arena_.take({8}), rstd = arena_.take({4}), dy = arena_.take({4, 8}),
               dx = arena_.take({4, 8}), ids = arena_.take(DType::i32, {3}), table = arena_.take(DType::bf16, {5, 8}),
               rows = arena_.take(DType::bf16, {3, 8});
  for (const Tensor& tensor : {x, weight, rstd, dy, ids, table}) trace_.fill(tensor, 0);
  trace_.start();
  trace_.rms_norm_backward(dy, x, weight, rstd, Tensor(), dx, Tensor());
  trace_.embedding_forward(ids, table, 0, 5, rows);
  trace_.stop();
  const auto told = [&](std::size_t op) {
    std::set<std::string> names;
    for (const TracedArgument& argument : trace_.arguments_of(trace_.ops().at(op)))
      names.insert(argument.name + (" " + argument.shape.to_string()) + " " + name_of(argument.type));
    return names;
  };
  EXPECT_EQ(told(0), (std::set<std::string>{"dy [4, 8] f32", "x [4, 8] f32", "weight [8] f32", "rstd [4] f32",
                                            "dx [4, 8] f32"}));
  EXPECT_EQ(told(1), (std::set<std::string>{"ids [3] i32", "table [5, 8] bf16", "out [3, 8] bf16"}));
}

TEST_F(TraceBackendTest, NothingIsRecordedWhereNobodyAskedAndStartForgets) {
  const Tensor x = arena_.take({4});
  trace_.fill(x, 1);
  EXPECT_TRUE(ops().empty());
  trace_.start();
  trace_.fill(x, 1);
  trace_.synchronize();
  EXPECT_EQ(trace_.waits().size(), 1u);
  trace_.start();
  trace_.add(x, x, x);
  trace_.stop();
  trace_.fill(x, 1);
  EXPECT_EQ(ops(), (Names{"add"}));
  EXPECT_TRUE(trace_.waits().empty());
}

// A range that began before, and one that ends after.
TEST_F(TraceBackendTest, RangesAreThoseThatLieWithin) {
  {
    const Range before(trace_, "before");
    trace_.start();
    const Range within(trace_, "within");
  }
  auto after = std::make_unique<Range>(trace_, "after");
  trace_.stop();
  after.reset();
  ASSERT_EQ(trace_.ranges().size(), 2u);
  EXPECT_EQ(trace_.ranges()[0].name, std::string("within"));
  EXPECT_EQ(trace_.host_time(trace_.ranges()[1].begin), trace_.host_time(trace_.ranges()[1].end));
}

}  // namespace

namespace checks {
namespace {

// Every call of the op list, beside the backend alone.
TEST(TraceBackendOps, EachIsRecordedByItsNameAndComputesTheSameBits) {
  const std::unique_ptr<Backend> alone = make_cpu_backend(1);
  TraceBackend trace(make_cpu_backend(1));
  for (const OpCase& op_case : compared_cases())
    for (const OpCall& call : op_case.calls) {
      const auto found = [&](Backend& backend, const std::function<void()>& before,
                             const std::function<void()>& after) {
        Inputs inputs(backend, op_case.name);
        const Prepared prepared = call.prepare(inputs);
        before();
        prepared.call();
        after();
        std::vector<Values> outputs;
        for (const Output& output : prepared.outputs) outputs.push_back(inputs.read(output.tensor));
        return outputs;
      };
      const auto nothing = [] {};
      const std::vector<Values> truth = found(*alone, nothing, nothing),
                                traced = found(
                                    trace, [&] { trace.start(); }, [&] { trace.stop(); });
      ASSERT_EQ(traced.size(), truth.size());
      for (std::size_t i = 0; i < truth.size(); ++i)
        EXPECT_TRUE(std::equal(truth[i].begin(), truth[i].end(), traced[i].begin(), traced[i].end(),
                               [](double a, double b) { return a == b || (a != a && b != b); }))
            << call.op << " of " << op_case.name;
      std::set<std::string> names;
      for (const TracedOp& op : trace.ops()) names.insert(op.name);
      EXPECT_TRUE(names.contains(call.op)) << call.op << " of " << op_case.name;
    }
}

}  // namespace
}  // namespace checks
}  // namespace smoe
