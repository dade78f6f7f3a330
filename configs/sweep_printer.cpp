// A sweep as text, and what makes it another study: what sweep_reader.h declares and does not read.
#include <fmt/format.h>

#include <algorithm>

#include "configs/field_text.h"
#include "configs/json_text.h"
#include "configs/sweep_reader.h"

namespace smoe {
namespace {

std::string numbers_text(const std::vector<double>& numbers) {
  std::string text;
  for (const double number : numbers) text += (text.empty() ? "" : ", ") + yaml_text(number);
  return "[" + text + "]";
}

// An integer without a point, as int_uniform wants it.
std::string bound_text(const SweepParameter& parameter, double value) {
  return parameter.distribution == Distribution::int_uniform ? yaml_text(static_cast<std::int64_t>(value))
                                                             : yaml_text(value);
}

// Everything but the values of a list.
std::string law_text(const SweepParameter& parameter) {
  std::string text = "distribution: " + yaml_text(parameter.distribution);
  if (!parameter.probabilities.empty()) text += ", probabilities: " + numbers_text(parameter.probabilities);
  switch (parameter.distribution) {
    using enum Distribution;
    case constant: return text + ", value: " + parameter.values.front();
    case categorical: return text;
    case normal:
    case log_normal:
      return text + fmt::format(", mu: {}, sigma: {}", yaml_text(parameter.mu), yaml_text(parameter.sigma));
    case q_normal:
    case q_log_normal:
      return text + fmt::format(", mu: {}, sigma: {}, q: {}", yaml_text(parameter.mu), yaml_text(parameter.sigma),
                                yaml_text(parameter.q));
    default: break;
  }
  text += fmt::format(", min: {}, max: {}", bound_text(parameter, parameter.min), bound_text(parameter, parameter.max));
  if (parameter.distribution == Distribution::q_uniform || parameter.distribution == Distribution::q_log_uniform ||
      parameter.distribution == Distribution::q_log_uniform_values)
    text += ", q: " + yaml_text(parameter.q);
  return text;
}

std::string setting_text(const SweepOverrides& setting) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : setting) keys.push_back(json_text(std::string_view(key)) + ": " + value);
  return "{" + joined(keys) + "}";
}

std::string parameter_text(const SweepParameter& parameter) {
  std::string text = law_text(parameter);
  if (!parameter.settings.empty()) {
    std::vector<std::string> settings;
    for (std::size_t i = 0; i < parameter.values.size(); ++i)
      settings.push_back(parameter.values[i] + ": " + setting_text(parameter.settings[i]));
    text += ", settings: {" + joined(settings) + "}";
  } else if (parameter.distribution == Distribution::categorical) {
    text += ", values: [" + joined(parameter.values) + "]";
  }
  return "{" + text + "}";
}

std::string metric_text(const std::optional<SweepMetric>& metric) {
  return metric ? fmt::format("{{name: {}, goal: {}}}", json_text(std::string_view(metric->name)),
                              metric->maximize ? "maximize" : "minimize")
                : "none";
}

void compare(const SweepParameter& was, const SweepParameter& is, bool may_grow, std::vector<std::string>& found) {
  if (law_text(was) != law_text(is) || was.settings.empty() != is.settings.empty())
    found.push_back(fmt::format("parameters.{}: {} -> {}", was.key, parameter_text(was), parameter_text(is)));
  else if (!may_grow && (was.values != is.values || was.settings != is.settings))
    found.push_back(fmt::format("parameters.{}: {} -> {} (draws depend on the list)", was.key, parameter_text(was),
                                parameter_text(is)));
  else
    for (const std::string& value : was.values)
      if (std::find(is.values.begin(), is.values.end(), value) == is.values.end())
        found.push_back(fmt::format("parameters.{}: the value {} is gone", was.key, value));
      else if (was.overrides(value) != is.overrides(value))
        found.push_back(fmt::format("parameters.{}: {} is {} -> {}", was.key, value, setting_text(was.overrides(value)),
                                    setting_text(is.overrides(value))));
}

}  // namespace

std::string print_sweep(const SweepConfig& sweep) {
  std::string text = fmt::format("base: {}\noutput_dir: {}\nmethod: {}\n", yaml_text(sweep.base),
                                 yaml_text(sweep.output_dir), yaml_text(sweep.method));
  if (sweep.method == SweepMethod::random) text += fmt::format("runs: {}\n", sweep.runs);
  text += fmt::format("seed: {}\n", sweep.seed);
  if (sweep.metric) text += fmt::format("metric: {}\n", metric_text(sweep.metric));
  text += "parameters:\n";
  for (const SweepParameter& parameter : sweep.parameters)
    text += fmt::format("  {}: {}\n", json_text(std::string_view(parameter.key)), parameter_text(parameter));
  return text;
}

std::vector<std::string> differences(const SweepConfig& was, const SweepConfig& is) {
  std::vector<std::string> found;
  const bool grid = was.method == SweepMethod::grid;
  if (was.method != is.method)
    found.push_back(fmt::format("method: {} -> {}", yaml_text(was.method), yaml_text(is.method)));
  else if (!grid && is.runs < was.runs)
    found.push_back(fmt::format("runs: {} -> {}", was.runs, is.runs));
  if (!grid && was.seed != is.seed) found.push_back(fmt::format("seed: {} -> {}", was.seed, is.seed));
  const auto find_in = [](const SweepConfig& sweep, const std::string& key) {
    return std::find_if(sweep.parameters.begin(), sweep.parameters.end(),
                        [&](const SweepParameter& parameter) { return parameter.key == key; });
  };
  for (const SweepParameter& parameter : was.parameters) {
    const auto same = find_in(is, parameter.key);
    if (same == is.parameters.end())
      found.push_back(fmt::format("parameters.{}: gone", parameter.key));
    else
      compare(parameter, *same, grid, found);
  }
  for (const SweepParameter& parameter : is.parameters)
    if (find_in(was, parameter.key) == was.parameters.end())
      found.push_back(fmt::format("parameters.{}: new", parameter.key));
  return found;
}

}  // namespace smoe
