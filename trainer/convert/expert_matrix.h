// The numbers of one expert's matrix, made of a dense model's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/files/tensor_directory.h"

namespace smoe {

// w1 and w3 are [F,D]: an intermediate dim is a row; w2 is [D,F]: there it is a column.
struct ExpertMatrix {
  const TensorDirectory* parent = nullptr;
  std::string source;                   // the parent's tensor
  bool dims_are_columns = false;        // w2
  std::int64_t first = 0, count = 0;    // the parent's intermediate dims that this expert has
  float scale = 1;                      // of every number
  std::vector<std::int64_t> redrawn{};  // of its own dims, ascending: those that are drawn anew
  std::uint64_t seed = 0;               // of what is drawn
};

// [F',D] or [D,F'], F' = count.
std::vector<std::int64_t> shape_of(const ExpertMatrix& matrix);

// The share of `dims` intermediate dims that expert `expert` of a layer draws anew, ascending: round(share * dims) of them, every
// subset as likely, and a pure function of the arguments.
std::vector<std::int64_t> choose_redrawn(std::uint64_t seed, std::int64_t layer, std::int64_t expert, std::int64_t dims,
                                         double share);

// Writes all of tensor `name`, in pieces of a few MiB. Where nothing is scaled, drawn or rounded, these are the parent's bytes.
// Drawn numbers are N(mean, std^2) of those numbers of the parent that they take the place of (arXiv 2502.19261), from the stream of (seed,
// name) at each element's index.
void write_expert_matrix(const ExpertMatrix& matrix, TensorDirectoryWriter& writer, const TensorSpec& spec);

}  // namespace smoe
