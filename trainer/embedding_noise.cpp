#include "trainer/embedding_noise.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>

namespace smoe {

void embedding_noise(const StepBatch& batch, double alpha, std::int64_t hidden_size, std::span<float> half_widths) {
  const std::size_t tokens = batch.ids.size(), length = static_cast<std::size_t>(batch.sequence_length);
  if (half_widths.size() != tokens) throw std::logic_error("the noise of a batch is a number a token");
  const auto start = [&](std::size_t t) { return batch.document_start.empty() ? 0 : batch.document_start[t]; };
  const auto is_padding = [](std::int32_t id) { return id < 0; };
  for (std::size_t first = 0, last = 0; first < tokens; first = last) {
    const std::size_t end = (first / length + 1) * length;  // of the sequence
    while (last < end && start(last) == start(first)) ++last;
    const auto ids = batch.ids.subspan(first, last - first);
    const auto real = static_cast<double>(ids.size()) - static_cast<double>(std::ranges::count_if(ids, is_padding));
    const auto half_width = static_cast<float>(alpha / std::sqrt(real * static_cast<double>(hidden_size)));
    std::ranges::transform(ids, half_widths.begin() + static_cast<std::ptrdiff_t>(first),
                           [&](std::int32_t id) { return is_padding(id) ? 0.0f : half_width; });
  }
}

}  // namespace smoe
