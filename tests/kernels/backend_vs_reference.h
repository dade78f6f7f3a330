// A backend's op list (op_calls.h) beside the reference: what each output is and what it should be.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "tests/kernels/op_calls.h"
#include "tests/support/deviation.h"

namespace smoe::checks {

using test::disagreement;

struct BackendFactory {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
  friend std::ostream& operator<<(std::ostream& out, const BackendFactory& f) { return out << f.name; }
};
std::vector<BackendFactory> backend_factories();  // every backend of this build

struct Comparison {
  std::string output;  // and of which op
  Values found, truth;
  double tolerance;  // of max |found - truth| / max |truth|; 0: the same bits
};

// Makes every call of the case. Fails the test where memory beside a tensor was overwritten. A truth that is left out is empty.
enum class Truth : std::uint8_t { asked_for, left_out };
std::vector<Comparison> compare_with_reference(const OpCase& c, Backend& backend, DType type = DType::f32,
                                               Truth wanted = Truth::asked_for);

// A workspace that fails the test where memory beside a tensor was overwritten.
class GuardedWorkspace : public Workspace {
 public:
  using Workspace::Workspace;
  ~GuardedWorkspace() { EXPECT_EQ(overwritten(), ""); }
};

// Numbers that are floats, as doubles.
inline Values f32_values(Random& random, Index count, double scale = 1.0, double mean = 0.0) {
  return reference::cast<double>(reference::cast<float>(random.normals(count, scale, mean)));
}

inline Matrix<double> f32_matrix(Random& random, Index rows, Index cols, double scale = 1.0) {
  return {rows, cols, f32_values(random, rows * cols, scale)};
}

}  // namespace smoe::checks
