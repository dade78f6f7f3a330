#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"

namespace smoe {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::int64_t copy_block = std::int64_t{1} << 20;  // bytes

void copy_bytes(int threads, void* to, const void* from, std::size_t bytes) {
  cpu::for_blocks(threads, static_cast<std::int64_t>(bytes), copy_block, [=](std::int64_t first, std::int64_t last) {
    std::memcpy(static_cast<char*>(to) + first, static_cast<const char*>(from) + first,
                static_cast<std::size_t>(last - first));
  });
}

}  // namespace

void* CpuBackend::allocate(std::size_t bytes) {
  const std::size_t alignment = bytes >= huge_page ? huge_page : memory_alignment;
  if (bytes > std::numeric_limits<std::size_t>::max() - alignment) throw std::bad_alloc();
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(alignment, rounded ? rounded : alignment);
  if (!data) throw std::bad_alloc();
  // Huge pages spare the matrix products most of their address translation. Advice: a refusal costs only speed.
  if (alignment == huge_page) madvise(data, rounded, MADV_HUGEPAGE);
  return data;
}

void CpuBackend::release(void* data, std::size_t) noexcept { std::free(data); }

void* CpuBackend::allocate_host(std::size_t bytes) { return allocate(bytes); }

void CpuBackend::release_host(void* data, std::size_t bytes) noexcept { release(data, bytes); }

void CpuBackend::do_copy_to_host(void* host, const Tensor& from) {
  copy_bytes(threads_, host, from.raw(), from.bytes());
}

void CpuBackend::do_copy_from_host(const Tensor& to, const void* host) {
  copy_bytes(threads_, to.raw(), host, to.bytes());
}

void CpuBackend::do_start_copy_to_host(void* host, const Tensor& from) { do_copy_to_host(host, from); }

void CpuBackend::do_copy(const Tensor& to, const Tensor& from) {
  copy_bytes(threads_, to.raw(), from.raw(), from.bytes());
}

void CpuBackend::do_fill(const Tensor& to, float value) {
  const auto fill_with = [&](auto* data) {
    using Number = std::remove_pointer_t<decltype(data)>;
    cpu::for_blocks(threads_, to.elements(), cpu::block_elements, [&](std::int64_t first, std::int64_t last) {
      std::fill(data + first, data + last, static_cast<Number>(value));
    });
  };
  switch (to.type()) {
    case DType::i32: return fill_with(to.i32());
    case DType::f64: return fill_with(to.f64());
    case DType::bf16: {
      const Bf16 half = rounded(value);
      return cpu::for_blocks(threads_, to.elements(), cpu::block_elements, [&](std::int64_t first, std::int64_t last) {
        std::fill(to.bf16() + first, to.bf16() + last, half);
      });
    }
    case DType::f32: return fill_with(to.f32());
  }
}

}  // namespace smoe
