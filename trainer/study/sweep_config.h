// A sweep as its file describes it: a base configuration, and what varies.
#pragma once

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

struct SweepParameter {
  std::string key;  // of the configuration, dotted: router.aux_loss_coef
  Distribution distribution = Distribution::categorical;
  std::vector<std::string> values;    // constant, categorical: each JSON, which is YAML on one line
  std::vector<double> probabilities;  // categorical: one a value; empty: all alike
  double min = 0, max = 0;            // those with bounds
  double mu = 0, sigma = 1;           // normal ones
  double q = 1;                       // q_ ones
  int line = 0, column = 0;           // where the file says so

  bool varies() const { return distribution != Distribution::constant; }
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
