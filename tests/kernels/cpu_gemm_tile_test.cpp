#include "kernels/cpu/gemm_tile.h"

#include <gtest/gtest.h>

#include <vector>

namespace smoe::cpu {
namespace {

struct Cut {
  Gemm kind;
  std::int64_t m, n, count, least;  // least: tiles that there must be
};

std::vector<GemmTile> cut(const Cut& c) {
  std::vector<GemmTile> tiles;
  append_tiles(tiles, c.kind, {c.m, c.n, 512, 0, 0, 0, ProductKernel::library}, c.count);
  return tiles;
}

const Cut cuts[] = {
    {Gemm::nt, 1, 32000, 4, 4},      // the head of one new token
    {Gemm::nt, 48, 3584, 4, 4},      // a short prompt
    {Gemm::nt, 2048, 8, 4, 4},       // the router
    {Gemm::tn, 8, 512, 4, 4},        // its weights' gradient
    {Gemm::nt, 256, 32000, 32, 32},  // the head
    {Gemm::nn, 2048, 512, 64, 64},   // many threads
    {Gemm::nt, 100, 100, 4, 1},      // too small to be cut
    {Gemm::tn, 3584, 513, 7, 7},    {Gemm::nt, 600, 70, 4, 3},
};

// What is not cut runs on one thread, however many there are.
TEST(CpuGemmTiles, AreAsManyAsAskedForWhereTheyAreLargeEnough) {
  for (const Cut& c : cuts) EXPECT_GE(cut(c).size(), static_cast<std::size_t>(c.least)) << c.m << " x " << c.n;
}

TEST(CpuGemmTiles, CoverTheProductOnce) {
  for (const Cut& c : cuts) {
    std::vector<float> result(static_cast<std::size_t>(c.m * c.n));
    for (const GemmTile& tile : cut(c))
      for (std::int64_t i = 0; i < tile.m; ++i)
        for (std::int64_t j = 0; j < tile.n; ++j) result.at(static_cast<std::size_t>(tile.c + i * c.n + j)) += 1;
    EXPECT_EQ(std::vector<float>(result.size(), 1.0f), result) << c.m << " x " << c.n;
  }
}

TEST(CpuGemmTiles, AreNearSquares) {
  for (const GemmTile& tile : cut({Gemm::nt, 2048, 2048, 16, 16})) {
    EXPECT_EQ(tile.m, 512);
    EXPECT_EQ(tile.n, 512);
  }
}

}  // namespace
}  // namespace smoe::cpu
