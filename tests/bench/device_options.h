// What the programs of this folder are told alike: where to compute, in which type, at which model's sizes.
#pragma once

#include <omp.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "kernels/backend.h"
#include "kernels/yardstick.h"
#include "tests/kernels/bench_shapes.h"

namespace smoe::bench {

struct DeviceOptions {
  Device device = Device::cpu;
  DType type = DType::f32;
  BenchShape model = bench_shape("123m");
  int threads = omp_get_max_threads();  // of a CPU

  // Whether `name` is one of these; value() is what follows it.
  template <class Value>
  bool take(const std::string& name, const Value& value) {
    if (name == "--device")
      device = one_of(name, value(), "cpu", "cuda") ? Device::cuda : Device::cpu;
    else if (name == "--dtype")
      type = one_of(name, value(), "f32", "bf16") ? DType::bf16 : DType::f32;
    else if (name == "--model")
      model = bench_shape(value());
    else if (name == "--threads")
      threads = std::stoi(value());
    else
      return false;
    return true;
  }

  std::string device_name() const { return device == Device::cuda ? "cuda" : "cpu"; }
  std::unique_ptr<Backend> make() const {
    return device == Device::cuda ? make_cuda_backend() : make_cpu_backend(threads);
  }

 private:
  // Whether it is the second.
  static bool one_of(const std::string& name, const std::string& given, const char* first, const char* second) {
    if (given != first && given != second)
      throw std::runtime_error(name + " " + given + ": expected " + first + " or " + second);
    return given == second;
  }
};

// f32 numbers of the yardstick's room. A GPU's second-level cache holds half of what the CPU's triad takes, so it copies more.
inline std::int64_t yardstick_elements(Device device, bool quick) {
  return quick ? 3 * 4096 : device == Device::cuda ? std::int64_t{1} << 28 : Yardstick::triad_elements;
}

}  // namespace smoe::bench
