// Two backends held against each other: they agree where they compute the same, and a wrong op is called by its name.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/check_backend.h"
#include "tests/kernels/backend_vs_reference.h"

namespace smoe::checks {
namespace {

class CheckBackendOps : public testing::TestWithParam<std::tuple<DType, OpCase>> {};

// One thread and two round differently, and no op writes where it should read.
TEST_P(CheckBackendOps, OneThreadAndTwoAgree) {
  const auto one = make_cpu_backend(1), two = make_cpu_backend(2);
  const auto& [type, op_case] = GetParam();
  CheckBackend both(*one, *two);
  for (const Comparison& c : compare_with_reference(op_case, both, type))
    EXPECT_EQ(disagreement(c.found, c.truth, c.tolerance), "") << c.output;
}

INSTANTIATE_TEST_SUITE_P(Ops, CheckBackendOps,
                         testing::Combine(testing::Values(DType::f32, DType::bf16),
                                          testing::ValuesIn(compared_cases())),
                         [](const auto& info) {
                           return name_of(std::get<0>(info.param)) + ("_" + std::get<1>(info.param).name);
                         });

// One op that leaves a wrong number at the end of each tensor it was given: one too much, or, of an f32, what is given.
class OneWrongOp final : public OpDecorator {
 public:
  OneWrongOp(Backend& inner, std::string op, std::optional<float> number = {})
      : OpDecorator(inner), op_(std::move(op)), number_(number) {}

 private:
  class Noting final : public Placing {
   public:
    mutable std::vector<Tensor> given;

