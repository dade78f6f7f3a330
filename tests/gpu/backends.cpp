// The backend over which the tests of tests/kernels run here.
#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {

std::vector<BackendFactory> backend_factories() { return {{"gpu", make_cuda_backend}}; }

}  // namespace smoe::checks
