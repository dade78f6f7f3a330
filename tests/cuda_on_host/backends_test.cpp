// The backends over which tests/kernels runs here: one, in several orders of its threads, and with its work done at once or late,
// and its attention the library's or our own.
#include <memory>
#include <vector>

#include "tests/cuda_on_host/block.h"
#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {
namespace {

BackendFactory ordered(std::string name, std::uint64_t order, bool late, bool fused_attention) {
  return {std::move(name), [=] {
            cuda_on_host::set_order(order);
            cuda_on_host::set_late(late);
            cuda_on_host::machine().fused_attention = fused_attention;
            return make_cuda_backend();
          }};
}

}  // namespace

std::vector<BackendFactory> backend_factories() {
  return {ordered("in_order", 0, false, true), ordered("reversed_and_late", 1, true, false),
          ordered("shuffled", 2, false, false)};
}

}  // namespace smoe::checks
