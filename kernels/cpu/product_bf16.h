// One matrix product of bf16 operands on one thread, by the products of f32: block by block the operands are widened into
// memory that stays in a cache, so that each is read from memory once, at two bytes a number.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/workspace.h"

namespace smoe::cpu {

// As product() (product.h), summed in f32; of bf16, c is rounded once.
void product_of_bf16(Workspace& room, ProductKernel kernel, Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k,
                     const Bf16* a, std::int64_t lda, const Bf16* b, std::int64_t ldb, float* c, std::int64_t ldc,
                     bool accumulate);
void product_of_bf16(Workspace& room, ProductKernel kernel, Gemm kind, std::int64_t m, std::int64_t n, std::int64_t k,
                     const Bf16* a, std::int64_t lda, const Bf16* b, std::int64_t ldb, Bf16* c, std::int64_t ldc,
                     bool accumulate);

}  // namespace smoe::cpu
