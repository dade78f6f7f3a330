// Two backends, one held against the other: every op runs on both, from the same inputs, and the first whose results
// differ is named. What the caller gets are the first backend's numbers, bit for bit, so a whole training step can run
// on it until something differs.
//
// All arguments are compared, inputs too: an op that writes where it should read is found. Slow: each argument is copied
// to the second backend and back. Copies to the host, events and memory of the host are the first backend's alone, so
// that what arrives late there arrives late here.
//
// How far apart results may lie: not at all where an op only moves numbers, in what it only reads, and in indices.
// Elsewhere as far as the rounding of each may take it from the truth: check_backend.cpp has the numbers. A token that
// stands between two experts to the last digit may go to either.
#pragma once

#include <memory>

#include "kernels/op_decorator.h"

namespace smoe {

class CheckBackend : public OpDecorator {
 public:
  // An op that differs throws std::runtime_error: "gemm: c [4, 8] f32 differs at [0, 5]: ...".
  CheckBackend(Backend& first, Backend& second) : OpDecorator(first), second_(second) {}

 protected:
  void do_copy_to_host(void* host, const Tensor& from) override { inner().copy_to_host(host, from); }
  void do_start_copy_to_host(void* host, const Tensor& from) override { inner().start_copy_to_host(host, from); }
  // Ops whose results may nearly vanish, as differences of larger numbers: these are what their rounding is measured by.
  void do_router_forward(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                         const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                         const Tensor& weights) override;
  void do_router_backward(const RoutingRule& rule, const Tensor& logits, const Tensor& probabilities,
                          const Tensor& logsumexp, const Tensor& experts, const Tensor& weights, const Tensor& dweights,
                          const Tensor& balance_gradient, double z_scale, const Tensor& dlogits) override;
  void do_cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                   const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                                   const Tensor& logit_sums) override;
  void do_cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                               const Tensor& target_logits, const Tensor& logsumexp, const Tensor& losses) override;
  void do_cross_entropy_uniform_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                       const Tensor& logit_sums, std::int64_t vocabulary,
                                       const Tensor& losses) override;
  void do_cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                 const Tensor& logsumexp, double scale, const Tensor& token_scales,
                                 const LabelSmoothing& smoothing, const Tensor& dlogits) override;

 private:
  void run(const char* op, const Call& call) override;

  Backend& second_;
  double magnitude_ = 0;                   // of the op that is called: its results count as at least as large
  const RoutingRule* choosing_ = nullptr;  // of router_forward
};

// What a run or a command on such a device says of it once, before it starts.
inline constexpr const char* check_notice =
    "device check: every operation runs on the GPU and, from the same inputs, on the CPU; the first whose results differ "
    "ends it. The numbers are the GPU's, the time is not";

// One that owns both.
std::unique_ptr<Backend> make_check_backend(std::unique_ptr<Backend> first, std::unique_ptr<Backend> second);

}  // namespace smoe
