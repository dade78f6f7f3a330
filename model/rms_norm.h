// RMSNorm (Zhang & Sennrich 2019): y = x / sqrt(mean(x^2) + epsilon) * weight. x, y [T,D].
#pragma once

#include <string>

#include "model/context.h"
#include "parallel/parameter.h"

namespace smoe {

class RmsNorm {
 public:
  struct Saved {
    Tensor x;     // [T,D] the input, not a copy
    Tensor rstd;  // [T]
  };

  RmsNorm(ParameterSet& parameters, const std::string& name, std::int64_t hidden, double epsilon);

  bool trained() const { return !weight_.gradient.empty(); }

  Tensor forward(Context& context, const Tensor& x, Saved& saved) const;
  // dx = dresidual + (gradient through the norm); dresidual may be empty or dx.
  void backward(Context& context, const Tensor& dy, const Saved& saved, const Tensor& dresidual,
                const Tensor& dx) const;

 private:
  const Parameter& weight_;
  float epsilon_;
};

}  // namespace smoe
