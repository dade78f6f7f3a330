#include <stdexcept>

#include "kernels/backend.h"

namespace smoe {

std::unique_ptr<Backend> make_backend(DeviceChoice choice, int threads) {
  if (choice == DeviceChoice::cuda)
    throw std::runtime_error("device: found cuda, which is not in this build; expected auto or cpu");
  return make_cpu_backend(threads);
}

}  // namespace smoe
