// Cases of the router, of dispatch and of the experts (see op_cases.h).
#pragma once

#include <algorithm>
#include <numeric>

#include "kernels/routing.h"
#include "tests/kernels/op_cases.h"

namespace smoe::op_cases {

struct RouterCase {
  std::string name;
  Index tokens, experts, top_k;
  Index groups = 1;  // of the balance statistics
  enum class Logits { random, tied, equal, extreme } logits = Logits::random;
  RoutingRule rule{};
  double bias = 0;             // spread of the selection bias; 0: none
  double shift = 0;            // of all logits
  bool bias_of_token = false;  // each token has its own
  Index padding = 0;           // tokens at the end of each group that are none
  Work forward() const { return op_work::router_forward(tokens, experts, top_k); }
  Work backward() const { return op_work::router_backward(tokens, experts, top_k); }
};

inline std::vector<RouterCase> router_cases() {
  using Logits = RouterCase::Logits;
  return {{"no_rows", 0, 8, 2},
          {"no_rows_grouped", 0, 8, 2, 3},
          {"one_row", 1, 8, 2},
          {"one_expert", 9, 1, 1},
          {"k1", 40, 8, 1, 4},
          {"k2", 40, 8, 2, 2},
          {"k3_odd", 39, 7, 3, 3},
          {"k_equals_e", 20, 5, 5, 4},
          {"tied", 60, 8, 2, 1, Logits::tied},
          {"tied_k3", 60, 5, 3, 1, Logits::tied},
          {"all_equal", 20, 8, 2, 1, Logits::equal},
          {"extreme", 30, 8, 2, 1, Logits::extreme},
          {"a_group_a_token", 12, 8, 2, 12},
          {"many_experts", 50, 64, 8, 2},
          {"hundreds_of_experts", 70, 300, 10, 2},
          {"large", 1030, 8, 2, 5},
          {"scaled", 40, 8, 2, 2, Logits::random, {Score::softmax, true, 2.5f}},
          {"softmax_scores_k1", 40, 8, 1, 4, Logits::random, {Score::softmax, false, 1}},
          {"softmax_scores_k3_scaled", 39, 7, 3, 3, Logits::random, {Score::softmax, false, 0.7f}},
          {"softmax_scores_extreme", 30, 8, 2, 1, Logits::extreme, {Score::softmax, false, 1}},
          {"sigmoid_scores_no_rows", 0, 8, 2, 1, Logits::random, {Score::sigmoid, false, 1}},
          {"sigmoid_scores_k1", 40, 8, 1, 4, Logits::random, {Score::sigmoid, false, 1}},
          {"sigmoid_scores_k_equals_e", 20, 5, 5, 4, Logits::random, {Score::sigmoid, false, 1.5f}},
          {"sigmoid_scores_extreme", 30, 8, 2, 1, Logits::extreme, {Score::sigmoid, false, 1}},
          {"sigmoids", 40, 8, 2, 2, Logits::random, {Score::sigmoid, true, 1}},
          {"sigmoids_tied_k3_scaled", 60, 5, 3, 1, Logits::tied, {Score::sigmoid, true, 2.5f}},
          {"sigmoids_equal", 20, 8, 2, 1, Logits::equal, {Score::sigmoid, true, 1}},
          {"sigmoids_extreme", 30, 8, 2, 1, Logits::extreme, {Score::sigmoid, true, 1}},
          {"sigmoids_far_below_zero", 40, 8, 2, 2, Logits::random, {Score::sigmoid, true, 1}, 0, -500},
          {"biased", 60, 8, 2, 2, Logits::random, {}, 0.5},
          {"biased_equal", 20, 8, 2, 1, Logits::equal, {}, 0.5},
          {"biased_far_apart", 30, 8, 2, 1, Logits::extreme, {}, 5},
          {"biased_softmax_scores", 60, 8, 3, 1, Logits::random, {Score::softmax, false, 1}, 0.5},
          {"biased_sigmoids_many_experts", 50, 64, 8, 2, Logits::random, {Score::sigmoid, true, 2.5f}, 0.3},
          {"biased_by_token", 60, 8, 2, 2, Logits::random, {}, 0.5, 0, true},
          {"biased_by_token_no_rows", 0, 8, 2, 1, Logits::random, {}, 0.5, 0, true},
          {"biased_by_token_sigmoids", 39, 70, 3, 3, Logits::random, {Score::sigmoid, false, 1}, 0.3, 0, true},
          {"padded", 40, 8, 2, 4, Logits::random, {}, 0, 0, false, 3},
          {"padded_groups_without_a_token", 15, 8, 2, 3, Logits::random, {}, 0, 0, false, 5},
          {"padded_softmax_scores_k_equals_e", 30, 5, 5, 3, Logits::random, {Score::softmax, false, 1}, 0, 0, false, 1},
          {"padded_biased_sigmoids", 39, 70, 3, 3, Logits::random, {Score::sigmoid, true, 2.5f}, 0.3, 0, false, 6},
          {"padded_large", 1030, 8, 2, 5, Logits::random, {}, 0, 0, false, 99}};
}

struct JitterCase {
  std::string name;
  Index tokens, hidden;
  TokenNoise noise{};
  Work forward(double a) const { return op_work::jitter(tokens * hidden, a); }
  Work added(double a) const { return op_work::add_noise(tokens * hidden, a); }
};

inline std::vector<JitterCase> jitter_cases() {
  return {{"no_rows", 0, 8, {1, 0, 0, 0.5f}},
          {"one_number", 1, 1, {1, 0, 0, 0.5f}},
          {"odd", 37, 29, {0x123456789abcdef, 5, 1, 0.25f}},
          {"no_width", 9, 16, {3, 0, 2, 0}},
          {"whole_width", 20, 33, {7, 11, 31, 1}},
          {"late_token_of_a_late_layer", 21, 14, {~0ull, (1ll << 33) + 7, 0xffffffff, 0.125f}},
          {"large", 300, 520, {9, 1000, 5, 0.01f}}};
}

struct DispatchCase {
  std::string name;
  Index tokens, experts, top_k, hidden;
  enum class Choice { random, first_experts, half_idle } choice = Choice::random;  // first_experts: all choose 0..K-1
  Capacity capacity{};
  Index padding = 0;  // tokens at the end of each of the capacity's groups, or of all, that have no expert
  Work forward(double a) const { return op_work::permute(tokens, top_k, hidden, a); }
  Work backward(double a) const { return op_work::unpermute(tokens, top_k, hidden, a); }
};

inline std::vector<DispatchCase> dispatch_cases() {
  using Choice = DispatchCase::Choice;
  constexpr auto ranked = CapacityOrder::probability;
  return {{"no_rows", 0, 8, 2, 16},
          {"one_row", 1, 8, 2, 16},
          {"one_expert", 10, 1, 1, 7},
          {"k1", 40, 8, 1, 33},
          {"k2", 40, 8, 2, 33},
          {"k3_odd", 39, 7, 3, 17},
          {"k_equals_e", 20, 5, 5, 8},
          {"one_expert_holds_all", 50, 8, 1, 16, Choice::first_experts},
          {"two_experts_hold_all", 50, 8, 2, 16, Choice::first_experts},
          {"half_idle", 50, 8, 2, 16, Choice::half_idle},
          {"many_experts", 20, 64, 2, 8},
          {"hundreds_of_experts", 300, 700, 8, 4},
          {"large", 1030, 8, 2, 64},
          {"capacity_no_rows", 0, 8, 2, 16, Choice::random, {3, 5}},
          {"capacity_over_all_tokens", 40, 8, 2, 33, Choice::random, {7, 40}},
          {"capacity_in_groups", 42, 7, 3, 17, Choice::random, {2, 6}},
          {"capacity_of_one_in_groups_of_one", 20, 5, 2, 8, Choice::random, {1, 1}},
          {"capacity_that_all_want", 50, 8, 2, 16, Choice::first_experts, {3, 10}},
          {"capacity_larger_than_all", 39, 7, 3, 17, Choice::random, {1ll << 40, 13}},
          {"capacity_large", 1030, 8, 2, 64, Choice::half_idle, {90, 515}},
          {"ranked_no_rows", 0, 8, 2, 16, Choice::random, {3, 5, ranked}},
          {"ranked_over_all_tokens", 40, 8, 2, 33, Choice::random, {7, 40, ranked}},
          {"ranked_in_groups", 42, 7, 3, 17, Choice::random, {2, 6, ranked}},
          {"ranked_one_in_groups_of_one", 20, 5, 2, 8, Choice::random, {1, 1, ranked}},
          {"ranked_that_all_want", 50, 8, 2, 16, Choice::first_experts, {3, 10, ranked}},
          {"ranked_larger_than_all", 39, 7, 3, 17, Choice::random, {1ll << 40, 13, ranked}},
          {"ranked_hundreds_of_experts", 300, 700, 8, 4, Choice::half_idle, {2, 150, ranked}},
          {"ranked_large", 1030, 8, 2, 64, Choice::half_idle, {90, 515, ranked}},
          {"padded", 40, 8, 2, 33, Choice::random, {}, 7},
          {"padded_without_a_token", 10, 8, 2, 16, Choice::random, {}, 10},
          {"padded_capacity", 42, 7, 3, 17, Choice::random, {2, 6}, 2},
          {"padded_ranked", 42, 7, 3, 17, Choice::random, {2, 6, ranked}, 2},
          {"padded_large", 1030, 8, 2, 64, Choice::half_idle, {90, 515, ranked}, 130}};
}

// The experts' linear layer: rows[e] rows of expert e, weights [E, out, in].
struct GroupedGemmCase {
  std::string name;
  std::vector<Index> rows;
  Index out, in;
  bool assigned_too = false;  // the bench times the weights' gradient in their own type as well, assigned
  Index total_rows() const { return std::accumulate(rows.begin(), rows.end(), Index(0)); }
  Work work(double a, double weights) const {  // weights: bytes of a number of theirs, or of their gradient
    const auto with_rows = std::count_if(rows.begin(), rows.end(), [](Index of_expert) { return of_expert > 0; });
    return op_work::grouped_gemm(with_rows, total_rows(), out, in, a, weights);
  }
};

inline std::vector<GroupedGemmCase> grouped_gemm_cases() {
  return {{"no_rows", {0, 0, 0}, 5, 8},
          {"one_row", {0, 1, 0, 0}, 33, 17},
          {"one_expert", {23}, 9, 14},
          {"all_to_the_first", {40, 0, 0, 0}, 16, 24},
          {"all_to_the_last", {0, 0, 0, 40}, 16, 24},
          {"uneven_odd", {3, 0, 17, 1, 29, 0, 8}, 13, 19},
          {"one_row_each", {1, 1, 1, 1, 1, 1, 1, 1}, 31, 7},
          {"large", {130, 65, 257, 0}, 96, 130}};
}

struct SwigluCase {
  std::string name;
  Index rows, ffn;
  bool weighted = true;
  double scale = 2;  // of gate and up
  Work forward(double a) const { return op_work::swiglu_forward(rows, ffn, a); }
  Work backward(double a) const { return op_work::swiglu_backward(rows, ffn, a); }
};

inline std::vector<SwigluCase> swiglu_cases() {
  return {{"no_rows", 0, 8},
          {"one_row", 1, 33},
          {"one_column", 9, 1},
          {"odd", 37, 29},
          {"unweighted", 37, 29, false},
          {"saturated", 20, 40, true, 60},
          {"large", 300, 300}};
}

}  // namespace smoe::op_cases
