// Three steps in bf16 against transformers in bf16 (make_bf16_goldens.py).
//
// Both round, and differ from each other as from the truth: what float64 makes of the same rounded weights. So what is
// measured is how far a tensor is from the truth, |found - exact| / |exact| in the Euclidean norm, ours beside
// transformers'. Ours rounds where transformers does, or less: not scores, normalised rows, logits and gradients of
// weights. So it should be no farther. No token of these batches is near a tie between experts: all three choose the same.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/goldens/golden.h"

namespace smoe {
namespace {

// Ours over theirs, of one tensor. The norm of 256 independent errors scatters by 4%; those of an expert that few tokens
// choose are not independent.
constexpr double most_of_a_tensor = 1.5;
// Of all tensors of a kind together, whose scatter cancels: no farther.
constexpr double most_of_all = 1.0;
// What is nearer than this was not computed in bf16.
constexpr double least_of_all = 0.3;
// Ours from theirs, over the root of the sum of both squares, of all together. It is 1 where the errors have nothing to do
// with each other, less where both make the same ones, and more where ours go against theirs; sqrt(2) is never exceeded.
constexpr double most_apart = 1.1;
// Adam divides by the gradient's own size, so where that is nearly nothing a weight goes one way or the other: by its
// whole step, hundreds of times the error of its neighbours. These are few: every tensor is held without the largest tenth
// of its errors. With them all tensors together are held, to more, for it is chance which of few weights turn.
constexpr double flipped = 0.1;
constexpr double most_of_all_flips = 1.5;
// Of the masters of one tensor: errors over gradients of all sizes scatter more, and 28 of them are left of a norm's.
constexpr double most_of_masters = 2;

// The norm of a - b, without the largest of the differences: a share of them.
double distance(const std::vector<float>& a, const std::vector<float>& b, double without = 0) {
  if (a.size() != b.size()) throw std::runtime_error(fmt::format("{} numbers, expected {}", a.size(), b.size()));
  std::vector<double> squares(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = test::difference(static_cast<double>(a[i]), static_cast<double>(b[i]));
    squares[i] = difference * difference;
  }
  std::sort(squares.begin(), squares.end());
  const auto dropped = static_cast<std::ptrdiff_t>(std::ceil(without * static_cast<double>(squares.size())));
  return std::sqrt(std::accumulate(squares.begin(), squares.end() - dropped, 0.0));
}
double norm_of(const std::vector<float>& x) { return distance(x, std::vector<float>(x.size())); }

// Every n-th number, as make_bf16_goldens.py takes them: enough to leave `most`, and prime to the length of the rows.
std::vector<float> sampled(const std::vector<float>& all, std::int64_t row, std::int64_t most) {
  auto n =
      static_cast<std::int64_t>((all.size() + static_cast<std::size_t>(most) - 1) / static_cast<std::size_t>(most));
  while (std::gcd(n, row) > 1) ++n;
  std::vector<float> out;
  for (std::size_t i = 0; i < all.size(); i += static_cast<std::size_t>(n)) out.push_back(all[i]);
  return out;
}

// How far the tensors of one kind are from the truth.
class Distances {
 public:
  explicit Distances(double without = 0) : without_(without) {}

  // In units of `scale`, of the same tensor.
  void add(const std::string& name, const std::vector<float>& found, const std::vector<float>& hf,
           const std::vector<float>& exact, double scale) {
    const double ours = distance(found, exact, without_) / scale, theirs = distance(hf, exact, without_) / scale;
    const double between = distance(found, hf, without_) / scale;
    ++tensors_, ours_ += ours * ours, theirs_ += theirs * theirs, between_ += between * between;
    farthest_.add(test::in_units(ours, theirs), name);
  }
  double ours() const { return std::sqrt(ours_ / tensors_); }
  double theirs() const { return std::sqrt(theirs_ / tensors_); }
  double apart() const { return std::sqrt(between_ / (ours_ + theirs_)); }
  double ratio() const { return ours() / theirs(); }

  void print(const std::string& what) const {
    fmt::print(
        "  {} {}: from the truth ours {:.2e}, theirs {:.2e}, ratio {:.2f}; the worst of {} tensors {:.2f} ({}); apart {:.2f}\n",
        testing::UnitTest::GetInstance()->current_test_info()->name(), what, ours(), theirs(), ratio(), tensors_,
        farthest_.value, farthest_.name, apart());
  }
  void expect_near(const std::string& what, double most = most_of_a_tensor) const {
    print(what);
    EXPECT_LE(ratio(), most_of_all) << what;
    EXPECT_GE(ratio(), least_of_all) << what << ": nothing was rounded";
    EXPECT_LE(farthest_.value, most) << what << ": " << farthest_.name;
    EXPECT_LE(apart(), most_apart) << what;
  }

 private:
  double without_, ours_ = 0, theirs_ = 0, between_ = 0;
  int tensors_ = 0;
  Worst farthest_;
};

class GoldenBf16 : public testing::TestWithParam<std::string> {
 protected:
  GoldenBf16() { golden.ids = bf16.ids, golden.targets = bf16.targets; }

  GoldenModel model() { return GoldenModel(golden, golden.router, Recompute::none, golden.sequences, DType::bf16); }

  std::vector<float> sampled(const Parameter& p, const std::vector<float>& all) const {
    return smoe::sampled(all, p.slice[p.slice.rank() - 1], most);
  }
  std::vector<float> exact(const std::string& name) const { return bf16.values("exact." + name); }
  std::vector<float> hf(const std::string& name) const { return bf16.values("hf." + name); }

