#include "tests/kernels/repeated_numbers.h"

#include <algorithm>

#include "kernels/bf16.h"
#include "tests/reference/random.h"

namespace smoe::checks {

RepeatedNumbers::RepeatedNumbers(Backend& backend, const std::vector<float>& block)
    : backend_(backend),
      arena_(backend),
      f32_(arena_.take(DType::f32, {static_cast<std::int64_t>(block.size())})),
      bf16_(arena_.take(DType::bf16, f32_.shape())) {
  std::vector<Bf16> halves(block.size());
  std::transform(block.begin(), block.end(), halves.begin(), [](float x) { return rounded(x); });
  backend.copy_from_host(f32_, block.data());
  backend.copy_from_host(bf16_, halves.data());
}

void RepeatedNumbers::fill(const Tensor& to) {
  const Tensor& block = to.type() == DType::bf16 ? bf16_ : f32_;
  const std::int64_t count = to.elements(), length = block.elements();
  const Tensor flat = to.reshape({count});
  for (std::int64_t at = 0; at < count;) {
    const std::int64_t part = std::min(count - at, length - next_);
    backend_.copy(flat.rows(at, part), block.rows(next_, part));
    at += part;
    next_ = (next_ + part) % length;
  }
}

std::vector<float> uniform_block() {
  std::vector<float> block(static_cast<std::size_t>(RepeatedNumbers::period));
  std::uint64_t state = 1;
  for (float& value : block) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    value = static_cast<float>(static_cast<std::uint32_t>(state >> 33)) * 0x1.0p-30f - 1;
  }
  return block;
}

std::vector<float> normal_block(double standard_deviation) {
  reference::Random random(1);
  return reference::cast<float>(random.normals(RepeatedNumbers::period, standard_deviation));
}

}  // namespace smoe::checks
