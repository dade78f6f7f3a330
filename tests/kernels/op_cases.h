// THE case list: the shapes at which every op of kernels/backend.h is held against the reference. A case is plain numbers;
// those at which ops are timed, too large for a reference, are made from a model's sizes in bench_cases.h.
// forward() and backward() are the work of one call (kernels/op_work.h); a: bytes of a number of the type that
// kernels/backend.h marks A.
//
// The families of attention and of the experts are in op_cases_attention.h and op_cases_moe.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/op_work.h"
#include "tests/reference/rope.h"

namespace smoe::op_cases {

using Index = std::int64_t;

struct ElementwiseCase {
  std::string name;
  Index n;
  Work forward(double a) const { return op_work::add(n, a); }
};

inline std::vector<ElementwiseCase> elementwise_cases() {
  return {{"none", 0}, {"one", 1}, {"odd", 1003}, {"large", 100'001}};
}

struct EmbeddingCase {
  std::string name;
  Index tokens, vocab, hidden;
  bool one_id = false;  // every token is the same one
  Work forward(double a) const { return op_work::embedding_forward(tokens, hidden, a); }
  Work backward(double a) const { return op_work::embedding_backward(tokens, hidden, a); }
};

inline std::vector<EmbeddingCase> embedding_cases() {
  return {{"no_rows", 0, 11, 8},   {"one_row", 1, 11, 5},
          {"odd", 37, 11, 7},      {"same_id_everywhere", 50, 9, 33, true},
          {"large", 700, 301, 64}, {"large_vocabulary", 1500, 70000, 4}};
}

struct RmsNormCase {
  std::string name;
  Index tokens, hidden;
  float epsilon = 1e-5f;
  double scale = 1;  // of x: 0 leaves epsilon alone under the root
  Work forward(double a) const { return op_work::rms_norm_forward(tokens, hidden, a); }
  Work backward(double a) const { return op_work::rms_norm_backward(tokens, hidden, a); }
};

inline std::vector<RmsNormCase> rms_norm_cases() {
  return {{"no_rows", 0, 8},
          {"one_row", 1, 512},
          {"one_column", 9, 1, 0.5f},  // a small epsilon would leave a gradient of rounding alone
          {"odd", 37, 67},
          {"large", 530, 256},
          {"wide", 3, 4097},
          {"large_epsilon", 20, 48, 0.5f},
          {"tiny_x", 20, 48, 1e-5f, 1e-4},
          {"zero_x", 5, 16, 1e-5f, 0},
          {"huge_x", 20, 48, 1e-5f, 1e4}};
}

// One linear layer, y = x w^T: nt is its forward, nn and tn the gradients by x and by w.
struct GemmCase {
  std::string name;
  Index rows, out, in;
  bool wide = false;          // y is f32 whatever the type of x and w: logits
  bool assigned_too = false;  // the bench times the weight's gradient in w's type as well, assigned
};

inline std::vector<GemmCase> gemm_cases() {
  return {{"no_rows", 0, 5, 8}, {"one_row", 1, 33, 17},      {"one_by_one", 1, 1, 1}, {"one_inner", 19, 7, 1},
          {"odd", 37, 29, 31},  {"router_like", 130, 8, 96}, {"large", 257, 129, 300}};
}

struct CrossEntropyCase {
  std::string name;
  Index rows;
  std::vector<Index> slices;  // columns of each slice of the vocabulary, in order
  enum class Mask { none, some, all } mask = Mask::some;
  double logit_scale = 3;
  Index vocab() const {
    Index total = 0;
    for (Index columns : slices) total += columns;
    return total;
  }
  Work forward() const { return op_work::cross_entropy_statistics(rows, vocab()); }
  Work backward(double a) const { return op_work::cross_entropy_backward(rows, vocab(), a); }
};

inline std::vector<CrossEntropyCase> cross_entropy_cases() {
  using Mask = CrossEntropyCase::Mask;
  return {{"no_rows", 0, {13}},
          {"one_row", 1, {13}, Mask::none},
          {"one_column", 6, {1}},
          {"odd", 37, {259}},
          {"nothing_masked", 20, {64}, Mask::none},
          {"all_masked", 20, {64}, Mask::all},
          {"two_slices", 37, {130, 129}},
          {"four_odd_slices", 23, {17, 1, 64, 100}},
          {"large_logits", 20, {257}, Mask::some, 1000},
          {"equal_logits", 20, {100}, Mask::some, 0},
          {"large", 70, {4001}}};
}

struct RopeCase {
  std::string name;
  Index tokens, heads, rotated_heads, head_dim, positions;
  double theta = 1e6;
  float scale = 1;
  Work forward(double a) const { return op_work::rope(tokens, rotated_heads, head_dim, a); }
  std::vector<float> frequencies() const { return reference::rope_frequencies(theta, head_dim); }
};

inline std::vector<RopeCase> rope_cases() {
  return {{"no_rows", 0, 3, 2, 4, 5},          {"one_row", 1, 3, 2, 8, 5},
          {"smallest_head", 9, 4, 3, 2, 20},   {"nothing_rotated", 9, 4, 0, 6, 20},
          {"odd_heads", 37, 7, 5, 6, 40, 1e4}, {"far_positions", 64, 3, 2, 64, 32768},
          {"large", 300, 12, 10, 64, 512},     {"scaled", 37, 3, 2, 16, 100, 1e4, 1.1386295f}};
}

struct AdamWCase {
  std::string name;
  Index n;
  int steps = 3;
  double weight_decay = 0.1, gradient_scale = 1.0;
  double gradient_size = 1.0;  // 0: a parameter that never receives a gradient
  Work forward(double rounded) const { return op_work::adamw(n, rounded); }  // rounded: bytes of the value; 0: none
};

inline std::vector<AdamWCase> adamw_cases() {
  return {{"none", 0},
          {"one", 1},
          {"odd", 1003},
          {"large", 70'001},
          {"clipped", 500, 3, 0.1, 0.037},
          {"no_decay", 500, 3, 0.0},
          {"tiny_gradients", 500, 3, 0.1, 1.0, 1e-12},
          {"zero_gradients", 500, 3, 0.1, 1.0, 0.0}};
}

}  // namespace smoe::op_cases
