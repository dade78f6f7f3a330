// One layer of the model alone, beside the same layer of the reference in double: both get the same weights and inputs,
// rounded to float. Gradients of parameters begin as random numbers, so that an assignment where a sum belongs shows, and
// what a layer is to assign begins as NaN. A failure names the layer, the tensor and its worst entry.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/arena.h"
#include "kernels/backend.h"
#include "model/context.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "tests/reference/random.h"
#include "tests/support/deviation.h"
#include "tests/support/rounding.h"

namespace smoe {

// Of the largest entry. Sums of terms of either sign are off by some epsilons of their spread, however long they are, and a
// layer's way forward or back passes three or four: up to 5 epsilons were seen.
constexpr double layer_tolerance = 16 * test::epsilon_of(DType::f32);

class LayerHarness {
 public:
  LayerHarness(std::string layer, std::uint64_t seed) : layer_(std::move(layer)), random_(seed) {}

  // Once the layer has declared its parameters: memory, random weights of spread 1 / sqrt(columns), random gradients.
  void allocate() {
    parameters.allocate(*backend, persistent_, mesh, true);
    for (Parameter& p : parameters) {
      const auto columns = static_cast<double>(p.slice[p.slice.rank() - 1]);
      set(p.value, random_floats(p.slice[0], p.slice.elements() / p.slice[0], 1 / std::sqrt(columns)));
      set(p.gradient, random_floats(p.slice[0], p.slice.elements() / p.slice[0], 1));
    }
  }
  const Parameter& parameter(const std::string& name) {
    const Parameter* p = parameters.find(name);
    if (!p) throw std::logic_error(layer_ + " has no parameter " + name);
    return *p;
  }
  reference::Matrix<double> weight(const std::string& name) { return matrix(parameter(name).value); }
  reference::Matrix<double> gradient(const std::string& name) { return matrix(parameter(name).gradient); }

  reference::Matrix<double> random_floats(std::int64_t rows, std::int64_t columns, double scale = 1) {
    return reference::cast<double>(reference::cast<float>(random_.matrix(rows, columns, scale)));
  }
  reference::Random& random() { return random_; }

  Tensor tensor(const reference::Matrix<double>& values) {
    const Tensor t = persistent_.take({values.rows, values.cols});
    set(t, values);
    return t;
  }
  Tensor tensor(const std::vector<double>& values) {
    const auto count = static_cast<std::int64_t>(values.size());
    return tensor(reference::Matrix<double>{count, 1, values}).reshape({count});
  }
  Tensor tensor(const reference::Ids& values) {
    const Tensor t = persistent_.take(DType::i32, {static_cast<std::int64_t>(values.size())});
    if (!values.empty()) backend->copy_from_host(t, values.data());
    return t;
  }
  Tensor unwritten(Shape shape) {
    const Tensor t = persistent_.take(shape);
    backend->fill(t, std::numeric_limits<float>::quiet_NaN());
    return t;
  }
  void set(const Tensor& t, const reference::Matrix<double>& values) {
    const auto floats = reference::cast<float>(values.values);
    if (!floats.empty()) backend->copy_from_host(t, floats.data());
  }

  std::vector<double> read(const Tensor& t) const {
    std::vector<float> floats(static_cast<std::size_t>(t.elements()));
    if (!floats.empty()) backend->copy_to_host(floats.data(), t);
    return reference::cast<double>(floats);
  }
  reference::Ids read_ids(const Tensor& t) const {
    reference::Ids ids(static_cast<std::size_t>(t.elements()));
    if (!ids.empty()) backend->copy_to_host(ids.data(), t);
    return ids;
  }
  reference::Matrix<double> matrix(const Tensor& t) const { return {t.dim(0), t.elements() / t.dim(0), read(t)}; }

  void expect_close(const std::string& what, const Tensor& found, const std::vector<double>& expected,
                    double tolerance) const {
    EXPECT_EQ(test::disagreement(read(found), expected, tolerance), "") << layer_ << ": " << what;
  }
  void expect_gradient(const std::string& name, const reference::Matrix<double>& expected) {
    expect_close("gradient of " + name, parameter(name).gradient, expected.values, layer_tolerance);
  }

  const Mesh mesh = Mesh::single();
  std::unique_ptr<Backend> backend = make_cpu_backend(2);
  ParameterSet parameters;

 private:
  Arena persistent_{*backend}, activations_{*backend}, scratch_{*backend};
  std::string layer_;
  reference::Random random_;

 public:
  Context context{*backend, mesh, activations_, scratch_};
};

}  // namespace smoe
