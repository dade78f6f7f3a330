#include "trainer/checkpoint/peft.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/host_view.h"

namespace smoe {
namespace {

// Whose A or B a parameter is.
struct AdapterPlace {
  std::size_t matrix = 0;
  bool is_b = false;
};
std::optional<AdapterPlace> adapter_place(const MatrixNames& names, const Parameter& p) {
  constexpr std::string_view a = ".lora_A.weight", b = ".lora_B.weight";
  const std::string_view name = p.name;
  if (!name.ends_with(a) && !name.ends_with(b)) return {};
  const auto matrix = names.find(name.substr(0, name.size() - a.size()));
  if (!matrix) return {};
  return AdapterPlace{*matrix, name.ends_with(b)};
}

std::int64_t rank_dim(const AdapterPlace& place) { return place.is_b ? 1 : 0; }

// How many of `count` numbers from `first` on lie below `end`.
std::int64_t below(std::int64_t end, std::int64_t first, std::int64_t count) {
  return std::clamp<std::int64_t>(end - first, 0, count);
}

void require_fit(const PeftAdapter& adapter, const LoraConfig& lora, const ParameterSet& parameters) {
  std::vector<std::string> problems;
  for (const Parameter& p : parameters) {
    if (!p.adapter) continue;
    const auto place = adapter_place(adapter.names(), p);
    const AdapterPair* pair = place ? adapter.find(place->matrix) : nullptr;
    if (!pair)
      problems.push_back(fmt::format("{}: missing", p.name));
    else if (const std::int64_t rank = p.shape[static_cast<int>(rank_dim(*place))]; pair->rank > rank)
      problems.push_back(fmt::format("{}: found rank {}, expected at most {}", p.name, pair->rank, rank));
  }
  for (const auto& [matrix, pair] : adapter.pairs())
    if (const NamedMatrix& w = adapter.names()[matrix]; !lora.targets(w.layer, w.module))
      problems.push_back(fmt::format("{}: found, but lora has no adapter there", w.path));
  if (problems.empty()) return;
  const std::size_t shown = std::min<std::size_t>(problems.size(), 20);
  std::string message =
      fmt::format("{}: the adapter is another than the configuration's:", adapter.directory().string());
  for (std::size_t i = 0; i < shown; ++i) message += "\n  " + problems[i];
  if (shown < problems.size()) message += fmt::format("\n  and {} more", problems.size() - shown);
  throw std::runtime_error(message);
}

}  // namespace

PeftConfig read_peft_config(const std::filesystem::path& directory, const ModelConfig& model) {
  return PeftAdapter(directory, model).config();
}

void load_adapter(const std::filesystem::path& directory, const PeftConfig& config, const ModelConfig& model,
                  Backend& backend, ParameterSet& parameters, const ShowNumbers& also) {
  const PeftAdapter adapter(directory, model);
  require_fit(adapter, config.lora, parameters);
  std::vector<float> staging;
  for (const Parameter& p : parameters) {
    if (!p.adapter) continue;
    const AdapterPlace place = *adapter_place(adapter.names(), p);
    const AdapterPair& pair = *adapter.find(place.matrix);
    const MatrixInTensor& matrix = place.is_b ? pair.b : pair.a;
    const HostView host(backend, p.value, staging);
    const std::span<float> numbers = host.numbers();
    std::fill(numbers.begin(), numbers.end(), 0.0f);
    adapter.read(matrix,
                 {.first_row = p.first[0],
                  .rows = below(matrix.rows, p.first[0], p.slice[0]),
                  .first_column = p.first[1],
                  .columns = below(matrix.columns, p.first[1], p.slice[1])},
                 numbers.data(), p.slice[1]);
    for (const float x : numbers)
      if (!std::isfinite(x))
        throw std::runtime_error(fmt::format("{}/{}: {}: found {}, expected finite numbers", directory.string(),
                                             kAdapterFile, matrix.tensor, x));
    if (const double factor = pair.scale / config.lora.scale(); place.is_b && factor != 1)
      for (float& x : numbers) x = static_cast<float>(x * factor);
    if (also) also(p, numbers);
    host.store();
  }
}

}  // namespace smoe
