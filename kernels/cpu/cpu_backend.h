// The op table on the CPU: OpenMP threads, loops that the compiler vectorises, OpenBLAS for the large products.
// One op family a .cpp in this folder, forward and backward adjacent. What the ops compute is said in kernels/backend.h.
//
// One caller at a time: the workspaces belong to the backend.
#pragma once

#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/workspace.h"

namespace smoe {

namespace cpu {
struct GemmTile;
struct AttentionProblem;
}  // namespace cpu

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads = 0);  // 0: as many as OpenMP offers (OMP_NUM_THREADS, or the cores of the process)
  ~CpuBackend() override;

  Device device() const override { return Device::cpu; }
  DeviceProfile measure_profile() override;
  int threads() const { return threads_; }

  void* allocate(std::size_t bytes) override;
  void release(void* data, std::size_t bytes) noexcept override;
  void* allocate_host(std::size_t bytes) override;
  void release_host(void* data, std::size_t bytes) noexcept override;
  Event record() override { return {}; }  // an op is done when its call returns
  void wait(Event) override {}
  void synchronize() override {}

 private:
  double do_measure_memory_rate(const Tensor& room) override;

  void do_copy_to_host(void* host, const Tensor& from) override;
  void do_copy_from_host(const Tensor& to, const void* host) override;
  void do_start_copy_to_host(void* host, const Tensor& from) override;
  void do_copy(const Tensor& to, const Tensor& from) override;
  void do_fill(const Tensor& to, float value) override;

  void do_add(const Tensor& a, const Tensor& b, const Tensor& out) override;
  void do_sum(const Tensor& x, const Tensor& out) override;
  void do_sum_of_squares(const Tensor& x, const Tensor& out) override;

  void do_embedding_forward(const Tensor& ids, const Tensor& table, std::int64_t first, std::int64_t vocabulary, const Tensor& out) override;
  void do_embedding_backward(const Tensor& ids, const Tensor& dout, std::int64_t first, std::int64_t vocabulary, const Tensor& dtable) override;

  void do_rms_norm_forward(const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y, const Tensor& rstd) override;
  void do_rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                            const Tensor& dresidual, const Tensor& dx, const Tensor& dweight) override;

  void do_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, Write write) override;
  void do_grouped_gemm(Gemm kind, const Tensor& a, const Tensor& b, const Tensor& c, const ExpertRows& rows,
                       Write write) override;

  void do_rope_table(std::span<const float> frequencies, float scale, const Tensor& table) override;
  void do_rope_forward(const Tensor& x, std::int64_t rotated_heads, const Tensor& positions, const Tensor& table) override;
  void do_rope_backward(const Tensor& dx, std::int64_t rotated_heads, const Tensor& positions, const Tensor& table) override;

  void do_attention_forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start, const Tensor& out,
                            const Tensor& lse) override;
  void do_attention_backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& document_start, const Tensor& out,
                             const Tensor& lse, const Tensor& dout, const Tensor& dqkv) override;
  void do_attention_cached(const AttentionShape& shape, const Tensor& qkv, std::int64_t past, const Tensor& key_cache,
                           const Tensor& value_cache, const Tensor& out) override;

  void do_router_forward(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias, const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                         const Tensor& weights) override;
  void do_router_backward(const RoutingRule& rule, const Tensor& logits, const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts, const Tensor& weights,
                          const Tensor& dweights, const Tensor& balance_gradient, double z_scale,
                          const Tensor& dlogits) override;
  void do_balance_statistics(const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                             const Tensor& counts, const Tensor& probability_sums, const Tensor& z_sums) override;

  void do_jitter(const TokenNoise& noise, const Tensor& x, const Tensor& y, Write write) override;

  void do_routing_map(const Tensor& experts, const Capacity& capacity, const Tensor& row_of, const Tensor& assignment_of,
                      const Tensor& offsets) override;
  void do_permute(const Tensor& x, const Tensor& assignment_of, std::int64_t experts_per_token, const Tensor& rows) override;
  void do_unpermute(const Tensor& rows, const Tensor& row_of, const Tensor& base, const Tensor& x) override;
  void do_permute_weights(const Tensor& weights, const Tensor& row_of, const Tensor& row_weights) override;
  void do_unpermute_weights(const Tensor& row_weights, const Tensor& row_of, const Tensor& weights) override;

  void do_swiglu_forward(const Tensor& h, const Tensor& row_weights, const Tensor& a) override;
  void do_swiglu_backward(const Tensor& h, const Tensor& row_weights, const Tensor& da, const Tensor& dh,
                          const Tensor& drow_weights, const Tensor& a) override;

  void do_cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first, const Tensor& maxima,
                                   const Tensor& sums, const Tensor& target_logits) override;
  void do_cross_entropy_merge(const Tensor& parts, const Tensor& maxima, const Tensor& sums, const Tensor& target_logits) override;
  void do_cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                               const Tensor& logsumexp, const Tensor& losses) override;
  void do_cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first, const Tensor& logsumexp,
                                 double scale, const Tensor& token_scales) override;

  void do_adamw(const AdamWStep& step, const Tensor& parameter, const Tensor& gradient, const Tensor& first_moment,
                const Tensor& second_moment) override;

  void run_tiles(Gemm kind, std::int64_t lda, std::int64_t ldb, std::int64_t ldc, Write write);
  void run_attention_forward(const cpu::AttentionProblem& problem);

  int threads_;
  cpu::Workspace shared_;                   // what one op's threads read or fill together
  cpu::Workspace counters_;                 // likewise
  std::vector<cpu::Workspace> per_thread_;  // indexed by OpenMP thread number
  std::vector<cpu::GemmTile> tiles_;        // of the matrix product under way
};

}  // namespace smoe
