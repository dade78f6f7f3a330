// What the machine that we run on has.
#pragma once

#include <unistd.h>

#include <cstdint>

namespace smoe {

// Bytes of memory installed; 0 where the system does not say.
inline std::uint64_t physical_memory_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), size = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0 ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(size) : 0;
}

}  // namespace smoe
