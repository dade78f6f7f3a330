// THE op table: every operation of a Mixtral training step, forward and backward adjacent, plus memory and copies.
// CpuBackend (kernels/cpu) and CudaBackend implement all of it. A virtual call an op is noise beside the op.
//
// Conventions, kept by every implementation:
//  - parameter gradients accumulate (+=); activation gradients are assigned, so their memory needs no clearing;
//  - f32 unless said otherwise; indices and ids are i32; outputs never overlap inputs unless said;
//  - results do not depend on the number of threads' timing: same inputs, same thread count, same bits;
//  - zero rows are legal everywhere;
//  - shapes are checked (std::logic_error): a wrong shape is a bug of the caller, not of the user.
//
// Shape letters: T tokens, D hidden, F intermediate, E experts, K experts per token, R = rows handed to experts,
// H / G query / key-value heads, C head dim, V vocabulary, B sequences, S sequence length (T = B * S).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/tensor.h"

namespace smoe {

// Which operand of a matrix product is read transposed. Named for row-major [rows, cols] operands.
enum class Gemm : std::uint8_t {
  nt,  // C[m,n]  = A[m,k] B[n,k]^T    y = x W^T: forward of a linear layer whose weight is [out, in]
  nn,  // C[m,n]  = A[m,k] B[k,n]      dx = dy W
  tn,  // C[m,n]  = A[k,m]^T B[k,n]    dW = dy^T x
};

// What a product does to what lies where it writes.
enum class Write : std::uint8_t {
  assign,  // C  = A B: an activation, or its gradient
  add,     // C += A B: a parameter's gradient
};

// The rows of each expert inside a [R, *] tensor sorted by expert: expert e holds rows [offsets[e], offsets[e+1]).
struct ExpertRows {
  Tensor offsets;                     // [E + 1] i32 on the device
  const std::int32_t* host = nullptr;  // the same numbers readable by the host
};

struct AttentionShape {
  std::int64_t sequences;        // B
  std::int64_t sequence_length;  // S
  std::int64_t heads;            // H
  std::int64_t kv_heads;         // G, divides H; query head h reads key-value head h / (H / G)
  std::int64_t head_dim;         // C
  std::int64_t window;           // query i sees key j only where i - j < window; 0: no window
};

struct AdamWStep {
  double learning_rate;
  double beta1, beta2, epsilon;
  double weight_decay;      // decoupled: w -= lr * weight_decay * w
  double bias_correction1;  // 1 - beta1^t
  double bias_correction2;  // 1 - beta2^t
  double gradient_scale;    // the clip factor, folded in: the gradient read is g * gradient_scale
};

// What computes here, and the rate that nothing computed here can pass.
struct DeviceProfile {
  std::string name;            // "AMD EPYC 9R14 (AVX-512, BF16)"
  int threads = 1;             // of this process
  std::string product_kernel;  // what computes matrix products: "OpenBLAS Cooperlake"
  double peak_flops = 0;       // a second, of all threads together: the arithmetic units alone, without memory or library
  std::string peak_form;       // how that was reached: "AVX-512"
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Device device() const = 0;
  virtual DeviceProfile measure_profile() = 0;  // takes milliseconds
  // Bytes a second of a = b + 3 c on all threads, `room` (f32, any contents) cut into the three arrays (McCalpin's STREAM
  // triad): 12 bytes an element, without the line that a store reads first. room is the backend's own memory, since
  // the size of its pages matters, and more of it than the caches hold.
  virtual double measure_memory_rate(const Tensor& room) = 0;

  // ---- memory ----
  virtual void* allocate(std::size_t bytes) = 0;  // 64-byte aligned or better; throws std::bad_alloc
  virtual void release(void* data, std::size_t bytes) noexcept = 0;
  virtual void copy_to_host(void* host, const Tensor& from) = 0;  // returns when the bytes are there
  virtual void copy_from_host(const Tensor& to, const void* host) = 0;
  virtual void copy(const Tensor& to, const Tensor& from) = 0;
  virtual void fill(const Tensor& to, float value) = 0;
  virtual void synchronize() = 0;

  // ---- elementwise and reductions ----
  virtual void add(const Tensor& a, const Tensor& b, const Tensor& out) = 0;  // out = a + b; out may be a or b
  virtual double sum(const Tensor& x) = 0;             // accumulated in double, in an order that is fixed
  virtual double sum_of_squares(const Tensor& x) = 0;  // likewise

