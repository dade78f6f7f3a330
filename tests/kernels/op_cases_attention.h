// Cases of attention (see op_cases.h): causal, with documents, windows and grouped heads, and from a cache.
#pragma once

#include "tests/kernels/op_cases.h"

namespace smoe::op_cases {

struct AttentionCase {
  std::string name;
  Index sequences, sequence_length, heads, kv_heads, head_dim;
  Index window = 0;
  double document_length = 0;  // mean length of the documents of a sequence; 0: one document each
  double score_scale = 1;      // a power of two on the queries: a large one makes the softmax pick a single key

  Index tokens() const { return sequences * sequence_length; }
  // Documents are not counted off.
  Work forward(double a) const {
    return op_work::attention_forward(sequences, sequence_length, heads, kv_heads, head_dim, window, a);
  }
  Work backward(double a) const {
    return op_work::attention_backward(sequences, sequence_length, heads, kv_heads, head_dim, window, a);
  }
};

inline std::vector<AttentionCase> attention_cases() {
  return {{"no_rows", 0, 5, 2, 1, 4},
          {"one_token", 1, 1, 2, 1, 4},
          {"one_token_each", 7, 1, 4, 2, 8},
          {"gqa_1_1", 2, 19, 3, 3, 8},
          {"gqa_4_1", 2, 19, 4, 1, 8},
          {"gqa_8_2", 1, 33, 8, 2, 16},
          {"odd_head_dim", 2, 23, 2, 1, 7},
          {"head_dim_1", 1, 17, 2, 2, 1},
          {"documents", 3, 41, 4, 2, 8, 0, 6},
          {"every_token_a_document", 2, 30, 2, 1, 8, 0, 1},
          {"window_1", 2, 21, 2, 1, 8, 1},
          {"window_odd", 2, 77, 2, 1, 8, 13},
          {"window_beyond", 2, 21, 2, 1, 8, 50},
          {"window_documents", 2, 90, 4, 2, 8, 17, 25},
          {"sharp", 2, 70, 2, 1, 16, 0, 0, 8},
          {"two_tiles", 1, 70, 1, 1, 8},
          {"two_tiles_of_64", 1, 70, 1, 1, 64},
          {"many_tiles", 1, 200, 4, 1, 64},
          {"many_tiles_documents", 2, 200, 2, 1, 64, 0, 60},
          {"many_tiles_window", 1, 200, 2, 2, 64, 65},
          {"window_of_a_tile", 1, 260, 1, 1, 32, 64},
          {"one_above_tiles", 1, 129, 2, 1, 20},
          {"large_heads", 1, 70, 2, 1, 128},
          {"large_heads_documents", 2, 75, 2, 1, 104, 0, 30},
          {"odd_large_heads", 1, 37, 2, 2, 131},
          {"largest_heads", 1, 70, 2, 1, 256, 20}};
}

// `tokens` new queries behind `past` cached ones, one sequence.
struct CachedAttentionCase {
  std::string name;
  Index past, tokens, capacity, heads, kv_heads, head_dim;
  Index window = 0;

  Work forward(double a) const { return op_work::attention_cached(tokens, past, heads, kv_heads, head_dim, window, a); }
};

inline std::vector<CachedAttentionCase> cached_attention_cases() {
  return {{"empty_prompt", 0, 0, 4, 2, 1, 4},
          {"first_token", 0, 1, 4, 2, 1, 4},
          {"prompt", 0, 37, 40, 4, 2, 8},
          {"next_token", 37, 1, 40, 4, 1, 8},
          {"chunk", 23, 9, 40, 4, 2, 7},
          {"cache_full", 30, 10, 40, 3, 3, 8},
          {"window_odd", 37, 5, 50, 4, 2, 8, 13},
          {"window_1", 5, 4, 10, 2, 1, 8, 1},
          {"window_beyond", 12, 4, 20, 2, 1, 8, 99},
          {"prompt_behind_tiles", 60, 20, 90, 2, 1, 8},
          {"long", 300, 3, 320, 4, 2, 64},
          {"large_heads", 70, 3, 80, 4, 2, 128},
          {"largest_heads", 70, 2, 80, 2, 1, 256},
          {"large_heads_prompt", 60, 20, 90, 2, 1, 128},
          {"largest_heads_prompt", 5, 20, 30, 2, 1, 256}};
}

}  // namespace smoe::op_cases
