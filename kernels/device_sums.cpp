#include "kernels/device_sums.h"

namespace smoe {

void DeviceSums::reset(std::int64_t count) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(double);
  if (bytes > capacity_) {
    release();
    sums_ = Tensor(backend_.allocate(bytes), DType::f64, {count}, backend_.device());
    capacity_ = bytes;
  }
  sums_ = sums_.from_here({count});
  backend_.fill(sums_, 0.0f);
}

std::span<const double> DeviceSums::read() {
  host_.resize(static_cast<std::size_t>(sums_.elements()));
  backend_.copy_to_host(host_.data(), sums_);
  return host_;
}

void DeviceSums::release() noexcept {
  if (capacity_ > 0) backend_.release(sums_.raw(), capacity_);
  capacity_ = 0;
}

}  // namespace smoe
