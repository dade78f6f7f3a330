// THE op table: every operation of a Mixtral training step, forward and backward adjacent, plus memory and copies.
// A backend implements all of it, behind checks of shapes and types that are written once (backend.cpp, backend_moe.cpp):
// op() checks its arguments and calls the backend's do_op(). A virtual call an op is noise beside the op.
//
// Conventions, kept by every implementation:
//  - parameter gradients accumulate (+=); activation gradients are assigned, so their memory needs no clearing;
//  - types: what is marked A is f32 or bf16, one of the two for all of a call: the weights and activations that a model
//    computes with. What is not marked is f32, indices and ids are i32. Ops compute in f32, and round to bf16 once, where
//    they write;
//  - outputs never overlap inputs or each other unless said, and then an output is that input, not a part of it;
//  - results do not depend on the number of threads' timing: same inputs, same thread count, same bits;
//  - zero rows are legal everywhere;
//  - shapes, types, devices and overlaps are checked (std::logic_error): a wrong one is a bug of the caller, not of the user. Ids
//    are checked where they are read, on a device if it can;
//  - order: ops and copies take effect in the order of the calls. On a device they run behind the host, so memory given
//    back to an Arena may still be in use by earlier ops, and may be handed out again at once: whoever takes it comes later.
//
// Shape letters: T tokens, D hidden, F intermediate, E experts, K experts per token, R = rows handed to experts,
// H / G query / key-value heads, C head dim, V vocabulary, B sequences, S sequence length (T = B * S).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/communication_stream.h"
#include "kernels/low_rank.h"
#include "kernels/routing.h"
#include "kernels/stamp.h"
#include "kernels/tensor.h"

namespace smoe {

constexpr std::size_t memory_alignment = 256;  // bytes, of every tensor of an Arena: what the widest device loads want

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
  Tensor offsets;                      // [E + 1] i32 on the device
  std::span<const std::int32_t> host;  // the same numbers, for the host: an op reads them before it returns
};

// A point in the order of a backend's work: all that was called before Backend::record() made it.
struct Event {
  std::uint64_t number = 0;
};

struct AttentionShape {
  std::int64_t sequences;        // B
  std::int64_t sequence_length;  // S
  std::int64_t heads;            // H
  std::int64_t kv_heads;         // G, divides H; query head h reads key-value head h / (H / G)
  std::int64_t head_dim;         // C
  std::int64_t window;           // query i sees key j only where i - j < window; 0: no window
};

// Label smoothing (Szegedy et al. 2016, section 7): a row's loss is 1 - amount of its own, and amount of the mean of -log p over
// all columns of the vocabulary, so many.
struct LabelSmoothing {
  double amount = 0;  // in [0, 1); 0: none
  std::int64_t vocabulary = 0;
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
  // A second, of all threads together: the arithmetic units alone, without memory or library; of a GPU, whose tensor cores only
  // a library fills, its best product.
  double peak_flops = 0;
  std::string peak_form;  // how that was reached: "AVX-512"; "bf16 product 8192^3"
  Device kind = Device::cpu;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Device device() const = 0;
  virtual DeviceProfile measure_profile() = 0;  // takes milliseconds
  // Bytes a second of a = b + 3 c on all threads, `room` (f32, any contents) cut into the three arrays (McCalpin's STREAM
  // triad): 12 bytes an element, without the line that a store reads first. room is the backend's own memory, since
  // the size of its pages matters, and more of it than the caches hold.
  double measure_memory_rate(const Tensor& room);

  // ---- memory ----
  // Nothing outside this folder reads or writes what allocate() returned: it may be a device's. Aligned to
  // memory_alignment or better; throws std::bad_alloc.
  virtual void* allocate(std::size_t bytes) = 0;
  // Ops that use it may have yet to run: the backend keeps it for them.
  virtual void release(void* data, std::size_t bytes) noexcept = 0;
  // Memory of the host that start_copy_to_host() may write behind its back: page-locked, where there is a device.
  virtual void* allocate_host(std::size_t bytes) = 0;
  // A copy into it may be on its way: nothing of it is written after this.
  virtual void release_host(void* data, std::size_t bytes) noexcept = 0;

