#include <cstddef>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/error.h"

namespace smoe {
namespace {
using namespace cuda;

const std::byte* at(const Tensor& tensor, std::int64_t entry) {
  return static_cast<const std::byte*>(tensor.raw()) + entry * static_cast<std::int64_t>(bytes_of(tensor.type()));
}
std::byte* to(const Tensor& tensor, std::int64_t entry) { return const_cast<std::byte*>(at(tensor, entry)); }

// A product without terms is zero.
void multiply(Matrix& matrix, cudaStream_t stream, const Product& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k > 0) return matrix.multiply(p);
  const auto bytes = static_cast<std::size_t>(p.m * p.n) * bytes_of(p.out);
  if (p.write == Write::assign) check("gemm", cudaMemsetAsync(p.c, 0, bytes, stream));
}

}  // namespace

void CudaBackend::do_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, Write write) {
  const std::int64_t k = kind == Gemm::tn ? a.dim(0) : a.dim(1);
  multiply(matrix_, stream_, {kind, c.dim(0), c.dim(1), k, a.raw(), b.raw(), c.raw(), a.type(), c.type(), write});
}

// One product after another, at the sizes that the host knows. An expert without rows has none, but for a gradient to assign.
void CudaBackend::do_grouped_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows& rows,
                                  Write write) {
  const auto experts = static_cast<std::int64_t>(rows.host.size()) - 1;
  const std::int64_t a_columns = a.dim(1), c_columns = kind == Gemm::tn ? c.dim(2) : c.dim(1);
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t first = rows.host[static_cast<std::size_t>(e)];
    const std::int64_t count = rows.host[static_cast<std::size_t>(e) + 1] - first;
    Product p{kind, 0, c_columns, 0, at(a, first * a_columns), nullptr, nullptr, a.type(), c.type(), write};
    if (kind == Gemm::tn) {
      p.m = a_columns, p.k = count;
      p.b = at(b, first * c_columns);
      p.c = to(c, e * a_columns * c_columns);
    } else {
      p.m = count, p.k = a_columns;
      p.b = at(b, e * b.dim(1) * b.dim(2));
      p.c = to(c, first * c_columns);
    }
    multiply(matrix_, stream_, p);
  }
}

}  // namespace smoe
