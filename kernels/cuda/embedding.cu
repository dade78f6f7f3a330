#include <bit>
#include <cstdint>

#include "kernels/cuda/copy_row.h"
#include "kernels/cuda/counting_sort.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/token_noise.h"

namespace smoe {
namespace {
using namespace cuda;

// The row of the table [rows, D] that a token has, and `rows` where it is another rank's, or none's.
struct TableRow {
  const std::int32_t* ids;
  IdCheck check;
  std::int64_t first;
  int rows;
  __device__ int operator()(std::int64_t t) const {
    const std::int32_t id = ids[t];
    const std::int64_t row = id - first;
    return check(id, t) && row >= 0 && row < rows ? static_cast<int>(row) : rows;
  }
};

template <class A, int W>
__global__ void embedding_forward_kernel(TableRow row_of, const A* table, int pieces, A* out) {
  using Piece = Pack<A, W>;
  const std::int64_t t = blockIdx.x;
  const int row = row_of(t);
  copy_row(row < row_of.rows ? reinterpret_cast<const Piece*>(table) + std::int64_t{row} * pieces : nullptr,
           reinterpret_cast<Piece*>(out) + t * pieces, pieces);
}

// ---- backward: the tokens sorted by their rows of the table, then a sum of each row's ----

struct RowsOfTokens {
  std::int32_t *rows, *tokens;
};

// A digit of a token's row: from the ids in the first pass, from what the pass before has sorted in the others.
struct FirstDigit {
  TableRow row_of;
  int mask;
  __device__ int operator()(int i) const { return row_of(i) & mask; }
};
struct LaterDigit {
  const std::int32_t* rows;
  int shift, mask;
  __device__ int operator()(int i) const { return rows[i] >> shift & mask; }
};
struct FirstMove {
  TableRow row_of;
  RowsOfTokens to;
  __device__ void operator()(int i, int, int place) const {
    to.rows[place] = row_of(i);
    to.tokens[place] = i;
  }
  __device__ void none(int) const {}
};
struct LaterMove {
  RowsOfTokens from, to;
  __device__ void operator()(int i, int, int place) const {
    to.rows[place] = from.rows[i];
    to.tokens[place] = from.tokens[i];
  }
  __device__ void none(int) const {}
};

constexpr int most_digit_bits = 8;
constexpr int embedding_threads = 128, tokens_at_once = 8;

// A block a place of the sorted tokens, and slice of columns. That where a row of the table begins adds up all of the row's
// tokens, in their order; the others have nothing to do.
template <class A, int W>
__global__ void __launch_bounds__(embedding_threads)
    embedding_backward_kernel(RowsOfTokens sorted, int tokens, int rows, const A* dout, int pieces, int slices,
                              float* dtable) {
  int i = static_cast<int>(blockIdx.x / static_cast<unsigned>(slices));
  const int slice = static_cast<int>(blockIdx.x % static_cast<unsigned>(slices));
  const int row = sorted.rows[i];
  if (row >= rows || (i > 0 && sorted.rows[i - 1] == row)) return;
  const int piece = slice * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
  if (piece >= pieces) return;
  float sum[W]{};
  for (bool more = true; more; i += tokens_at_once) {
    Pack<A, W> part[tokens_at_once];
    bool there[tokens_at_once];
#pragma unroll
    for (int j = 0; j < tokens_at_once; ++j) {
      there[j] = i + j < tokens && sorted.rows[i + j] == row;
      if (there[j]) {
        const std::int64_t t = sorted.tokens[i + j];
        part[j] = reinterpret_cast<const Pack<A, W>*>(dout)[t * pieces + piece];
      }
    }
#pragma unroll
    for (int j = 0; j < tokens_at_once; ++j)
#pragma unroll
      for (int w = 0; w < W; ++w)
        if (there[j]) sum[w] += to_float(part[j].at[w]);
    more = there[tokens_at_once - 1];
  }
  float* to = dtable + (std::int64_t{row} * pieces + piece) * W;
  float total[W];
  load(to, total);
#pragma unroll
  for (int w = 0; w < W; ++w) total[w] += sum[w];
  store(to, total);
}

// A block has a token, as in jitter.cu.
template <class A, int W>
__global__ void add_noise_kernel(TokenNoise noise, const float* row_scales, A* x, int columns) {
  constexpr int entries = W > entries_of_a_draw ? W : entries_of_a_draw;
  const std::int64_t t = blockIdx.x;
  const float scale = row_scales[t];
  if (scale == 0.0f) return;
  const float width = noise.width * scale;
  x += t * columns;
  for (int d = threadIdx.x * entries; d < columns; d += blockDim.x * entries) {
    float draws[entries];
#pragma unroll
    for (int i = 0; i < entries; i += entries_of_a_draw)
      draw_noise(noise, static_cast<std::uint64_t>(noise.first_token + t), (d + i) / entries_of_a_draw, draws + i);
#pragma unroll
    for (int i = 0; i < entries; i += W) {
      if (d + i >= columns) break;
      float numbers[W];
      load(x + d + i, numbers);
#pragma unroll
      for (int w = 0; w < W; ++w) numbers[w] += width * draws[i + w];
      store(x + d + i, numbers);
    }
  }
}

}  // namespace

void CudaBackend::do_embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first,
                                       std::int64_t vocabulary, const Tensor& out) {
  const std::int64_t T = out.dim(0), D = out.dim(1);
  const TableRow row_of{ids.i32(), complaints_.ids("embedding_forward", "ids", vocabulary, -1), first,
                        static_cast<int>(table.dim(0))};
  by_type_and_width(out.type(), D, {table, out}, [&]<class A, int W>() {
    launch(stream_, "embedding_forward", {T, threads_for_copy(D / W)}, embedding_forward_kernel<A, W>, row_of,
           data<A>(table), static_cast<int>(D / W), data<A>(out));
  });
}

