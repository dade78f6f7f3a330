// The backends over which tests/kernels runs here: one, in several orders of its threads, and with its work done at once or late.
#include <memory>
#include <vector>

#include "tests/cuda_on_host/block.h"
#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {
namespace {

BackendFactory ordered(std::string name, std::uint64_t order, bool late) {
  return {std::move(name), [=] {
            cuda_on_host::set_order(order);
            cuda_on_host::set_late(late);
            return make_cuda_backend();
          }};
}

}  // namespace

std::vector<BackendFactory> backend_factories() {
  return {ordered("in_order", 0, false), ordered("reversed_and_late", 1, true), ordered("shuffled", 2, false)};
}

}  // namespace smoe::checks
