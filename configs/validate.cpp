#include "configs/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>

#include "configs/field_text.h"
#include "configs/validate_router.h"

namespace smoe {
namespace {

constexpr std::int64_t any_number_of_layers = 1'000'000;

// Holds every field against its own constraint.
class RangeChecker {
 public:
  RangeChecker(std::string prefix, std::vector<ConfigProblem>& problems)
      : prefix_(std::move(prefix)), problems_(problems) {}

  template <class Section>
  void section(const char* name, const Section& value) {
    RangeChecker inside(prefix_ + name + ".", problems_);
    Section::visit_fields(value, inside);
  }
  template <class Section>
  void optional_section(const char* name, const std::optional<Section>& value) {
    if (value) section(name, *value);
  }
  void path(const char* name, const std::optional<std::string>& value) {
    if (value) path(name, *value);
  }
  void path(const char* name, const std::string& value) {
    if (value.empty()) refuse(name, "found nothing, expected text");
  }
  void integer(const char* name, const std::optional<std::int64_t>& value, std::string_view interval) {
    if (value && !contains(interval, *value)) refuse(name, *value, expected_integer(interval, true));
  }
  void integer(const char* name, std::int64_t value, std::string_view interval) {
    if (!contains(interval, value)) refuse(name, value, expected_integer(interval, false));
  }
  void number(const char* name, double value, std::string_view interval) { number(name, value, interval, false); }
  void number(const char* name, const std::optional<double>& value, std::string_view interval) {
    if (value) number(name, *value, interval, true);
  }
  void number_or_numbers(const char* name, double one, const std::vector<double>& some, std::string_view interval) {
    if (some.empty()) number(name, one, interval);
    for (std::size_t i = 0; i < some.size(); ++i) number(fmt::format("{}.{}", name, i).c_str(), some[i], interval);
  }
  template <class Struct>
  void variant(const char* name, const Struct& value) {
    section(name, value);
  }
  void flag(const char*, bool) {}
  template <class Enum>
  void choice(const char* name, Enum value, std::initializer_list<Enum> not_yet = {}) {
    if (std::find(not_yet.begin(), not_yet.end(), value) == not_yet.end()) return;
    refuse(name, fmt::format("found {}, which is not available yet", yaml_text(value)));
  }
  void integers(const char* name, const std::vector<std::int64_t>& values, std::string_view interval) {
    for (std::size_t i = 0; i < values.size(); ++i) integer(fmt::format("{}.{}", name, i).c_str(), values[i], interval);
  }
  void texts(const char* name, const std::vector<std::string>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) path(fmt::format("{}.{}", name, i).c_str(), values[i]);
  }
  template <class Struct>
  void list(const char* name, const std::vector<Struct>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) section(fmt::format("{}.{}", name, i).c_str(), values[i]);
  }

 private:
  void number(const char* name, double value, std::string_view interval, bool nullable) {
    if (!std::isfinite(value) || !contains(interval, value)) refuse(name, value, expected_number(interval, nullable));
  }
  template <class T>
  void refuse(const char* name, const T& found, const std::string& expected) {
    refuse(name, fmt::format("found {}, expected {}", found, expected));
  }
  void refuse(const char* name, std::string message) { problems_.push_back({{}, prefix_ + name, std::move(message)}); }

  std::string prefix_;
  std::vector<ConfigProblem>& problems_;
};

}  // namespace

std::vector<ConfigProblem> find_range_problems(const RunConfig& config) {
  std::vector<ConfigProblem> problems;
  RangeChecker checker("", problems);
  RunConfig::visit_fields(config, checker);
  return problems;
}

std::vector<ConfigProblem> find_relation_problems(const RunConfig& config, bool resolved_model) {
  std::vector<ConfigProblem> problems;
  const auto add = [&](const std::string& key, std::string message) {
    problems.push_back({{}, key, std::move(message)});
  };
  if (resolved_model) {
    for (const auto& [key, message] : config.model.problems()) add("model." + key, message);
    if (config.data.sequence_length > config.model.max_position_embeddings) {
      add("data.sequence_length", fmt::format("found {}, expected at most model.max_position_embeddings ({})",
                                              config.data.sequence_length, config.model.max_position_embeddings));
    }
  }
  for (ConfigProblem& problem : find_router_problems(config, resolved_model)) problems.push_back(std::move(problem));
  if (config.lora)
    for (const auto& [key, message] :
         config.lora->problems(resolved_model ? config.model.num_hidden_layers : any_number_of_layers))
      add("lora." + key, message);
  for (const auto& [key, message] : config.data.problems()) add("data." + key, message);
  for (const auto& [key, message] : config.train.problems()) add("train." + key, message);
  if (config.data.train.empty() && config.train.steps > 0) {
    add("data.train", "found no training data, expected a list such as [{path: data/train}], or train.steps: 0");
  }
  return problems;
}

void validate(const RunConfig& config, const std::string& source) {
  std::vector<ConfigProblem> problems = find_range_problems(config);
  if (problems.empty()) problems = find_relation_problems(config, /*resolved_model=*/true);
  if (!problems.empty()) throw ConfigError(source, std::move(problems));
}

std::vector<std::string> find_warnings(const RunConfig& config) {
  std::vector<std::string> warnings;
  // Of epochs, the data tells how many (trainer/assemble.cpp).
  const std::int64_t steps = config.train.epochs ? 0 : config.train.steps, warmup = config.schedule.warmup_steps;
  if (steps > 0 && warmup > steps) {
    warnings.push_back(fmt::format(
        "schedule.warmup_steps is {} of {} steps in all: the learning rate ends at {:.0f}% of optimizer.learning_rate",
        warmup, steps, 100.0 * static_cast<double>(steps) / static_cast<double>(warmup)));
  }
  if (config.schedule.type == ScheduleType::wsd && !config.train.epochs &&
      static_cast<double>(warmup) + config.schedule.decay_ratio * static_cast<double>(steps) >
          static_cast<double>(steps)) {
    warnings.push_back(
        "schedule.warmup_steps and the decay of schedule.decay_ratio overlap: nothing is left between them");
  }
  if (config.lora && !config.model.from)
    warnings.emplace_back(
        "lora without model.from: the weights that the adapters stand beside are random numbers, and stay as they are");
  if (config.lora && config.checkpoint.export_dtype != ExportType::of_run && config.train.steps > 0)
    warnings.emplace_back(
        "checkpoint.export_dtype is of the weights in model/, and checkpoints of adapters have none: smoe merge --dtype writes them");
  for (std::string& warning : find_router_warnings(config)) warnings.push_back(std::move(warning));
  return warnings;
}

}  // namespace smoe