void CudaBackend::do_embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first,
                                        std::int64_t vocabulary, const Tensor& dtable) {
  const char* op = "embedding_backward";
  const std::int64_t T = dout.dim(0), D = dout.dim(1);
  const int V = static_cast<int>(dtable.dim(0));
  if (T == 0) return;
  const TableRow row_of{ids.i32(), complaints_.ids(op, "ids", vocabulary, -1), first, V};

  // Digits of equal size, the lowest first. Rows are 0 .. V, that of no row the last.
  const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<unsigned>(V))));
  const int passes = static_cast<int>(ceil_div(bits, most_digit_bits));
  const int digit_bits = static_cast<int>(ceil_div(bits, passes));
  const int keys = 1 << digit_bits, mask = keys - 1;
  auto* numbers = workspace_.take<std::int32_t>(4 * T + sort_counts(T, keys));
  RowsOfTokens sorted{numbers, numbers + T}, other{numbers + 2 * T, numbers + 3 * T};
  std::int32_t* counts = numbers + 4 * T;
  counting_sort(stream_, op, T, keys, FirstDigit{row_of, mask}, FirstMove{row_of, sorted}, counts);
  for (int pass = 1; pass < passes; ++pass) {
    counting_sort(stream_, op, T, keys, LaterDigit{sorted.rows, pass * digit_bits, mask}, LaterMove{sorted, other},
                  counts);
    std::swap(sorted, other);
  }

  by_type(dout.type(), [&]<class A>() {
    by_width<A>(D, {dout, dtable}, [&]<class B, int W>() {
      const std::int64_t pieces = D / W;
      const int threads = threads_for(pieces, embedding_threads);
      const std::int64_t slices = ceil_div(pieces, threads);
      launch(stream_, op, {T * slices, threads}, embedding_backward_kernel<B, W>, sorted, static_cast<int>(T), V,
             data<B>(dout), static_cast<int>(pieces), static_cast<int>(slices), dtable.f32());
    });
  });
}

void CudaBackend::do_add_noise(const TokenNoise& noise, const Tensor& row_scales, const Tensor& x) {
  const std::int64_t T = x.dim(0), D = x.dim(1);
  by_type_and_width(x.type(), D, {x}, [&]<class A, int W>() {
    constexpr int entries = W > entries_of_a_draw ? W : entries_of_a_draw;
    launch(stream_, "add_noise", {T, threads_for(ceil_div(D, entries), 256)}, add_noise_kernel<A, W>, noise,
           row_scales.f32(), data<A>(x), static_cast<int>(D));
  });
}

}  // namespace smoe
