#include <memory>
#include <stdexcept>
#include <string>

#include "kernels/backend.h"
#include "kernels/check_backend.h"

namespace smoe {

Device device_of(DeviceChoice choice) {
  if (choice == DeviceChoice::automatic) return cuda_missing().empty() ? Device::cuda : Device::cpu;
  return choice == DeviceChoice::cpu ? Device::cpu : Device::cuda;
}

std::unique_ptr<Backend> make_backend(DeviceChoice choice, int threads) {
  if (choice == DeviceChoice::check) {  // the CPU held against itself would say nothing
    if (const std::string missing = cuda_missing(); !missing.empty())
      throw std::runtime_error("device: " + missing +
                               (missing.find("expected") == missing.npos ? "; expected a GPU" : "") +
                               " (check holds a GPU against the CPU)");
    return make_check_backend(make_cuda_backend(), make_cpu_backend(threads));
  }
  return device_of(choice) == Device::cuda ? make_cuda_backend() : make_cpu_backend(threads);
}

}  // namespace smoe
