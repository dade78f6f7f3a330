#include "configs/sweep_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <set>
#include <stdexcept>

#include "configs/field_text.h"
#include "configs/json_text.h"
#include "configs/overrides.h"
#include "configs/suggest.h"
#include "configs/user_path.h"
#include "configs/yaml_document.h"
#include "configs/yaml_reader.h"
#include "configs/yaml_scalar.h"

namespace smoe {
namespace {

const std::vector<std::string> sweep_keys = {"base", "output_dir", "method", "runs", "seed", "metric", "parameters"};
const std::vector<std::string> keys_passed_over = {"program", "command", "project",   "entity",
                                                   "name",    "job",     "image_uri", "description"};
const std::vector<std::string> parameter_keys = {
    "value", "values", "settings", "probabilities", "distribution", "min", "max", "mu", "sigma", "q", "parameters"};
// How W&B's users call a metric that is measured here under another name.
const std::vector<std::string> losses_there = {"loss", "train_loss", "train/loss", "train.loss", "training_loss"};
const std::vector<std::string> evaluations_there = {"val_loss",  "val/loss",  "val.loss",  "valid_loss",
                                                    "eval_loss", "eval/loss", "eval.loss", "validation_loss"};

bool is_one_of(std::string_view word, const std::vector<std::string>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool has_bounds(Distribution d) {
  using enum Distribution;
  return d == int_uniform || d == uniform || d == q_uniform || d == log_uniform || d == q_log_uniform ||
         d == log_uniform_values || d == q_log_uniform_values;
}
bool is_normal(Distribution d) {
  using enum Distribution;
  return d == normal || d == q_normal || d == log_normal || d == q_log_normal;
}
bool is_rounded(Distribution d) {
  using enum Distribution;
  return d == q_uniform || d == q_log_uniform || d == q_log_uniform_values || d == q_normal || d == q_log_normal;
}
bool is_logarithm_of_values(Distribution d) {
  return d == Distribution::log_uniform_values || d == Distribution::q_log_uniform_values;
}

class SweepReader {
 public:
  SweepReader(const YamlNode& root, const std::string& source) : root_(root), source_(source) {}

  SweepConfig read() {
    refuse_duplicates(root_, "");
    for (std::size_t i = 0; i < root_.keys.size(); ++i) read_top(root_.keys[i], root_.items[i]);
    if (sweep_.base.empty() && !root_.find("base"))
      problems_.push_back({{}, "base", "missing, expected the path of a configuration"});
    if (!root_.find("method")) problems_.push_back({{}, "method", "missing, expected grid or random"});
    check_runs();
    if (const YamlNode* parameters = root_.find("parameters"))
      read_parameters(*parameters, "parameters", "");
    else
      problems_.push_back({{}, "parameters", "missing, expected what varies, as in train.seed: {values: [1, 2]}"});
    if (problems_.empty()) refuse_repeated_keys();
    if (!problems_.empty()) throw ConfigError(source_, std::move(problems_));
    return std::move(sweep_);
  }

 private:
  void read_top(const YamlNode& key, const YamlNode& value) {
    const std::string& name = key.text;
    if (key.kind != YamlNode::Kind::scalar) {
      refuse(key, "", fmt::format("found {} as a key, expected a name", key.described()));
    } else if (name == "base" || name == "output_dir") {
      read_path(value, name, name == "base" ? sweep_.base : sweep_.output_dir);
    } else if (name == "method") {
      read_method(value);
    } else if (name == "runs") {
      read_whole(value, name, 1, sweep_.runs);
    } else if (name == "seed") {
      read_whole(value, name, 0, sweep_.seed);
    } else if (name == "metric") {
      read_metric(value);
    } else if (name == "early_terminate") {
      if (value.kind != YamlNode::Kind::null) sweep_.notes.push_back(name + " (every point runs to its end)");
    } else if (is_one_of(name, keys_passed_over)) {
      sweep_.notes.push_back(name);
    } else if (name != "parameters") {
      std::string hint;
      if (name == "run_cap" || name == "count" || name == "num_runs") hint = "; did you mean 'runs'?";
      if (name == "config" || name == "base_config") hint = "; did you mean 'base'?";
      if (hint.empty()) hint = did_you_mean(nearest(name, sweep_keys));
      refuse(key, shown(name), "unknown key" + (hint.empty() ? ", expected one of " + joined(sweep_keys) : hint));
    }
  }

  void read_path(const YamlNode& value, const std::string& key, std::string& path) {
    if (value.kind != YamlNode::Kind::scalar || value.text.empty())
      return refuse(value, key, fmt::format("found {}, expected a path", value.described()));
    try {
      path = expand_path(value.text);
    } catch (const std::runtime_error& error) {
      refuse(value, key, error.what());
    }
  }

  void read_method(const YamlNode& value) {
    if (value.kind == YamlNode::Kind::scalar)
      for (const auto& [method, name] : choices(SweepMethod{}))
        if (value.text == name) {
          sweep_.method = method;
          return;
        }
    refuse(value, "method",
           fmt::format("found {}, expected grid or random{}", value.described(),
                       value.text == "bayes" ? ": a search by earlier results is not available" : ""));
  }

  void read_whole(const YamlNode& value, const std::string& key, std::int64_t least, std::int64_t& number) {
    const auto found = plain_integer(value);
    if (!found || *found < least)
      return refuse(value, key, fmt::format("found {}, expected an integer of {} or more", value.described(), least));
    number = *found;
  }

  void check_runs() {
    const YamlNode* runs = root_.find("runs");
    const YamlNode* method = root_.find("method");
    if (sweep_.method == SweepMethod::random && !runs)
      problems_.push_back({method ? method->where : ConfigLocation{}, "runs",
                           "missing, expected how many points method: random draws"});
    if (sweep_.method == SweepMethod::grid && method && runs)
      refuse(*runs, "runs", "found beside method: grid, expected it absent: a grid runs all of its points");
  }

  void read_metric(const YamlNode& value) {
    if (value.kind != YamlNode::Kind::map)
      return refuse(value, "metric",
                    fmt::format("found {}, expected a map such as {{name: eval, goal: minimize}}", value.described()));
    refuse_duplicates(value, "metric.");
    SweepMetric metric;
    for (std::size_t i = 0; i < value.keys.size(); ++i) {
      const YamlNode &key = value.keys[i], &item = value.items[i];
      if (key.text == "name") {
        metric.name = read_metric_name(item);
      } else if (key.text == "goal") {
        if (item.text != "minimize" && item.text != "maximize")
          refuse(item, "metric.goal", fmt::format("found {}, expected minimize or maximize", item.described()));
        metric.maximize = item.text == "maximize";
      } else if (key.text == "target") {
        sweep_.notes.emplace_back("metric.target");
      } else {
        refuse(key, "metric." + shown(key.text), "unknown key" + did_you_mean(nearest(key.text, {"name", "goal"})));
      }
    }
    if (!value.find("name")) refuse(value, "metric.name", "missing, expected lm_loss, max_vio, eval or eval.SOURCE");
    if (!metric.name.empty()) sweep_.metric = metric;
  }

  // Empty where nothing here has that name, which no grid and no draw depends on.
  std::string read_metric_name(const YamlNode& item) {
    const std::string& name = item.text;
    if (is_one_of(name, losses_there)) return "lm_loss";
    if (is_one_of(name, evaluations_there)) return "eval";
    if (name == "lm_loss" || name == "max_vio" || name == "eval" || (name.starts_with("eval.") && name.size() > 5))
      return name;
    const auto meant = nearest(name, {"lm_loss", "max_vio", "eval"});
    if (item.kind == YamlNode::Kind::scalar && !name.empty() && !meant)
      sweep_.notes.push_back(fmt::format("metric.name: {}", shown(name)));
    else
      refuse(item, "metric.name",
             fmt::format("found {}, expected lm_loss, max_vio, eval (the mean loss of all sources) or eval.SOURCE{}",
                         item.described(), did_you_mean(meant)));
    return "";
  }

  // prefix: of the configuration's keys, "router." inside W&B's nested form router: {parameters: {...}}.
  void read_parameters(const YamlNode& map, const std::string& where, const std::string& prefix) {
    if (map.kind != YamlNode::Kind::map || map.items.empty())
      return refuse(map, where,
                    fmt::format("found {}, expected a map of what varies, as in train.seed: {{values: [1, 2]}}",
                                map.kind == YamlNode::Kind::map ? "an empty map" : map.described()));
    refuse_duplicates(map, where + ".");
    for (std::size_t i = 0; i < map.keys.size(); ++i) {
      const YamlNode &key = map.keys[i], &item = map.items[i];
      const std::string full = where + "." + shown(key.text);
      if (key.kind != YamlNode::Kind::scalar || key.text.empty()) {
        refuse(key, where, fmt::format("found {} as a key, expected a name", key.described()));
      } else if (item.kind != YamlNode::Kind::map) {
        refuse(item, full,
               fmt::format("found {}, expected a map such as {{values: [...]}} or {{value: ...}}", item.described()));
      } else if (const YamlNode* nested = item.find("parameters")) {
        if (item.keys.size() > 1) refuse(item, full, "found parameters beside other keys, expected one of both");
        read_parameters(*nested, full + ".parameters", prefix + key.text + ".");
      } else {
        read_parameter(key, item, full, prefix + key.text);
      }
    }
  }

  void read_parameter(const YamlNode& at, const YamlNode& map, const std::string& where, const std::string& key) {
    refuse_duplicates(map, where + ".");
    SweepParameter parameter;
    parameter.key = key;
    parameter.line = at.where.line;
    parameter.column = at.where.column;
    if (key.find('=') != std::string::npos)
      return refuse(at, where, "found '=' in a key, expected a key of the configuration");
    for (const YamlNode& name : map.keys)
      if (!is_one_of(name.text, parameter_keys))
        refuse(name, where + "." + shown(name.text),
               "unknown key" + did_you_mean(nearest(name.text, parameter_keys)) + ", expected some of " +
                   joined(parameter_keys));
    if (!read_distribution(map, where, parameter)) return;
    const std::size_t before = problems_.size();
    read_values(map, where, parameter);
    read_bounds(map, where, parameter);
    refuse_unused(map, where, parameter);
    if (problems_.size() == before && sweep_.method == SweepMethod::grid &&
        !(parameter.distribution == Distribution::constant || parameter.distribution == Distribution::categorical ||
          parameter.distribution == Distribution::int_uniform || parameter.distribution == Distribution::q_uniform))
      refuse(map, where,
             fmt::format("found {} with method: grid, expected values, int_uniform or q_uniform: a grid runs all of a "
                         "parameter's values",
                         yaml_text(parameter.distribution)));
    sweep_.parameters.push_back(std::move(parameter));
  }

  // The distribution that is named, or that W&B takes the other keys for.
  bool read_distribution(const YamlNode& map, const std::string& where, SweepParameter& parameter) {
    if (const YamlNode* named = map.find("distribution")) {
      for (const auto& [distribution, name] : choices(Distribution{}))
        if (named->kind == YamlNode::Kind::scalar && named->text == name) {
          parameter.distribution = distribution;
          return true;
        }
      const std::vector<std::string> names = choice_names<Distribution>();
      refuse(*named, where + ".distribution",
             fmt::format("found {}, expected one of {}{}", named->described(), joined(names),
                         did_you_mean(nearest(named->text, names))));
      return false;
    }
    if (map.find("value")) {
      parameter.distribution = Distribution::constant;
    } else if (map.find("values") || map.find("settings")) {
      parameter.distribution = Distribution::categorical;
    } else if (const YamlNode* min = map.find("min"), *max = map.find("max"); min || max) {
      const bool integers = (!min || plain_integer(*min)) && (!max || plain_integer(*max));
      parameter.distribution = integers ? Distribution::int_uniform : Distribution::uniform;
    } else if (map.find("mu") || map.find("sigma")) {
      parameter.distribution = Distribution::normal;
    } else {
      refuse(map, where, "found no values, expected value, values, or min and max");
      return false;
    }
    return true;
  }

  void read_values(const YamlNode& map, const std::string& where, SweepParameter& parameter) {
    const YamlNode *value = map.find("value"), *values = map.find("values"), *settings = map.find("settings");
    if (parameter.distribution == Distribution::constant) {
      if (value)
        parameter.values = {json_text(*value)};
      else
        refuse(map, where, "found constant without a value, expected value: ...");
    }
    if (parameter.distribution != Distribution::categorical) return;
    if (settings && values) return refuse(*settings, where, "found settings beside values, expected one of both");
    const YamlNode* weights = map.find("probabilities");
    if (settings) {
      read_settings(*settings, where + ".settings", parameter);
      if (weights) read_probabilities(*weights, where, parameter);
      return;
    }
    if (!values || values->kind != YamlNode::Kind::list || values->items.empty()) {
      const std::string found = !values                                ? "no values"
                                : values->kind == YamlNode::Kind::list ? "an empty list"
                                                                       : values->described();
      return refuse(values ? *values : map, where + ".values",
                    fmt::format("found {}, expected a list of values", found));
    }
    for (const YamlNode& item : values->items) {
      const std::string text = json_text(item);
      if (is_one_of(text, parameter.values))
        refuse(item, where + ".values",
               fmt::format("found {} again, expected it once: two points would have the same values", shown(text)));
      parameter.values.push_back(text);
    }
    if (weights) read_probabilities(*weights, where, parameter);
  }

  // Each a name for values of some keys, or of none, which is the base as it is.
  void read_settings(const YamlNode& map, const std::string& where, SweepParameter& parameter) {
    if (map.kind != YamlNode::Kind::map || map.items.empty())
      return refuse(map, where,
                    fmt::format("found {}, expected a map of names, as in none: {{router.aux_loss_coef: 0}}",
                                map.kind == YamlNode::Kind::map ? "an empty map" : map.described()));
    refuse_duplicates(map, where + ".");
    for (std::size_t i = 0; i < map.keys.size(); ++i) {
      const YamlNode &name = map.keys[i], &setting = map.items[i];
      const std::string full = where + "." + shown(name.text);
      if (name.kind != YamlNode::Kind::scalar || name.text.empty())
        return refuse(name, where, fmt::format("found {} as a key, expected a name", name.described()));
      if (setting.kind != YamlNode::Kind::map)
        return refuse(setting, full,
                      fmt::format("found {}, expected a map of keys of the configuration, {{}} for the base as it is",
                                  setting.described()));
      refuse_duplicates(setting, full + ".");
      SweepOverrides overrides;
      for (std::size_t j = 0; j < setting.keys.size(); ++j) {
        const YamlNode& key = setting.keys[j];
        if (key.kind != YamlNode::Kind::scalar || key.text.empty() || key.text.find('=') != std::string::npos)
          return refuse(key, full, fmt::format("found {}, expected a key of the configuration", key.described()));
        overrides.emplace_back(key.text, json_text(setting.items[j]));
      }
      parameter.values.push_back(json_text(name));
      parameter.settings.push_back(std::move(overrides));
    }
  }

  void read_probabilities(const YamlNode& weights, const std::string& where, SweepParameter& parameter) {
    double sum = 0;
    for (const YamlNode& item : weights.items) {
      const auto number = plain_number(item);
      if (!number || *number < 0)
        return refuse(item, where + ".probabilities",
                      fmt::format("found {}, expected a number of 0 or more", item.described()));
      parameter.probabilities.push_back(*number);
      sum += *number;
    }
    if (weights.kind != YamlNode::Kind::list || parameter.probabilities.size() != parameter.values.size() ||
        std::abs(sum - 1) > 1e-6)
      refuse(weights, where + ".probabilities",
             fmt::format("found {} numbers with the sum {}, expected one for each of the {} values, with the sum 1",
                         parameter.probabilities.size(), sum, parameter.values.size()));
    if (sweep_.method == SweepMethod::grid)
      refuse(weights, where + ".probabilities", "found with method: grid, expected it absent: a grid runs every value");
  }

  // A number that the distribution needs.
  void read_number(const YamlNode& map, const char* name, const std::string& where, const SweepParameter& parameter,
                   double& number) {
    const YamlNode* node = map.find(name);
    if (!node)
      return refuse(map, where,
                    fmt::format("found {} without {}, expected a number", yaml_text(parameter.distribution), name));
    const auto found = plain_number(*node);
    if (!found) return refuse(*node, where + "." + name, fmt::format("found {}, expected a number", node->described()));
    if (parameter.distribution == Distribution::int_uniform && !plain_integer(*node))
      return refuse(*node, where + "." + name, fmt::format("found {}, expected an integer", node->described()));
    number = *found;
  }

  void read_bounds(const YamlNode& map, const std::string& where, SweepParameter& parameter) {
    const Distribution d = parameter.distribution;
    const std::size_t before = problems_.size();
    if (has_bounds(d)) {
      read_number(map, "min", where, parameter, parameter.min);
      read_number(map, "max", where, parameter, parameter.max);
    }
    if (is_normal(d)) {
      read_number(map, "mu", where, parameter, parameter.mu);
      read_number(map, "sigma", where, parameter, parameter.sigma);
    }
    if (is_rounded(d) && map.find("q")) read_number(map, "q", where, parameter, parameter.q);
    if (problems_.size() > before) return;
    if (has_bounds(d) &&
        (parameter.min > parameter.max || (parameter.min == parameter.max && d != Distribution::int_uniform)))
      refuse(
          map, where,
          fmt::format("found an empty range, min {} and max {}, expected min below max", parameter.min, parameter.max));
    else if (is_logarithm_of_values(d) && parameter.min <= 0)
      refuse(map, where, fmt::format("found min {}, expected more than 0: it has a logarithm", parameter.min));
    if (is_normal(d) && parameter.sigma <= 0)
      refuse(map, where, fmt::format("found sigma {}, expected more than 0", parameter.sigma));
    if (is_rounded(d) && parameter.q <= 0)
      refuse(map, where, fmt::format("found q {}, expected more than 0", parameter.q));
  }

  void refuse_unused(const YamlNode& map, const std::string& where, const SweepParameter& parameter) {
    const Distribution d = parameter.distribution;
    for (const YamlNode& key : map.keys) {
      const std::string& name = key.text;
      const bool used =
          name == "distribution" || !is_one_of(name, parameter_keys) ||
          (name == "value" && d == Distribution::constant) ||
          ((name == "values" || name == "settings" || name == "probabilities") && d == Distribution::categorical) ||
          ((name == "min" || name == "max") && has_bounds(d)) || ((name == "mu" || name == "sigma") && is_normal(d)) ||
          (name == "q" && is_rounded(d));
      if (!used)
        refuse(key, where + "." + name,
               fmt::format("found with {}, which has no such bound, expected it absent", yaml_text(d)));
    }
  }

  void refuse_repeated_keys() {
    for (std::size_t i = 0; i < sweep_.parameters.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) {
        const SweepParameter &earlier = sweep_.parameters[j], &later = sweep_.parameters[i];
        std::string again = earlier.key == later.key ? later.key : "";
        for (const std::string& key : later.keys())
          if (again.empty() && is_one_of(key, earlier.keys())) again = key;
        if (!again.empty())
          problems_.push_back({{later.line, later.column, false},
                               "parameters." + again,
                               fmt::format("found again (first on line {}), expected once", earlier.line)});
      }
  }

  void refuse_duplicates(const YamlNode& map, const std::string& prefix) {
    std::set<std::string> seen;
    for (const YamlNode& key : map.keys)
      if (key.kind == YamlNode::Kind::scalar && !seen.insert(key.text).second)
        refuse(key, prefix + shown(key.text), "found again, expected once");
  }

  static std::optional<std::int64_t> plain_integer(const YamlNode& node) {
    if (node.kind != YamlNode::Kind::scalar || node.quoted) return std::nullopt;
    return parse_integer(node.text);
  }
  static std::optional<double> plain_number(const YamlNode& node) {
    if (node.kind != YamlNode::Kind::scalar || node.quoted) return std::nullopt;
    return parse_number(node.text);
  }

  void refuse(const YamlNode& node, std::string key, std::string message) {
    problems_.push_back({node.where, std::move(key), std::move(message)});
  }

  const YamlNode& root_;
  const std::string& source_;
  SweepConfig sweep_;
  std::vector<ConfigProblem> problems_;
};

std::string sweep_text(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::error_code error;
  if (std::filesystem::is_directory(file, error) || !stream)
    throw ConfigError(file.string(), {{{},
                                       "",
                                       stream ? "is a directory, expected a YAML file"
                                              : fmt::format("cannot be read: {}", std::strerror(errno))}});
  std::string text(largest_config_bytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text;
}

}  // namespace

SweepConfig parse_sweep(std::string_view yaml, const std::string& source, const std::vector<std::string>& overrides) {
  if (yaml.size() > largest_config_bytes)
    throw ConfigError(
        source, {{{}, "", fmt::format("is larger than {} bytes, which no sweep's file is", largest_config_bytes)}});
  YamlNode root = parse_yaml(yaml, source);
  if (root.kind != YamlNode::Kind::map)
    throw ConfigError(source, {{root.where, "", fmt::format("found {}, expected a map of keys", root.described())}});
  for (const std::string& text : overrides) apply_override(root, text, source);
  SweepConfig sweep = SweepReader(root, source).read();
  if (sweep.output_dir.empty()) {
    const std::string stem = std::filesystem::path(source).stem().string();
    if (stem.empty() || !is_utf8(stem))
      throw ConfigError(source, {{{}, "output_dir", "the file's name gives no name for the sweep, expected this key"}});
    sweep.output_dir = "sweeps/" + stem;
  }
  return sweep;
}

SweepConfig read_sweep(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  return parse_sweep(sweep_text(file), file.string(), overrides);
}

}  // namespace smoe
