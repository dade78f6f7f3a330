// Linear and GroupedLinear on whole numbers, which add up exactly in any order: every result is the reference's to the bit.
#include "model/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/reference/linear.h"
#include "tests/reference/random.h"

namespace smoe {
namespace {

using reference::Matrix;

Matrix<double> whole_numbers(reference::Random& random, std::int64_t rows, std::int64_t columns) {
  Matrix<double> m(rows, columns);
  for (double& value : m.values) value = static_cast<double>(random.below(19) - 9);
  return m;
}

// Matrices that lie one behind the other, with memory for their gradients.
class LinearTest : public ::testing::Test {
 protected:
  static std::vector<Parameter> matrices(std::int64_t count, Shape shape) {
    std::vector<Parameter> all;
    for (std::int64_t i = 0; i < count; ++i) all.push_back({.name = std::to_string(i), .shape = shape});
    return all;
  }
  // Memory for all that were declared, which lie one behind the other.
  void allocate(bool with_gradients = true) { parameters.allocate(*backend, persistent, mesh, with_gradients); }
  Tensor values(Shape shape) { return whole(parameters.find("0")->value, shape); }
  Tensor gradients(Shape shape) { return whole(parameters.find("0")->gradient, shape); }
  static Tensor whole(const Tensor& first, Shape shape) { return first.from_here(shape); }

  static void write(const Tensor& to, const Matrix<double>& from) {
    std::copy(from.values.begin(), from.values.end(), to.f32());
  }
  Tensor tensor(const Matrix<double>& from) {
    const Tensor t = activations.take({from.rows, from.cols});
    write(t, from);
    return t;
  }
  static std::vector<double> read(const Tensor& t) { return {t.f32(), t.f32() + t.elements()}; }

  Mesh mesh = Mesh::single();
  std::unique_ptr<Backend> backend = make_cpu_backend(2);
  Arena persistent{*backend}, activations{*backend}, scratch{*backend};
  ParameterSet parameters;
  Context context{*backend, mesh, activations, scratch};
  reference::Random random{7};
};

TEST_F(LinearTest, ForwardAndBothGradients) {
  const Linear linear(parameters, matrices(2, {5, 6}));
  allocate();
  const auto w = whole_numbers(random, 10, 6), x = whole_numbers(random, 4, 6), dy = whole_numbers(random, 4, 10);
  const auto dw_before = whole_numbers(random, 10, 6), dx_before = whole_numbers(random, 4, 6);
  write(values({10, 6}), w);
  write(gradients({10, 6}), dw_before);

  const Tensor y = activations.take({4, 10}), tx = tensor(x), tdy = tensor(dy), dx = tensor(dx_before);
  linear.forward(context, tx, y);
  EXPECT_EQ(read(y), reference::linear_forward(x, w).values);

  Matrix<double> dw = dw_before;
  const Matrix<double> expected = reference::linear_backward(dy, x, w, dw);
  linear.backward(context, tdy, tx, dx, Write::add);
  EXPECT_EQ(read(dx), reference::add(dx_before, expected).values);
  EXPECT_EQ(read(gradients({10, 6})), dw.values);

  linear.backward(context, tdy, tx, dx, Write::assign);
  EXPECT_EQ(read(dx), expected.values);
}

TEST_F(LinearTest, TakesTheWeightsGradientAloneWhereNobodyWantsTheInputs) {
  const Linear linear(parameters, matrices(1, {3, 4}));
  allocate();
  const auto x = whole_numbers(random, 5, 4), dy = whole_numbers(random, 5, 3);
  linear.backward(context, tensor(dy), tensor(x), {}, Write::assign);
  EXPECT_EQ(read(gradients({3, 4})), reference::gemm_tn(dy, x).values);
}

TEST_F(LinearTest, OfAFrozenWeightTakesTheInputsGradientAlone) {
  const Linear linear(parameters, matrices(1, {3, 4}));
  EXPECT_FALSE(linear.trained());
  allocate(false);
  EXPECT_FALSE(linear.trained());
  const auto w = whole_numbers(random, 3, 4), x = whole_numbers(random, 5, 4), dy = whole_numbers(random, 5, 3);
  write(values({3, 4}), w);
  const Tensor dx = activations.take({5, 4});
  linear.backward(context, tensor(dy), tensor(x), dx, Write::assign);
  EXPECT_EQ(read(dx), reference::gemm_nn(dy, w).values);
}

TEST_F(LinearTest, GroupedMultipliesEachExpertsRowsByItsMatrices) {
  constexpr std::int64_t experts = 3, outputs = 8, inputs = 5, rows = 7;
  const GroupedLinear linear(parameters, experts, matrices(2 * experts, {outputs / 2, inputs}));
  allocate();
  const reference::Ids offsets{0, 4, 4, 7};  // the second expert has no rows
  const Tensor device_offsets = activations.take(DType::i32, {experts + 1});
  backend->copy_from_host(device_offsets, offsets.data());
  const ExpertRows expert_rows{device_offsets, offsets};
  const auto w = whole_numbers(random, experts * outputs, inputs),
             dw_before = whole_numbers(random, experts * outputs, inputs);
  const auto x = whole_numbers(random, rows, inputs), dy = whole_numbers(random, rows, outputs);
  write(values({experts, outputs, inputs}), w);
  write(gradients({experts, outputs, inputs}), dw_before);

  const Tensor y = activations.take({rows, outputs}), dx = activations.take({rows, inputs}), tx = tensor(x),
               tdy = tensor(dy);
  linear.forward(context, tx, expert_rows, y);
  EXPECT_EQ(read(y), reference::grouped_gemm_nt(x, w, offsets).values);
  linear.input_gradient(context, tdy, {}, expert_rows, dx);
  EXPECT_EQ(read(dx), reference::grouped_gemm_nn(dy, w, offsets).values);
  linear.weight_gradient(context, tdy, {}, tx, expert_rows);
  EXPECT_EQ(read(gradients({experts, outputs, inputs})),
            reference::add(dw_before, reference::grouped_gemm_tn(dy, x, offsets)).values);
}

TEST_F(LinearTest, GroupedOfFrozenMatricesTakesNoGradientOfThem) {
  const GroupedLinear linear(parameters, 2, matrices(2, {3, 4}));
  allocate(false);
  EXPECT_FALSE(linear.trained());
  const reference::Ids offsets{0, 2, 5};
  const Tensor device_offsets = activations.take(DType::i32, {3});
  backend->copy_from_host(device_offsets, offsets.data());
  const auto x = whole_numbers(random, 5, 4), dy = whole_numbers(random, 5, 3);
  linear.weight_gradient(context, tensor(dy), {}, tensor(x), {device_offsets, offsets});
  EXPECT_TRUE(gradients({2, 3, 4}).empty());
}

}  // namespace
}  // namespace smoe
