#include "tests/fuzz/support.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "data/files/printable.h"
#include "tests/support/scratch_dir.h"

namespace smoe::fuzz {
namespace fs = std::filesystem;

fs::path folder(const std::string& name) {
  static const test::ScratchDir scratch;
  const fs::path path = scratch / name;
  fs::create_directories(path);
  return path;
}

// In place: a million files a minute are not made and removed.
void put(const fs::path& path, std::string_view bytes) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  const bool written = file >= 0 && ::write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  if (file >= 0) ::close(file);
  if (!written) throw std::logic_error("cannot write " + path.string());
}

void check_refusal(const std::string& message) {
  require(!message.empty(), "a refusal says something");
  require(printable(message) == message, "a refusal is text without control characters, found " + printable(message));
}

std::string_view take_part(std::string_view& input) {
  if (input.size() < 2) return {};
  const std::size_t length =
      static_cast<unsigned char>(input[0]) | static_cast<std::size_t>(static_cast<unsigned char>(input[1])) << 8;
  const std::string_view part = input.substr(2, length);
  input.remove_prefix(2 + part.size());
  return part;
}

std::string_view take_before_nul(std::string_view& input) {
  const std::size_t nul = input.find('\0');
  if (nul == std::string_view::npos) return {};
  const std::string_view part = input.substr(0, nul);
  input.remove_prefix(nul + 1);
  return part;
}

}  // namespace smoe::fuzz
