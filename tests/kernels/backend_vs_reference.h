// What the comparisons of a backend with the reference share: memory of the backend that sees stray writes, a report of
// (what the backend found, what is true), and the list of checks, one a case of op_cases*.h.
//
// Rules of a check. Inputs are rounded to f32 before both sides read them; what forward saved for backward (a log-sum-exp,
// say) is an input of backward like any other, so the reference's backward reads what the backend saved. Outputs start as
// NaN (an entry not written shows), accumulated ones from random numbers (an assignment shows). An output is held against
// the truth in units of the truth's largest entry; where the truth is zero everywhere, the output must be zero.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "tests/reference/random.h"
#include "tests/support/deviation.h"

namespace smoe::checks {

using reference::Ids;
using reference::Index;
using reference::Matrix;
using reference::Random;
using Values = std::vector<double>;

struct BackendFactory {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
  friend std::ostream& operator<<(std::ostream& out, const BackendFactory& f) { return out << f.name; }
};
std::vector<BackendFactory> backend_factories();  // every backend of this build

class Workspace {
 public:
  explicit Workspace(Backend& backend) : backend_(backend) {}
  ~Workspace();  // fails the test where a guard beside a tensor was overwritten
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  Tensor f32(Shape shape, const Values& values);  // rounded to float
  Tensor f32(Shape shape, const Matrix<double>& matrix) { return f32(shape, matrix.values); }
  Tensor f32(const Matrix<double>& matrix) { return f32({matrix.rows, matrix.cols}, matrix.values); }
  Tensor i32(Shape shape, const Ids& values);
  Tensor output(Shape shape);      // full of NaN
  Tensor output_i32(Shape shape);  // full of a number that is no valid index

  Values read(const Tensor& tensor);  // f32 or i32
  Ids read_ids(const Tensor& tensor);
  Matrix<double> read_matrix(const Tensor& tensor, Index rows, Index cols) { return {rows, cols, read(tensor)}; }

 private:
  struct Block {
    char* data;
    std::size_t bytes, payload;
  };
  Tensor take(DType type, Shape shape, const void* content);

  Backend& backend_;
  std::vector<Block> blocks_;
};

struct Comparison {
  std::string output;
  Values found, truth;
  double tolerance;  // of max |found - truth| / max |truth|; 0: the same bits
};

class Report {
 public:
  void close(std::string output, Values found, Values truth, double tolerance) {
    comparisons_.push_back({std::move(output), std::move(found), std::move(truth), tolerance});
  }
  void exact(std::string output, Values found, Values truth) {
    comparisons_.push_back({std::move(output), std::move(found), std::move(truth), 0.0});
  }
  const std::vector<Comparison>& comparisons() const { return comparisons_; }

 private:
  std::vector<Comparison> comparisons_;
};

using test::disagreement;

struct Check {
  std::string name;
  std::function<void(Backend&, Report&)> run;
  friend std::ostream& operator<<(std::ostream& out, const Check& c) { return out << c.name; }
};

std::vector<Check> dense_checks();      // backend_vs_reference_dense_test.cpp
std::vector<Check> attention_checks();  // backend_vs_reference_attention_test.cpp
std::vector<Check> moe_checks();        // backend_vs_reference_moe_test.cpp
std::vector<Check> all_checks();

// Every case that is not for the bench alone.
template <typename Case>
void add_checks(std::vector<Check>& checks, const std::string& family, const std::vector<Case>& cases,
                void (*check)(Backend&, const Case&, Report&)) {
  for (const Case& c : cases)
    if (!c.bench)
      checks.push_back({family + "_" + c.name, [c, check](Backend& backend, Report& report) { check(backend, c, report); }});
}

// A generator of its own for every case.
inline Random random_for(const std::string& name) {
  std::uint64_t hash = 14695981039346656037ull;  // FNV-1a
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 1099511628211ull;
  return Random(hash);
}

// Numbers that are floats, as doubles.
inline Values f32_values(Random& random, Index count, double scale = 1.0, double mean = 0.0) {
  return reference::cast<double>(reference::cast<float>(random.normals(count, scale, mean)));
}

inline Matrix<double> f32_matrix(Random& random, Index rows, Index cols, double scale = 1.0) {
  return {rows, cols, f32_values(random, rows * cols, scale)};
}

inline Values as_values(const Ids& ids) { return reference::cast<double>(ids); }

}  // namespace smoe::checks
