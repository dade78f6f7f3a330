// Low-rank adapters: of linear layers on whole numbers, which add up exactly in any order, so that every result is the
// definition's to the bit; of the whole model against the oracle in double, whose weights are the sums W + scale B A.
#include "model/low_rank.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/linear.h"
#include "tests/model/model_fixture.h"
#include "tests/reference/linear.h"
#include "tests/reference/noise.h"

namespace smoe {
namespace {

using reference::Matrix;

constexpr std::uint64_t key = 77;

LoraConfig adapters(std::vector<std::string> targets, double dropout = 0) {
  return {.r = 2,
          .alpha = 4,
          .dropout = dropout,
          .rslora = false,
          .target_modules = std::move(targets),
          .layers = {},
          .from = {}};
}

Matrix<double> scaled(double factor, Matrix<double> m) {
  for (double& value : m.values) value *= factor;
  return m;
}

class LowRankTest : public ::testing::Test {
 protected:
  Matrix<double> whole_numbers(std::int64_t rows, std::int64_t columns) {
    Matrix<double> m(rows, columns);
    for (double& value : m.values) value = static_cast<double>(random.below(9) - 4);
    return m;
  }
  // Memory for all that were declared, of which the weights are frozen.
  void allocate() {
    for (Parameter& p : *set) p.trainable = p.adapter;
    set->allocate(*backend, persistent, mesh, true);
    for (Parameter& p : *set) values[p.name] = give(p.value);
    for (Parameter& p : *set)
      if (!p.gradient.empty()) before[p.name] = give(p.gradient);
  }
  Matrix<double> give(const Tensor& to) {
    Matrix<double> drawn = whole_numbers(to.dim(0), to.dim(1));
    std::copy(drawn.values.begin(), drawn.values.end(), to.f32());
    return drawn;
  }
  Tensor tensor(const Matrix<double>& from) {
    const Tensor t = activations.take({from.rows, from.cols});
    std::copy(from.values.begin(), from.values.end(), t.f32());
    return t;
  }
  static std::vector<double> read(const Tensor& t) { return {t.f32(), t.f32() + t.elements()}; }
  std::vector<double> added_to(const std::string& name) {
    std::vector<double> sum = read(set->find(name)->gradient);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] -= before[name].values[i];
    return sum;
  }

  // The definition, of one matrix W with A and B: y [R,N], then dA, dB and dx. factors: of x's entries.
  struct Expected {
    Matrix<double> y, dx, da, db;
  };
  static Expected expect(const Matrix<double>& w, const Matrix<double>* a, const Matrix<double>* b, double scale,
                         const Matrix<double>& x, const Matrix<double>& factors, const Matrix<double>& dy) {
    Expected e{reference::gemm_nt(x, w), reference::gemm_nn(dy, w), {}, {}};
    if (!a) return e;
    const Matrix<double> left = reference::apply_noise(x, factors), inner = reference::gemm_nt(left, *a),
                         dinner = scaled(scale, reference::gemm_nn(dy, *b));
    e.y = reference::add(e.y, scaled(scale, reference::gemm_nt(inner, *b)));
    e.db = scaled(scale, reference::gemm_tn(dy, inner));
    e.da = reference::gemm_tn(dinner, left);
    e.dx = reference::add(e.dx, reference::apply_noise(reference::gemm_nn(dinner, *a), factors));
    return e;
  }

