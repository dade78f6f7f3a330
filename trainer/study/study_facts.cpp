#include "trainer/study/study_facts.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/files/files.h"
#include "trainer/record/report_config.h"

namespace smoe {
namespace {
namespace fs = std::filesystem;

constexpr std::uint64_t largest_config = 16 << 20;

// What the head of the page says, if it is the same for all points.
constexpr const char* told_keys[] = {"model.num_hidden_layers",
                                     "model.hidden_size",
                                     "model.num_local_experts",
                                     "model.num_experts_per_tok",
                                     "data.train",
                                     "data.eval",
                                     "data.sequence_length",
                                     "train.global_batch_size",
                                     "optimizer.learning_rate"};

bool touches(const std::string& key, const std::string& other) {
  return key == other || key.starts_with(other + ".") || other.starts_with(key + ".");
}

std::optional<std::string> override_of(const StudyPoint& point, const std::string& key) {
  std::string found;
  bool any = false;
  for (const auto& [name, value] : point.overrides)
    if (touches(name, key)) {
      any = true;
      found += (found.empty() ? "" : "; ") + (name == key ? text_of(value) : name + " " + value);
    }
  return any ? std::optional(found) : std::nullopt;
}

// Null where points set it differently, or nothing says it.
Json told(const Study& study, const FlatConfig& base, const std::string& key) {
  std::set<std::optional<std::string>> texts;
  for (const StudyPoint& point : study.points) texts.insert(override_of(point, key));
  if (texts.size() != 1) return nullptr;
  if (*texts.begin()) return **texts.begin();
  for (const auto& [name, value] : base)
    if (name == key) return value;
  return nullptr;
}

Json parameters_json(const Study& study) {
  std::vector<std::string> keys;
  std::map<std::string, std::vector<std::string>> values;  // in the order of the points
  for (const StudyPoint& point : study.points)
    for (const auto& [key, value] : point.parameters) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
      auto& seen = values[key];
      if (seen.size() < 1000 && std::find(seen.begin(), seen.end(), value) == seen.end()) seen.push_back(value);
    }
  Json list = Json::array();
  for (const std::string& key : keys) {
    Json shown = Json::array();
    for (const std::string& value : values[key]) shown.push_back(parse_json(value, key));
    list.push_back({{"key", key}, {"values", shown}});
  }
  return list;
}

template <class Number>
Json range_of(const std::vector<Number>& values) {
  if (values.empty()) return nullptr;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return {*low, *high};
}

}  // namespace

std::string name_of_study(const Study& study) {
  fs::path path = fs::absolute(study.directory).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

Json study_facts(const Study& study, const StudyView& view) {
  const fs::path base_file = study.directory / "base.yaml";
  const FlatConfig base = fs::exists(base_file) ? flatten_config(read_file(base_file, largest_config)) : FlatConfig{};
  std::vector<std::int64_t> steps, tokens;
  for (const StudyRun& run : view.runs) {
    steps.push_back(run.point->steps);
    if (run.is_done()) tokens.push_back(run.tokens);
  }
  Json config = Json::object();
  for (const char* key : told_keys)
    if (Json text = told(study, base, key); !text.is_null()) config[key] = text;
  Json facts = {{"name", name_of_study(study)},
                {"directory", study.directory.string()},
                {"points", study.points.size()},
                {"parameters", parameters_json(study)},
                {"steps", range_of(steps)},
                {"tokens", range_of(tokens)},
                {"counts", nullptr},
                {"config", config}};
  const bool one_model = std::none_of(study.points.begin(), study.points.end(),
                                      [](const StudyPoint& point) { return override_of(point, "model").has_value(); });
  if (one_model)
    if (const auto counts = parameters_of_run(base, study.directory))
      facts["counts"] = {{"total", counts->total}, {"active", counts->active}};
  return facts;
}

}  // namespace smoe
