#include "kernels/backend.h"

namespace smoe {

std::unique_ptr<Backend> make_backend(DeviceChoice choice, int threads) {
  const bool is_cuda = choice == DeviceChoice::cuda || (choice == DeviceChoice::automatic && cuda_missing().empty());
  return is_cuda ? make_cuda_backend() : make_cpu_backend(threads);
}

}  // namespace smoe