  void copy_to_host(void* host, const Tensor& from);  // waits for all earlier work: the bytes are there on return
  void copy_from_host(const Tensor& to,
                      const void* host);  // host may be written again on return, page-locked memory too
  // Returns at once. host, from allocate_host(), may be read after wait() for an event recorded later.
  void start_copy_to_host(void* host, const Tensor& from);
  void copy(const Tensor& to, const Tensor& from);
  void fill(const Tensor& to, float value);  // any type; i32: the value without its fraction

  virtual Event record() = 0;
  virtual void wait(Event event) = 0;  // for the work before the event
  virtual void synchronize() = 0;      // for all work

  // ---- when it was done: for a timeline ----
  // Nobody waits for it. A device takes an event for each, which it keeps until forget_stamps().
  virtual Stamp stamp();
  // Both have come about: behind synchronize(). Of communication streams too, whose work the ops have waited for.
  virtual double seconds_between(Stamp from, Stamp to);
  virtual void forget_stamps() {}

  // ---- beside the ops: kernels/communication_stream.h ----
  // Null where a device works at the call, and so has no other queue. The backend's own, for as long as it lives.
  virtual CommunicationStream* communication(Lane) { return nullptr; }

  // ---- what a profiler shows: kernels/range.h ----
  // What is called from here to the range's end is a part of the step: "layer", 3. name stays; a number below 0 is not shown.
  virtual void begin_range(const char* /*name*/, int /*number*/) {}
  virtual void end_range() noexcept {}  // the last one that began

  // ---- elementwise and reductions ----
  void add(const Tensor& a /*A*/, const Tensor& b /*A*/, const Tensor& out /*A*/);  // out = a + b; out may be a or b
  // out[i] = parts[0,i] + parts[1,i] + ..., in that order, in f32, and rounded once.
  void sum_rows(const Tensor& parts /*[P,n] A*/, const Tensor& out /*[n] A*/);
  // Accumulated in double, in an order that is fixed; only the whole sum is added to out, which stays on the device.
  void sum(const Tensor& x, const Tensor& out /*[1] f64 +=*/);
  void sum_of_squares(const Tensor& x, const Tensor& out /*[1] f64 +=*/);

  // ---- embedding: out[t] = table[ids[t] - first] ----
  // table [Vl,D] holds rows [first, first + Vl) of a vocabulary; ids in [0, vocabulary) outside them give rows of zeros
  // and take no gradient: they are another rank's. So does padding, whose id is -1.
  void embedding_forward(const Tensor& ids /*[T] i32*/, const Tensor& table /*A*/, std::int64_t first,
                         std::int64_t vocabulary, const Tensor& out /*[T,D] A*/);
  void embedding_backward(const Tensor& ids, const Tensor& dout /*[T,D] A*/, std::int64_t first,
                          std::int64_t vocabulary, const Tensor& dtable /*[Vl,D] +=*/);
  // x[t] += noise.width * row_scales[t] * u, u of its entry uniform in [-1, 1): NEFTune (arXiv 2310.05914). Its backward is the
  // identity. A row whose scale is 0 stays as it is, to the bit.
  void add_noise(const TokenNoise& noise, const Tensor& row_scales /*[T]*/, const Tensor& x /*[T,D] A*/);

  // ---- RMSNorm (Zhang & Sennrich 2019): y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + epsilon) ----
  void rms_norm_forward(const Tensor& x /*[T,D] A*/, const Tensor& weight /*[D] A*/, float epsilon,
                        const Tensor& y /*[T,D] A*/, const Tensor& rstd /*[T]*/);
  // dx = dresidual + (gradient through the norm): the residual branch that left before the norm joins here.
  // dresidual may be empty (zero) and may be dx itself. dweight may be empty: the weight is not trained.
  void rms_norm_backward(const Tensor& dy /*A*/, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                         const Tensor& dresidual /*A*/, const Tensor& dx /*[T,D] A*/, const Tensor& dweight /*[D] +=*/);

