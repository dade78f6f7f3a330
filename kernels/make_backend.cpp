#include "kernels/backend.h"

namespace smoe {

Device device_of(DeviceChoice choice) {
  const bool is_cuda = choice == DeviceChoice::cuda || (choice == DeviceChoice::automatic && cuda_missing().empty());
  return is_cuda ? Device::cuda : Device::cpu;
}

std::unique_ptr<Backend> make_backend(DeviceChoice choice, int threads) {
  return device_of(choice) == Device::cuda ? make_cuda_backend() : make_cpu_backend(threads);
}

}  // namespace smoe
