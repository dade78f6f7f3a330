#include "kernels/check_backend.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/bf16.h"

namespace smoe {
namespace {

// Of the tensor's largest entry. In f32 each backend is within 1e-5 of the truth, sums of another order included; tensor
// cores, which take bf16, cut off where they add.
constexpr double apart_in_f32 = 2e-5, apart_in_f32_products_of_bf16 = 1e-4;
constexpr double apart_in_f64 = 1e-9;  // sums in double alone
// Two numbers that are nearly equal round to neighbours at most. Of the entry itself.
constexpr double bf16_step = 0x1p-7;
// Attention rounds inside too: each backend is within a step of the truth. Of the tensor's largest entry.
constexpr double apart_in_bf16_attention = 2 * bf16_step;

// These move numbers and compute none.
constexpr std::array<std::string_view, 8> exact_ops = {"copy_from_host",    "copy",       "fill",
                                                       "embedding_forward", "permute",    "permute_weights",
                                                       "unpermute_weights", "routing_map"};

// Shorter loops than this are over before threads would have begun.
constexpr std::int64_t long_loop = std::int64_t{1} << 16;

double as_double(std::int32_t x) { return x; }
double as_double(float x) { return x; }
double as_double(double x) { return x; }
double as_double(Bf16 x) { return widened(x); }

// A tensor's numbers as doubles, in room that those of the next are written over: fresh pages would take most of the time.
class Numbers {
 public:
  std::span<const double> of(Backend& backend, const Tensor& tensor) {
    raw_.resize(tensor.bytes());
    numbers_.resize(static_cast<std::size_t>(tensor.elements()));
    backend.copy_to_host(raw_.data(), tensor);
    switch (tensor.type()) {
      case DType::i32: widen<std::int32_t>(); break;
      case DType::f32: widen<float>(); break;
      case DType::f64: widen<double>(); break;
      case DType::bf16: widen<Bf16>(); break;
    }
    return numbers_;
  }

 private:
  template <class T>
  void widen() {
    const T* const from = reinterpret_cast<const T*>(raw_.data());
    double* const to = numbers_.data();
    const auto n = static_cast<std::int64_t>(numbers_.size());
#pragma omp parallel for if (n > long_loop)
    for (std::int64_t i = 0; i < n; ++i) to[i] = as_double(from[i]);
  }

