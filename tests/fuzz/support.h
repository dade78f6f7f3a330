// What the targets share: files made of an input, inputs of several parts, and what every refusal must be.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

namespace smoe::fuzz {

// A property that did not hold. Not a runtime_error: nothing takes it for a refusal.
class Broken : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

inline void require(bool holds, const std::string& property) {
  if (!holds) throw Broken(property);
}

// A folder of this process below TMPDIR (best one in memory), made if missing and removed when the process ends.
std::filesystem::path folder(const std::string& name);

// Writes a file into such a folder, over what stood there.
void put(const std::filesystem::path& path, std::string_view bytes);

// Throws Broken unless the message is text without control characters.
void check_refusal(const std::string& message);

// Runs a reader: true if it read, false if it refused.
template <class Reader>
bool reads(Reader&& reader) {
  try {
    reader();
    return true;
  } catch (const std::runtime_error& refusal) {
    check_refusal(refusal.what());
    return false;
  }
}

// Takes a u16 length and as many bytes (fewer where the input ends) off the front.
std::string_view take_part(std::string_view& input);

// Takes what stands before the first zero byte, and that byte; empty where there is none.
std::string_view take_before_nul(std::string_view& input);

}  // namespace smoe::fuzz
