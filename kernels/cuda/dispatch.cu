#include <algorithm>
#include <cstdint>

#include "kernels/cuda/copy_row.h"
#include "kernels/cuda/counting_sort.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/numbers.h"

namespace smoe {
namespace {
using namespace cuda;

static_assert(most_experts <= most_keys);

// The expert of an assignment that is not dropped; -1 of one that is, and of padding's.
struct ChosenExpert {
  const std::int32_t* experts;
  const std::int32_t* admitted;  // -1 where the capacity drops it; null: all are taken
  IdCheck check;
  __device__ int operator()(int i) const {
    if (admitted && admitted[i] < 0) return -1;
    const std::int32_t e = experts[i];
    return check(e, i) ? e : -1;
  }
};

struct Rows {
  std::int32_t *row_of, *assignment_of;
  __device__ void operator()(int i, int, int row) const {
    row_of[i] = row;
    if (row >= 0) assignment_of[row] = i;
  }
  __device__ void none(int row) const { assignment_of[row] = -1; }
};

// A block goes through the assignments of one group of tokens, and admits of each expert's as many as it has room for:
// row_of becomes 0, or -1.
__global__ void __launch_bounds__(sort_threads)
    admit_kernel(ChosenExpert expert_of, int assignments, int experts, int room, std::int32_t* row_of) {
  int* next = dynamic_shared<int>();
  int* of_warps = next + experts;
  for (int e = threadIdx.x; e < experts; e += sort_threads) next[e] = 0;
  const std::int64_t first = std::int64_t{blockIdx.x} * assignments;
  const int lane = threadIdx.x % warp, behind = static_cast<int>(first) + assignments;
  for (int tile = 0; tile < assignments; tile += tile_items) {
    int expert[items_of_a_lane], place[items_of_a_lane];
    keys_of_tile(expert_of, first + tile, behind, expert);
    place_tile(expert, experts, next, of_warps, place);
    const std::int64_t at = first + tile + threadIdx.x / warp * items_of_a_warp + lane;
#pragma unroll
    for (int s = 0; s < items_of_a_lane; ++s)
      if (at + s * warp < behind) row_of[at + s * warp] = expert[s] >= 0 && place[s] < room ? 0 : -1;
  }
}

// The same by probability: an assignment is admitted where fewer than `room` of its expert and group go before it. A block
// compares some of a group's assignments with all of them, as many at a time as it has threads: the square of a group's
// assignments in all, which of a sequence of some thousand tokens are few beside its products.
__global__ void __launch_bounds__(sort_threads)
    admit_by_probability_kernel(ChosenExpert expert_of, const float* probabilities, int assignments,
                                int blocks_of_a_group, int experts_per_token, int experts, int room,
                                std::int32_t* row_of) {
  __shared__ int of_expert[sort_threads];
  __shared__ float with_probability[sort_threads];
  const int group = static_cast<int>(blockIdx.x) / blocks_of_a_group,
            block = static_cast<int>(blockIdx.x) % blocks_of_a_group;
  const std::int64_t first = std::int64_t{group} * assignments;
  const auto read = [&](int i, int& expert, float& probability) {
    expert = i < assignments ? expert_of(static_cast<int>(first) + i) : -1;
    probability = expert < 0 ? 0.0f : probabilities[(first + i) / experts_per_token * experts + expert];
    if (isnan(probability)) probability = -INFINITY;
  };
  const int mine = block * sort_threads + static_cast<int>(threadIdx.x);
  int expert, before = 0;
  float probability;
  read(mine, expert, probability);
  for (int tile = 0; tile < assignments; tile += sort_threads) {
    __syncthreads();
    read(tile + static_cast<int>(threadIdx.x), of_expert[threadIdx.x], with_probability[threadIdx.x]);
    __syncthreads();
    for (int i = 0; i < sort_threads; ++i) {
      const float other = with_probability[i];
      const bool goes_before = other > probability || (other == probability && tile + i < mine);
      before += of_expert[i] == expert && goes_before ? 1 : 0;
    }
  }
  if (mine < assignments) row_of[first + mine] = expert >= 0 && before < room ? 0 : -1;
}

// ---- rows of activations ----

template <class A, int W>
__global__ void permute_kernel(const A* x, const std::int32_t* assignment_of, IdCheck check, int experts_per_token,
                               int pieces, A* rows) {
  const std::int32_t assignment = assignment_of[blockIdx.x];
  if (!check(assignment, blockIdx.x)) return;
  using Piece = Pack<A, W>;
  const std::int64_t t = assignment / experts_per_token;
  copy_row(reinterpret_cast<const Piece*>(x) + t * pieces,
           reinterpret_cast<Piece*>(rows) + std::int64_t{blockIdx.x} * pieces, pieces);
}

constexpr int parts_at_once = 4;  // of a token's rows, on their way together

template <class A, int W>
__global__ void unpermute_kernel(const A* rows, const std::int32_t* row_of, IdCheck check, int experts_per_token,
                                 const A* base, int pieces, A* x) {
  const std::int64_t t = blockIdx.x;
  const std::int64_t columns = std::int64_t{pieces} * W;
  row_of += t * experts_per_token;
  for (int piece = threadIdx.x; piece < pieces; piece += blockDim.x) {
    float sum[W];
    if (base)
      load(base + t * columns + piece * W, sum);
    else
#pragma unroll
      for (int w = 0; w < W; ++w) sum[w] = 0;
    for (int first = 0; first < experts_per_token; first += parts_at_once) {
      Pack<A, W> part[parts_at_once];
      bool there[parts_at_once];
#pragma unroll
      for (int i = 0; i < parts_at_once; ++i) {
        const int k = first + i;
        const std::int32_t row = k < experts_per_token ? row_of[k] : -1;
        there[i] = row != -1 && check(row, t * experts_per_token + k);
        if (there[i]) part[i] = reinterpret_cast<const Pack<A, W>*>(rows)[row * std::int64_t{pieces} + piece];
      }
#pragma unroll
      for (int i = 0; i < parts_at_once; ++i)
#pragma unroll
        for (int w = 0; w < W; ++w)
          if (there[i]) sum[w] += to_float(part[i].at[w]);
    }
    store(x + t * columns + piece * W, sum);
  }
}

// ---- their weights ----

__global__ void permute_weights_kernel(const float* weights, const std::int32_t* row_of, IdCheck check,
                                       std::int64_t assignments, float* row_weights) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= assignments) return;
  const std::int32_t row = row_of[i];
  if (row != -1 && check(row, i)) row_weights[row] = weights[i];
}

