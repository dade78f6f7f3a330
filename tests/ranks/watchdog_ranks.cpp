// A job that commits the fault it is asked for; watchdog_test.sh stops its processes from outside and judges its end.
//   watchdog_ranks CASE LIMIT_SECONDS FOLDER
// Each rank leaves its process id in FOLDER/pid.RANK when it comes to the place of the fault.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <thread>
#include <stdexcept>
#include <vector>

#include "kernels/communication_stream.h"
#include "parallel/comm/device_calls.h"
#include "parallel/mesh.h"

namespace smoe {
namespace {

using Clock = std::chrono::steady_clock;

void sleep_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// A GPU that does not get on, or that says why.
class StuckGpu final : public CommunicationStream {
 public:
  explicit StuckGpu(bool broken) : broken_(broken) {}
  void* native() const override { return nullptr; }
  void follow_ops() override {}
  std::uint64_t mark() override { return 1; }
  void lead_ops(std::uint64_t) override {}
  bool is_past(std::uint64_t) override {
    if (broken_) throw std::runtime_error("cuda: a collective: unspecified launch failure (cudaErrorLaunchFailure)");
    return false;
  }
  Stamp stamp() override { return {}; }

 private:
  bool broken_;
};

class Job {
 public:
  Job(MpiSession& session, double limit, std::string folder)
      : session_(session),
        mesh_(Mesh::over(session, {.ranks = session.size()})),
        world_(mesh_.group(Axis::world)),
        limit_(limit),
        folder_(std::move(folder)) {}

  void run(const std::string& fault) {
    for (int i = 0; i < 20; ++i) step();
    if (fault == "stopped_in_long_work") {
      const LongWork saving(&session_, "saving step 7");
      leave_pid();
      if (is_last()) sleep_seconds(60);
      return barrier("test.saved");
    }
    leave_pid();
    if (fault == "loop") return loop_for(60);
    if (fault == "catches_sigterm") {  // as a program that saves when it is asked to end
      std::signal(SIGTERM, [](int) {});
      return loop_for(60);
    }
    if (fault == "slow_steps") {  // in which the other ranks wait for the last one most of the time
      for (int i = 0; i < 7; ++i) {
        if (is_last()) sleep_seconds(0.3 * limit_);
        step();
      }
      return;
    }
    if (fault == "skips") {
      if (!is_last()) reduce("test.skipped");
      return barrier("test.next");
    }
    if (fault == "calls_another") {
      if (is_last())
        world_.broadcast(view(), 0, "test.wrong");
      else
        reduce("test.expected");
      return;
    }
    if (fault == "gpu_is_missed" || fault == "gpu_breaks") {
      StuckGpu gpu(fault == "gpu_breaks");
      if (is_last() == (fault == "gpu_breaks"))
        session_.device_calls().add(gpu, 1, {"reduce_scatter", "dp", "test.gradients", "f32", 3000});
      return sleep_seconds(60);  // as a host that waits for its GPU
    }
    if (fault == "stays_outside") {
      if (is_last()) sleep_seconds(60);
      return barrier("test.next");
    }
    if (fault == "ends_early") {
      if (!is_last()) barrier("test.next");
      return;
    }
    if (fault == "long_work") {
      {
        const LongWork saving(&session_, "saving step 7");
        const LongWork writing(&session_, "writing a shard");
        if (is_last()) sleep_seconds(limit_ + 0.5);
        barrier("test.saved");
      }
      // Also where only the rank at work holds it. Its end gives those who wait the whole limit again.
      if (is_last()) {
        {
          const LongWork saving(&session_, "saving step 8");
          sleep_seconds(limit_ + 0.5);
        }
        sleep_seconds(0.6 * limit_);
      }
      return barrier("test.after");
    }
    if (fault == "busy") return loop_for(10, 0.02);
    throw std::runtime_error("no such fault: " + fault);
  }

 private:
  static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }
  void leave_pid() const {
    const std::string file = folder_ + "/pid." + std::to_string(session_.rank());
    std::ofstream(file + ".new") << ::getpid() << '\n';
    std::rename((file + ".new").c_str(), file.c_str());
  }
  bool is_last() const { return session_.rank() == session_.size() - 1; }
  Tensor view() { return {numbers_.data(), DType::f32, {static_cast<std::int64_t>(numbers_.size())}}; }
  void reduce(std::string_view label) { world_.all_reduce(view(), Reduce::max, label); }
  void barrier(std::string_view label) { world_.barrier(label); }
  void step() {
    reduce("test.step");
    barrier("test.between");
  }

  // All ranks go on until rank 0 says that the time is over.
  void loop_for(double seconds, double busy = 0.001) {
    const auto start = Clock::now();
    for (std::vector<std::int32_t> go{1}; go[0] != 0;) {
      for (int i = 0; i < 5; ++i) step();
      compute(busy);
      go[0] = seconds_since(start) < seconds;
      world_.broadcast(Tensor(go.data(), DType::i32, {1}), 0, "test.go");
    }
  }

  void compute(double seconds) {
    const auto start = Clock::now();
    while (seconds_since(start) < seconds)
      for (float& x : numbers_) x = 0.5f * x + 1;
  }

  MpiSession& session_;
  Mesh mesh_;
  Communicator& world_;
  double limit_;
  std::string folder_;
  std::vector<float> numbers_ = std::vector<float>(3000);
};

}  // namespace
}  // namespace smoe

int main(int argc, char** argv) {
  smoe::MpiSession session(&argc, &argv);
  if (argc != 4) {
    std::fprintf(stderr, "watchdog_ranks CASE LIMIT_SECONDS FOLDER\n");
    return 2;
  }
  const double limit = std::stod(argv[2]);
  session.set_timeout(limit);
  try {
    smoe::Job(session, limit, argv[3]).run(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d: %s\n", session.rank(), error.what());
    session.abort(1);
  }
  return 0;
}
