#include "trainer/convert/expert_matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include "kernels/philox.h"
#include "parallel/normals.h"
#include "trainer/convert/carried.h"

namespace smoe {
namespace {

constexpr std::int64_t piece_elements = 1 << 19;  // of the parent, read at once

// Whole rows of an expert's matrix, [rows, columns], a piece at a time.
class RowReader {
 public:
  explicit RowReader(const ExpertMatrix& matrix)
      : matrix_(matrix),
        parent_columns_(matrix.parent->info(matrix.source).shape[1]),
        rows_(shape_of(matrix)[0]),
        columns_(shape_of(matrix)[1]) {}

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }

  // Calls use(first row, numbers [n, columns]) for all rows in order.
  template <class Use>
  void for_each_piece(Use&& use) {
    const std::int64_t at_once = std::max<std::int64_t>(1, piece_elements / parent_columns_);
    for (std::int64_t first = 0; first < rows_; first += at_once) {
      const std::int64_t n = std::min(at_once, rows_ - first);
      use(first, read(first, n));
    }
  }

 private:
  std::span<float> read(std::int64_t first, std::int64_t n) {
    const std::int64_t parent_row = matrix_.dims_are_columns ? first : matrix_.first + first;
    parent_.resize(static_cast<std::size_t>(n * parent_columns_));
    matrix_.parent->read_f32(matrix_.source, parent_.data(), parent_row * parent_columns_, n * parent_columns_);
    if (matrix_.scale != 1)
      for (float& x : parent_) x *= matrix_.scale;
    if (columns_ == parent_columns_) return parent_;
    own_.resize(static_cast<std::size_t>(n * columns_));
    for (std::int64_t r = 0; r < n; ++r)
      std::copy_n(parent_.begin() + r * parent_columns_ + matrix_.first, columns_, own_.begin() + r * columns_);
    return own_;
  }

  const ExpertMatrix& matrix_;
  std::int64_t parent_columns_, rows_, columns_;
  std::vector<float> parent_, own_;
};

// Calls visit(index in the piece, columns) for each run of numbers in a piece of rows that is drawn anew.
template <class Visit>
void for_each_redrawn(const ExpertMatrix& matrix, std::int64_t first_row, std::int64_t rows, std::int64_t columns,
                      Visit&& visit) {
  if (matrix.dims_are_columns) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (const std::int64_t column : matrix.redrawn) visit(r * columns + column, std::int64_t{1});
    return;
  }
  const auto begin = std::lower_bound(matrix.redrawn.begin(), matrix.redrawn.end(), first_row);
  for (auto row = begin; row != matrix.redrawn.end() && *row < first_row + rows; ++row)
    visit((*row - first_row) * columns, columns);
}

struct Moments {
  double mean = 0, std = 0;
};

// Of the numbers that will be replaced. Squares of f32 are exact in f64, and weights' mean is no multiple of their deviation:
// the difference of sums loses nothing.
Moments moments_of_redrawn(const ExpertMatrix& matrix, RowReader& reader) {
  double sum = 0, squares = 0;
  std::int64_t n = 0;
  reader.for_each_piece([&](std::int64_t first, std::span<const float> numbers) {
    const auto rows = static_cast<std::int64_t>(numbers.size()) / reader.columns();
    for_each_redrawn(matrix, first, rows, reader.columns(), [&](std::int64_t at, std::int64_t count) {
      for (const double x : numbers.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count))) {
        sum += x;
        squares += x * x;
      }
      n += count;
    });
  });
  if (n < 2) return {sum, 0};
  const auto all = static_cast<double>(n);
  return {sum / all, std::sqrt(std::max(0.0, squares - sum * sum / all) / (all - 1))};
}

void redraw(const ExpertMatrix& matrix, const Moments& moments, std::uint64_t key, std::int64_t first_row,
            std::span<float> numbers, std::int64_t columns) {
  const auto rows = static_cast<std::int64_t>(numbers.size()) / columns;
  const auto value = [&](float normal) { return static_cast<float>(moments.mean + moments.std * normal); };
  std::vector<float> drawn(static_cast<std::size_t>(columns));
  std::int64_t drawn_row = -1;
  for_each_redrawn(matrix, first_row, rows, columns, [&](std::int64_t at, std::int64_t count) {
    if (const std::int64_t row = at / columns; row != drawn_row) {
      standard_normals(key, (first_row + row) * columns, columns, drawn.data());
      drawn_row = row;
    }
    std::transform(drawn.begin() + at % columns, drawn.begin() + at % columns + count, numbers.begin() + at, value);
  });
}

}  // namespace

std::vector<std::int64_t> shape_of(const ExpertMatrix& matrix) {
  const auto& parent = matrix.parent->info(matrix.source).shape;
  return matrix.dims_are_columns ? std::vector{parent[0], matrix.count} : std::vector{matrix.count, parent[1]};
}

std::vector<std::int64_t> choose_redrawn(std::uint64_t seed, std::int64_t layer, std::int64_t expert, std::int64_t dims,
                                         double share) {
  const std::string name = fmt::format("upcycle.redrawn.{}.{}", layer, expert);
  const std::uint64_t key = key_of(seed, name.data(), name.size());
  // Those of the smallest of so many random numbers; equal ones, of 64 bits, by their place.
  std::vector<std::pair<std::uint64_t, std::int64_t>> order(static_cast<std::size_t>(dims));
  for (std::int64_t i = 0; i < dims; ++i) {
    const auto words = philox(key, static_cast<std::uint64_t>(i));
    order[static_cast<std::size_t>(i)] = {(std::uint64_t{words[0]} << 32) | words[1], i};
  }
  std::sort(order.begin(), order.end());
  std::vector<std::int64_t> chosen;
  const auto wanted = static_cast<std::size_t>(std::llround(share * static_cast<double>(dims)));
  for (std::size_t i = 0; i < std::min(wanted, order.size()); ++i) chosen.push_back(order[i].second);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

void write_expert_matrix(const ExpertMatrix& matrix, TensorDirectoryWriter& writer, const TensorSpec& spec) {
  const TensorInfo& parent = matrix.parent->info(matrix.source);
  if (parent.type == spec.type && parent.shape == spec.shape && matrix.scale == 1 && matrix.redrawn.empty())
    return carry_tensor(*matrix.parent, matrix.source, writer, spec.name);
  RowReader reader(matrix);
  const Moments moments = matrix.redrawn.empty() ? Moments{} : moments_of_redrawn(matrix, reader);
  const std::uint64_t key = key_of(matrix.seed, spec.name.data(), spec.name.size());
  reader.for_each_piece([&](std::int64_t first, std::span<float> numbers) {
    if (!matrix.redrawn.empty()) redraw(matrix, moments, key, first, numbers, reader.columns());
    writer.write_f32(spec.name, first * reader.columns(), numbers);
  });
}

}  // namespace smoe