  // ---- embedding: out[t] = table[ids[t] - first] ----
  // table [Vl,D] holds rows [first, first + Vl) of a vocabulary; ids in [0, vocabulary) outside them give rows of zeros
  // and take no gradient: they are another rank's.
  virtual void embedding_forward(const Tensor& ids /*[T] i32*/, const Tensor& table, std::int64_t first, std::int64_t vocabulary,
                                 const Tensor& out /*[T,D]*/) = 0;
  virtual void embedding_backward(const Tensor& ids, const Tensor& dout /*[T,D]*/, std::int64_t first, std::int64_t vocabulary,
                                  const Tensor& dtable /*[Vl,D] +=*/) = 0;

  // ---- RMSNorm (Zhang & Sennrich 2019): y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + epsilon) ----
  virtual void rms_norm_forward(const Tensor& x /*[T,D]*/, const Tensor& weight /*[D]*/, float epsilon,
                                const Tensor& y /*[T,D]*/, const Tensor& rstd /*[T]*/) = 0;
  // dx = dresidual + (gradient through the norm): the residual branch that left before the norm joins here.
  // dresidual may be empty (zero) and may be dx itself. dweight may be empty: the weight is not trained.
  virtual void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                                 const Tensor& dresidual, const Tensor& dx /*[T,D]*/, const Tensor& dweight /*[D] +=*/) = 0;

