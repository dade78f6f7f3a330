#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "kernels/cpu/checks.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

namespace smoe {
namespace {

constexpr std::size_t cache_line = 64;
constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::int64_t copy_block = std::int64_t{1} << 20;  // bytes

void copy_bytes(int threads, void* to, const void* from, std::size_t bytes) {
  cpu::for_blocks(threads, static_cast<std::int64_t>(bytes), copy_block, [=](std::int64_t first, std::int64_t last) {
    std::memcpy(static_cast<char*>(to) + first, static_cast<const char*>(from) + first, static_cast<std::size_t>(last - first));
  });
}

}  // namespace

void* CpuBackend::allocate(std::size_t bytes) {
  const std::size_t alignment = bytes >= huge_page ? huge_page : cache_line;
  if (bytes > std::numeric_limits<std::size_t>::max() - alignment) throw std::bad_alloc();
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(alignment, rounded ? rounded : alignment);
  if (!data) throw std::bad_alloc();
  // Huge pages spare the matrix products most of their address translation. Advice: a refusal costs only speed.
  if (alignment == huge_page) madvise(data, rounded, MADV_HUGEPAGE);
  return data;
}

void CpuBackend::release(void* data, std::size_t) noexcept { std::free(data); }

void CpuBackend::copy_to_host(void* host, const Tensor& from) { copy_bytes(threads_, host, from.data(), from.bytes()); }

void CpuBackend::copy_from_host(const Tensor& to, const void* host) {
  copy_bytes(threads_, to.data(), host, to.bytes());
}

void CpuBackend::copy(const Tensor& to, const Tensor& from) {
  const cpu::Expect expect("copy");
  expect("to", to, from.shape(), from.type());
  copy_bytes(threads_, to.data(), from.data(), from.bytes());
}

void CpuBackend::fill(const Tensor& to, float value) {
  cpu::Expect("fill").that(to.type() != DType::bf16, "f32 or i32 expected");
  const bool whole = to.type() == DType::i32;
  cpu::for_blocks(threads_, to.elements(), cpu::block_elements, [&](std::int64_t first, std::int64_t last) {
    if (whole)
      std::fill(to.i32() + first, to.i32() + last, static_cast<std::int32_t>(value));
    else
      std::fill(to.f32() + first, to.f32() + last, value);
  });
}

}  // namespace smoe
