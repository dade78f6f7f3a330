// Another backend, and a clock beside it: forwards every op and adds up calls, time and work by op and shape. What the
// ops compute is the other backend's, bit for bit. Where a device runs behind the host, each op is waited for.
//
// Nothing is allocated while ops run, and an op is told from the others in some tens of nanoseconds.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/op_work.h"

namespace smoe {

// The calls of one op at one shape.
struct OpTime {
  std::string op;         // the function's name in kernels/backend.h
  std::string shape;      // "T2048 D512", in the letters of kernels/backend.h; products: "nt m2048 n768 k512"
  std::int64_t rows = 0;  // of a product: tokens that pass through it at once (of each expert, on average); else 0
  std::int64_t calls = 0;
  double seconds = 0;  // of all calls
  Work work;           // of all calls; of attention: without counting off documents
};

class TimedBackend final : public Backend {
 public:
  explicit TimedBackend(Backend& inner) : inner_(inner), waits_(inner.device() != Device::cpu) {}

  void reset();                       // forgets what was timed
  std::vector<OpTime> times() const;  // since then, in the order in which they first ran
  // Off: ops are passed on, and neither timed nor waited for, until it is on again.
  void time_ops(bool on) { times_ops_ = on; }

  Device device() const override { return inner_.device(); }
  DeviceProfile measure_profile() override { return inner_.measure_profile(); }

  void* allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
  void release(void* data, std::size_t bytes) noexcept override { inner_.release(data, bytes); }
  void* allocate_host(std::size_t bytes) override { return inner_.allocate_host(bytes); }
  void release_host(void* data, std::size_t bytes) noexcept override { inner_.release_host(data, bytes); }
  Event record() override { return inner_.record(); }
  void wait(Event event) override { inner_.wait(event); }
  void synchronize() override { inner_.synchronize(); }
  Stamp stamp() override { return inner_.stamp(); }
  double seconds_between(Stamp from, Stamp to) override { return inner_.seconds_between(from, to); }
  void forget_stamps() override { inner_.forget_stamps(); }
  void begin_range(const char* name, int number) override { inner_.begin_range(name, number); }
  void end_range() noexcept override { inner_.end_range(); }

 private:
  double do_measure_memory_rate(const Tensor& room) override { return inner_.measure_memory_rate(room); }
#include "kernels/op_overrides.inc"

  static constexpr std::size_t slots = 512;  // a step has about 60 ops at one shape each
  struct Key {
    const char* op = nullptr;
    const char* letters = "";  // one for each of dims
    std::array<std::int64_t, 6> dims{};
    const char* kind = "";
    bool operator==(const Key&) const = default;
  };
  struct Record {
    Key key;
    std::int64_t rows = 0, calls = 0;
    double seconds = 0;
    Work work;
    std::size_t order = 0;  // of its first call
  };

  Record& find(const Key& key);
  // Runs `call` between two readings of the clock.
  template <class Call>
  void timed(const Key& key, const Work& work, const Call& call, std::int64_t rows = 0);

  Backend& inner_;
  bool waits_, times_ops_ = true;
  std::size_t used_ = 0;
  std::array<Record, slots> records_;  // open addressing
  Record rest_;                        // of a program with more shapes than that
};

}  // namespace smoe
