// NumPy's files, and every element.
#include "data/import/npy.h"

#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {

bool run_npy(std::string_view input) {
  const auto path = folder("npy") / "fuzz.npy";
  put(path, input);
  return reads([&] {
    const NpyFile file(path);
    require(file.shape().size() == 1 || file.shape().size() == 2, "one or two dims");
    const std::int64_t product =
        std::accumulate(file.shape().begin(), file.shape().end(), std::int64_t{1}, std::multiplies<>());
    require(file.size() == product, "the size is the product of the shape");
    const std::vector<std::int64_t> values = file.values();
    require(values.size() == static_cast<std::size_t>(file.size()), "every element is read");
    std::vector<std::int64_t> last(values.empty() ? 0 : 1);
    file.read(file.size() - static_cast<std::int64_t>(last.size()), static_cast<std::int64_t>(last.size()),
              last.data());
    require(last.empty() || last[0] == values.back(), "a slice is what the whole has there");
  });
}

}  // namespace smoe::fuzz
