// How kernels/cuda/matrix.cu puts its products to cuBLASLt: the operands by their columns give what the CPU's product gives, and
// plans are shared by neighbours and by nobody else.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "kernels/cuda/matrix_plan.h"
#include "tests/cuda_on_host/block.h"
#include "tests/cuda_on_host/clock.h"
#include "tests/cuda_on_host/cublasLt.h"

namespace smoe::cuda {
namespace {

std::vector<float> noise(std::int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> draw(-1, 1);
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (float& number : numbers) number = draw(engine);
  return numbers;
}

// What the library computes, by its definition.
void compute(const ByColumns& call, float* out, bool adds) {
  const auto at = [](const ByColumns::Operand& operand, std::int64_t row, std::int64_t column) {
    if (operand.transposed) std::swap(row, column);
    EXPECT_LT(row, operand.rows);
    EXPECT_LT(column, operand.columns);
    EXPECT_GE(operand.stride, operand.rows);
    return double{static_cast<const float*>(operand.data)[column * operand.stride + row]};
  };
  EXPECT_GE(call.stride, call.rows);
  for (std::int64_t j = 0; j < call.columns; ++j)
    for (std::int64_t i = 0; i < call.rows; ++i) {
      double sum = 0;
      for (std::int64_t l = 0; l < call.depth; ++l) sum += at(call.first, i, l) * at(call.second, l, j);
      float& there = out[j * call.stride + i];
      there = static_cast<float>(sum) + (adds ? there : 0.0f);
    }
}

class ProductByColumns : public testing::TestWithParam<Gemm> {};

TEST_P(ProductByColumns, IsTheCpusProduct) {
  const Gemm kind = GetParam();
  const auto cpu = make_cpu_backend(1);
  for (const auto& [m, n, k] : std::vector<std::array<std::int64_t, 3>>{{3, 5, 7}, {1, 4, 2}, {6, 1, 3}, {8, 8, 1}})
    for (const Write write : {Write::assign, Write::add}) {
      std::vector<float> a = noise(m * k, 1), b = noise(n * k, 2), expected = noise(m * n, 3), found = expected;
      const auto tensor = [](std::vector<float>& numbers, std::int64_t rows, std::int64_t columns) {
        return Tensor(numbers.data(), DType::f32, {rows, columns});
      };
      cpu->gemm(kind, kind == Gemm::tn ? tensor(a, k, m) : tensor(a, m, k),
                kind == Gemm::nt ? tensor(b, n, k) : tensor(b, k, n), tensor(expected, m, n), write);
      compute(by_columns({kind, m, n, k, a.data(), b.data(), found.data(), DType::f32, DType::f32, write}),
              found.data(), write == Write::add);
      for (std::size_t i = 0; i < found.size(); ++i)
        EXPECT_NEAR(found[i], expected[i], 1e-5) << m << " x " << n << " x " << k << ", entry " << i;
    }
}

std::string name_of(const testing::TestParamInfo<Gemm>& kind) {
  const char* const names[] = {"nt", "nn", "tn"};
  return names[static_cast<int>(kind.param)];
}
INSTANTIATE_TEST_SUITE_P(Matrix, ProductByColumns, testing::Values(Gemm::nt, Gemm::nn, Gemm::tn), name_of);

TEST(MatrixPlan, RowsAreRoundedUpALittle) {
  std::set<std::int64_t> found;
  for (std::int64_t rows = 1; rows <= 1 << 16; ++rows) {
    const std::int64_t rounded = rounded_rows(rows);
    ASSERT_GE(rounded, rows);
    ASSERT_LE(8 * (rounded - rows), rows) << rows << " became " << rounded;
    ASSERT_EQ(rounded_rows(rounded), rounded);
    found.insert(rounded);
  }
  EXPECT_EQ(rounded_rows(4096), 4096);
  EXPECT_EQ(rounded_rows(4097), 4608);
  EXPECT_LE(found.size(), 16u + 8 * 12);
}

TEST(MatrixPlan, NeighboursShareOneAndOthersDoNot) {
  alignas(256) static char memory[512];
  const Product product{Gemm::nt, 1000, 64, 96, memory, memory, memory, DType::bf16, DType::bf16, Write::assign};
  const auto other = [&](auto change) {
    Product changed = product;
    change(changed);
    return shared_key(changed);
  };
  const PlanKey key = shared_key(product);
  EXPECT_EQ(other([](Product& p) { p.m = 1024; }), key);
  EXPECT_EQ(other([](Product& p) { p.a = memory + 32; }), key);
  EXPECT_NE(exact_key(product), key);
  std::set<std::size_t> hashes{PlanHash()(key)};
  for (const PlanKey& changed :
       {other([](Product& p) { p.m = 1025; }), other([](Product& p) { p.n = 65; }), other([](Product& p) { p.k = 97; }),
        other([](Product& p) { p.kind = Gemm::nn; }), other([](Product& p) { p.in = DType::f32; }),
        other([](Product& p) { p.out = DType::f32; }), other([](Product& p) { p.write = Write::add; }),
        other([](Product& p) { p.a = memory + 2; }), other([](Product& p) { p.b = memory + 4; }),
        other([](Product& p) { p.c = memory + 8; })}) {
    EXPECT_NE(changed, key);
    hashes.insert(PlanHash()(changed));
  }
  EXPECT_EQ(hashes.size(), 11u);
  // A sum over rows has them as its depth.
  const Product sum{Gemm::tn, 1000, 64, 1000, memory, memory, memory, DType::bf16, DType::f32, Write::add};
  EXPECT_EQ(shared_key(sum).k, 1024);
  EXPECT_EQ(shared_key(sum).m, 1000);
}

TEST(MatrixPlan, AlignmentIsThatOfEveryRow) {
  const auto of = [](std::uintptr_t address, std::int64_t columns, DType type) {
    return static_cast<int>(alignment_of(reinterpret_cast<void*>(address), columns, type));
  };
  EXPECT_EQ(of(256, 64, DType::bf16), 16);
  EXPECT_EQ(of(16, 8, DType::bf16), 16);
  EXPECT_EQ(of(16, 8, DType::f32), 16);
  EXPECT_EQ(of(24, 64, DType::f32), 8);
  EXPECT_EQ(of(4, 64, DType::f32), 4);
  EXPECT_EQ(of(1026, 64, DType::bf16), 2);
  EXPECT_EQ(of(256, 12, DType::bf16), 8);
  EXPECT_EQ(of(256, 33, DType::bf16), 2);
  EXPECT_EQ(of(256, 33, DType::f32), 4);
}

// Through kernels/cuda/matrix.cu and the emulated library: rows of a product of every kind, and what is asked for them.
std::vector<float> product_of(Backend& backend, Gemm kind, std::int64_t rows) {
  constexpr std::int64_t n = 6, k = 10;
  const std::int64_t m = kind == Gemm::tn ? k : rows, depth = kind == Gemm::tn ? rows : k;
  Arena arena(backend);
  const auto given = [&](std::int64_t r, std::int64_t c, unsigned seed) {
    const Tensor tensor = arena.take({r, c});
    backend.copy_from_host(tensor, noise(r * c, seed).data());
    return tensor;
  };
  const Tensor a = kind == Gemm::tn ? given(depth, m, 1) : given(m, depth, 1);
  const Tensor b = kind == Gemm::nt ? given(n, depth, 2) : given(depth, n, 2);
  const Tensor c = given(m, n, 3);
  backend.gemm(kind, a, b, c, Write::add);
  std::vector<float> host(static_cast<std::size_t>(c.elements()));
  backend.copy_to_host(host.data(), c);
  return host;
}

TEST(Matrix, NeighboursAreComputedByOnePlan) {
  using cuda_on_host::products;
  for (const Gemm kind : {Gemm::nt, Gemm::nn, Gemm::tn}) {
    const auto backend = make_cuda_backend(), cpu = make_cpu_backend(1);
    products() = {};
    for (std::int64_t rows = 61; rows <= 64; ++rows)
      EXPECT_EQ(product_of(*backend, kind, rows), product_of(*cpu, kind, rows)) << rows << " rows";
    EXPECT_EQ(products().questions, 1);
    product_of(*backend, kind, 65);
    EXPECT_EQ(products().questions, 2);
  }
}

TEST(Matrix, ARefusedPlanIsReplacedByTheShapesOwn) {
  using cuda_on_host::products;
  const auto backend = make_cuda_backend(), cpu = make_cpu_backend(1);
  products() = {.choosy = true};
  for (int time = 1; time <= 2; ++time)
    for (std::int64_t rows = 61; rows <= 64; ++rows)
      EXPECT_EQ(product_of(*backend, Gemm::nt, rows), product_of(*cpu, Gemm::nt, rows)) << rows << " rows";
  EXPECT_EQ(products().questions, 4);  // of 64 rows for all, and of three by themselves
  EXPECT_EQ(products().refused, 6);    // each time: how a product is computed depends on nothing that came before
  products() = {};
}

TEST(DeviceProfile, SaysWhatTheCardIsAndWhatItReaches) {
  cuda_on_host::set_time_between_events(1);
  for (const bool late : {false, true}) {
    cuda_on_host::set_late(late);
    const auto backend = make_cuda_backend();
    const std::size_t before = cuda_on_host::bytes_in_use();
    const DeviceProfile profile = backend->measure_profile();
    EXPECT_EQ(profile.name, "emulated on the host (sm_90, 3 multiprocessors, 1024 GiB)");
    EXPECT_EQ(profile.peak_form, "bf16 product 128^3");
    EXPECT_EQ(profile.peak_flops, 2.0 * 128 * 128 * 128 / 1e-3);
    backend->synchronize();
    EXPECT_EQ(cuda_on_host::bytes_in_use(), before);
  }
  cuda_on_host::set_late(false);
  cuda_on_host::set_time_between_events(0);
}

}  // namespace
}  // namespace smoe::cuda
