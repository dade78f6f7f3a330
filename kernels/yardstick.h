// What this machine reaches at the moment of asking: the rates that a step or an op is held against. Machines change
// speed from minute to minute, so these are taken between the measurements that they judge, on the same backend.
#pragma once

#include <cstdint>

#include "kernels/arena.h"

namespace smoe {

class Yardstick {
 public:
  static constexpr std::int64_t product_size = 2048;                            // 48 MiB
  static constexpr std::int64_t triad_elements = 3 * (std::int64_t{16} << 20);  // 192 MiB: more than caches hold

  // n: of the square matrices. elements: of the triad's three arrays together.
  explicit Yardstick(Backend& backend, std::int64_t n = product_size, std::int64_t elements = triad_elements);
  // Bytes of a default one. On a GPU the product is that of Backend::measure_profile(), at most 8192 x 8192 in bf16.
  static constexpr std::uint64_t bytes_on(Device device) {
    return 4 * triad_elements + (device == Device::cpu ? 4 * 3 * product_size * product_size : 2 * 3 * 8192 * 8192);
  }

  double cores();    // flop/s of the arithmetic units alone, or of the GPU's best product (DeviceProfile::peak_flops)
  double product();  // flop/s of one n x n x n product, the backend's own; on a GPU cores() again, which is one
  double memory();   // bytes/s of Backend::measure_memory_rate
  // bytes/s, read and written, of the fastest of a few copies from one half of the triad's room to the other.
  double copy();

 private:
  Backend& backend_;
  Arena arena_;
  Tensor a_, b_, c_;  // of the product; on a GPU empty
  Tensor room_;       // of the triad and the copy
};

}  // namespace smoe
