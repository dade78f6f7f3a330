#include "trainer/machine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <stdexcept>

#include "model/mixtral.h"
#include "optim/adamw.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace smoe {

std::uint64_t physical_memory_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), size = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0 ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(size) : 0;
}

std::uint64_t training_state_bytes(const ModelConfig& model, const Layout& layout, const std::vector<std::string>& frozen) {
  const Mesh mesh = Mesh::placed(layout, layout.ranks - 1);  // the last one has the larger part of what does not divide
  ParameterSet parameters = declare_parameters(model, mesh, frozen);
  parameters.lay_out(mesh);
  return parameters.bytes(true) + AdamW::bytes(parameters, mesh);
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