  std::vector<std::byte> raw_;
  std::vector<double> numbers_;
};

std::vector<double> all_numbers_of(Backend& backend, const Tensor& tensor) {
  Numbers numbers;
  const std::span<const double> all = numbers.of(backend, tensor);
  return {all.begin(), all.end()};
}

// A tensor is looked at in pieces: an optimizer's step of a large model is over tensors whose copies, as doubles, would not all fit
// beside each other into a host's memory. f(first entry, piece).
template <class F>
void for_each_piece(const Tensor& tensor, const F& f) {
  constexpr std::int64_t most = std::int64_t{1} << 24;
  const std::int64_t entries = tensor.elements();
  const Tensor flat = tensor.reshape({entries});
  for (std::int64_t at = 0; at < entries; at += most) f(at, flat.rows(at, std::min(most, entries - at)));
}

// Of what is finite.
double largest_of(Backend& backend, const Tensor& tensor) {
  double largest = 0;
  if (tensor.empty()) return largest;
  Numbers numbers;
  for_each_piece(tensor, [&](std::int64_t, const Tensor& piece) {
    const double* const x = numbers.of(backend, piece).data();
    const std::int64_t n = piece.elements();
    double here = 0;
#pragma omp parallel for reduction(max : here) if (n > long_loop)
    for (std::int64_t i = 0; i < n; ++i)
      if (std::isfinite(x[i])) here = std::max(here, std::abs(x[i]));
    largest = std::max(largest, here);
  });
  return largest;
}

std::string coordinates(std::int64_t entry, const Shape& shape) {
  std::string text = "]";
  for (int i = shape.rank() - 1; i >= 0; --i) {
    text = (i > 0 ? ", " : "") + std::to_string(entry % shape[i]) + text;
    entry /= shape[i];
  }
  return "[" + text;
}

std::string name_of(Device device) { return device == Device::cuda ? "cuda" : "cpu"; }

// One memory that a call was given, under the name of its first argument there, and its copy on the second backend.
struct Held {
  std::string name;
  Tensor original, copy;
  bool is_written = false;
  std::vector<double> first{}, second{};  // after the call, where ties are settled
};

// Tokens of router_forward that may go to one expert as well as to another: where the bias is added, their scores may be
// equal on one backend and not on the other. A row of logits that is not finite has no best experts. The second backend
// is taken to have chosen as the first did.
void settle_ties(const RoutingRule& rule, std::vector<Held>& arguments) {
  const auto named = [&](std::string_view name) -> Held* {
    const auto found = std::find_if(arguments.begin(), arguments.end(), [&](const Held& h) { return h.name == name; });
    return found == arguments.end() ? nullptr : &*found;
  };
  const Held *logits = named("logits"), *bias = named("selection_bias"), *probabilities = named("probabilities");
  Held *experts = named("experts"), *weights = named("weights");
  if (!logits || !probabilities || !experts || !weights) return;
  const auto E = static_cast<std::size_t>(logits->original.dim(1)),
             K = static_cast<std::size_t>(experts->original.dim(1));
  const auto is_expert = [E](double e) { return e >= 0 && e < static_cast<double>(E); };
  for (std::size_t row = 0, k = 0; k < experts->first.size(); k += K, row += E) {
    bool differs = false, may_differ = true;
    const bool is_finite =
        std::all_of(&logits->first[row], &logits->first[row] + E, [](double l) { return std::isfinite(l); });
    const auto score = [&](double expert) {
      const auto e = static_cast<std::size_t>(expert);
      const double plain =
          rule.score == Score::softmax ? probabilities->first[row + e] : 1 / (1 + std::exp(-logits->first[row + e]));
      return plain + bias->first[(bias->original.rank() == 2 ? row : 0) + e];
    };
    for (std::size_t i = k; i < k + K; ++i) {
      const double a = experts->first[i], b = experts->second[i];
      if (a == b) continue;
      differs = true;
      may_differ = may_differ && is_expert(a) && is_expert(b) &&
                   (!is_finite || (bias && std::abs(score(a) - score(b)) <= 1e-6 * std::max(1.0, std::abs(score(a)))));
    }
    if (!differs || !may_differ) continue;
    std::copy_n(&experts->first[k], K, &experts->second[k]);
    std::copy_n(&weights->first[k], K, &weights->second[k]);
  }
}

// The arguments of one call, and their copies on the second backend. One memory given twice has one copy.
class Arguments {
 public:
  Arguments(Backend& first, Backend& second) : first_(first), second_(second) {}
  ~Arguments() {
    for (const Held& held : held_) second_.release(held.copy.raw(), bytes_of(held.copy));
  }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  Tensor copied(const char* name, const Tensor& tensor, bool is_written) {
    if (tensor.empty()) return tensor;
    for (Held& held : held_)
      if (held.original.raw() == tensor.raw() && held.original.bytes() == tensor.bytes()) {
        if (is_written && !held.is_written) held.name = name;
        held.is_written = held.is_written || is_written;
        return held.copy.from_here(tensor.shape());
      }
    const Tensor copy(second_.allocate(bytes_of(tensor)), tensor.type(), tensor.shape(), second_.device());
    held_.push_back({name, tensor, copy, is_written});
    const Tensor flat = copy.reshape({copy.elements()});
    std::vector<std::byte> host;
    for_each_piece(tensor, [&](std::int64_t at, const Tensor& piece) {
      host.resize(piece.bytes());
      first_.copy_to_host(host.data(), piece);
      second_.copy_from_host(flat.rows(at, piece.elements()), host.data());
    });
    return copy;
  }

  void compare(std::string_view op, double magnitude, const RoutingRule* choosing) {
    if (choosing) {
      for (Held& held : held_) {
        held.first = all_numbers_of(first_, held.original);
        held.second = all_numbers_of(second_, held.copy);
      }
      settle_ties(*choosing, held_);
    }
    for (const Held& held : held_) compare(op, held, magnitude);
  }

