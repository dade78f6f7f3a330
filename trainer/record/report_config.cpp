#include "trainer/record/report_config.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <stdexcept>

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/hf_config.h"

namespace smoe {

namespace {

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") + 1 - first);
}

using ModelSection = std::map<std::string, std::string>;  // key -> value, as text

// Visits ModelConfig: takes the sizes from the section, and remembers whether one that has no other source was absent.
class ShapeReader {
 public:
  explicit ShapeReader(const ModelSection& section) : section_(section) {}

  void integer(const char* key, std::int64_t& value, const char*) { complete_ = read(key, value) && complete_; }
  void integer(const char* key, std::optional<std::int64_t>& value, const char*) {
    std::int64_t number = 0;
    if (read(key, number)) value = number;
  }
  // No parameter is counted by these.
  void number(const char*, double&, const char*) {}
  void flag(const char*, bool&) {}
  template <class Enum>
  void choice(const char*, Enum&) {}
  void path(const char*, std::optional<std::string>&) {}

  bool complete() const { return complete_; }

 private:
  bool read(const char* key, std::int64_t& value) const {
    const auto found = section_.find(key);
    if (found == section_.end()) return false;
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() && value > 0;
  }

  const ModelSection& section_;
  bool complete_ = true;
};

}  // namespace

FlatConfig flatten_config(std::string_view yaml) {
  FlatConfig flat;
  std::string section;
  while (!yaml.empty()) {
    const std::string_view line = yaml.substr(0, yaml.find('\n'));
    yaml.remove_prefix(std::min(line.size() + 1, yaml.size()));
    const std::string_view text = trim(line);
    if (text.empty() || text.starts_with('#')) continue;
    if (text.starts_with("- ")) {
      if (flat.empty()) continue;
      std::string& items = flat.back().second;
      items += (items.empty() ? "" : "; ") + std::string(trim(text.substr(1)));
      continue;
    }
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string key(text.substr(0, colon));
    const std::string value(trim(text.substr(colon + 1)));
    const bool nested = line.front() == ' ';
    if (!nested) section = value.empty() ? key + "." : "";
    if (nested || !value.empty()) flat.emplace_back(section + key, value);
  }
  return flat;
}

std::optional<ParameterCounts> parameters_of_run(const FlatConfig& config, const std::filesystem::path& run_dir) {
  constexpr std::string_view prefix = "model.";
  ModelSection model_section;
  for (const auto& [key, value] : config) {
    if (key.starts_with(prefix)) model_section[key.substr(prefix.size())] = value;
  }
  ModelConfig model;
  ShapeReader reader(model_section);
  ModelConfig::visit_fields(model, reader);
  if (reader.complete() && model.problems().empty()) return count_parameters(model);

  try {
    const std::optional<std::filesystem::path> checkpoint = latest_checkpoint(run_dir / "checkpoints");
    if (!checkpoint) return std::nullopt;
    return count_parameters(read_hf_config(*checkpoint / "model").model);
  } catch (const std::runtime_error&) {
    return std::nullopt;  // a damaged checkpoint stops a resume; a report of the metrics can do without a count
  }
}

}  // namespace smoe
