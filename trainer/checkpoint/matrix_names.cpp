#include "trainer/checkpoint/matrix_names.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <utility>

namespace smoe {
namespace {

constexpr std::array<std::string_view, 4> attention_modules = {"q_proj", "k_proj", "v_proj", "o_proj"};
constexpr std::array<std::string_view, 3> expert_modules = {"w1", "w2", "w3"};
constexpr std::array<std::string_view, 3> spelled_out = {"gate_proj", "down_proj",
                                                         "up_proj"};  // the same, in other words
constexpr std::array<std::string_view, 2> blocks = {"block_sparse_moe.", "mlp."};

bool take(std::string_view& text, std::string_view front) {
  if (!text.starts_with(front)) return false;
  text.remove_prefix(front.size());
  return true;
}

// A number below `limit` as it is written in names: without sign or leading zeros.
std::optional<std::int64_t> take_number(std::string_view& text, std::int64_t limit) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const auto digits = static_cast<std::size_t>(end - text.data());
  if (error != std::errc() || number < 0 || number >= limit || fmt::formatted_size("{}", number) != digits) return {};
  text.remove_prefix(digits);
  return number;
}

std::optional<std::int64_t> take_layer(std::string_view& path, std::int64_t layers) {
  if (!take(path, "model.layers.")) return {};
  const auto layer = take_number(path, layers);
  return layer && take(path, ".") ? layer : std::nullopt;
}

bool take_block(std::string_view& path) { return take(path, blocks[0]) || take(path, blocks[1]); }

template <std::size_t N>
std::optional<std::size_t> place_of(std::string_view name, const std::array<std::string_view, N>& names) {
  for (std::size_t i = 0; i < N; ++i)
    if (names[i] == name) return i;
  return {};
}

}  // namespace

MatrixNames::MatrixNames(const ModelConfig& m) : layers_(m.num_hidden_layers), experts_(m.num_local_experts) {
  const std::int64_t queries = m.num_attention_heads * m.head_size(), keys = m.num_key_value_heads * m.head_size();
  const std::array<std::int64_t, 4> rows = {queries, keys, keys, m.hidden_size};
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer), block = prefix + std::string(blocks[0]);
    for (std::size_t i = 0; i < rows.size(); ++i)
      all_.push_back({fmt::format("{}self_attn.{}", prefix, attention_modules[i]), attention_modules[i], layer, -1,
                      rows[i], i == 3 ? queries : m.hidden_size});
    all_.push_back({block + "gate", "gate", layer, -1, experts_, m.hidden_size});
    for (std::int64_t e = 0; e < experts_; ++e)
      for (const std::string_view module : expert_modules) {
        const bool down = module == "w2";
        all_.push_back({fmt::format("{}experts.{}.{}", block, e, module), module, layer, e,
                        down ? m.hidden_size : m.intermediate_size, down ? m.intermediate_size : m.hidden_size});
      }
  }
}

std::optional<std::size_t> MatrixNames::find(std::string_view path) const {
  const auto layer = take_layer(path, layers_);
  if (!layer) return {};
  const auto first = static_cast<std::size_t>(*layer * (5 + 3 * experts_));
  if (take(path, "self_attn.")) {
    const auto place = place_of(path, attention_modules);
    return place ? std::optional(first + *place) : std::nullopt;
  }
  if (!take_block(path)) return {};
  if (path == "gate") return first + 4;
  if (!take(path, "experts.")) return {};
  const auto expert = take_number(path, experts_);
  if (!expert || !take(path, ".")) return {};
  for (const auto* names : {&expert_modules, &spelled_out})
    if (const auto place = place_of(path, *names)) return of_expert(*layer, *expert, static_cast<int>(*place) + 1);
  return {};
}

std::optional<std::int64_t> MatrixNames::find_experts(std::string_view path) const {
  const auto layer = take_layer(path, layers_);
  return layer && take_block(path) && path == "experts" ? layer : std::nullopt;
}

std::vector<std::string> MatrixNames::spellings(std::size_t index) const {
  const NamedMatrix& m = all_[index];
  if (place_of(m.module, attention_modules)) return {m.path};
  std::vector<std::string> paths;
  for (const std::string_view block : blocks) {
    const std::string prefix = fmt::format("model.layers.{}.{}", m.layer, block);
    if (m.expert < 0) {
      paths.push_back(prefix + "gate");
      continue;
    }
    for (const auto* names : {&expert_modules, &spelled_out})
      paths.push_back(fmt::format("{}experts.{}.{}", prefix, m.expert, (*names)[*place_of(m.module, expert_modules)]));
  }
  return paths;
}

}  // namespace smoe