 private:
  static std::size_t bytes_of(const Tensor& tensor) { return std::max<std::size_t>(1, tensor.bytes()); }

  // What of a tensor may lie between the two: so much of the entry, and so much of the largest.
  struct Room {
    double of_entry = 0, of_largest = 0;
  };
  Room room(std::string_view op, const Held& held) const {
    if (!held.is_written || std::find(exact_ops.begin(), exact_ops.end(), op) != exact_ops.end()) return {};
    const auto is_half = [](const Held& h) { return h.original.type() == DType::bf16; };
    const bool is_attention = op.starts_with("attention_"), multiplies = is_attention || op.ends_with("gemm");
    const double f32 =
        multiplies && std::any_of(held_.begin(), held_.end(), is_half) ? apart_in_f32_products_of_bf16 : apart_in_f32;
    switch (held.original.type()) {
      case DType::i32: return {};
      case DType::f64: return {0, apart_in_f64};
      case DType::f32: return {0, f32};
      case DType::bf16: break;
    }
    if (is_attention) return {0, apart_in_bf16_attention};
    return {bf16_step, f32};
  }

  void compare(std::string_view op, const Held& held, double magnitude) const {
    const Room room = this->room(op, held);
    const double of_all =
        room.of_largest > 0 ? room.of_largest * std::max(magnitude, largest_of(first_, held.original)) : 0;
    std::int64_t differing = 0, at = 0;
    double worst = 0, on_first = 0, on_second = 0;
    const auto allowed = [&](double a, double b) {
      return of_all + (std::isfinite(a) && std::isfinite(b) ? room.of_entry * std::min(std::abs(a), std::abs(b)) : 0);
    };
    const auto excess = [&](double a, double b) {
      if (a == b || (std::isnan(a) && std::isnan(b))) return 0.0;
      if (!std::isfinite(a) || !std::isfinite(b)) return std::numeric_limits<double>::infinity();
      return std::max(0.0, std::abs(a - b) - allowed(a, b));
    };
    const auto look = [&](std::int64_t from, std::span<const double> first, std::span<const double> second) {
      const auto n = static_cast<std::int64_t>(first.size());
      const double *const a = first.data(), *const b = second.data();
      std::int64_t differing_here = 0;
#pragma omp parallel for reduction(+ : differing_here) if (n > long_loop)
      for (std::int64_t i = 0; i < n; ++i) differing_here += excess(a[i], b[i]) > 0;
      differing += differing_here;
      for (std::int64_t i = 0; differing_here > 0 && i < n; ++i)
        if (const double here = excess(a[i], b[i]); here > worst)
          worst = here, at = from + i, on_first = a[i], on_second = b[i];
    };
    if (!held.first.empty()) {
      look(0, held.first, held.second);
    } else {
      Numbers first, second;
      const Tensor copy = held.copy.reshape({held.copy.elements()});
      for_each_piece(held.original, [&](std::int64_t from, const Tensor& piece) {
        look(from, first.of(first_, piece), second.of(second_, copy.rows(from, piece.elements())));
      });
    }
    if (differing == 0) return;
    std::ostringstream text;
    text.precision(std::numeric_limits<float>::max_digits10);
    text << op << ": " << held.name << " " << held.original.shape().to_string() << " "
         << smoe::name_of(held.original.type()) << (held.is_written ? "" : ", which it only reads,") << " differs at "
         << coordinates(at, held.original.shape()) << ": " << on_first << " on " << name_of(first_.device()) << " and "
         << on_second << " on " << name_of(second_.device()) << ", which may be " << allowed(on_first, on_second)
         << " apart; " << differing << " of " << held.original.elements() << " entries differ";
    throw std::runtime_error(text.str());
  }

  Backend& first_;
  Backend& second_;
  std::vector<Held> held_;
};

// For the time of one op.
template <class T>
class Set {
 public:
  Set(T& what, T value) : what_(what), before_(std::exchange(what, value)) {}
  ~Set() { what_ = before_; }
  Set(const Set&) = delete;
  Set& operator=(const Set&) = delete;