  Mesh mesh = Mesh::single();
  std::unique_ptr<Backend> backend = make_cpu_backend(2);
  Arena persistent{*backend}, activations{*backend}, scratch{*backend};
  std::unique_ptr<ParameterSet> set = std::make_unique<ParameterSet>();
  std::map<std::string, Matrix<double>> values, before;
  Context context{*backend, mesh, activations, scratch};
  reference::Random random{7};
};

std::vector<reference::Index> count_from(std::int64_t first, std::int64_t rows) {
  std::vector<reference::Index> numbers;
  for (std::int64_t r = 0; r < rows; ++r) numbers.push_back(first + r);
  return numbers;
}

// Two of three matrices have adapters. Half of the input is dropped, so that what is left is doubled.
TEST_F(LowRankTest, AddToWhatALinearLayerGivesAndTakeTheirGradients) {
  for (const double dropout : {0.0, 0.5}) {
    SCOPED_TRACE(dropout);
    set = std::make_unique<ParameterSet>();
    constexpr std::int64_t rows = 5, inputs = 6, first_row = 1000;
    const LoraConfig config = adapters({"q_proj", "v_proj"}, dropout);
    const Linear linear(*set,
                        {{.name = "x.q_proj.weight", .shape = {8, inputs}},
                         {.name = "x.k_proj.weight", .shape = {3, inputs}},
                         {.name = "x.v_proj.weight", .shape = {4, inputs}}},
                        {&config, 3, AdapterSite::Input::heads});
    allocate();
    EXPECT_TRUE(linear.trained());
    const Matrix<double> x = whole_numbers(rows, inputs), dy = whole_numbers(rows, 15),
                         dx_before = whole_numbers(rows, inputs);
    const auto factors = reference::dropout_factors({key, 3 * 8 + 1, dropout}, count_from(first_row, rows), inputs);
    const RowNumbers numbers{key, first_row};
    const Tensor y = activations.take({rows, 15}), tx = tensor(x), tdy = tensor(dy), dx = tensor(dx_before);
    linear.forward(context, tx, y, numbers);
    linear.backward(context, tdy, tx, dx, Write::add, numbers);

    Matrix<double> all(rows, 15), all_dx = dx_before;
    std::int64_t at = 0;
    for (const std::string module : {"q_proj", "k_proj", "v_proj"}) {
      const std::string name = "x." + module;
      const Matrix<double>& w = values[name + ".weight"];
      Matrix<double> own(rows, w.rows);
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t n = 0; n < w.rows; ++n) own(r, n) = dy(r, at + n);
      const bool adapted = module != "k_proj";
      const Expected e = expect(w, adapted ? &values[name + ".lora_A.weight"] : nullptr,
                                adapted ? &values[name + ".lora_B.weight"] : nullptr, 2, x, factors, own);
      reference::set_columns(all, at, e.y);
      all_dx = reference::add(all_dx, e.dx);
      at += w.rows;
      if (!adapted) continue;
      EXPECT_EQ(added_to(name + ".lora_A.weight"), e.da.values) << name;
      EXPECT_EQ(added_to(name + ".lora_B.weight"), e.db.values) << name;
    }
    EXPECT_EQ(read(y), all.values);
    EXPECT_EQ(read(dx), all_dx.values);
    EXPECT_TRUE(set->find("x.q_proj.weight")->gradient.empty());
  }
}

// Of each expert's pair of matrices both have one, or the second alone; an expert has no rows.
TEST_F(LowRankTest, OfEveryExpertAreOneProduct) {
  for (const bool both : {true, false})
    for (const double dropout : {0.0, 0.5}) {
      SCOPED_TRACE(testing::Message() << both << " " << dropout);
      set = std::make_unique<ParameterSet>();
      constexpr std::int64_t experts = 3, F = 4, inputs = 5, rows = 7;
      const LoraConfig config =
          adapters(both ? std::vector<std::string>{"w1", "w3"} : std::vector<std::string>{"w3"}, dropout);
      std::vector<Parameter> matrices;
      for (int e = 0; e < experts; ++e)
        for (const std::string w : {".w1.weight", ".w3.weight"})
          matrices.push_back({.name = "experts." + std::to_string(e) + w, .shape = {F, inputs}, .split = Split::ep});
      const GroupedLinear linear(*set, experts, matrices, {&config, 0, AdapterSite::Input::experts});
      allocate();
      const reference::Ids offsets{0, 4, 4, 7};
      const Tensor device_offsets = activations.take(DType::i32, {experts + 1});
      backend->copy_from_host(device_offsets, offsets.data());
      const ExpertRows expert_rows{device_offsets, offsets};
      const reference::Ids numbered{31, 4, 15, 9, 26, 5, 35};
      const Tensor row_numbers = activations.take(DType::i32, {rows});
      backend->copy_from_host(row_numbers, numbered.data());
      const RowNumbers numbers{key, 0, row_numbers};
      const auto factors = reference::dropout_factors({key, 3, dropout}, {numbered.begin(), numbered.end()}, inputs);

      const Matrix<double> x = whole_numbers(rows, inputs), dy = whole_numbers(rows, 2 * F);
      const Tensor y = activations.take({rows, 2 * F}), dx = activations.take({rows, inputs}), tx = tensor(x),
                   tdy = tensor(dy);
      linear.forward(context, tx, expert_rows, y, numbers);
      const Tensor inner = linear.inner_gradient(context, tdy, expert_rows);
      linear.input_gradient(context, tdy, inner, expert_rows, dx, numbers);
      linear.weight_gradient(context, tdy, inner, tx, expert_rows, numbers);

      Matrix<double> all(rows, 2 * F), all_dx(rows, inputs);
      for (int e = 0; e < experts; ++e) {
        const std::int64_t first = offsets[e], count = offsets[e + 1] - first;
        for (int m = 0; m < 2; ++m) {
          const std::string name = "experts." + std::to_string(e) + (m == 0 ? ".w1" : ".w3");
          Matrix<double> own(count, F);
          for (std::int64_t r = 0; r < count; ++r)
            for (std::int64_t n = 0; n < F; ++n) own(r, n) = dy(first + r, m * F + n);
          const bool adapted = both || m == 1;
          const Expected expected =
              expect(values[name + ".weight"], adapted ? &values[name + ".lora_A.weight"] : nullptr,
                     adapted ? &values[name + ".lora_B.weight"] : nullptr, 2, reference::row_range(x, first, count),
                     reference::row_range(factors, first, count), own);
          for (std::int64_t r = 0; r < count; ++r) {
            for (std::int64_t n = 0; n < F; ++n) all(first + r, m * F + n) = expected.y(r, n);
            for (std::int64_t d = 0; d < inputs; ++d) all_dx(first + r, d) += expected.dx(r, d);
          }
          if (!adapted) continue;
          EXPECT_EQ(added_to(name + ".lora_A.weight"), expected.da.values) << name;
          EXPECT_EQ(added_to(name + ".lora_B.weight"), expected.db.values) << name;
        }
      }
      EXPECT_EQ(read(y), all.values);
      EXPECT_EQ(read(dx), all_dx.values);
    }
}

