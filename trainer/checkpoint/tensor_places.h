// Where a parameter of the model stands on disk. Names are the released ones of Hugging Face. Read are also those of
// transformers 5: mlp in place of block_sparse_moe, experts fused (experts.gate_up_proj, experts.down_proj) or one by one,
// and gate_proj, down_proj and up_proj for an expert's w1, w2 and w3; and Mistral's own: tok_embeddings, layers.N.attention.wq
// and so on, experts one by one in feed_forward.experts or, of December 2023, all in block_sparse_moe.w1, w2 and w3.
//
// Mistral's rotary embedding turns neighbours (2i, 2i + 1) of a head, Hugging Face's and ours (i, i + C/2): the rows of
// queries and keys are in another order there, which costs nothing to undo and changes no number.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/files/tensor_directory.h"
#include "model/model_config.h"
#include "parallel/parameter.h"

namespace smoe {

enum class Arrangement : std::uint8_t {
  same,          // row-major as here
  neighbours,    // rows of a head in the order of Mistral's rotary embedding
  columns_first  // transposed
};

struct TensorPlace {
  std::string tensor;
  std::vector<std::int64_t> shape;  // of that tensor
  std::int64_t first = 0;           // its element at which the parameter begins
  Arrangement arrangement = Arrangement::same;
  std::int64_t head_size = 0;  // of neighbours
};

// Every place that a parameter of this shape may have, the released name first. tied_head: one of embedding and head stands
// for both.
std::vector<TensorPlace> places_of(const std::string& name, const std::vector<std::int64_t>& shape,
                                   const ModelConfig& model, bool tied_head = false);
// The place that the directory has; the released name where it has none.
TensorPlace place_in(const TensorDirectory& files, const ModelConfig& model, const std::string& name,
                     const std::vector<std::int64_t>& shape, bool tied_head = false);

// Fills `slice` with what this rank holds of a parameter, in f32, from such a place. Takes memory of no more than a block
// of rows beside it.
void read_slice(const TensorDirectory& files, const TensorPlace& place, const Parameter& parameter, float* slice);

}  // namespace smoe
