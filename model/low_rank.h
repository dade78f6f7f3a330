// The low-rank adapters of the matrices that one linear layer multiplies as one (LoRA, arXiv 2106.09685; lora_config.h):
//   y += scale * dropout(x) A^T B^T,  forward and both gradients, of one matrix or of each expert's.
//
// The matrices share their input, and so what is dropped of it and one product with all their A, [r',M], r' = r times how many
// of them have an adapter. Their B lie in blocks on the diagonal of one [N,r'], zeros around them: one product again, and no
// loop over matrices or experts. That matrix is made anew, times the scale, wherever it is read.
//
// backward computes dropout(x) A^T again: it is r' wide, and to keep it would cost more than it saves.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "model/context.h"
#include "model/lora_config.h"
#include "parallel/parameter.h"

namespace smoe {

// Which of the whole step's rows an input's rows are, for dropout: the same on every layout. No key: nothing is dropped.
struct RowNumbers {
  std::optional<std::uint64_t> key{};
  std::int64_t first = 0;  // of row 0
  Tensor rows{};           // [R] i32: what each is counted from `first`; empty: its place
};

class LowRank {
 public:
  LowRank() = default;
  // Declares A, then B, of those of the matrices that the site's configuration targets. matrices: each expert's in turn, as
  // many of each; experts: 0 where there is one product of all rows.
  LowRank(ParameterSet& parameters, const AdapterSite& site, const std::vector<Parameter>& matrices,
          std::int64_t experts);

  bool empty() const { return blocks_.size() == 0; }
  bool trained() const { return !empty() && (!a_.gradient().empty() || !b_.gradient().empty()); }

  // Of nothing where empty() is true. rows: null where there are no experts.
  void forward(Context& context, const Tensor& x /*[R,M]*/, const ExpertRows* rows, const RowNumbers& numbers,
               const Tensor& y /*[R,N] +=*/) const;
  // scale * dy B [R,r'], of scratch memory: what both gradients are made of.
  Tensor inner_gradient(Context& context, const Tensor& dy /*[R,N]*/, const ExpertRows* rows) const;
  void input_gradient(Context& context, const Tensor& inner, const ExpertRows* rows, const RowNumbers& numbers,
                      const Tensor& dx /*[R,M] +=*/) const;
  void weight_gradient(Context& context, const Tensor& dy, const Tensor& inner, const Tensor& x, const ExpertRows* rows,
                       const RowNumbers& numbers) const;

 private:
  bool drops(const RowNumbers& numbers) const { return dropout_ > 0 && numbers.key.has_value(); }
  Dropout dropout(const RowNumbers& numbers) const;
  // x itself where nothing is dropped.
  Tensor dropped(Context& context, const Tensor& x, const RowNumbers& numbers) const;
  Tensor spread(Context& context) const;  // scale * B in its blocks, [N,r'] or [E,N,r'], of scratch memory
  Shape outer_shape(std::int64_t columns) const;

  std::int64_t experts_ = 0;       // 0: one product of all rows
  std::int64_t outputs_ = 0;       // N
  std::int64_t first_column_ = 0;  // of this rank's M columns
  double scale_ = 1;
  float dropout_ = 0;
  std::uint32_t stream_ = 0;
  DiagonalBlocks blocks_;  // of one expert's B in [N,r']
  ParameterStack a_, b_;   // [r',M] or [E,r',M]; [E or 1, their elements]
};

}  // namespace smoe
