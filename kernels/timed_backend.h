// Another backend, and a clock beside it: forwards every op and adds up calls, time and work by op and shape. What the
// ops compute is the other backend's, bit for bit. Where a device runs behind the host, each op is waited for.
//
// Nothing is allocated while ops run, and an op is told from the others in some tens of nanoseconds.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/op_work.h"

namespace smoe {

// The calls of one op at one shape.
struct OpTime {
  std::string op;           // the function's name in kernels/backend.h
  std::string shape;        // "T2048 D512", in the letters of kernels/backend.h; products: "nt m2048 n768 k512"
  std::int64_t rows = 0;    // of a product: tokens that pass through it at once (of each expert, on average); else 0
  std::int64_t calls = 0;
  double seconds = 0;       // of all calls
  Work work;                // of all calls; of attention: without counting off documents
};

class TimedBackend final : public Backend {
 public:
  explicit TimedBackend(Backend& inner) : inner_(inner), waits_(inner.device() != Device::cpu) {}

  void reset();                      // forgets what was timed
  std::vector<OpTime> times() const;  // since then, in the order in which they first ran

  Device device() const override { return inner_.device(); }
  DeviceProfile measure_profile() override { return inner_.measure_profile(); }

  void* allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
  void release(void* data, std::size_t bytes) noexcept override { inner_.release(data, bytes); }
  void* allocate_host(std::size_t bytes) override { return inner_.allocate_host(bytes); }
  void release_host(void* data, std::size_t bytes) noexcept override { inner_.release_host(data, bytes); }
  Event record() override { return inner_.record(); }
  void wait(Event event) override { inner_.wait(event); }
  void synchronize() override { inner_.synchronize(); }

 private:
  double do_measure_memory_rate(const Tensor& room) override { return inner_.measure_memory_rate(room); }

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

  static constexpr std::size_t slots = 512;  // a step has about 60 ops at one shape each
  struct Key {
    const char* op = nullptr;
    const char* letters = "";  // one for each of dims
    std::array<std::int64_t, 6> dims{};
    const char* kind = "";
    bool operator==(const Key&) const = default;
  };
  struct Record {
    Key key;
    std::int64_t rows = 0, calls = 0;
    double seconds = 0;
    Work work;
    std::size_t order = 0;  // of its first call
  };

  Record& find(const Key& key);
  // Runs `call` between two readings of the clock.
  template <class Call>
  void timed(const Key& key, const Work& work, const Call& call, std::int64_t rows = 0);

  Backend& inner_;
  bool waits_;
  std::size_t used_ = 0;
  std::array<Record, slots> records_;  // open addressing
  Record rest_;                        // of a program with more shapes than that
};

}  // namespace smoe
