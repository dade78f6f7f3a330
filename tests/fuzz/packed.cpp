// What gzip and zstd packed, as a stream.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "data/files/byte_stream.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {
namespace {

// Enough to see a loop or a block too many; a thousandth of what a bomb would become.
constexpr std::size_t most_bytes = 8 << 20;

std::string unpacked(const std::filesystem::path& path, std::size_t head, std::size_t step) {
  PeekedStream stream(open_byte_stream(path), "packed", head);
  require(stream.head().size() <= std::max<std::size_t>(head, 6), "a head is no longer than was asked for");
  std::string all, some(step, '\0');
  while (all.size() < most_bytes) {
    const std::size_t read = stream.read(some.data(), some.size());
    require(read <= some.size(), "no more is given than was asked for");
    if (read == 0) break;
    all.append(some, 0, read);
  }
  all.resize(std::min(all.size(), most_bytes));
  return all;
}

}  // namespace

bool run_packed(std::string_view input) {
  const auto path = folder("packed") / "f";
  put(path, input);
  if (compression_of(input) == Compression::none) return false;
  std::string by_blocks, by_bits;
  const bool read = reads([&] { by_blocks = unpacked(path, 6, 1 << 20); });
  const bool again = reads([&] { by_bits = unpacked(path, 1000, 517); });
  require(read == again, "what is read does not depend on the size of the steps");
  require(!read || by_blocks == by_bits, "and neither does what it is");
  return read;
}

}  // namespace smoe::fuzz
