// A matrix of one expert as a token meets it: the weight, and with an adapter beside it W + scale B A (model/low_rank.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "model/context.h"
#include "model/lora_config.h"
#include "parallel/parameter.h"

namespace smoe {

class ExpertMatrix {
 public:
  // name: w1, w2 or w3. lora: of the model, null where it has no adapters. What is made of them lies in the context's scratch memory,
  // which must outlive this. Throws std::logic_error where the parameters are not all experts'.
  ExpertMatrix(Context& context, ParameterSet& parameters, const LoraConfig* lora, std::size_t layer,
               std::size_t expert, const std::string& name);

  std::int64_t row_count() const { return weight_.dim(0); }
  std::int64_t columns() const { return weight_.dim(1); }
  DType type() const { return weight_.type(); }
  bool adapted() const { return !a_.empty(); }
  // Whether this lies in memory where that ends, as an expert's w3 does behind its w1.
  bool follows_previous() const { return follows_previous_; }

  // [count,columns] from the row `first` on: the weight's own, or with an adapter of scratch memory.
  Tensor rows(Context& context, std::int64_t first, std::int64_t count) const;
  // The same, written to `to`.
  void write(Context& context, std::int64_t first, const Tensor& to /*[count,columns]*/) const;

 private:
  Tensor weight_;        // [out,in]
  Tensor scaled_b_, a_;  // scale * B [out,r], A [r,in]; empty where there is no adapter
  bool follows_previous_;
};

}  // namespace smoe
