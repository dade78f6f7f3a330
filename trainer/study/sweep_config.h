// A sweep as its file describes it: a base configuration, and what varies.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace smoe {

enum class SweepMethod : std::uint8_t {
  grid,    // every combination
  random,  // draws
};

// Where a parameter's values come from, in the names of Weights & Biases' sweep files (docs.wandb.ai, "sweep
// configuration"). q: rounded to its multiples.
enum class Distribution : std::uint8_t {
  constant,              // one value
  categorical,           // one of some
  int_uniform,           // an integer from min to max, both included
  uniform,               // a number between min and max
  q_uniform,             // the same, rounded
  log_uniform,           // e to the power of a number between min and max
  q_log_uniform,         // the same, rounded
  log_uniform_values,    // a number between min and max whose logarithm is uniform
  q_log_uniform_values,  // the same, rounded
  normal,                // mu, sigma
  q_normal,
  log_normal,  // e to the power of a normal number
  q_log_normal,
};

inline std::vector<std::pair<SweepMethod, std::string_view>> choices(SweepMethod) {
  return {{SweepMethod::grid, "grid"}, {SweepMethod::random, "random"}};
}

inline std::vector<std::pair<Distribution, std::string_view>> choices(Distribution) {
  using enum Distribution;
  return {{constant, "constant"},
          {categorical, "categorical"},
          {int_uniform, "int_uniform"},
          {uniform, "uniform"},
          {q_uniform, "q_uniform"},
          {log_uniform, "log_uniform"},
          {q_log_uniform, "q_log_uniform"},
          {log_uniform_values, "log_uniform_values"},
          {q_log_uniform_values, "q_log_uniform_values"},
          {normal, "normal"},
          {q_normal, "q_normal"},
          {log_normal, "log_normal"},
          {q_log_normal, "q_log_normal"}};
}

// Keys of the configuration, dotted, and what they are set to, as JSON.
using SweepOverrides = std::vector<std::pair<std::string, std::string>>;

struct SweepParameter {
  std::string key;  // of the configuration, dotted: router.aux_loss_coef; with settings: a name of the sweep's own
  Distribution distribution = Distribution::categorical;
  std::vector<std::string> values;       // constant, categorical: each JSON, which is YAML on one line
  std::vector<SweepOverrides> settings;  // one a value, which is then a name for several keys; or empty
  std::vector<double> probabilities;     // categorical: one a value; empty: all alike
  double min = 0, max = 0;               // those with bounds
  double mu = 0, sigma = 1;              // normal ones
  double q = 1;                          // q_ ones
  int line = 0, column = 0;              // where the file says so

  bool varies() const { return distribution != Distribution::constant; }

  // What a value changes in the configuration.
  SweepOverrides overrides(const std::string& value) const {
    if (settings.empty()) return {{key, value}};
    return settings.at(static_cast<std::size_t>(std::find(values.begin(), values.end(), value) - values.begin()));
  }

  // Every key of the configuration that it changes; one may be named twice.
  std::vector<std::string> keys() const {
    if (settings.empty()) return {key};
    std::vector<std::string> keys;
    for (const SweepOverrides& setting : settings)
      for (const auto& [name, value] : setting) keys.push_back(name);
    return keys;
  }
};

struct SweepMetric {
  std::string name;  // lm_loss, max_vio, eval (the mean over sources) or eval.SOURCE
  bool maximize = false;

  bool operator==(const SweepMetric&) const = default;
};

struct SweepConfig {
  std::string base;  // path of a configuration
  std::string output_dir;
  SweepMethod method = SweepMethod::grid;
  std::int64_t runs = 0;  // random: how many points
  std::int64_t seed = 0;  // of the draws
  std::optional<SweepMetric> metric;
  std::vector<SweepParameter> parameters;  // the first varies slowest in a grid
  std::vector<std::string> notes;          // keys of the file that were passed over
};

}  // namespace smoe
