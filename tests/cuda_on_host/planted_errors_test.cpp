// Errors planted into every kernel as it is, one at a time: a barrier that nobody waits at, a last block that does not run, a thread
// of each block that does nothing. The op list has to see each: a kernel whose rows or barriers could be left out unseen
// is a kernel that was not tried.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/cuda_on_host/block.h"
#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {
namespace {
using cuda_on_host::Place;
using cuda_on_host::Plant;

struct TypedCase {
  DType type;
  OpCase op_case;
};

Plant planted;  // during the call alone: what prepares it has other kernels

// The calls of one op, each as a case of its own. What it launches is all that take_kernels_seen() tells of.
std::vector<TypedCase> cases_of(const std::string& op) {
  std::vector<TypedCase> cases;
  for (const OpCase& c : compared_cases())
    for (OpCall call : c.calls) {
      if (call.op != op || c.name.ends_with("far_positions")) continue;
      call.prepare = [prepare = call.prepare](Inputs& inputs) {
        Prepared prepared = prepare(inputs);
        inputs.backend().synchronize();
        cuda_on_host::take_kernels_seen();
        prepared.call = [call = prepared.call] {
          cuda_on_host::set_plant(planted);
          call();
          cuda_on_host::set_plant({});
        };
        return prepared;
      };
      for (const DType type : {DType::f32, DType::bf16}) cases.push_back({type, {c.name, false, {call}}});
    }
  return cases;
}

std::vector<std::string> ops_with_kernels() {
  std::set<std::string> ops;
  for (const OpCase& c : compared_cases())
    for (const OpCall& call : c.calls) ops.insert(call.op);
  for (const char* op :
       {"attention_cached", "gemm", "grouped_gemm", "copy", "copy_to_host", "copy_from_host", "start_copy_to_host"})
    ops.erase(op);
  return {ops.begin(), ops.end()};
}

class PlantedErrors : public testing::TestWithParam<std::string> {
 protected:
  ~PlantedErrors() override { cuda_on_host::set_plant({}), cuda_on_host::set_order(0); }

  // Whether the case disagrees with the reference, the emulation itself finds something undefined, or the program ends of it: what
  // is computed from wrong indices may do anything, so it is done in a process of its own.
  bool is_seen_apart(const TypedCase& c, const Plant& plant) {
    const pid_t child = fork();
    if (child == 0) {
      if (!std::freopen("/dev/null", "w", stderr) || !std::freopen("/dev/null", "w", stdout)) _exit(2);
      backend_ = make_cuda_backend();  // with nothing left of earlier calls
      planted = plant;
      _exit(is_seen(c) ? 1 : 0);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status != 0;
  }

  bool is_seen(const TypedCase& c) {
    bool seen = false;
    for (const std::uint64_t order : {0, 1, 2}) {
      if (seen) break;
      cuda_on_host::set_order(order);
      try {
        for (const Comparison& x : compare_with_reference(c.op_case, *backend_, c.type))
          seen = seen || test::disagreement(x.found, x.truth, x.tolerance) != "";
      } catch (const std::exception&) {
        seen = true;
      }
    }
    return seen;
  }

  std::unique_ptr<Backend> backend_ = make_cuda_backend();
};

std::string describe(const Plant& plant) {
  switch (plant.error) {
    case Plant::Error::last_block: return "without its last block:";
    case Plant::Error::thread: return "without its first threads:";
    case Plant::Error::barrier:
      return "without the barrier at " + std::string(plant.barrier.file) + ":" + std::to_string(plant.barrier.line) +
             ":";
    case Plant::Error::none: break;
  }
  return {};
}

TEST_P(PlantedErrors, AreSeen) {
  cuda_on_host::set_late(false);
  cuda_on_host::take_kernels_seen();
  struct Tried {
    std::set<Place> barriers;
    std::vector<TypedCase> cases;
  };
  std::map<const void*, Tried> kernels;
  for (const TypedCase& c : cases_of(GetParam())) {
    EXPECT_FALSE(is_seen(c)) << c.op_case.name;
    for (const auto& [kernel, barriers] : cuda_on_host::take_kernels_seen()) {
      kernels[kernel].barriers.insert(barriers.begin(), barriers.end());
      kernels[kernel].cases.push_back(c);
    }
  }
  ASSERT_FALSE(kernels.empty());
  for (const auto& [kernel, tried] : kernels) {
    std::vector<Plant> plants = {{Plant::Error::last_block, kernel, {}, 0}, {Plant::Error::thread, kernel, {}, 0}};
    for (const Place& barrier : tried.barriers) plants.push_back({Plant::Error::barrier, kernel, barrier, 0});
    for (const Plant& plant : plants) {
      bool seen = false;
      for (std::size_t i = 0; i < tried.cases.size() && !seen; ++i) seen = is_seen_apart(tried.cases[i], plant);
      EXPECT_TRUE(seen) << describe(plant) << " a kernel of " << tried.cases.size() << " cases, the first "
                        << tried.cases[0].op_case.name << " in " << name_of(tried.cases[0].type);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, PlantedErrors, testing::ValuesIn(ops_with_kernels()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace smoe::checks