__global__ void unpermute_weights_kernel(const float* row_weights, const std::int32_t* row_of, IdCheck check,
                                         std::int64_t assignments, float* weights) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= assignments) return;
  const std::int32_t row = row_of[i];
  weights[i] = row != -1 && check(row, i) ? row_weights[row] : 0.0f;
}

}  // namespace

void CudaBackend::do_routing_map(const Tensor& experts, const Tensor& probabilities, const Capacity& capacity,
                                 const Tensor& row_of, const Tensor& assignment_of, const Tensor& offsets) {
  const std::int64_t T = experts.dim(0), K = experts.dim(1), E = offsets.dim(0) - 1;
  expect_experts("routing_map", E);
  const int keys = static_cast<int>(E);
  ChosenExpert expert_of{experts.i32(), nullptr, complaints_.ids("routing_map", "experts", E, -1)};
  if (capacity.rows > 0) {
    const auto room = static_cast<int>(std::min(capacity.rows, T));
    const std::int64_t groups = T / capacity.group;
    const auto assignments = static_cast<int>(capacity.group * K);
    const std::int64_t blocks_of_a_group = ceil_div(assignments, sort_threads);
    if (probabilities.empty())
      launch(stream_, "routing_map", {groups, sort_threads, tile_bytes(keys)}, admit_kernel, expert_of, assignments,
             keys, room, row_of.i32());
    else
      launch(stream_, "routing_map", {groups * blocks_of_a_group, sort_threads}, admit_by_probability_kernel, expert_of,
             probabilities.f32(), assignments, static_cast<int>(blocks_of_a_group), static_cast<int>(K), keys, room,
             row_of.i32());
    expert_of.admitted = row_of.i32();
  }
  auto* counts = workspace_.take<int>(sort_counts(T * K, keys));
  counting_sort(stream_, "routing_map", T * K, keys, expert_of, Rows{row_of.i32(), assignment_of.i32()}, counts,
                offsets.i32());
}

void CudaBackend::do_permute(const Tensor& x, const Tensor& assignment_of, std::int64_t experts_per_token,
                             const Tensor& rows) {
  const std::int64_t T = x.dim(0), D = x.dim(1), R = rows.dim(0), K = experts_per_token;
  const IdCheck check = complaints_.ids("permute", "assignment_of", T * K);
  by_type_and_width(x.type(), D, {x, rows}, [&]<class A, int W>() {
    launch(stream_, "permute", {R, threads_for_copy(D / W)}, permute_kernel<A, W>, data<A>(x), assignment_of.i32(),
           check, static_cast<int>(K), static_cast<int>(D / W), data<A>(rows));
  });
}

void CudaBackend::do_unpermute(const Tensor& rows, const Tensor& row_of, const Tensor& base, const Tensor& x) {
  const std::int64_t T = x.dim(0), D = x.dim(1), R = rows.dim(0), K = row_of.dim(1);
  const IdCheck check = complaints_.ids("unpermute", "row_of", R, -1);
  by_type_and_width(x.type(), D, {rows, base, x}, [&]<class A, int W>() {
    launch(stream_, "unpermute", {T, threads_for(D / W, 256)}, unpermute_kernel<A, W>, data<A>(rows), row_of.i32(),
           check, static_cast<int>(K), data<A>(base), static_cast<int>(D / W), data<A>(x));
  });
}

void CudaBackend::do_permute_weights(const Tensor& weights, const Tensor& row_of, const Tensor& row_weights) {
  const std::int64_t assignments = weights.elements();
  launch(stream_, "permute_weights", over(assignments), permute_weights_kernel, weights.f32(), row_of.i32(),
         complaints_.ids("permute_weights", "row_of", row_weights.dim(0), -1), assignments, row_weights.f32());
}

void CudaBackend::do_unpermute_weights(const Tensor& row_weights, const Tensor& row_of, const Tensor& weights) {
  const std::int64_t assignments = weights.elements();
  launch(stream_, "unpermute_weights", over(assignments), unpermute_weights_kernel, row_weights.f32(), row_of.i32(),
         complaints_.ids("unpermute_weights", "row_of", row_weights.dim(0), -1), assignments, weights.f32());
}

}  // namespace smoe
