// SHA-256 (FIPS 180-4) as lower-case hex, of bytes or of files; the manifests' checksum.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace smoe {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  Sha256& update(const void* data, std::size_t bytes);
  Sha256& update(std::string_view bytes) { return update(bytes.data(), bytes.size()); }
  Sha256& update(std::span<const std::byte> bytes) { return update(bytes.data(), bytes.size()); }
  // 64 hex digits of everything since the start or the last hex(); the object then starts afresh.
  std::string hex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string sha256_hex(std::string_view bytes);
std::string sha256_hex(std::span<const std::byte> bytes);
// Streams the file; throws std::runtime_error unless it is a readable regular file.
std::string sha256_file(const std::filesystem::path& path);

}  // namespace smoe
