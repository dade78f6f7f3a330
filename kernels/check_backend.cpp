#include "kernels/check_backend.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/host_view.h"

namespace smoe {
namespace {

std::string describe(const Tensor& t) { return t.shape().to_string() + " " + name_of(t.type()); }

std::vector<double> numbers_of_any(Backend& backend, const Tensor& tensor) {
  const auto read = [&](auto number) {
    std::vector<decltype(number)> host(static_cast<std::size_t>(tensor.elements()));
    backend.copy_to_host(host.data(), tensor);
    return std::vector<double>(host.begin(), host.end());
  };
  switch (tensor.type()) {
    case DType::i32: return read(std::int32_t{});
    case DType::f64: return read(double{});
    default: break;
  }
  const std::vector<float> numbers = numbers_of(backend, tensor);
  return {numbers.begin(), numbers.end()};
}

// The arguments of one call, and their copies on the second backend. One memory given twice has one copy.
class Arguments {
 public:
  Arguments(Backend& first, Backend& second) : first_(first), second_(second) {}
  ~Arguments() {
    for (const Pair& pair : pairs_) second_.release(pair.copy.raw(), bytes_of(pair.copy));
  }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  Tensor copied(const Tensor& tensor) {
    if (tensor.empty()) return tensor;
    for (const Pair& pair : pairs_)
      if (pair.original.raw() == tensor.raw() && pair.original.bytes() == tensor.bytes())
        return pair.copy.from_here(tensor.shape());
    const Tensor copy(second_.allocate(bytes_of(tensor)), tensor.type(), tensor.shape(), second_.device());
    pairs_.push_back({tensor, copy});
    std::vector<std::byte> host(tensor.bytes());
    first_.copy_to_host(host.data(), tensor);
    second_.copy_from_host(copy, host.data());
    return copy;
  }

  void compare(const char* op, double tolerance) const {
    for (const auto& [original, copy] : pairs_) {
      const std::vector<double> a = numbers_of_any(first_, original), b = numbers_of_any(second_, copy);
      const double allowed = original.type() == DType::i32 ? 0 : tolerance * largest(a);
      double worst = 0;
      std::size_t at = a.size();
      for (std::size_t k = 0; k < a.size(); ++k) {
        if (a[k] == b[k] || (std::isnan(a[k]) && std::isnan(b[k]))) continue;
        double difference = std::abs(a[k] - b[k]);
        if (std::isnan(difference)) difference = std::numeric_limits<double>::infinity();
        if (difference <= std::max(allowed, worst)) continue;
        worst = difference;
        at = k;
      }
      if (at < a.size())
        throw std::runtime_error(std::string(op) + ": a tensor " + describe(original) + " differs: entry " +
                                 std::to_string(at) + " is " + std::to_string(a[at]) + " and " + std::to_string(b[at]));
    }
  }

 private:
  struct Pair {
    Tensor original, copy;
  };
  static std::size_t bytes_of(const Tensor& tensor) { return std::max<std::size_t>(1, tensor.bytes()); }
  static double largest(const std::vector<double>& numbers) {
    double largest = 0;
    for (const double x : numbers)
      if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
    return largest;
  }

  Backend& first_;
  Backend& second_;
  std::vector<Pair> pairs_;
};

}  // namespace

void CheckBackend::run(const char* op, const Call& call) {
  class Copied final : public Placing {
   public:
    explicit Copied(Arguments& arguments) : arguments_(arguments) {}

   private:
    Tensor place(const Tensor& tensor, Access) const override { return arguments_.copied(tensor); }
    Arguments& arguments_;
  };
  Arguments arguments(inner(), second_);
  call(second_, Copied(arguments));  // before the first backend writes into what it was given
  call(inner(), Placing());
  arguments.compare(op, tolerance_);
}

}  // namespace smoe
