// Sums that stay where they are made until the host asks for all of them at once: the losses of a step's micro-batches,
// the squares of its gradient. Each is an `out` of Backend::sum or sum_of_squares.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace smoe {

class DeviceSums {
 public:
  explicit DeviceSums(Backend& backend) : backend_(backend) {}
  ~DeviceSums() { release(); }
  DeviceSums(const DeviceSums&) = delete;
  DeviceSums& operator=(const DeviceSums&) = delete;

  // `count` sums of zero. What was handed out before is invalid.
  void reset(std::int64_t count);
  Tensor operator[](std::int64_t i) const { return sums_.rows(i, 1); }  // [1] f64
  // Waits for all earlier work. Valid until the next call.
  std::span<const double> read();

 private:
  void release() noexcept;

  Backend& backend_;
  Tensor sums_;               // [count] f64
  std::size_t capacity_ = 0;  // bytes
  std::vector<double> host_;
};

}  // namespace smoe
