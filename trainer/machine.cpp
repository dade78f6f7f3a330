#include "trainer/machine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <stdexcept>

namespace smoe {

std::uint64_t physical_memory_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), size = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0 ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(size) : 0;
}

std::uint64_t training_state_bytes(const ModelConfig& model, const Layout& layout) {
  const ParameterCounts counts = count_parameters(model);
  const auto bytes = [](std::int64_t parameters, int split, int replicas) {
    const auto held = static_cast<std::uint64_t>(parameters) / static_cast<std::uint64_t>(split);
    return 8 * held + 8 * held / static_cast<std::uint64_t>(replicas);
  };
  return bytes(counts.embedding + counts.attention, layout.tp, layout.dp()) + bytes(counts.experts, layout.ep, layout.edp()) +
         bytes(counts.routers + counts.norms, 1, layout.ranks);
}

void require_memory(const ModelConfig& model, std::uint64_t bytes, const char* purpose, const std::string& advice) {
  const std::int64_t parameters = count_parameters(model).total;
  const auto needed = static_cast<double>(bytes);
  const auto found = static_cast<double>(physical_memory_bytes());
  if (found == 0 || needed <= found) return;
  throw std::runtime_error(fmt::format("the model needs {:.1f} GiB here for {} ({} parameters), this machine has {:.1f} GiB of memory: choose a "
                                       "smaller model{}", needed / 0x1p30, purpose, parameters, found / 0x1p30, advice));
}

}  // namespace smoe