   private:
    Tensor place(const char*, const Tensor& tensor, Access) const override { return given.emplace_back(tensor); }
  };
  void run(const char* op, const Call& call) override {
    const Noting noting;
    call(inner(), noting);
    if (op != op_) return;
    for (const Tensor& tensor : noting.given) {
      if (tensor.elements() == 0) continue;
      const std::int64_t last = tensor.elements() - 1;
      if (tensor.type() == DType::f32) tensor.f32()[last] = number_.value_or(tensor.f32()[last] + 1.0f);
      if (tensor.type() == DType::bf16) tensor.bf16()[last] = rounded(widened(tensor.bf16()[last]) + 1.0f);
      if (tensor.type() == DType::i32) tensor.i32()[last] += 1;
      if (tensor.type() == DType::f64) tensor.f64()[last] += 1.0;
    }
  }
  std::string op_;
  std::optional<float> number_;
};

TEST(CheckBackend, NamesTheFirstOpThatDiffers) {
  const auto cpu = make_cpu_backend(1);
  for (const std::string wrong : {"add", "gemm", "swiglu_backward"}) {
    OneWrongOp planted(*cpu, wrong);
    CheckBackend both(*cpu, planted);
    GuardedWorkspace ws(both);
    Random random(5);
    const Tensor x = ws.f32({4, 6}, f32_values(random, 24)), w = ws.f32({6, 6}, f32_values(random, 36)),
                 y = ws.output({4, 6});
    const Tensor a = ws.output({4, 3}), da = ws.f32({4, 3}, f32_values(random, 12)), dh = ws.output({4, 6});
    std::string message;
    try {
      both.gemm(Gemm::nt, x, w, y, Write::assign);
      both.add(x, y, y);
      both.swiglu_forward(y, {}, a);
      both.swiglu_backward(y, {}, da, dh, {}, a);
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    EXPECT_TRUE(message.starts_with(wrong + ": ")) << wrong << ": " << message;
  }
}

// What a call does to two tensors, and what the check says of it; nothing, where it is content.
class CheckBackendSays : public testing::Test {
 protected:
  template <class Call>
  std::string said(Backend& first, Backend& second, const Call& call) {
    try {
      CheckBackend both(first, second);
      call(both);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  }

  std::unique_ptr<Backend> cpu_ = make_cpu_backend(1);
  GuardedWorkspace ws_{*cpu_};
};

// add(), and after it something else.
class SpoiltAdd final : public OpDecorator {
 public:
  using After = std::function<void(const Tensor& a, const Tensor& out)>;
  SpoiltAdd(Backend& inner, After after) : OpDecorator(inner), after_(std::move(after)) {}

 private:
  void run(const char*, const Call& call) override { call(inner(), Placing()); }
  void do_add(const Tensor& a, const Tensor& b, const Tensor& out) override {
    inner().add(a, b, out);
    after_(a, out);
  }
  After after_;
};

TEST_F(CheckBackendSays, TheArgumentThePlaceBothNumbersAndHowFarApartTheyMayBe) {
  const Tensor a = ws_.f32({2, 3}, {1, 2, 3, 4, 5, 6}), b = ws_.f32({2, 3}, {0, 0, 0, 0, 0, 2}),
               out = ws_.output({2, 3});
  const auto add = [&](Backend& both) { both.add(a, b, out); };
  SpoiltAdd wrong(*cpu_, [](const Tensor&, const Tensor& sum) { sum.f32()[3] = 4.5f, sum.f32()[5] = 8.25f; });
  EXPECT_EQ(
      said(*cpu_, wrong, add),
      "add: out [2, 3] f32 differs at [1, 0]: 4 on cpu and 4.5 on cpu, which may be 0.00016 apart; 2 of 6 entries "
      "differ");
  SpoiltAdd reading(*cpu_, [](const Tensor& x, const Tensor&) { x.f32()[2] = 3.0000002f; });
  EXPECT_EQ(said(*cpu_, reading, add),
            "add: a [2, 3] f32, which it only reads, differs at [0, 2]: 3 on cpu and 3.00000024 on cpu, which may be 0 "
            "apart; 1 of 6 entries differ");
  SpoiltAdd rounding(*cpu_, [](const Tensor&, const Tensor& sum) { sum.f32()[5] = 8.0001f; });
  EXPECT_EQ(said(*cpu_, rounding, add), "");
}

// A tie between experts is broken by rounding where a bias is added; another expert than the best ones is a mistake.
TEST_F(CheckBackendSays, NothingOfATieBetweenExperts) {
  class OtherExperts final : public OpDecorator {
   public:
    using OpDecorator::OpDecorator;

   private:
    void run(const char*, const Call& call) override { call(inner(), Placing()); }
    void do_router_forward(const RoutingRule& rule, const Tensor& logits, const Tensor& bias,
                           const Tensor& probabilities, const Tensor& logsumexp, const Tensor& experts,
                           const Tensor& weights) override {
      inner().router_forward(rule, logits, bias, probabilities, logsumexp, experts, weights);
      experts.i32()[1] = 2;  // not 1
    }
  };
  OtherExperts other(*cpu_);
  const Tensor bias = ws_.f32({4}, {0.25, 0.25, 0.25, 0.25}), probabilities = ws_.output({1, 4}),
               logsumexp = ws_.output({1}), experts = ws_.output_i32({1, 2}), weights = ws_.output({1, 2});
  const auto said_of = [&](Backend& second, const Values& logits, const Tensor& added) {
    return said(*cpu_, second, [&](Backend& both) {
      both.router_forward({}, ws_.f32({1, 4}, logits), added, probabilities, logsumexp, experts, weights);
    });
  };
  const Values tied{3, 1, 1, 0}, not_tied{3, 1, 0.5, 0}, not_finite{3, std::nan(""), 1, 0};
  EXPECT_EQ(said_of(*cpu_, tied, {}), "");
  EXPECT_EQ(said_of(other, tied, bias), "");
  EXPECT_EQ(said_of(other, not_finite, {}), "");
  for (const std::string& message :
       {said_of(other, not_tied, bias), said_of(other, tied, {}), said_of(other, not_tied, {})})
    EXPECT_TRUE(message.starts_with("router_forward: experts [1, 2] i32 differs at [0, 1]: 1 on cpu and 2 on cpu"))
        << message;
}

// bf16 rounds to neighbours; what is further apart is not rounding, however small beside the largest entry.
TEST_F(CheckBackendSays, OfBf16WhatIsMoreThanARoundingApart) {
  const Tensor a = ws_.bf16({2}, {0.125, 1}), b = ws_.bf16({2}, {0, 0}), out = ws_.bf16({2}, {0, 0});
  for (const int steps : {0, 1, 2, 3}) {
    SpoiltAdd other(*cpu_, [&](const Tensor&, const Tensor& sum) {
      sum.bf16()[0] = rounded(0.125f + 0x1p-10f * static_cast<float>(steps));
    });
    EXPECT_EQ(said(*cpu_, other, [&](Backend& both) { both.add(a, b, out); }).empty(), steps <= 1) << steps;
  }
}

// No number of the first backend, however large, makes room for one that is not finite or for another index.
TEST(CheckBackend, FindsANanAnInfinityAndAnIndexThatIsOneOff) {
  const auto cpu = make_cpu_backend(1);
  GuardedWorkspace ws(*cpu);
  const auto numbers = [&] { return ws.f32({2}, Values{1e30, 1.0}); };
  const auto add_on = [&](Backend& first, Backend& second) {
    CheckBackend(first, second).add(numbers(), numbers(), numbers());
  };
  EXPECT_NO_THROW(add_on(*cpu, *cpu));
  for (const float number :
       {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    OneWrongOp planted(*cpu, "add", number);
    EXPECT_THROW(add_on(*cpu, planted), std::runtime_error) << number;
    EXPECT_THROW(add_on(planted, *cpu), std::runtime_error) << number;
  }
  OneWrongOp planted(*cpu, "copy");
  EXPECT_THROW(CheckBackend(*cpu, planted).copy(ws.i32({2}, {0, 0}), ws.i32({2}, {1 << 20, 1 << 20})),
               std::runtime_error);
}

// The op list sees it too: for every op some case disagrees with the reference.
TEST(OpList, SeesAWrongNumberOfEveryOp) {
  const auto cpu = make_cpu_backend(2);
  const std::vector<OpCase> cases = compared_cases();
  std::map<std::string, bool> seen;
  for (const DType type : {DType::f32, DType::bf16})
    for (const OpCase& c : cases)
      for (const OpCall& call : c.calls) {
        if (call.op.ends_with("_host")) continue;  // the inputs, the guards and what is read come by these
        bool& is_seen = seen[call.op + " " + name_of(type)];
        if (is_seen) continue;
        OneWrongOp planted(*cpu, call.op);
        for (const Comparison& compared : compare_with_reference({c.name, false, {call}}, planted, type))
          is_seen = is_seen || disagreement(compared.found, compared.truth, compared.tolerance) != "";
      }
  for (const auto& [op, is_seen] : seen) EXPECT_TRUE(is_seen) << op;
}

TEST(CheckBackend, GivesTheFirstBackendsBits) {
  const auto one = make_cpu_backend(1), two = make_cpu_backend(2);
  CheckBackend both(*one, *two);
  GuardedWorkspace ws(both);
  Random random(6);
  const Tensor x = ws.f32({301, 700}, f32_values(random, 301 * 700)),
               w = ws.f32({90, 700}, f32_values(random, 90 * 700));
  const Tensor y = ws.output({301, 90}), alone = ws.output({301, 90});
  both.gemm(Gemm::nt, x, w, y, Write::assign);
  one->gemm(Gemm::nt, x, w, alone, Write::assign);
  EXPECT_EQ(ws.read(y), ws.read(alone));
}

}  // namespace
}  // namespace smoe::checks
