// Ops on bf16 by those on f32: what an op reads is widened before it, what it writes is rounded once after it. So there is
// one implementation of the maths. The ops that know both types themselves, to spare memory or time, are passed on as
// they are.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/arena.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/op_decorator.h"

namespace smoe {

class Bf16Edges final : public OpDecorator {
 public:
  explicit Bf16Edges(std::unique_ptr<CpuBackend> cpu);

 private:
  class Widened;
  void run(const char* op, const Call& call) override;
  // Of the caches only the rows that are filled, or will be, are moved.
  void do_attention_cached(const AttentionShape& shape, const Tensor& qkv, std::int64_t past, const Tensor& key_cache,
                           const Tensor& value_cache, const Tensor& out) override;

  std::unique_ptr<CpuBackend> cpu_;
  Arena scratch_;  // the widened arguments of one op
};

}  // namespace smoe
