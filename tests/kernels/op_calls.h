// THE op list: every op of kernels/backend.h as calls that are ready to be made, with what they must give. One list serves
// the comparison with the reference, the comparison of two backends (CheckBackend), what threads may change, and the
// bench: an op is added in one place, the op_calls_*.cpp of its family, over the shapes of op_cases*.h, or, where it is timed, of
// bench_cases.h.
//
// Rules of a call. Inputs are rounded to f32 before both sides read them; what forward saved for backward (a log-sum-exp,
// say) is an input of backward like any other, so the reference's backward reads what the backend saved. Outputs start as
// NaN (an entry not written shows), accumulated ones from random numbers (an assignment shows). An output is held against
// the truth in units of the truth's largest entry; where the truth is zero everywhere, the output must be zero. A bf16 output
// is held against the truth rounded once, and may be that number's neighbour where it is not exact.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "kernels/op_work.h"
#include "tests/kernels/bench_shapes.h"
#include "tests/kernels/repeated_numbers.h"
#include "tests/kernels/workspace.h"
#include "tests/reference/random.h"

namespace smoe::checks {

using reference::Matrix;
using reference::Random;

// Where a call takes its arguments from. For the bench alone, where no truth is wanted, there are none of the host's
// numbers: normals() gives nothing, and f32() and typed() of nothing fill the tensor by themselves.
class Inputs {
 public:
  // type: of the tensors that kernels/backend.h marks A, f32 or bf16. All numbers drawn are numbers of it.
  Inputs(Backend& backend, const std::string& name, DType type = DType::f32);
  // For the bench. numbers: of the same backend.
  Inputs(Backend& backend, const std::string& name, DType type, RepeatedNumbers& numbers);

  Backend& backend() { return backend_; }
  Workspace& workspace() { return workspace_; }
  Random& random() { return random_; }
  bool for_bench() const { return numbers_ != nullptr; }
  DType type() const { return type_; }

  Values normals(Index count, double scale = 1.0, double mean = 0.0);
  Matrix<double> matrix(Index rows, Index cols, double scale = 1.0) {
    return shaped(rows, cols, normals(rows * cols, scale));
  }
  Ids ids(Index count, Index bound) { return random_.ids(count, bound); }

  Tensor f32(Shape shape, const Values& values);
  Tensor f32(Shape shape, const Matrix<double>& matrix) { return f32(shape, matrix.values); }
  Tensor f32(const Matrix<double>& matrix) { return f32({matrix.rows, matrix.cols}, matrix.values); }
  Tensor i32(Shape shape, const Ids& values) { return workspace_.i32(shape, values); }
  Tensor f64(double value) { return workspace_.f64({value}); }
  Tensor zeros(Shape shape);
  // Full of NaN; for the bench, of zeros.
  Tensor output(Shape shape);
  Tensor typed(Shape shape, const Values& values);
  Tensor typed(Shape shape, const Matrix<double>& matrix) { return typed(shape, matrix.values); }
  Tensor typed(const Matrix<double>& matrix) { return typed({matrix.rows, matrix.cols}, matrix.values); }
  Tensor typed_output(Shape shape);
  Tensor output_i32(Shape shape);

  Values read(const Tensor& tensor) { return for_bench() ? Values() : workspace_.read(tensor); }
  Matrix<double> read(const Tensor& tensor, Index rows, Index cols) { return shaped(rows, cols, read(tensor)); }

 private:
  Tensor filled(DType type, Shape shape);  // with the bench's numbers
  Tensor cleared(DType type, Shape shape);
  static Matrix<double> shaped(Index rows, Index cols, Values values) {
    Matrix<double> m;
    m.rows = rows, m.cols = cols, m.values = std::move(values);
    return m;
  }