 private:
  T& what_;
  T before_;
};

}  // namespace

void CheckBackend::run(const char* op, const Call& call) {
  class Copied final : public Placing {
   public:
    explicit Copied(Arguments& arguments) : arguments_(arguments) {}

   private:
    Tensor place(const char* name, const Tensor& tensor, Access access) const override {
      return arguments_.copied(name, tensor, access != Access::read);
    }
    Arguments& arguments_;
  };
  Arguments arguments(inner(), second_);
  call(second_, Copied(arguments));  // before the first backend writes into what it was given
  call(inner(), Placing());
  arguments.compare(op, magnitude_, choosing_);
}

void CheckBackend::do_router_forward(const RoutingRule& rule, const Tensor& logits, const Tensor& selection_bias,
                                     const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                                     const Tensor& weights) {
  const Set choosing(choosing_, &rule);
  const Set magnitude(magnitude_, 1.0);  // probabilities, and logarithms of their sums
  OpDecorator::do_router_forward(rule, logits, selection_bias, probabilities, logsumexp, experts, weights);
}

void CheckBackend::do_router_backward(const RoutingRule& rule, const Tensor& logits, const Tensor& probabilities,
                                      const Tensor& logsumexp, const Tensor& experts, const Tensor& weights,
                                      const Tensor& dweights, const Tensor& balance_gradient, double z_scale,
                                      const Tensor& dlogits) {
  const double through_weights = largest_of(inner(), weights) * largest_of(inner(), dweights);
  const Set magnitude(magnitude_, std::max(through_weights, largest_of(inner(), balance_gradient)));
  OpDecorator::do_router_backward(rule, logits, probabilities, logsumexp, experts, weights, dweights, balance_gradient,
                                  z_scale, dlogits);
}

// Sums of logits of both signs; what else is found is a maximum, or at least 1, or a logit.
void CheckBackend::do_cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                               const Tensor& maxima, const Tensor& sums, const Tensor& target_logits,
                                               const Tensor& logit_sums) {
  const Set magnitude(magnitude_, logit_sums.empty() ? 0.0 : largest_of(inner(), logits));
  OpDecorator::do_cross_entropy_statistics(logits, targets, first, maxima, sums, target_logits, logit_sums);
}

void CheckBackend::do_cross_entropy_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                           const Tensor& target_logits, const Tensor& logsumexp, const Tensor& losses) {
  const Set magnitude(magnitude_, std::max(largest_of(inner(), maxima), largest_of(inner(), target_logits)));
  OpDecorator::do_cross_entropy_losses(targets, maxima, sums, target_logits, logsumexp, losses);
}

void CheckBackend::do_cross_entropy_uniform_losses(const Tensor& targets, const Tensor& maxima, const Tensor& sums,
                                                   const Tensor& logit_sums, std::int64_t vocabulary,
                                                   const Tensor& losses) {
  const double mean = largest_of(inner(), logit_sums) / static_cast<double>(vocabulary);
  const Set magnitude(magnitude_, std::max(largest_of(inner(), maxima), mean));
  OpDecorator::do_cross_entropy_uniform_losses(targets, maxima, sums, logit_sums, vocabulary, losses);
}

void CheckBackend::do_cross_entropy_backward(const Tensor& logits, const Tensor& targets, std::int64_t first,
                                             const Tensor& logsumexp, double scale, const Tensor& token_scales,
                                             const LabelSmoothing& smoothing, const Tensor& dlogits) {
  const double of_tokens = token_scales.empty() ? 1 : largest_of(inner(), token_scales);
  const Set magnitude(magnitude_, std::abs(scale) * of_tokens);
  OpDecorator::do_cross_entropy_backward(logits, targets, first, logsumexp, scale, token_scales, smoothing, dlogits);
}

std::unique_ptr<Backend> make_check_backend(std::unique_ptr<Backend> first, std::unique_ptr<Backend> second) {
  struct Both {
    std::unique_ptr<Backend> first, second;
  };
  class Owning final : private Both, public CheckBackend {
   public:
    Owning(std::unique_ptr<Backend> one, std::unique_ptr<Backend> other)
        : Both{std::move(one), std::move(other)}, CheckBackend(*Both::first, *Both::second) {}
  };
  return std::make_unique<Owning>(std::move(first), std::move(second));
}

}  // namespace smoe