  Distances gradients(GoldenModel& real) const {
    real.step->compute_gradients(golden.batch(1));
    Distances distances;
    for (const Parameter& p : real.model.parameters()) {
      const std::string name = "grad." + p.name;
      distances.add(p.name, sampled(p, real.on_host(p.gradient)), hf(name), exact(name), norm_of(exact(name)));
    }
    return distances;
  }

  // Of masters, in units of how far they have come.
  Distances masters(GoldenModel& real, double without) const {
    Distances distances(without);
    const Shards& shards = real.optimizer->shards();
    for (const Parameter& p : real.model.parameters()) {
      std::vector<float> all;
      shards.for_each_owned(p, [&](std::int64_t, const OwnedRun& run) {
        const std::vector<float> part = real.on_host(shards.masters(p.flat, run));
        all.insert(all.end(), part.begin(), part.end());
      });
      const std::string name = "after." + p.name;
      const double moved = distance(exact(name), sampled(p, golden.values("weight." + p.name)));
      distances.add(p.name, sampled(p, all), hf(name), exact(name), moved);
    }
    return distances;
  }

  GoldenFile golden{"mixtral_" + GetParam()}, bf16{"bf16_" + GetParam()};
  std::int64_t most = parse_json(bf16.file.metadata().at("config"), bf16.file.path()).at("sample");
  std::int64_t steps = bf16.file.info("ids").shape.at(0);
};

TEST_P(GoldenBf16, LogitsAndRouterLogits) {
  GoldenModel real = model();
  Mixtral::Saved saved;
  const Tensor logits = real.logits(saved);

  Distances head, routers;
  head.add("logits", real.on_host(logits), hf("logits"), exact("logits"), norm_of(exact("logits")));
  for (std::size_t l = 0; l < saved.layers.size(); ++l) {
    const std::string name = "router_logits." + std::to_string(l);
    routers.add(name, real.on_host(saved.layers[l].router.logits), hf(name), exact(name), norm_of(exact(name)));
  }
  head.expect_near("logits");
  routers.expect_near("router logits");
}

TEST_P(GoldenBf16, EveryGradient) {
  GoldenModel real = model();
  gradients(real).expect_near("gradients");
}

TEST_P(GoldenBf16, ThreeStepsOfMasters) {
  GoldenModel real = model();
  for (std::int64_t step = 1; step <= steps; ++step) real.train(step);
  masters(real, flipped).expect_near("but for flips", most_of_masters);
  const Distances all = masters(real, 0);
  all.print("all");
  EXPECT_LE(all.ratio(), most_of_all_flips);
}

// A mean's error is that of few independent ones, and may be nothing by chance in either program, so transformers' is no
// yardstick for ours. Derived from its logits instead, whose errors are s in size, root mean square:
//  - the loss of a target moves by the error of its logit less the mean one, about s, and the mean over N by s / sqrt(N).
//    Three times that. Errors that tokens share, those of the head's input, are under it as measured;
//  - the balance loss, over its own size, is a mean of shares of probability that move by s of the router's logits at most;
//  - the gradient's norm moves by less than the gradient does: |g + e| - |g| <= |e|, of g about 1%.
TEST_P(GoldenBf16, LossesAndNormsOfThreeSteps) {
  const auto error = [&](const std::string& name) {
    const std::vector<float> found = exact(name);
    return distance(hf(name), found) / std::sqrt(static_cast<double>(found.size()));
  };
  const double tokens = static_cast<double>(golden.sequences * golden.sequence_length);
  const auto lm = bf16.by_step("exact.lm_loss"), aux = bf16.by_step("exact.aux_loss"),
             norm = bf16.by_step("exact.grad_norm");
  GoldenModel measured = model();
  const double most_norm = gradients(measured).theirs();
  GoldenModel real = model();
  Worst losses, balance, norms;
  for (std::int64_t step = 1; step <= steps; ++step) {
    const auto i = static_cast<std::size_t>(step - 1);
    const StepResult result = real.train(step);
    const std::string name = fmt::format("step {}", step);
    losses.add(test::difference(result.lm_loss, lm[i]) / (3 * error("logits") / std::sqrt(result.count)), name);
    balance.add(deviation(result.aux_loss, aux[i]) / (error("router_logits.0") / std::sqrt(tokens)), name);
    norms.add(deviation(result.grad_norm, norm[i]) / most_norm, name);
  }
  fmt::print("  {} of what is allowed: loss {:.2f}, balance loss {:.2f}, norm {:.2f}\n", GetParam(), losses.value,
             balance.value, norms.value);
  EXPECT_LE(losses.value, 1) << losses.name;
  EXPECT_LE(balance.value, 1) << balance.name;
  EXPECT_LE(norms.value, 1) << norms.name;
}

// What the masters are for: weights that are rounded after each step lose most of it.
TEST_P(GoldenBf16, MastersThatAreRoundedAreNoticed) {
  GoldenModel real = model();
  for (std::int64_t step = 1; step <= steps; ++step) {
    real.train(step);
    if (step < steps)
      for (const Parameter& p : real.model.parameters())
        real.optimizer->shards().store_masters(*real.backend, p, real.on_host(p.value));
  }
  const Distances distances = masters(real, flipped);
  distances.print("but for flips");
  EXPECT_GT(distances.ratio(), 10);
}

INSTANTIATE_TEST_SUITE_P(Transformers, GoldenBf16, testing::Values("gqa", "odd", "window"),
                         [](const testing::TestParamInfo<std::string>& info) { return info.param; });

}  // namespace
}  // namespace smoe