  Backend& backend_;
  Workspace workspace_;
  Random random_;
  DType type_;
  RepeatedNumbers* numbers_;  // the bench's; null where results are compared
};

struct Output {
  std::string name;
  Tensor tensor;
  double tolerance;                                // of max |found - truth| / max |truth|; 0: the same bits
  std::function<Values()> truth;                   // asked for after the call
  std::function<Values(const Values&)> part = {};  // what of both is compared; all of it
  // The size of the terms that an entry is a sum of, where all that is written may be a small rest of them: the tolerance is of
  // this, if it is larger than the truth's largest entry.
  std::function<double()> terms = {};
  // In bf16: of as many roundings on the way to what is written, one of them as it is written, the tolerance is.
  double bf16_roundings = 1;
};

struct Prepared {
  std::function<void()> call;
  std::vector<Output> outputs;
};

struct OpCall {
  std::string op;       // the function's name in kernels/backend.h
  std::string variant;  // "in place", say; empty: as the layers call it
  std::string shape;    // in the letters of kernels/backend.h, for the bench
  Work work;            // of one call
  std::function<Prepared(Inputs&)> prepare;
};

// The calls of a family at one shape. A bench case is too large for the reference, and has the calls that are timed.
struct OpCase {
  std::string name;  // "rms_norm_odd"
  bool bench = false;
  std::vector<OpCall> calls{};
  double a = 4;  // bytes of a number of the type that its work is counted for
  friend std::ostream& operator<<(std::ostream& out, const OpCase& c) { return out << c.name; }

  void add(std::string op, std::string shape, Work work, std::function<Prepared(Inputs&)> prepare) {
    calls.push_back({std::move(op), {}, std::move(shape), work, std::move(prepare)});
  }
  // Another way to call the op, which is compared and not timed.
  void vary(std::string op, std::string variant, std::function<Prepared(Inputs&)> prepare) {
    if (!bench) calls.push_back({std::move(op), std::move(variant), {}, {}, std::move(prepare)});
  }
};

// Of each family what is compared, and what is timed at a model's sizes.
std::vector<OpCase> dense_calls();  // op_calls_dense.cpp
std::vector<OpCase> dense_calls(const BenchShape& shape, DType type);
std::vector<OpCase> cross_entropy_calls();  // op_calls_cross_entropy.cpp
std::vector<OpCase> cross_entropy_calls(const BenchShape& shape, DType type);
std::vector<OpCase> attention_calls();  // op_calls_attention.cpp
std::vector<OpCase> attention_calls(const BenchShape& shape, DType type);
std::vector<OpCase> moe_calls();  // op_calls_moe.cpp
std::vector<OpCase> moe_calls(const BenchShape& shape, DType type);
std::vector<OpCase> low_rank_calls();  // op_calls_low_rank.cpp
std::vector<OpCase> low_rank_calls(const BenchShape& shape, DType type);

std::vector<OpCase> compared_cases();  // all that are small enough for the reference
std::vector<OpCase> bench_calls(const BenchShape& shape, DType type);

// A case of the bench, without its calls.
inline OpCase timed_in(DType type) {
  return {.name = {}, .bench = true, .calls = {}, .a = static_cast<double>(bytes_of(type))};
}

// The family's calls at each of its shapes, in cases like `form`.
template <typename Case>
void add_cases(std::vector<OpCase>& list, const std::string& family, const std::vector<Case>& cases,
               void (*add)(OpCase&, const Case&), const OpCase& form = {}) {
  for (const Case& c : cases) {
    OpCase& calls = list.emplace_back(form);
    calls.name = family + "_" + c.name;
    add(calls, c);
  }
}

// Tolerances. fp32 rounds by at most u = 6e-8. A sum of n terms of either sign, added one after another, is off by about
// sqrt(n) u of its terms' size, which is sqrt(n) times less than the sum's own spread: 2e-6 leaves a factor of 10 to 30 at
// the sizes here and is far below any wrong term. Ops without sums get 1e-6; what is only moved is exact.
inline constexpr double exact = 0, pointwise = 1e-6, summed = 2e-6;
// The root of a sum of n positive terms. In one chain, as a build without vectors adds them, each addition rounds a partial
// sum by u or less: together sqrt(n / 3) u of the sum, half of that of its root; this is three times as much.
inline double rooted(Index n) { return std::max(pointwise, 1.5 * std::sqrt(static_cast<double>(n) / 3) * 6e-8); }

inline Values as_values(const Ids& ids) { return reference::cast<double>(ids); }

// A truth that is there already, or costs little.
inline std::function<Values()> given(Values values) {
  return [values = std::move(values)] { return values; };
}

}  // namespace smoe::checks