  // ---- matrix products of a and b, both A, summed in f32; c is f32, or bf16 where they are ----
  void gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, Write write);
  // One product an expert. nt: A [R,k], B [E,n,k], C [R,n]. nn: A [R,k], B [E,k,n], C [R,n].
  // tn: A [R,m], B [R,n], C [E,m,n]; an expert without rows adds nothing (or, assigning, yields zeros).
  void grouped_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows& rows, Write write);

  // ---- low-rank adapters (LoRA, arXiv 2106.09685; low_rank.h) ----
  // y = x where it is not dropped, times dropout.scale(), and 0 elsewhere. rows [R] i32: what the row of each is counted from
  // first_row; empty: its place. Its transpose is itself. y may be x.
  void dropout(const Dropout& dropout, const Tensor& rows, const Tensor& x /*[R,D] A*/, const Tensor& y /*[R,D] A*/,
               Write write);
  // matrices[e] = scale * the blocks of stack[e], zeros around them.
  void spread_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& stack /*[E,n] A*/,
                     const Tensor& matrices /*[E,N,M] A*/);
  // Its transpose: stack[e] += scale * the blocks of matrices[e].
  void gather_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& matrices /*[E,N,M]*/,
                     const Tensor& stack /*[E,n] +=*/);

  // ---- rotary position embedding (Su et al. 2021), in place, HF convention: pairs (i, i + C/2) ----
  // table [P, C]: row p holds the cosines of the C/2 angles of position p, then their sines, both times scale. Angle i is
  // p * frequencies[i], rounded to f32 as transformers rounds it. frequencies [C/2] lie on the host.
  void rope_table(std::span<const float> frequencies, float scale, const Tensor& table);
  // Rotates the first rotated_heads of x [T, heads, C] A by the angles of positions [T] i32.
  void rope_forward(const Tensor& x, std::int64_t rotated_heads, const Tensor& positions, const Tensor& table);
  void rope_backward(const Tensor& dx, std::int64_t rotated_heads, const Tensor& positions, const Tensor& table);

  // ---- causal grouped-query attention, tiled with an online softmax (Dao 2022): S x S never exists ----
  // qkv, out and the caches are A. qkv [T, H + 2G, C]: H query heads, G key heads, G value heads. document_start [T] i32: the first position of the
  // same sequence that token t may see; empty: 0. scale 1/sqrt(C). lse [H, T]: log-sum-exp of the scaled scores.
  void attention_forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                         const Tensor& out /*[T,H,C]*/, const Tensor& lse);
  void attention_backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                          const Tensor& out, const Tensor& lse, const Tensor& dout /*[T,H,C]*/,
                          const Tensor& dqkv /*[T,H+2G,C]*/);
  // Inference: appends the keys and values of qkv [N, H + 2G, C] (already rotated) at rows [past, past + N) of the
  // caches [capacity, G, C], then lets query i see cache rows 0 .. past + i, inside the window. One sequence.
  void attention_cached(const AttentionShape& shape, const Tensor& qkv, std::int64_t past, const Tensor& key_cache,
                        const Tensor& value_cache, const Tensor& out /*[N,H,C]*/);

  // ---- router (rules: routing.h): a score of every expert, the K best (lowest index wins ties), their weights ----
  // selection_bias, of all tokens or each token's own, is added to the scores where experts are chosen, and is in no weight;
  // empty: none. probabilities: the scores over their sum, so that a row sums to 1 whatever the rule.
  // A token of padding has the experts -1, and all else that router_forward gives is 0 for it (model/router.cpp writes both):
  // the ops below give it no row, no gradient, and no part in a sum.
  void router_forward(const RoutingRule& rule, const Tensor& logits /*[T,E]*/,
                      const Tensor& selection_bias /*[E] or [T,E]*/, const Tensor& probabilities /*[T,E]*/,
                      const Tensor& logsumexp /*[T]*/, const Tensor& experts /*[T,K] i32, best first*/,
                      const Tensor& weights /*[T,K]*/);
  // dlogits = gradient through the weights (exactly zero for experts not chosen, but for softmax scores as they are)
  //         + through the balance loss: dL/dprobabilities[t,e] = balance_gradient[t / (T/N), e], [N,E]; empty: none
  //         + through the z loss: z_scale * d(sum_t lse_t^2)/dlogits.
  void router_backward(const RoutingRule& rule, const Tensor& logits, const Tensor& probabilities,
                       const Tensor& logsumexp, const Tensor& experts, const Tensor& weights,
                       const Tensor& dweights /*[T,K]*/, const Tensor& balance_gradient, double z_scale,
                       const Tensor& dlogits /*[T,E] f32 or bf16*/);
  // Sums over N equal groups of consecutive tokens: what every balance loss is made of.
  void balance_statistics(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                          const Tensor& counts /*[N,E] assignments*/, const Tensor& probability_sums /*[N,E]*/,
                          const Tensor& z_sums /*[N]: sum of lse^2*/);
  // sums [3] += over the tokens of a forward: the entropy of the probabilities, -sum_e p ln p, in nats; the L2 norm of the
  // logits; and the margin, by how much the last expert chosen is ahead of the first that was not, in what they are chosen by:
  // logits, or where there is a selection bias (as above) scores with it. 0 where every expert is chosen. In double.
  void router_measures(const RoutingRule& rule, const Tensor& logits /*[T,E]*/, const Tensor& selection_bias,
                       const Tensor& probabilities /*[T,E]*/, const Tensor& experts /*[T,K] i32*/,
                       const Tensor& sums /*[3] f64 +=*/);

  // y = x * (1 + noise.width * u), u of its entry uniform in [-1, 1). Its transpose is itself. y may be x.
  void jitter(const TokenNoise& noise, const Tensor& x /*[T,D] A*/, const Tensor& y /*[T,D] A*/, Write write);

  // ---- dispatch to experts ----
  // The order of rows: by expert, inside one by token. row_of [T,K]: row of each assignment, -1 where the capacity drops
  // it; assignment_of [T*K]: the inverse, t * K + k, and -1 behind the last row; offsets [E+1]: where each expert's rows begin,
  // and at the end R, how many there are. The capacity's groups divide T. probabilities [T,E]: read where they decide what is
  // dropped, a NaN the least of all; may be empty where they do not.
  void routing_map(const Tensor& experts /*[T,K]*/, const Tensor& probabilities, const Capacity& capacity,
                   const Tensor& row_of, const Tensor& assignment_of, const Tensor& offsets);
  // rows[r] = x[assignment_of[r] / K], A or i32. Its transpose is unpermute, so each is the other's backward.
  void permute(const Tensor& x /*[T,D] A*/, const Tensor& assignment_of, std::int64_t experts_per_token,
               const Tensor& rows /*[R,D] A*/);
  // x[t] = (base[t] or 0) + sum_k rows[row_of[t,k]], of those not dropped. base may be empty or x itself.
  void unpermute(const Tensor& rows /*[R,D] A*/, const Tensor& row_of /*[T,K]*/, const Tensor& base /*A*/,
                 const Tensor& x /*[T,D] A*/);
  // row_weights[row_of[t,k]] = weights[t,k], both f32 or both i32, and back, where what was dropped becomes 0.
  void permute_weights(const Tensor& weights /*[T,K]*/, const Tensor& row_of, const Tensor& row_weights /*[R]*/);
  void unpermute_weights(const Tensor& row_weights, const Tensor& row_of, const Tensor& weights);

  // ---- SwiGLU (Shazeer 2020) times the routing weight: a = w * silu(gate) * up; h [R,2F] = gate | up ----
  // The weight is applied here, before w2, instead of after: the product is the same, and the experts' outputs need
  // not be kept for the router's gradient.
  void swiglu_forward(const Tensor& h /*[R,2F] A*/, const Tensor& row_weights /*[R]; empty: 1*/,
                      const Tensor& a /*[R,F] A*/);
  // dh may be h itself. Also writes a again (the weight gradient of w2 needs it, and it was not kept).
  void swiglu_backward(const Tensor& h, const Tensor& row_weights, const Tensor& da /*[R,F] A*/,
                       const Tensor& dh /*[R,2F] A*/, const Tensor& drow_weights /*[R]; empty: none*/,
                       const Tensor& a /*[R,F] A*/);

  // ---- cross-entropy over a chunk of rows of logits (the caller never holds all T x V of them) ----
  // logits [N,Vl] are columns [first, first + Vl) of the vocabulary. target < 0: masked.
  // Per row: the maximum, sum exp(logit - maximum), the target's logit (0 where it is not in these columns), and, where
  // labels are smoothed, the sum of the logits; logit_sums may be empty.
  void cross_entropy_statistics(const Tensor& logits, const Tensor& targets /*[N] i32*/, std::int64_t first,
                                const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                                const Tensor& logit_sums);
  // The same of all columns, from those of P ranges of them: parts [P,3,N], of each range maxima, sums, target logits;
  // [P,4,N] where logit_sums are wanted, which come last.
  void cross_entropy_merge(const Tensor& parts, const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                           const Tensor& logit_sums);
  // logsumexp = maximum + log(sum); losses = logsumexp - target_logit, 0 where masked.
  void cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                            const Tensor& target_logits, const Tensor& logsumexp, const Tensor& losses);
  // Cross-entropy to the uniform distribution, the mean of -log p over a vocabulary of so many columns:
  // losses = maximum + log(sum) - logit_sum / vocabulary, 0 where the target is masked.
  void cross_entropy_uniform_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                    const Tensor& logit_sums, std::int64_t vocabulary, const Tensor& losses);
  // dlogits = scale * token_scale * (softmax - (1 - smoothing.amount) onehot(target) - smoothing.amount / vocabulary), f32
  // or bf16; a masked row is zero. dlogits may be logits.
  void cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first, const Tensor& logsumexp,
                              double scale, const Tensor& token_scales /*[N]; empty: 1*/,
                              const LabelSmoothing& smoothing, const Tensor& dlogits);

  // ---- AdamW (Loshchilov & Hutter 2019), one pass; clears the gradient it has used ----
  // value, bf16: the master rounded, which is what the model computes with; empty: that is the master itself.
  void adamw(const AdamWStep& step, const Tensor& master, const Tensor& gradient, const Tensor& first_moment,
             const Tensor& second_moment, const Tensor& value);

 private:
  // The ops themselves. Their arguments have been checked.
  virtual double do_measure_memory_rate(const Tensor& room) = 0;

  virtual void do_copy_to_host(void* host, const Tensor& from) = 0;
  virtual void do_copy_from_host(const Tensor& to, const void* host) = 0;
  virtual void do_start_copy_to_host(void* host, const Tensor& from) = 0;
  virtual void do_copy(const Tensor& to, const Tensor& from) = 0;
  virtual void do_fill(const Tensor& to, float value) = 0;

  virtual void do_add(const Tensor& a, const Tensor& b, const Tensor& out) = 0;
  virtual void do_sum_rows(const Tensor& parts, const Tensor& out) = 0;
  virtual void do_sum(const Tensor& x, const Tensor& out) = 0;
  virtual void do_sum_of_squares(const Tensor& x, const Tensor& out) = 0;

  virtual void do_embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first, std::int64_t vocabulary,
                                    const Tensor& out) = 0;
  virtual void do_embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first, std::int64_t vocabulary,
                                     const Tensor& dtable) = 0;
  virtual void do_add_noise(const TokenNoise& noise, const Tensor& row_scales, const Tensor& x) = 0;

  virtual void do_rms_norm_forward(const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y,
                                   const Tensor& rstd) = 0;
  virtual void do_rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                                    const Tensor& dresidual, const Tensor& dx, const Tensor& dweight) = 0;

  virtual void do_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, Write write) = 0;
  virtual void do_grouped_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows& rows,
                               Write write) = 0;

  virtual void do_dropout(const Dropout& dropout, const Tensor& rows, const Tensor& x, const Tensor& y,
                          Write write) = 0;
  virtual void do_spread_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& stack,
                                const Tensor& matrices) = 0;
  virtual void do_gather_blocks(const DiagonalBlocks& blocks, double scale, const Tensor& matrices,
                                const Tensor& stack) = 0;

  virtual void do_rope_table(std::span<const float> frequencies, float scale, const Tensor& table) = 0;
  virtual void do_rope_forward(const Tensor& x, std::int64_t rotated_heads, const Tensor& positions,
                               const Tensor& table) = 0;
  virtual void do_rope_backward(const Tensor& dx, std::int64_t rotated_heads, const Tensor& positions,
                                const Tensor& table) = 0;

  virtual void do_attention_forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                    const Tensor& out, const Tensor& lse) = 0;
  virtual void do_attention_backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start,
                                     const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dqkv) = 0;
  virtual void do_attention_cached(const AttentionShape& shape, const Tensor& qkv, std::int64_t past,
                                   const Tensor& key_cache, const Tensor& value_cache, const Tensor& out) = 0;

  virtual void do_router_forward(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                 const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                 const Tensor& weights) = 0;
  virtual void do_router_backward(const RoutingRule& rule, const Tensor& logits, const Tensor& probabilities,
                                  const Tensor& logsumexp, const Tensor& experts, const Tensor& weights,
                                  const Tensor& dweights, const Tensor& balance_gradient, double z_scale,
                                  const Tensor& dlogits) = 0;
  virtual void do_balance_statistics(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                     const Tensor& counts, const Tensor& probability_sums, const Tensor& z_sums) = 0;
  virtual void do_router_measures(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                  const Tensor& probabilities, const Tensor& experts, const Tensor& sums) = 0;

  virtual void do_jitter(const TokenNoise& noise, const Tensor& x, const Tensor& y, Write write) = 0;

  virtual void do_routing_map(const Tensor& experts, const Tensor& probabilities, const Capacity& capacity,
                              const Tensor& row_of, const Tensor& assignment_of, const Tensor& offsets) = 0;
  virtual void do_permute(const Tensor& x, const Tensor& assignment_of, std::int64_t experts_per_token,
                          const Tensor& rows) = 0;
  virtual void do_unpermute(const Tensor& rows, const Tensor& row_of, const Tensor& base, const Tensor& x) = 0;
  virtual void do_permute_weights(const Tensor& weights, const Tensor& row_of, const Tensor& row_weights) = 0;
  virtual void do_unpermute_weights(const Tensor& row_weights, const Tensor& row_of, const Tensor& weights) = 0;

  virtual void do_swiglu_forward(const Tensor& h, const Tensor& row_weights, const Tensor& a) = 0;
  virtual void do_swiglu_backward(const Tensor& h, const Tensor& row_weights, const Tensor& da, const Tensor& dh,
                                  const Tensor& drow_weights, const Tensor& a) = 0;

  virtual void do_cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                           const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                                           const Tensor& logit_sums) = 0;
  virtual void do_cross_entropy_merge(const Tensor& parts, const Tensor& maxima, const Tensor& sums,
                                      const Tensor& target_logits, const Tensor& logit_sums) = 0;
  virtual void do_cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                       const Tensor& target_logits, const Tensor& logsumexp, const Tensor& losses) = 0;
  virtual void do_cross_entropy_uniform_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                               const Tensor& logit_sums, std::int64_t vocabulary,
                                               const Tensor& losses) = 0;
  virtual void do_cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                         const Tensor& logsumexp, double scale, const Tensor& token_scales,
                                         const LabelSmoothing& smoothing, const Tensor& dlogits) = 0;

  virtual void do_adamw(const AdamWStep& step, const Tensor& master, const Tensor& gradient, const Tensor& first_moment,
                        const Tensor& second_moment, const Tensor& value) = 0;
};

// threads: how many this backend, and the thread that makes it, may use; 0: all the process may.
std::unique_ptr<Backend> make_cpu_backend(int threads = 0);
// Why no GPU can compute here: no CUDA in this build, no driver, an old one, no device. Empty: one can.
std::string cuda_missing();
// Throws std::runtime_error for what cuda_missing() says.
std::unique_ptr<Backend> make_cuda_backend();
// On what device_of() says. Throws std::runtime_error where this build, or this machine, has no such device.
std::unique_ptr<Backend> make_backend(DeviceChoice choice, int threads = 0);

}  // namespace smoe
