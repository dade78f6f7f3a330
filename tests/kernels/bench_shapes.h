// The models at whose sizes ops and layers are timed. A GPU is asked for the two of Mistral AI, as one of many GPUs would hold
// a layer of them; a CPU for the one of 123M parameters, which docs/performance.md quotes; the emulated GPU for the smallest.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace smoe {

struct BenchShape {
  std::string name;
  std::int64_t sequences, sequence_length;
  std::int64_t hidden, ffn, experts, top_k, vocab, heads, kv_heads, head_dim;
  std::int64_t head_rows;  // tokens whose logits the LM head makes at once

  struct Sequences {
    std::int64_t count, length, window = 0;
    double document_length = 0;  // on average; 0: one document each
  };
  std::vector<Sequences> attention;
  // Skewed rows in both of the experts' matrices, and gradients of weights that are assigned.
  bool all_products = true;

  std::int64_t tokens() const { return sequences * sequence_length; }
  std::int64_t rows() const { return tokens() * top_k; }  // of all experts together

  // Rows of each expert: as many each, or, of eight, from a third of all down to a seven-hundredth.
  std::vector<std::int64_t> even_rows() const;
  std::vector<std::int64_t> skewed_rows() const;
};

inline std::vector<BenchShape> bench_shapes() {
  // Documents are no business of cuDNN's: our own kernels take them.
  const std::vector<BenchShape::Sequences> of_gpus = {{2, 4096}, {1, 4096}, {1, 8192}, {1, 4096, 0, 1024}};
  return {
      {"123m", 4, 512, 512, 1792, 8, 2, 32000, 8, 2, 64, 256, {{4, 512}, {1, 256}, {1, 2048}, {1, 2048, 256}}, false},
      {"8x7b", 2, 4096, 4096, 14336, 8, 2, 32000, 32, 8, 128, 4096, of_gpus},
      {"8x22b", 2, 4096, 6144, 16384, 8, 2, 32768, 48, 8, 128, 4096, of_gpus},
      {"tiny", 2, 64, 64, 96, 8, 2, 300, 4, 2, 16, 32, {{2, 64}, {1, 128}, {1, 64, 24}, {1, 64, 0, 20}}}};
}

// Throws std::runtime_error for a name that there is not.
inline BenchShape bench_shape(const std::string& name) {
  std::string names;
  for (const BenchShape& shape : bench_shapes()) {
    if (shape.name == name) return shape;
    names += (names.empty() ? "" : ", ") + shape.name;
  }
  throw std::runtime_error("no model " + name + "; there are " + names);
}

inline std::vector<std::int64_t> BenchShape::even_rows() const {
  if (rows() % experts != 0) throw std::logic_error(name + ": the rows do not divide over the experts");
  return std::vector<std::int64_t>(static_cast<std::size_t>(experts), rows() / experts);
}

inline std::vector<std::int64_t> BenchShape::skewed_rows() const {
  std::vector<std::int64_t> part = {1400, 900, 700, 500, 300, 200, 90, 6};  // of 4096
  if (static_cast<std::size_t>(experts) != part.size()) throw std::logic_error(name + ": eight experts expected");
  std::int64_t rest = rows();
  for (std::int64_t& of_expert : part) rest -= of_expert = of_expert * rows() / 4096;
  part.front() += rest;  // what was rounded off
  return part;
}

}  // namespace smoe