  // ---- matrix products ----
  virtual void gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, Write write) = 0;
  // One product an expert. nt: A [R,k], B [E,n,k], C [R,n]. nn: A [R,k], B [E,k,n], C [R,n].
  // tn: A [R,m], B [R,n], C [E,m,n]; an expert without rows adds nothing (or, assigning, yields zeros).
  virtual void grouped_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows& rows,
                            Write write) = 0;

  // ---- rotary position embedding (Su et al. 2021), in place, HF convention: pairs (i, i + C/2) ----
  // table [P, C]: row p holds the cosines of the C/2 angles of position p, then their sines, both times scale. Angle i is
  // p * frequencies[i], rounded to f32 as transformers rounds it. frequencies [C/2] lie on the host.
  virtual void rope_table(std::span<const float> frequencies, float scale, const Tensor& table) = 0;
  // Rotates the first rotated_heads of x [T, heads, C] by the angles of positions [T] i32.
  virtual void rope_forward(const Tensor& x, std::int64_t rotated_heads, const Tensor& positions, const Tensor& table) = 0;
  virtual void rope_backward(const Tensor& dx, std::int64_t rotated_heads, const Tensor& positions, const Tensor& table) = 0;

  // ---- causal grouped-query attention, tiled with an online softmax (Dao 2022): S x S never exists ----
  // qkv [T, H + 2G, C]: H query heads, G key heads, G value heads. document_start [T] i32: the first position of the
  // same sequence that token t may see; empty: 0. scale 1/sqrt(C). lse [H, T]: log-sum-exp of the scaled scores.
  virtual void attention_forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                 const Tensor& out /*[T,H,C]*/, const Tensor& lse) = 0;
  virtual void attention_backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                  const Tensor& out, const Tensor& lse, const Tensor& dout /*[T,H,C]*/,
                                  const Tensor& dqkv /*[T,H+2G,C]*/) = 0;
  // Inference: appends the keys and values of qkv [N, H + 2G, C] (already rotated) at rows [past, past + N) of the
  // caches [capacity, G, C], then lets query i see cache rows 0 .. past + i, inside the window. One sequence.
  virtual void attention_cached(const AttentionShape& shape, const Tensor& qkv, std::int64_t past, const Tensor& key_cache,
                                const Tensor& value_cache, const Tensor& out /*[N,H,C]*/) = 0;

  // ---- router: softmax over all experts, top K (lowest index wins ties), renormalised (Mixtral, arXiv 2401.04088) ----
  virtual void router_forward(const Tensor& logits /*[T,E]*/, const Tensor& probabilities /*[T,E]*/,
                              const Tensor& logsumexp /*[T]*/, const Tensor& experts /*[T,K] i32, best first*/,
                              const Tensor& weights /*[T,K], sum to 1*/) = 0;
  // dlogits = gradient through the renormalised weights (exactly zero for experts not chosen)
  //         + through the balance loss: dL/dprobabilities[t,e] = balance_gradient[t / (T/N), e], [N,E]; empty: none
  //         + through the z loss: z_scale * d(sum_t lse_t^2)/dlogits.
  virtual void router_backward(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                               const Tensor& weights, const Tensor& dweights /*[T,K]*/, const Tensor& balance_gradient,
                               double z_scale, const Tensor& dlogits /*[T,E]*/) = 0;
  // Sums over N equal groups of consecutive tokens: what every balance loss is made of.
  virtual void balance_statistics(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                  const Tensor& counts /*[N,E] assignments*/, const Tensor& probability_sums /*[N,E]*/,
                                  const Tensor& z_sums /*[N]: sum of lse^2*/) = 0;

  // ---- dispatch to experts ----
  // The order of rows: by expert, inside one by token. row_of [T,K]: row of each assignment; assignment_of [T*K]: the
  // inverse, t * K + k; offsets [E+1] (and its host copy).
  virtual void routing_map(const Tensor& experts /*[T,K]*/, const Tensor& row_of, const Tensor& assignment_of,
                           const ExpertRows& rows) = 0;
  // rows[r] = x[assignment_of[r] / K]. Its transpose is unpermute, so each is the other's backward.
  virtual void permute(const Tensor& x /*[T,D]*/, const Tensor& assignment_of, std::int64_t experts_per_token,
                       const Tensor& rows /*[R,D]*/) = 0;
  // x[t] = (base[t] or 0) + sum_k rows[row_of[t,k]]. base may be empty or x itself.
  virtual void unpermute(const Tensor& rows /*[R,D]*/, const Tensor& row_of /*[T,K]*/, const Tensor& base,
                         const Tensor& x /*[T,D]*/) = 0;
  // row_weights[row_of[t,k]] = weights[t,k], and back.
  virtual void permute_weights(const Tensor& weights /*[T,K]*/, const Tensor& row_of, const Tensor& row_weights /*[R]*/) = 0;
  virtual void unpermute_weights(const Tensor& row_weights, const Tensor& row_of, const Tensor& weights) = 0;

  // ---- SwiGLU (Shazeer 2020) times the routing weight: a = w * silu(gate) * up; h [R,2F] = gate | up ----
  // The weight is applied here, before w2, instead of after: the product is the same, and the experts' outputs need
  // not be kept for the router's gradient.
  virtual void swiglu_forward(const Tensor& h /*[R,2F]*/, const Tensor& row_weights /*[R]; empty: 1*/,
                              const Tensor& a /*[R,F]*/) = 0;
  // dh may be h itself. Also writes a again (the weight gradient of w2 needs it, and it was not kept).
  virtual void swiglu_backward(const Tensor& h, const Tensor& row_weights, const Tensor& da /*[R,F]*/,
                               const Tensor& dh /*[R,2F]*/, const Tensor& drow_weights /*[R]; empty: none*/,
                               const Tensor& a /*[R,F]*/) = 0;

  // ---- cross-entropy over a chunk of rows of logits (the caller never holds all T x V of them) ----
  // logits [N,Vl] are columns [first, first + Vl) of the vocabulary. target < 0: masked.
  // Per row: the maximum, sum exp(logit - maximum), and the target's logit (0 where it is not in these columns).
  virtual void cross_entropy_statistics(const Tensor& logits, const Tensor& targets /*[N] i32*/, std::int64_t first,
                                        const Tensor& maxima, const Tensor& sums, const Tensor& target_logits) = 0;
  // The same of all columns, from those of P ranges of them: parts [P,3,N], of each range maxima, sums, target logits.
  virtual void cross_entropy_merge(const Tensor& parts, const Tensor& maxima, const Tensor& sums, const Tensor& target_logits) = 0;
  // logsumexp = maximum + log(sum); losses = logsumexp - target_logit, 0 where masked.
  virtual void cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                    const Tensor& target_logits, const Tensor& logsumexp, const Tensor& losses) = 0;
  // In place: logits become scale * token_scale * (softmax - onehot(target)); a masked row becomes zero.
  virtual void cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                      const Tensor& logsumexp, double scale, const Tensor& token_scales /*[N]; empty: 1*/) = 0;

  // ---- AdamW (Loshchilov & Hutter 2019), one pass; clears the gradient it has used ----
  virtual void adamw(const AdamWStep& step, const Tensor& parameter, const Tensor& gradient, const Tensor& first_moment,
                     const Tensor& second_moment) = 0;
};

// threads: how many this backend, and the thread that makes it, may use; 0: all the process may.
std::unique_ptr<Backend> make_cpu_backend(int threads = 0);

}  // namespace smoe
