// A stable counting sort: items are placed by their keys, those of one key in the order in which they stand. Two kernels. The
// first counts the keys of each chunk of items. In the second each block adds up for itself what the chunks before its own
// hold, which costs less than a launch between the two, and then places its chunk.
//
// Inside a block a lane has 4 items of a tile, 32 apart, so that a warp reads side by side; the warps' parts of a tile follow
// one another. Lanes of a warp that have the same key find each other by a match.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.h"

namespace smoe::cuda {

inline constexpr int sort_threads = 256, sort_warps = sort_threads / warp, items_of_a_lane = 4;
inline constexpr int items_of_a_warp = items_of_a_lane * warp, tile_items = items_of_a_lane * sort_threads;
// A chunk is a tile, 16 .. 64 of them for the assignments of a usual micro-batch: enough blocks to spread the work, few
// enough for each to add up. With more items, chunks of more tiles.
inline constexpr std::int64_t most_chunks = 128;
inline constexpr int most_keys = 1024;  // what the shared memory of any kernel has room for

// Shared memory of a kernel that places tiles.
constexpr std::size_t tile_bytes(int keys) { return sizeof(int) * (sort_warps + 1) * static_cast<std::size_t>(keys); }

// The keys of the lane's items of the tile that begins at `first`: -1 where there is none.
template <class Keys>
__device__ void keys_of_tile(const Keys& key_of, std::int64_t first, int items, int (&key)[items_of_a_lane]) {
  const std::int64_t at = first + threadIdx.x / warp * items_of_a_warp + threadIdx.x % warp;
#pragma unroll
  for (int s = 0; s < items_of_a_lane; ++s)
    key[s] = at + s * warp < items ? key_of(static_cast<int>(at) + s * warp) : -1;
}

// Places the items of a tile: place[s] = next[key] plus how many items of the tile before it have its key, and next moves on
// behind them. of_warps [sort_warps, keys] is shared memory for this. The whole block comes here, and what it has written to
// next before is seen.
__device__ inline void place_tile(const int (&key)[items_of_a_lane], int keys, int* next, int* of_warps,
                                  int (&place)[items_of_a_lane]) {
  const int lane = threadIdx.x % warp;
  int* count = of_warps + static_cast<int>(threadIdx.x / warp) * keys;
  __syncwarp();  // its lanes may still read their places of the tile before
  for (int k = lane; k < keys; k += warp) count[k] = 0;
  __syncwarp();
#pragma unroll
  for (int s = 0; s < items_of_a_lane; ++s) {
    const unsigned alike = __match_any_sync(all_lanes, key[s]);
    const unsigned before = alike & ((1u << lane) - 1);
    const int counted = key[s] < 0 ? 0 : count[key[s]];
    place[s] = counted + __popc(before);
    __syncwarp();
    if (key[s] >= 0 && before == 0) count[key[s]] = counted + __popc(alike);
    __syncwarp();
  }
  __syncthreads();
  for (int k = threadIdx.x; k < keys; k += sort_threads) {
    int at = next[k];
#pragma unroll
    for (int w = 0; w < sort_warps; ++w) {
      const int counted = of_warps[w * keys + k];
      of_warps[w * keys + k] = at;
      at += counted;
    }
    next[k] = at;
  }
  __syncthreads();
#pragma unroll
  for (int s = 0; s < items_of_a_lane; ++s)
    if (key[s] >= 0) place[s] += count[key[s]];
}

// counts [chunks, keys]
template <class Keys>
__global__ void __launch_bounds__(sort_threads)
    count_keys_kernel(Keys key_of, int items, int keys, int tiles, int* counts) {
  int* found = dynamic_shared<int>();
  for (int k = threadIdx.x; k < keys; k += sort_threads) found[k] = 0;
  __syncthreads();
  const int lane = threadIdx.x % warp;
  for (int tile = 0; tile < tiles; ++tile) {
    int key[items_of_a_lane];
    keys_of_tile(key_of, (std::int64_t{blockIdx.x} * tiles + tile) * tile_items, items, key);
#pragma unroll
    for (int s = 0; s < items_of_a_lane; ++s) {
      const unsigned alike = __match_any_sync(all_lanes, key[s]);
      if (key[s] >= 0 && lane == __ffs(static_cast<int>(alike)) - 1) atomicAdd(found + key[s], __popc(alike));
    }
  }
  __syncthreads();
  for (int k = threadIdx.x; k < keys; k += sort_threads) counts[std::int64_t{blockIdx.x} * keys + k] = found[k];
}

// place_at(item, key, place), the place -1 of what has no key; place_at.none(place) for the places behind the last; starts
// [keys + 1], if given: where each key's items begin, and how many were placed at all.
template <class Keys, class Place>
__global__ void __launch_bounds__(sort_threads)
    place_kernel(Keys key_of, Place place_at, int items, int keys, int tiles, const int* counts, int* starts) {
  int* next = dynamic_shared<int>();
  int* of_warps = next + keys;
  const int lane = threadIdx.x % warp, chunks = gridDim.x, chunk = blockIdx.x;
  const std::int64_t begin = std::int64_t{chunk} * tiles * tile_items;
  int key[items_of_a_lane];
  keys_of_tile(key_of, begin, items, key);  // on their way while the counts are added up
  int start = 0;                            // of the keys that are looked at
  for (int first = 0; first < keys; first += sort_threads) {
    const int k = first + threadIdx.x;
    int before = 0, all = 0;
    if (k < keys) {
#pragma unroll 16
      for (int c = 0; c < chunks; ++c) {
        const int counted = counts[c * keys + k];
        all += counted;
        before += c < chunk ? counted : 0;
      }
    }
    int up_to = all;  // items of the keys up to this one: of the warp's, then of the block's
#pragma unroll
    for (int distance = 1; distance < warp; distance *= 2) {
      const int lower = __shfl_up_sync(all_lanes, up_to, distance);
      if (lane >= distance) up_to += lower;
    }
    if (first > 0) __syncthreads();  // the parts of the keys before have been read
    if (lane == warp - 1) of_warps[threadIdx.x / warp] = up_to;
    __syncthreads();
    up_to += start;
#pragma unroll
    for (int w = 0; w < sort_warps; ++w) {
      const int of_warp = of_warps[w];
      start += of_warp;
      if (w < static_cast<int>(threadIdx.x / warp)) up_to += of_warp;
    }
    if (k < keys) next[k] = up_to - all + before;
    if (k < keys && chunk == 0 && starts) starts[k] = up_to - all;
  }
  const int placed = start;
  if (chunk == 0 && threadIdx.x == 0 && starts) starts[keys] = placed;
  __syncthreads();  // the parts of the warps have been read

  for (int tile = 0; tile < tiles; ++tile) {
    if (tile > 0) keys_of_tile(key_of, begin + tile * tile_items, items, key);
    int place[items_of_a_lane];
    place_tile(key, keys, next, of_warps, place);
    const std::int64_t at = begin + tile * tile_items + threadIdx.x / warp * items_of_a_warp + lane;
#pragma unroll
    for (int s = 0; s < items_of_a_lane; ++s) {
      if (at + s * warp >= items) continue;
      const int item = static_cast<int>(at) + s * warp;
      place_at(item, key[s], key[s] < 0 ? -1 : place[s]);
      if (item >= placed) place_at.none(item);
    }
  }
}

constexpr std::int64_t sort_tiles(std::int64_t items) {  // of a chunk
  return std::max<std::int64_t>(1, ceil_div(items, most_chunks * tile_items));
}
constexpr std::int64_t sort_chunks(std::int64_t items) {
  return std::max<std::int64_t>(1, ceil_div(items, sort_tiles(items) * tile_items));
}
// How many numbers the sort needs for itself.
constexpr std::int64_t sort_counts(std::int64_t items, int keys) { return sort_chunks(items) * keys; }

// key_of(item) in [0, keys), or -1: it is not placed. At most most_keys.
template <class Keys, class Place>
void counting_sort(cudaStream_t stream, const char* op, std::int64_t items, int keys, const Keys& key_of,
                   const Place& place_at, int* counts, int* starts = nullptr) {
  const auto tiles = static_cast<int>(sort_tiles(items)), n = static_cast<int>(items);
  const std::int64_t chunks = sort_chunks(items);
  launch(stream, op, {chunks, sort_threads, sizeof(int) * static_cast<std::size_t>(keys)}, count_keys_kernel<Keys>,
         key_of, n, keys, tiles, counts);
  launch(stream, op, {chunks, sort_threads, tile_bytes(keys)}, place_kernel<Keys, Place>, key_of, place_at, n, keys,
         tiles, counts, starts);
}

}  // namespace smoe::cuda
