// Smoothed labels against PyTorch's own cross-entropy: the same loss and the same gradient, of the reference and of the ops, whole
// and over two ranges of the vocabulary.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "kernels/host_view.h"
#include "tests/goldens/golden.h"
#include "tests/reference/cross_entropy.h"

namespace smoe {
namespace {

struct Smoothed {
  double loss = 0;  // sum over rows
  std::vector<double> gradient;
};

class GoldenLabelSmoothing : public testing::Test {
 protected:
  const Json file = read_json_file(test::source_folder() + "/tests/goldens/label_smoothing.json");
  const std::int64_t rows = file.at("rows"), columns = file.at("columns");
  const std::vector<double> logits = file.at("logits");
  const std::vector<std::int32_t> targets = file.at("targets");

  Smoothed pytorch(const Json& one) const { return {one.at("loss"), one.at("gradient")}; }

  Smoothed reference(double amount) const {
    reference::Matrix<double> matrix(static_cast<reference::Index>(rows), static_cast<reference::Index>(columns));
    matrix.values = logits;
    const auto statistics = reference::cross_entropy_statistics(matrix, targets, 0);
    const auto losses = reference::cross_entropy_losses(targets, statistics);
    const auto uniform = reference::uniform_losses(targets, statistics, matrix.cols);
    Smoothed found;
    for (std::size_t n = 0; n < targets.size(); ++n)
      found.loss += (1 - amount) * losses.losses[n] + amount * uniform[n];
    found.gradient =
        reference::cross_entropy_backward(matrix, targets, 0, losses.logsumexp, 1.0, {}, {amount, matrix.cols}).values;
    return found;
  }

  // By the ops, as ranks of so many owners of the vocabulary call them.
  Smoothed ops(double amount, const std::vector<std::int64_t>& slices) const {
    const std::unique_ptr<Backend> backend = make_backend(DeviceChoice::automatic, 1);
    Arena arena(*backend);
    const auto ranges = static_cast<std::int64_t>(slices.size());
    const Tensor ids = arena.take(DType::i32, {rows}), parts = arena.take({ranges, 4, rows});
    backend->copy_from_host(ids, targets.data());
    std::vector<Tensor> owned;
    std::int64_t first = 0;
    for (const std::int64_t width : slices) {
      std::vector<float> numbers;
      for (std::int64_t n = 0; n < rows; ++n)
        for (std::int64_t v = first; v < first + width; ++v)
          numbers.push_back(static_cast<float>(logits[static_cast<std::size_t>(n * columns + v)]));
      const Tensor slice = owned.emplace_back(arena.take({rows, width}));
      backend->copy_from_host(slice, numbers.data());
      const Tensor own = parts.rows(static_cast<std::int64_t>(owned.size()) - 1, 1).reshape({4, rows});
      const auto row = [&](std::int64_t i) { return own.rows(i, 1).reshape({rows}); };
      backend->cross_entropy_statistics(slice, ids, first, row(0), row(1), row(2), row(3));
      first += width;
    }
    const Tensor maxima = arena.take({rows}), sums = arena.take({rows}), target_logits = arena.take({rows}),
                 logit_sums = arena.take({rows}), logsumexp = arena.take({rows}), losses = arena.take({rows}),
                 uniform = arena.take({rows});
    backend->cross_entropy_merge(parts, maxima, sums, target_logits, logit_sums);
    backend->cross_entropy_losses(ids, maxima, sums, target_logits, logsumexp, losses);
    backend->cross_entropy_uniform_losses(ids, maxima, sums, logit_sums, columns, uniform);
    Smoothed found;
    found.gradient.resize(logits.size());
    const std::vector<float> of_targets = numbers_of(*backend, losses), of_all = numbers_of(*backend, uniform);
    for (std::size_t n = 0; n < of_targets.size(); ++n)
      found.loss += (1 - amount) * static_cast<double>(of_targets[n]) + amount * static_cast<double>(of_all[n]);
    first = 0;
    for (const Tensor& slice : owned) {
      backend->cross_entropy_backward(slice, ids, first, logsumexp, 1.0, {}, {amount, columns}, slice);
      const std::vector<float> numbers = numbers_of(*backend, slice);
      const std::int64_t width = slice.dim(1);
      for (std::int64_t i = 0; i < rows * width; ++i)
        found.gradient[static_cast<std::size_t>(i / width * columns + first + i % width)] =
            static_cast<double>(numbers[static_cast<std::size_t>(i)]);
      first += width;
    }
    return found;
  }

  static void expect_close(const Smoothed& found, const Smoothed& expected, double tolerance) {
    EXPECT_NEAR(found.loss, expected.loss, tolerance * expected.loss);
    EXPECT_LE(deviation(found.gradient, expected.gradient), tolerance);
  }
};

TEST_F(GoldenLabelSmoothing, ReferenceAndOpsGivePyTorchsLossAndGradient) {
  ASSERT_EQ(file.at("cases").size(), 3u);
  for (const Json& one : file.at("cases")) {
    const double amount = one.at("amount");
    SCOPED_TRACE(amount);
    expect_close(reference(amount), pytorch(one), 1e-13);
    for (const std::vector<std::int64_t>& slices : {std::vector<std::int64_t>{columns}, {7, columns - 7}})
      expect_close(ops(amount, slices), pytorch(one), 1e-6);
  }
}

TEST_F(GoldenLabelSmoothing, AnotherAmountIsNoticed) {
  const Smoothed expected = pytorch(file.at("cases").at(1));
  const Smoothed found = ops(0.11, {columns});
  EXPECT_GT(std::abs(found.loss - expected.loss), 1e-4 * expected.loss);
  EXPECT_GT(deviation(found.gradient, expected.gradient), 1e-4);
}

}  // namespace
}  // namespace smoe
