#include "data/files/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <vector>

#include "data/files/files.h"

namespace smoe {

namespace {
void check(int ok) {
  if (ok != 1) throw std::runtime_error("the OpenSSL library refuses to compute SHA-256");
}
}  // namespace

struct Sha256::Context {
  EVP_MD_CTX* md = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(md); }
  void restart() { check(md != nullptr && EVP_DigestInit_ex(md, EVP_sha256(), nullptr) == 1); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) { context_->restart(); }
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::update(const void* data, std::size_t bytes) {
  check(EVP_DigestUpdate(context_->md, data, bytes));
  return *this;
}

std::string Sha256::hex() {
  std::array<unsigned char, 32> digest{};
  check(EVP_DigestFinal_ex(context_->md, digest.data(), nullptr));
  context_->restart();
  std::string text;
  for (unsigned char byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

std::string sha256_hex(std::string_view bytes) { return Sha256().update(bytes).hex(); }
std::string sha256_hex(std::span<const std::byte> bytes) { return Sha256().update(bytes).hex(); }

std::string sha256_file(const std::filesystem::path& path) {
  const File file = File::open_to_read(path);
  const std::uint64_t size = file.size();
  std::vector<std::byte> buffer(std::min<std::uint64_t>(size, 1 << 20));
  Sha256 hash;
  for (std::uint64_t offset = 0; offset < size; offset += buffer.size()) {
    const std::size_t bytes = std::min<std::uint64_t>(buffer.size(), size - offset);
    file.pread_all(buffer.data(), bytes, offset);
    hash.update(buffer.data(), bytes);
  }
  return hash.hex();
}

}  // namespace smoe
