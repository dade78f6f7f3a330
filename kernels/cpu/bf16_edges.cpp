#include "kernels/cpu/bf16_edges.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "kernels/cpu/parallel.h"

namespace smoe {
namespace {

constexpr std::array<std::string_view, 9> take_either_type = {"copy_to_host", "copy_from_host", "start_copy_to_host",
                                                              "copy",         "fill",           "embedding_forward",
                                                              "gemm",         "grouped_gemm",   "adamw"};

}  // namespace

// The arguments of one call, in f32.
class Bf16Edges::Widened final : public Placing {
 public:
  Widened(int threads, Arena& scratch) : threads_(threads), scratch_(scratch) {}

  void round_outputs() const {
    for (std::size_t i = 0; i < written_; ++i) {
      const float* from = outputs_[i].wide.f32();
      Bf16* to = outputs_[i].half.bf16();
      cpu::for_blocks(threads_, outputs_[i].half.elements(), cpu::block_elements,
                      [=](std::int64_t first, std::int64_t last) {
#pragma omp simd
                        for (std::int64_t k = first; k < last; ++k) to[k] = rounded(from[k]);
                      });
    }
  }

 private:
  struct Output {
    Tensor half, wide;
  };

  Tensor place(const char*, const Tensor& tensor, Access access) const override {
    if (tensor.type() != DType::bf16 || tensor.empty()) return tensor;
    const Tensor wide = scratch_.take(tensor.shape());
    if (access != Access::write) {
      const Bf16* from = tensor.bf16();
      float* to = wide.f32();
      cpu::for_blocks(threads_, tensor.elements(), cpu::block_elements, [=](std::int64_t first, std::int64_t last) {
#pragma omp simd
        for (std::int64_t k = first; k < last; ++k) to[k] = widened(from[k]);
      });
    }
    if (access != Access::read) outputs_.at(written_++) = {tensor, wide};
    return wide;
  }

  int threads_;
  Arena& scratch_;
  mutable std::array<Output, 4> outputs_;
  mutable std::size_t written_ = 0;
};

Bf16Edges::Bf16Edges(std::unique_ptr<CpuBackend> cpu) : OpDecorator(*cpu), cpu_(std::move(cpu)), scratch_(*cpu_) {}

void Bf16Edges::run(const char* op, const Call& call) {
  if (std::find(take_either_type.begin(), take_either_type.end(), op) != take_either_type.end())
    return call(*cpu_, Placing());
  const ArenaScope scope(scratch_);
  const Widened arguments(cpu_->threads(), scratch_);
  call(*cpu_, arguments);
  arguments.round_outputs();
}

void Bf16Edges::do_attention_cached(const AttentionShape& shape, const Tensor& qkv, std::int64_t past,
                                    const Tensor& key_cache, const Tensor& value_cache, const Tensor& out) {
  const std::int64_t filled = past + qkv.dim(0);
  OpDecorator::do_attention_cached(shape, qkv, past, key_cache.rows(0, filled), value_cache.rows(0, filled), out);
}

}  // namespace smoe