TEST_F(LowRankTest, DropNothingWhereRowsHaveNoNumbers) {
  const LoraConfig config = adapters({"o_proj"}, 0.5);
  const Linear linear(*set, {{.name = "o_proj.weight", .shape = {3, 4}}}, {&config, 0, AdapterSite::Input::heads});
  allocate();
  const Matrix<double> x = whole_numbers(2, 4), none(2, 4, std::vector<double>(8, 1.0));
  const Tensor y = activations.take({2, 3});
  linear.forward(context, tensor(x), y);
  EXPECT_EQ(read(y), expect(values["o_proj.weight"], &values["o_proj.lora_A.weight"], &values["o_proj.lora_B.weight"],
                            2, x, none, Matrix<double>(2, 3))
                         .y.values);
}

// ---- the whole model ----

reference::ReferenceConfig model_shape() {
  reference::ReferenceConfig c;
  c.vocab = 53, c.hidden = 32, c.ffn = 48, c.layers = 2, c.heads = 8, c.kv_heads = 2, c.head_dim = 4;
  c.experts = 8, c.top_k = 2, c.aux_coef = 0.3, c.z_coef = 0.01;
  return c;
}

Matrix<double> matrix(const Tensor& t) { return {t.dim(0), t.dim(1), {t.f32(), t.f32() + t.elements()}}; }

struct ModelCase {
  const char* name;
  std::vector<std::string> targets;
  std::vector<std::int64_t> layers;
};

class LowRankModel : public ::testing::TestWithParam<ModelCase> {};

// dL/dB = scale dL/dW A^T and dL/dA = scale B^T dL/dW, W the sum: dL/dW is the oracle's.
TEST_P(LowRankModel, HasTheGradientsOfTheSumsOfWeightsAndAdapters) {
  const reference::ReferenceConfig c = model_shape();
  LoraConfig lora = adapters(GetParam().targets);
  lora.r = 3, lora.alpha = 5, lora.layers = GetParam().layers;
  auto weights = float_parameters(c, 5);
  RealModel real(c, weights, 17, 2, &lora);
  reference::Random random(3);
  for (const Parameter& p : real.model.parameters())
    if (p.adapter)
      for (std::int64_t i = 0; i < p.value.elements(); ++i)
        p.value.f32()[i] = static_cast<float>(0.3 * random.normals(1)[0]);

  std::size_t adapted = 0;
  const auto with_adapter = [&](const std::string& weight, const auto& visit) {
    const std::string path = weight.substr(0, weight.size() - std::string(".weight").size());
    const Parameter *a = real.model.parameters().find(path + ".lora_A.weight"),
                    *b = real.model.parameters().find(path + ".lora_B.weight");
    ASSERT_EQ(a == nullptr, b == nullptr) << weight;
    if (a) visit(*a, *b);
  };
  reference::visit_parameters(weights, [&](const std::string& name, const auto&, std::vector<double>& w) {
    with_adapter(name, [&](const Parameter& a, const Parameter& b) {
      const Matrix<double> product = reference::gemm_nn(matrix(b.value), matrix(a.value));
      ASSERT_EQ(product.values.size(), w.size()) << name;
      for (std::size_t i = 0; i < w.size(); ++i) w[i] += 5.0 / 3 * product.values[i];
      ++adapted;
    });
  });
  const std::size_t layers = GetParam().layers.empty() ? 2 : 1;
  std::size_t of_a_layer = 0;
  for (const std::string& target : GetParam().targets) of_a_layer += target[0] == 'w' ? 8 : 1;
  EXPECT_EQ(adapted, layers * of_a_layer);

  const auto batch = reference::random_batch(c, 3, 17, 9, true, 0.3);
  reference::ModelSaved<double> saved;
  const auto expected = reference::model_forward(c, weights, batch, saved);
  auto gradients = reference::make_parameters<double>(c);
  reference::model_backward(c, weights, batch, saved, gradients);
  const auto found = real.step(batch);
  EXPECT_NEAR(found.lm, expected.lm, 2e-6 * std::abs(expected.lm));
  reference::visit_parameters(gradients, [&](const std::string& name, const auto&, const std::vector<double>& g) {
    with_adapter(name, [&](const Parameter& a, const Parameter& b) {
      const Matrix<double> dw{b.value.dim(0), a.value.dim(1), g}, va = matrix(a.value), vb = matrix(b.value);
      const double tolerance = name.find(".gate.") != std::string::npos ? 5e-5 : 2e-5;
      EXPECT_EQ(test::disagreement(real.gradient(a.name), scaled(5.0 / 3, reference::gemm_tn(vb, dw)).values, tolerance,
                                   0.01),
                "")
          << a.name;
      EXPECT_EQ(test::disagreement(real.gradient(b.name), scaled(5.0 / 3, reference::gemm_nt(dw, va)).values, tolerance,
                                   0.01),
                "")
          << b.name;
    });
  });
  for (const Parameter& p : real.model.parameters()) EXPECT_EQ(p.gradient.empty(), !p.adapter) << p.name;
}

