#include "trainer/checkpoint/peft_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "data/files/json.h"

namespace smoe {
namespace {

constexpr std::string_view inner_layer = ".base_layer";

// base_model.model.PATH.lora_A.weight, or with an adapter's name before .weight
struct AdapterTensorName {
  std::string path;
  bool is_b = false;
};
std::optional<AdapterTensorName> parsed_name(std::string_view name) {
  constexpr std::string_view prefix = kPeftPrefix, lora = ".lora_", weight = "weight";
  if (!name.starts_with(prefix)) return {};
  name.remove_prefix(prefix.size());
  const auto at = name.rfind(lora);
  if (at == std::string_view::npos || at + lora.size() + 2 > name.size()) return {};
  const std::string_view rest = name.substr(at + lora.size());
  if (!rest.starts_with("A.") && !rest.starts_with("B.")) return {};
  std::string_view after = rest.substr(2);
  if (const auto dot = after.find('.'); dot != std::string_view::npos) after.remove_prefix(dot + 1);
  if (after != weight) return {};
  return AdapterTensorName{std::string(name.substr(0, at)), rest.front() == 'B'};
}

// Whose rows stand one behind the other in one expert's part of a fused parameter.
std::vector<int> matrices_of(bool gate_up) { return gate_up ? std::vector{1, 3} : std::vector{2}; }

// "0.18.1" is {0, 18, 1}; nothing where it is no version.
std::optional<std::array<int, 3>> parsed_version(std::string_view text) {
  std::array<int, 3> version{};
  for (int& part : version) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), part);
    if (error != std::errc()) return {};
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (text.starts_with('.')) text.remove_prefix(1);
  }
  return version;
}

}  // namespace

PeftTensors::PeftTensors(const AdapterSettings& settings, const MatrixNames& names, const SafetensorsReader& file)
    : settings_(settings), names_(names) {
  for (const TensorInfo& tensor : file.tensors()) sort(tensor);
  for (const auto& [path, tensors] : by_path_) {
    if (names.find(path))
      add_matrix(path, tensors);
    else
      add_experts(path, tensors);
  }
  check_names_that_are_given();
}

void PeftTensors::sort(const TensorInfo& tensor) {
  const auto name = parsed_name(tensor.name);
  if (!name) return refuse_unknown(tensor);
  std::string_view experts = name->path;
  if (experts.ends_with(inner_layer)) experts.remove_suffix(inner_layer.size());
  if (!names_.find(name->path) && !names_.find_experts(experts)) return refuse_unknown(tensor);
  Both& both = by_path_[name->path];
  const TensorInfo*& place = name->is_b ? both.b : both.a;
  if (place)
    problems.push_back(fmt::format("{}: found beside {}, expected one of the two", quote_for_message(tensor.name),
                                   quote_for_message(place->name)));
  place = &tensor;
}

void PeftTensors::refuse_unknown(const TensorInfo& tensor) {
  const auto has = [&](std::string_view part) { return tensor.name.find(part) != std::string::npos; };
  const char* why = has("embed_tokens") || has("lm_head") || has("lora_embedding")
                        ? "is of an adapter with a trained embedding or head, which is not read here"
                    : has("lora_magnitude_vector") ? "is of DoRA, which is not computed here"
                    : has("modules_to_save")       ? "is of a module that was trained whole, which is not read here"
                    : has(".bias")                 ? "is a bias, which a Mixtral has none of"
                                                   : "is no adapter of a matrix that a model of this shape has";
  problems.push_back(fmt::format("{}: found, but it {}", quote_for_message(tensor.name), why));
}

bool PeftTensors::fits(const std::string& path, const Both& tensors, const std::vector<std::int64_t>& a,
                       const std::vector<std::int64_t>& b) {
  bool fit = true;
  for (const auto& [name, tensor, shape] : {std::tuple("lora_A", tensors.a, &a), std::tuple("lora_B", tensors.b, &b)}) {
    std::string problem;
    if (!tensor)
      problem = fmt::format("missing, expected {}", shape_text(*shape));
    else if (tensor->shape != *shape)
      problem = fmt::format("found {}, expected {}", shape_text(tensor->shape), shape_text(*shape));
    else if (!reads_as_f32(tensor->type))
      problem = fmt::format("found {}, expected F32, F64, BF16 or F16", name_of(tensor->type));
    if (problem.empty()) continue;
    fit = false;
    problems.push_back(fmt::format("{}.{}.weight: {}", path, name, problem));
  }
  return fit;
}

