// The matrices of a model that an adapter can be beside (model/lora_config.h), and the names that each has in files of
// transformers 4 and 5: block_sparse_moe or mlp; an expert's w1, w2, w3 or gate_proj, down_proj, up_proj.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/model_config.h"

namespace smoe {

struct NamedMatrix {
  std::string path;         // as released, without .weight: model.layers.0.block_sparse_moe.experts.3.w1
  std::string_view module;  // of lora_targets
  std::int64_t layer = 0, expert = -1;
  std::int64_t rows = 0, columns = 0;  // [out,in]
};

class MatrixNames {
 public:
  explicit MatrixNames(const ModelConfig& model);

  // Layer by layer, in each q, k, v, o, gate, then each expert's w1, w2, w3.
  const std::vector<NamedMatrix>& all() const { return all_; }
  const NamedMatrix& operator[](std::size_t index) const { return all_[index]; }
  std::int64_t experts() const { return experts_; }
  std::int64_t layers() const { return layers_; }

  // The matrix that a path means in any spelling.
  std::optional<std::size_t> find(std::string_view path) const;
  // The layer all of whose experts model.layers.N.{mlp,block_sparse_moe}.experts means.
  std::optional<std::int64_t> find_experts(std::string_view path) const;
  // matrix: 1, 2 or 3.
  std::size_t of_expert(std::int64_t layer, std::int64_t expert, int matrix) const {
    return static_cast<std::size_t>(layer * (5 + 3 * experts_) + 5 + 3 * expert + matrix - 1);
  }
  // Every spelling of its path, the released one first.
  std::vector<std::string> spellings(std::size_t index) const;

 private:
  std::int64_t layers_, experts_;
  std::vector<NamedMatrix> all_;
};

}  // namespace smoe
