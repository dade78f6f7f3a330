#include "trainer/checkpoint/peft_adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>

#include "data/files/json.h"
#include "trainer/checkpoint/peft_tensors.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

fs::path adapter_file_in(const fs::path& directory) {
  const fs::path path = directory / kAdapterFile;
  if (fs::exists(path)) return path;
  if (fs::exists(directory / "adapter_model.bin"))
    throw std::runtime_error(fmt::format(
        "{}: holds adapter_model.bin, a pickle, which can run any code and is never read: load it with PEFT and "
        "save it again with save_pretrained, which writes {}",
        directory.string(), kAdapterFile));
  throw std::runtime_error(fmt::format("{}: holds no {}", directory.string(), kAdapterFile));
}

float element(std::span<const std::byte> bytes, TensorType type, std::int64_t index) {
  const auto at = [&]<class Number>(Number number) {
    std::memcpy(&number, bytes.data() + static_cast<std::size_t>(index) * sizeof(Number), sizeof(Number));
    return number;
  };
  switch (type) {
    case TensorType::f64: return static_cast<float>(at(double{}));
    case TensorType::bf16: return f32_from_bf16(at(std::uint16_t{}));
    case TensorType::f16: return f32_from_f16(at(std::uint16_t{}));
    default: return at(float{});
  }
}

}  // namespace

PeftAdapter::PeftAdapter(const fs::path& directory, const ModelConfig& model)
    : directory_(directory),
      settings_(read_adapter_settings(directory)),
      names_(model),
      file_(adapter_file_in(directory)) {
  PeftTensors found(settings_, names_, file_);
  std::vector<std::string> problems = std::move(found.problems);
  pairs_ = std::move(found.pairs);
  if (problems.empty() && pairs_.empty()) problems.emplace_back("it holds no adapter at all");
  if (problems.empty()) return;
  const std::size_t shown = std::min<std::size_t>(problems.size(), 20);
  std::string message = fmt::format(
      "{}: the adapter does not fit the model's shape, or its own {}:", directory.string(), kAdapterConfigFile);
  for (std::size_t i = 0; i < shown; ++i) message += "\n  " + problems[i];
  if (shown < problems.size()) message += fmt::format("\n  and {} more", problems.size() - shown);
  throw std::runtime_error(message);
}

PeftConfig PeftAdapter::config() const {
  PeftConfig config{.lora = {}, .base = settings_.base, .warnings = settings_.warnings};
  LoraConfig& lora = config.lora;
  lora.dropout = settings_.dropout;
  lora.rslora = settings_.rslora;
  lora.r = 0;
  std::set<std::string_view> modules;
  std::int64_t first = names_.layers(), last = 0;
  for (const auto& [matrix, pair] : pairs_) {
    modules.insert(names_[matrix].module);
    first = std::min(first, names_[matrix].layer);
    last = std::max(last, names_[matrix].layer);
    if (pair.rank <= lora.r) continue;
    lora.r = pair.rank;
    lora.alpha = pair.alpha;
  }
  lora.target_modules.clear();
  for (const std::string_view module : lora_targets)
    if (modules.contains(module)) lora.target_modules.emplace_back(module);
  if (first > 0 || last + 1 < names_.layers()) lora.layers = {first, last};
  for (std::size_t i = 0; i < names_.all().size(); ++i)
    if (lora.targets(names_[i].layer, names_[i].module) && !pairs_.contains(i))
      throw std::runtime_error(fmt::format(
          "{}: no adapter beside {}, though {} has one elsewhere: here a module has adapters on every expert, and "
          "on all layers from the first to the last that have any; smoe merge takes others too",
          directory_.string(), names_[i].path, names_[i].module));
  return config;
}

void PeftAdapter::read(const MatrixInTensor& m, const Block& block, float* out, std::int64_t stride) const {
  const std::int64_t first = m.first + block.first_row * m.row + block.first_column * m.column;
  if (block.rows == 0 || block.columns == 0) return;
  if (m.column == 1 && block.columns == m.row && block.columns == stride)
    return file_.read_f32(m.tensor, out, first, block.rows * block.columns);
  if (m.column == 1) {
    for (std::int64_t i = 0; i < block.rows; ++i)
      file_.read_f32(m.tensor, out + i * stride, first + i * m.row, block.columns);
    return;
  }
  const std::span<const std::byte> bytes = file_.raw(m.tensor);
  const TensorType type = file_.info(m.tensor).type;
  for (std::int64_t i = 0; i < block.rows; ++i)
    for (std::int64_t j = 0; j < block.columns; ++j)
      out[i * stride + j] = element(bytes, type, first + i * m.row + j * m.column);
}

}  // namespace smoe