bool PeftTensors::claim(std::size_t matrix, const std::string& path) {
  const auto [other, first] = place_.emplace(matrix, path);
  if (!first) problems.push_back(fmt::format("{}: found beside {}, which is the same matrix", path, other->second));
  return first;
}

void PeftTensors::add(std::size_t matrix, AdapterPair pair, const std::string& settings_path) {
  pair.rank = settings_.rank_of(settings_path);
  pair.alpha = settings_.alpha_of(settings_path);
  const auto r = static_cast<double>(pair.rank);
  pair.scale = pair.alpha / (settings_.rslora ? std::sqrt(r) : r);
  pairs.emplace(matrix, std::move(pair));
}

void PeftTensors::add_matrix(const std::string& path, const Both& tensors) {
  const std::size_t matrix = *names_.find(path);
  const NamedMatrix& w = names_[matrix];
  const std::int64_t r = settings_.rank_of(path);
  if (!claim(matrix, path) || !fits(path, tensors, {r, w.columns}, {w.rows, r})) return;
  add(matrix,
      {.a = {.tensor = tensors.a->name, .rows = r, .columns = w.columns, .row = w.columns},
       .b = {.tensor = tensors.b->name, .rows = w.rows, .columns = r, .row = r}},
      path);
}

// Of several parameters of one module the first is innermost: gate_up_proj under down_proj.
bool PeftTensors::fused_at(const std::string& path, Fused& fused) {
  const bool inner = path.ends_with(inner_layer);
  const std::string outer = inner ? path.substr(0, path.size() - inner_layer.size()) : path;
  fused.layer = *names_.find_experts(outer);
  ByEnd<bool> named;
  for (const std::string& parameter : settings_.parameters) named.add(parameter, true);
  const bool gate_up = named.find(outer + ".gate_up_proj") != nullptr,
             down = named.find(outer + ".down_proj") != nullptr,
             both = by_path_.contains(outer + std::string(inner_layer));
  if (!gate_up && !down && !both) {
    problems.push_back(
        fmt::format("{}: found, but target_parameters names neither experts.gate_up_proj nor experts.down_proj", path));
    return false;
  }
  fused.gate_up = both ? inner : gate_up && !down;
  fused.parameter = outer + (fused.gate_up ? ".gate_up_proj" : ".down_proj");
  const NamedMatrix& w = names_[names_.of_expert(fused.layer, 0, fused.gate_up ? 1 : 2)];
  fused.rows = fused.gate_up ? 2 * w.rows : w.rows;
  fused.columns = w.columns;
  return true;
}

bool PeftTensors::in_other_order(const std::string& path, const Both& tensors, const Fused& fused, bool& known) {
  known = true;
  if (fused.rows != fused.columns) {
    const auto& found = tensors.a ? tensors.a->shape : std::vector<std::int64_t>{};
    return found.size() == 2 && found[1] == fused.rows;
  }
  const auto version = parsed_version(settings_.version);
  if (version && *version >= std::array{0, 19, 1}) return false;
  if (version && *version < std::array{0, 19, 0}) return true;
  known = false;
  problems.push_back(fmt::format(
      "{}.lora_A.weight: in and out are both {}, and PEFT 0.17 and 0.18 wrote the two in another order than 0.19.1 and later: "
      "peft_version in {} says {}, expected the version that wrote it",
      path, fused.rows, kAdapterConfigFile,
      settings_.version.empty() ? "nothing" : quote_for_message(settings_.version)));
  return false;
}

void PeftTensors::add_experts(const std::string& path, const Both& tensors) {
  Fused fused;
  if (!fused_at(path, fused)) return;
  bool free = true;
  for (std::int64_t e = 0; e < names_.experts(); ++e)
    for (const int matrix : matrices_of(fused.gate_up)) free &= claim(names_.of_expert(fused.layer, e, matrix), path);
  if (free) add_fused(path, tensors, fused);
}

