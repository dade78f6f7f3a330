// Errors planted into every kernel as it is, one at a time: a barrier that nobody waits at, a last block that does not run, a thread
// of each block that does nothing. The op list has to see each: a kernel whose rows or barriers could be left out unseen
// is a kernel that was not tried.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "tests/cuda_on_host/block.h"
#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {
namespace {
using cuda_on_host::machine;
using cuda_on_host::Place;
using cuda_on_host::Plant;

struct TypedCase {
  DType type;
  OpCase op_case;
  double seconds = 0;  // that it takes as it is
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
      for (const DType type : {DType::f32, DType::bf16}) cases.push_back({type, {c.name, false, {call}}, 0});
    }
  return cases;
}

std::vector<std::string> ops_with_kernels() {
  std::set<std::string> ops;
  for (const OpCase& c : compared_cases())
    for (const OpCall& call : c.calls) ops.insert(call.op);
  for (const char* op : {"gemm", "grouped_gemm", "copy", "copy_to_host", "copy_from_host", "start_copy_to_host"})
    ops.erase(op);
  return {ops.begin(), ops.end()};
}

class PlantedErrors : public testing::TestWithParam<std::string> {
 protected:
  PlantedErrors() {
    cuda_on_host::set_late(false);
    machine().fused_attention = false;  // ours is what is tried
    trying_ = static_cast<std::size_t*>(
        mmap(nullptr, sizeof *trying_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    if (trying_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~PlantedErrors() override {
    munmap(trying_, sizeof *trying_);
    cuda_on_host::set_plant({}), cuda_on_host::set_order(0);
    machine() = saved_;
  }

  // Whether a case disagrees with the reference, the emulation itself finds something undefined, or the program ends of it: what
  // is computed from wrong indices may do anything, so it is done in a process of its own. The case that saw it comes first
  // from then on: it is likely to see the next one.
  bool is_seen_apart(std::vector<TypedCase>& cases, const Plant& plant) {
    *trying_ = 0;
    const pid_t child = fork();
    if (child == 0) {
      if (!std::freopen("/dev/null", "w", stderr) || !std::freopen("/dev/null", "w", stdout)) _exit(2);
      planted = plant;
      for (; *trying_ < cases.size(); ++*trying_) {
        const std::unique_ptr<Backend> backend = make_cuda_backend();  // with nothing left of earlier calls
        for (const std::uint64_t order : {0, 1, 2})
          if (is_seen(cases[*trying_], *backend, order)) _exit(1);
      }
      _exit(0);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    if (status == 0) return false;
    const auto which = cases.begin() + static_cast<std::ptrdiff_t>(*trying_);
    std::rotate(cases.begin(), which, which + 1);
    return true;
  }

  static bool is_seen(const TypedCase& c, Backend& backend, std::uint64_t order) {
    cuda_on_host::set_order(order);
    try {
      for (const Comparison& x : compare_with_reference(c.op_case, backend, c.type))
        if (test::disagreement(x.found, x.truth, x.tolerance) != "") return true;
    } catch (const std::exception&) {
      return true;
    }
    return false;
  }

 private:
  cuda_on_host::Machine saved_ = machine();
  // Which of the cases, in memory that the child shares with us: it may end at any time.
  std::size_t* trying_ = nullptr;
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

// A kernel, the barriers that it was seen to meet, and the cases that launch it.
struct Tried {
  std::set<Place> barriers;
  std::vector<TypedCase> cases;

  void sort_by_cost() {  // the cheapest first
    std::stable_sort(cases.begin(), cases.end(),
                     [](const TypedCase& a, const TypedCase& b) { return a.seconds < b.seconds; });
  }
};

TEST_P(PlantedErrors, AreSeen) {
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  cuda_on_host::take_kernels_seen();
  std::map<const void*, Tried> kernels;
  for (TypedCase& c : cases_of(GetParam())) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_FALSE(is_seen(c, *backend, 0)) << c.op_case.name;
    c.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    for (const auto& [kernel, barriers] : cuda_on_host::take_kernels_seen()) {
      kernels[kernel].barriers.insert(barriers.begin(), barriers.end());
      kernels[kernel].cases.push_back(c);
    }
  }
  ASSERT_FALSE(kernels.empty());
  for (auto& [kernel, tried] : kernels) tried.sort_by_cost();
  std::vector<TypedCase> cheapest = {kernels.begin()->second.cases[0]};
  EXPECT_FALSE(is_seen_apart(cheapest, {})) << "nothing was planted into " << cheapest[0].op_case.name;
  for (auto& [kernel, tried] : kernels) {
    std::vector<Plant> plants = {{Plant::Error::last_block, kernel, {}, 0}, {Plant::Error::thread, kernel, {}, 0}};
    for (const Place& barrier : tried.barriers) plants.push_back({Plant::Error::barrier, kernel, barrier, 0});
    for (const Plant& plant : plants)
      EXPECT_TRUE(is_seen_apart(tried.cases, plant))
          << describe(plant) << " a kernel of " << tried.cases.size() << " cases, the first "
          << tried.cases[0].op_case.name << " in " << name_of(tried.cases[0].type);
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, PlantedErrors, testing::ValuesIn(ops_with_kernels()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace smoe::checks
