// One Mixtral layer:  mid = x + attention(norm(x));  y = mid + experts(norm(mid)).
#pragma once

#include <string>

#include "model/attention.h"
#include "model/experts.h"
#include "model/rms_norm.h"
#include "model/router.h"
#include "parallel/token_dispatcher.h"

namespace smoe {

class DecoderLayer {
 public:
  struct Saved {
    RmsNorm::Saved input_norm, post_attention_norm;
    Attention::Saved attention;
    Router::Saved router;
    Dispatched dispatched;
    Experts::Saved experts;
  };

  DecoderLayer(ParameterSet& parameters, const ModelConfig& config, const RoutingOptions& routing, const Mesh& mesh,
               int layer, const LoraConfig* lora = nullptr);

  Router& router() { return router_; }

  // x [T/tp,D] -> y [T/tp,D]. x must live until backward. statistics may be empty.
  void forward(Context& context, const TokenBatch& batch, const Tensor& rope_table, const Tensor& x, KvCache* cache,
               Saved& saved, const RouterStatistics& statistics, const Tensor& y);
  // dy [T/tp,D] is overwritten with dx where that is wanted; where not, backward ends above what has nothing to train.
  void backward(Context& context, const TokenBatch& batch, const Tensor& rope_table,
                const RouterGradient& router_gradient, Saved& saved, const Tensor& dy_then_dx, bool wants_dx);

 private:
  Capacity capacity(const Context& context, const TokenBatch& batch) const;

  RoutingOptions routing_;
  std::int64_t experts_in_all_, experts_per_token_;
  RmsNorm input_norm_;
  Attention attention_;
  RmsNorm post_attention_norm_;
  Router router_;
  TokenDispatcher dispatcher_;
  Experts experts_;
};

}  // namespace smoe
