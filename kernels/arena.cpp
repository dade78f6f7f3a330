#include "kernels/arena.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

namespace smoe {
namespace {
constexpr std::size_t smallest_block = std::size_t{1} << 20;
std::size_t aligned(std::size_t bytes) {
  return (std::max<std::size_t>(bytes, 1) + memory_alignment - 1) / memory_alignment * memory_alignment;
}
}  // namespace

OutOfMemory::OutOfMemory(std::size_t wanted_bytes, std::size_t held_bytes, const DeviceMemory& of_gpu) {
  const auto mib = [](auto bytes) { return static_cast<double>(bytes) / (1 << 20); };
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << "out of memory" << (of_gpu.total > 0 ? " of the GPU" : "") << ": "
       << mib(wanted_bytes) << " MiB more are wanted for tensors, beside " << mib(held_bytes) << " MiB";
  if (of_gpu.total > 0) text << "; " << mib(of_gpu.free) << " of its " << mib(of_gpu.total) << " MiB are free";
  message_ = text.str();
}

Arena::Arena(Backend& backend, std::size_t first_block_bytes) : backend_(backend) {
  if (first_block_bytes) grow(aligned(first_block_bytes));
}

Arena::~Arena() { release_all(); }

void Arena::release_all() {
  for (auto& b : blocks_) backend_.release(b.data, b.capacity);
  blocks_.clear();
  current_ = before_current_ = 0;
}

void Arena::grow(std::size_t bytes) {
  // A block is no smaller than the one before it, so that a first step of any size needs few of them.
  const std::size_t capacity = std::max({bytes, smallest_block, blocks_.empty() ? 0 : blocks_.back().capacity});
  try {
    blocks_.push_back({backend_.allocate(capacity), capacity, 0});
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(capacity, reserved_bytes(), backend_.device() == Device::cuda ? cuda_memory() : DeviceMemory{});
  }
}

Tensor Arena::take(DType type, Shape shape) {
  const std::size_t bytes = aligned(static_cast<std::size_t>(shape.elements()) * bytes_of(type));
  if (blocks_.empty()) grow(bytes);
  while (blocks_[current_].used + bytes > blocks_[current_].capacity) {
    if (current_ + 1 == blocks_.size()) grow(bytes);
    before_current_ += blocks_[current_].used;
    ++current_;
    blocks_[current_].used = 0;
  }
  Block& block = blocks_[current_];
  void* data = static_cast<std::byte*>(block.data) + block.used;
  block.used += bytes;
  high_water_ = std::max(high_water_, before_current_ + block.used);
  return Tensor(data, type, shape, backend_.device());
}

void Arena::rewind(Mark mark) {
  if (blocks_.empty()) return;
  if (mark.block == 0 && mark.used == 0 && blocks_.size() > 1) {
    release_all();
    try {
      grow(high_water_);
    } catch (const OutOfMemory&) {  // scopes are left with this, also where memory has just run out: take() says it
    }
    return;
  }
  while (current_ > mark.block) {
    blocks_[current_].used = 0;
    --current_;
    before_current_ -= blocks_[current_].used;
  }
  blocks_[current_].used = mark.used;
}

std::size_t Arena::reserved_bytes() const {
  std::size_t sum = 0;
  for (const auto& b : blocks_) sum += b.capacity;
  return sum;
}

}  // namespace smoe