void PeftTensors::add_fused(const std::string& path, const Both& tensors, const Fused& fused) {
  bool known = false;
  const bool swapped = in_other_order(path, tensors, fused, known);
  if (!known) return;
  const std::int64_t experts = names_.experts(), r = settings_.rank_of(fused.parameter), all = experts * r;
  const std::int64_t in = swapped ? fused.rows : fused.columns, out = swapped ? fused.columns : fused.rows;
  if (!fits(path, tensors, {all, in}, {out, all})) return;
  for (std::int64_t e = 0; e < experts; ++e)
    for (const int matrix : matrices_of(fused.gate_up)) {
      const std::size_t index = names_.of_expert(fused.layer, e, matrix);
      const NamedMatrix& w = names_[index];
      const std::int64_t first_row = matrix == 3 ? w.rows : 0;  // of the fused matrix: w3's stand behind w1's
      // Row j of an expert's own A is row e r + j of the tensor A; column j of its B is column j E + e of the tensor B.
      const auto of_a = [&](std::int64_t rows, std::int64_t columns, std::int64_t first) {
        return MatrixInTensor{tensors.a->name, rows, columns, e * r * in + first, in, 1};
      };
      const auto of_b = [&](std::int64_t rows, std::int64_t columns, std::int64_t first) {
        return MatrixInTensor{tensors.b->name, rows, columns, first * all + e, all, experts};
      };
      const auto transposed = [](MatrixInTensor m) {
        std::swap(m.rows, m.columns);
        std::swap(m.row, m.column);
        return m;
      };
      AdapterPair pair;
      pair.a = swapped ? transposed(of_b(w.columns, r, 0)) : of_a(r, w.columns, 0);
      pair.b = swapped ? transposed(of_a(r, w.rows, first_row)) : of_b(w.rows, r, first_row);
      add(index, std::move(pair), fused.parameter);
    }
}

// What adapter_config.json names must be there, and nothing else. By a regular expression it names whatever is there.
void PeftTensors::check_names_that_are_given() {
  ByEnd<std::string> modules, parameters;
  for (const std::string& name : settings_.modules) modules.add(name, name);
  for (const std::string& name : settings_.parameters) parameters.add(name, name);
  std::set<std::string> matched;
  const auto named_by = [&](const ByEnd<std::string>& names, const std::string& path) {
    bool any = false;
    names.for_each(path, [&](const std::string& name) {
      matched.insert(name);
      any = true;
    });
    return any;
  };
  const std::set<std::int64_t> layers(settings_.layers.begin(), settings_.layers.end());
  for (std::size_t i = 0; i < names_.all().size(); ++i) {
    const NamedMatrix& w = names_[i];
    const auto place = place_.find(i);
    const bool is_there = place != place_.end();
    // As it is released, or as the file spells it.
    bool by_module = named_by(modules, w.path), by_parameter = false;
    if (is_there && place->second != w.path && names_.find(place->second))
      by_module |= named_by(modules, place->second);
    if (w.expert >= 0 || w.module == "gate")
      for (const char* block : {"mlp", "block_sparse_moe"})
        by_parameter |= named_by(parameters, fmt::format("model.layers.{}.{}.{}", w.layer, block,
                                                         w.expert < 0       ? "gate.weight"
                                                         : w.module == "w2" ? "experts.down_proj"
                                                                            : "experts.gate_up_proj"));
    if (!settings_.names_modules) continue;
    const bool named = (by_module && (layers.empty() || layers.contains(w.layer))) || by_parameter;
    if (named && !is_there && !settings_.excludes)
      problems.push_back(fmt::format("{}.lora_A.weight: missing, though {} names it", w.path, kAdapterConfigFile));
    if (!named && is_there)
      problems.push_back(
          fmt::format("{}.lora_A.weight: found, but {} does not name it", place->second, kAdapterConfigFile));
  }
  refuse_names_without_a_match(matched);
}

void PeftTensors::refuse_names_without_a_match(const std::set<std::string>& matched) {
  std::vector<std::string> unmatched;
  for (const auto* list : {&settings_.modules, &settings_.parameters})
    for (const std::string& name : *list) {
      if (matched.contains(name)) continue;
      const auto is = [&](const std::string& other) { return name == other || name.ends_with("." + other); };
      const char* hint = is("gate_proj")   ? ": an expert's gate_proj is called w1"
                         : is("up_proj")   ? ": an expert's up_proj is called w3"
                         : is("down_proj") ? ": an expert's down_proj is called w2"
                         : is("lm_head") || is("embed_tokens")
                             ? ": an adapter with a trained embedding or head is not read here"
                             : "";
      unmatched.push_back(fmt::format("{}: {} names {}, which matches nothing{}", kAdapterConfigFile,
                                      list == &settings_.modules ? "target_modules" : "target_parameters",
                                      quote_for_message(name), hint));
    }
  // First: what else does not fit may follow from it.
  problems.insert(problems.begin(), unmatched.begin(), unmatched.end());
}

}  // namespace smoe