INSTANTIATE_TEST_SUITE_P(
    Targets, LowRankModel,
    ::testing::Values(ModelCase{"all", {"q_proj", "k_proj", "v_proj", "o_proj", "gate", "w1", "w2", "w3"}, {}},
                      ModelCase{"queries_and_values", {"v_proj", "q_proj"}, {}},
                      ModelCase{"last_layer", {"o_proj", "w1", "w2"}, {1, 1}},
                      ModelCase{"first_layer_router", {"gate"}, {0, 0}}, ModelCase{"w3_alone", {"w3"}, {}}),
    [](const auto& info) { return std::string(info.param.name); });

// At first B is zero.
TEST(LowRankModelAtFirst, GivesTheLossOfTheWeightsAloneToTheBit) {
  const reference::ReferenceConfig c = model_shape();
  const auto weights = float_parameters(c, 5);
  const auto batch = reference::random_batch(c, 3, 17, 9, true, 0.3);
  LoraConfig lora = adapters({"q_proj", "k_proj", "v_proj", "o_proj", "gate", "w1", "w2", "w3"}, 0.25);
  RealModel plain(c, weights, 17), adapted(c, weights, 17, 2, &lora);
  adapted.model.parameters().initialize(*adapted.backend, 1);
  reference::visit_parameters(weights, [&](const std::string& name, const auto&, const std::vector<double>& values) {
    std::copy(values.begin(), values.end(), adapted.model.parameters().find(name)->value.f32());
  });
  EXPECT_EQ(adapted.step(batch).lm, plain.step(batch).lm);
  for (const Parameter& p : adapted.model.parameters()) {
    if (!p.adapter) continue;
    const std::vector<float> g = adapted.gradient(p.name);
    const bool is_zero = std::all_of(g.begin(), g.end(), [](float x) { return x == 0; });
    EXPECT_EQ(is_zero, p.name.find("lora_A") != std::string::npos) << p.name;  // B is zero, A is not
    const float range = 1 / std::sqrt(static_cast<float>(p.value.dim(1)));
    for (const float value : std::vector<float>(p.value.f32(), p.value.f32() + p.value.elements())) {
      if (is_zero)
        EXPECT_LT(std::abs(value), range) << p.name;
      else
        EXPECT_EQ(value, 0) << p.name;
    }
  }
}

TEST(LowRankModelDropout, IsTheSameWhereLayersAreComputedAgain) {
  const reference::ReferenceConfig c = model_shape();
  const auto weights = float_parameters(c, 5);
  const auto batch = reference::random_batch(c, 3, 17, 9, true, 0.3);
  const auto gradients = [&](double dropout, Recompute recompute) {
    const LoraConfig lora = adapters({"q_proj", "v_proj", "o_proj", "gate", "w1", "w2", "w3"}, dropout);
    RealModel real(c, weights, 17, 2, &lora);
    for (const Parameter& p : real.model.parameters())
      if (p.adapter)
        for (std::int64_t i = 0; i < p.value.elements(); ++i)
          p.value.f32()[i] = 0.25f * std::sin(static_cast<float>(i));
    real.step(batch, recompute);
    std::map<std::string, std::vector<float>> all;
    for (const Parameter& p : real.model.parameters())
      if (p.adapter) all[p.name] = real.gradient(p.name);
    return all;
  };
  const auto kept = gradients(0.25, Recompute::none);
  EXPECT_EQ(kept, gradients(0.25, Recompute::layer));
  for (const auto& [name, without] : gradients(0, Recompute::none))
    EXPECT_GT(test::deviation(kept.at(name), without), 1e-2) << name;
}

}  // namespace
}  // namespace smoe
