// TensorDirectory over one file or an index with one, and every byte of every tensor.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "data/files/tensor_directory.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {
namespace {

void read_everything(const std::filesystem::path& directory, std::size_t file_bytes) {
  const TensorDirectory tensors(directory);
  std::size_t bytes = 0;
  for (const std::string& name : tensors.names()) {
    require(tensors.contains(name), "a name that is listed is there");
    const TensorInfo& info = tensors.info(name);
    const std::span<const std::byte> raw = tensors.raw(name);
    require(raw.size() == info.end - info.begin && raw.size() == tensor_bytes(info, name),
            "a tensor has the bytes of its shape");
    bytes += raw.size();
    [[maybe_unused]] volatile std::uint8_t read = 0;
    for (const std::byte b : raw) read = read ^ static_cast<std::uint8_t>(b);
    std::vector<float> values(static_cast<std::size_t>(info.elements()));
    reads([&] { tensors.read_f32(name, values.data(), 0, info.elements()); });
    std::vector<float> half(values.size() / 2);
    if (reads([&] {
          tensors.read_f32(name, half.data(), info.elements() - static_cast<std::int64_t>(half.size()),
                           static_cast<std::int64_t>(half.size()));
        }))
      require(std::equal(half.begin(), half.end(), values.end() - static_cast<std::ptrdiff_t>(half.size()),
                         [](float a, float b) { return a == b || (a != a && b != b); }),
              "a slice is what the whole has there");
  }
  require(bytes < file_bytes, "tensors lie in the file");
}

}  // namespace

bool run_safetensors(std::string_view input) {
  if (input.empty()) return false;
  const bool sharded = input.front() == 'I';
  input.remove_prefix(1);
  const auto directory = folder(sharded ? "sharded" : "single");
  if (sharded) put(directory / kWeightsIndexFile, take_part(input));
  put(directory / (sharded ? "model-00001-of-00001.safetensors" : kSingleWeightsFile), input);
  return reads([&] { read_everything(directory, input.size()); });
}

}  // namespace smoe::fuzz
