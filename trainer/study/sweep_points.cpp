#include "trainer/study/sweep_points.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <numbers>
#include <set>
#include <stdexcept>

#include "data/files/sha256.h"
#include "kernels/philox.h"

namespace smoe {
namespace {

constexpr std::size_t longest_name = 120;

std::string whole_number(double value) { return fmt::format("{}", static_cast<std::int64_t>(value)); }

bool is_whole(double value) { return value == std::floor(value) && std::abs(value) < 0x1p53; }

// Six digits, unless they would leave the bounds.
std::string number_text(double value, double min, double max) {
  const std::string text = fmt::format("{:.6g}", value);
  const double read = std::strtod(text.c_str(), nullptr);
  return read < min || read > max ? fmt::format("{}", value) : text;
}

// The multiple of q nearest to value that lies within the bounds.
std::string rounded_text(double value, double q, double min, double max) {
  double steps = std::round(value / q);
  if (steps * q < min) ++steps;
  if (steps * q > max) --steps;
  const double rounded = steps * q;
  return is_whole(rounded) ? whole_number(rounded) : fmt::format("{:.12g}", rounded);
}

std::size_t chosen(const SweepParameter& parameter, double u) {
  const std::size_t count = parameter.values.size();
  if (parameter.probabilities.empty())
    return std::min(count - 1, static_cast<std::size_t>(u * static_cast<double>(count)));
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i)
    if ((sum += parameter.probabilities[i]) > u) return i;
  return count - 1;
}

std::vector<std::string> grid_values(const SweepParameter& parameter) {
  if (!parameter.values.empty()) return parameter.values;
  const double q = parameter.distribution == Distribution::int_uniform ? 1 : parameter.q;
  const double first = std::ceil(parameter.min / q - 1e-9), last = std::floor(parameter.max / q + 1e-9);
  if (last - first >= static_cast<double>(most_points))
    throw std::runtime_error(fmt::format("parameters: found {} values of {}, expected at most {} points",
                                         last - first + 1, parameter.key, most_points));
  std::vector<std::string> values;
  for (double step = first; step <= last; ++step) {
    const double value = step * q;
    values.push_back(is_whole(value) ? whole_number(value) : fmt::format("{:.12g}", value));
  }
  return values;
}

std::string last_part_of(const std::string& key) {
  const std::size_t dot = key.rfind('.');
  return dot == std::string::npos ? key : key.substr(dot + 1);
}

// What a parameter is called in the names of points: the last part of its key, or all of it where that is another's too,
// or a place in a list.
std::vector<std::string> labels(const std::vector<SweepParameter>& parameters) {
  std::vector<std::string> labels;
  for (const SweepParameter& parameter : parameters) {
    const std::string last = last_part_of(parameter.key);
    const auto same = std::count_if(parameters.begin(), parameters.end(),
                                    [&](const SweepParameter& other) { return last_part_of(other.key) == last; });
    labels.push_back(same > 1 || last.find_first_not_of("0123456789") == std::string::npos ? parameter.key : last);
  }
  return labels;
}

bool fits_a_file_name(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '.' || c == '+' || c == '-';
}

// Text and numbers as they are; of anything else what may stand in a file's name, and `lossy` is set. Both of values and of
// labels: a group of settings may have any name, and one with a slash must not lead out of the study.
std::string text_in_name(const std::string& value, bool& lossy) {
  std::string text = value;
  if (text.size() >= 2 && text.front() == '"') text = text.substr(1, text.size() - 2);
  std::string name;
  for (const char c : text) {
    if (fits_a_file_name(c) || c == '_')
      name += c;
    else if (!name.empty() && name.back() != '-')
      name += '-';
    lossy |= !fits_a_file_name(c) && c != '_';
  }
  return name;
}

std::string name_of_point(const SweepConfig& sweep, const std::vector<std::string>& labels,
                          const std::vector<std::string>& values) {
  std::string name, all;
  bool lossy = false;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const SweepParameter& parameter = sweep.parameters[i];
    if (!parameter.varies()) continue;
    name += (name.empty() ? "" : "_") + text_in_name(labels[i], lossy) + "-" + text_in_name(values[i], lossy);
    all += parameter.key + "=" + values[i] + "\n";
  }
  if (name.empty()) return "base";
  if (!lossy && name.size() <= longest_name) return name;
  return name.substr(0, longest_name) + "_" + sha256_hex(all).substr(0, 8);
}

[[noreturn]] void refuse_empty_range(const SweepParameter& parameter) {
  throw std::runtime_error(
      fmt::format("parameters.{}: found an empty range: no multiple of q lies in it", parameter.key));
}

// What is rounded to multiples of q must find one within its bounds.
void require_multiples(const SweepParameter& parameter) {
  double min = parameter.min, max = parameter.max;
  switch (parameter.distribution) {
    case Distribution::q_uniform:
    case Distribution::q_log_uniform_values: break;
    case Distribution::q_log_uniform: min = std::exp(min), max = std::exp(max); break;
    default: return;
  }
  if (parameter.values.empty() && std::ceil(min / parameter.q) > std::floor(max / parameter.q))
    refuse_empty_range(parameter);
}

std::vector<std::vector<std::string>> grid(const SweepConfig& sweep) {
  std::vector<std::vector<std::string>> points{{}};
  for (const SweepParameter& parameter : sweep.parameters) {
    const std::vector<std::string> values = grid_values(parameter);
    if (values.empty()) refuse_empty_range(parameter);
    if (points.size() * values.size() > static_cast<std::size_t>(most_points))
      throw std::runtime_error(
          fmt::format("parameters: found more than {} points, expected at most that many", most_points));
    std::vector<std::vector<std::string>> longer;
    for (const auto& point : points)
      for (const std::string& value : values) {
        longer.push_back(point);
        longer.back().push_back(value);
      }
    points = std::move(longer);
  }
  return points;
}

std::vector<std::vector<std::string>> draws(const SweepConfig& sweep) {
  for (const SweepParameter& parameter : sweep.parameters) require_multiples(parameter);
  std::vector<std::vector<std::string>> points;
  std::set<std::vector<std::string>> seen;
  const auto wanted = static_cast<std::size_t>(sweep.runs);
  const std::uint64_t most_draws = 1000 + 100 * static_cast<std::uint64_t>(sweep.runs);
  for (std::uint64_t draw = 0; draw < most_draws && points.size() < wanted; ++draw) {
    std::vector<std::string> point;
    for (const SweepParameter& parameter : sweep.parameters)
      point.push_back(drawn(parameter, static_cast<std::uint64_t>(sweep.seed), draw));
    if (seen.insert(point).second) points.push_back(std::move(point));
  }
  if (points.size() < wanted)
    throw std::runtime_error(
        fmt::format("runs: found {}, expected at most {}: so many different points came of {} draws", wanted,
                    points.size(), most_draws));
  return points;
}

}  // namespace

std::string drawn(const SweepParameter& parameter, std::uint64_t seed, std::uint64_t draw) {
  const auto words = philox(key_of(seed, parameter.key.data(), parameter.key.size()), draw);
  // In [0, 1), of 53 bits; and the angle and length of a normal number (Box and Muller 1958).
  const double u = static_cast<double>((std::uint64_t{words[0]} << 21) ^ (words[1] >> 11)) * 0x1p-53;
  const auto gaussian = [&] {
    return parameter.mu + parameter.sigma * std::sqrt(-2 * std::log(uniform_open(words[2]))) *
                              std::cos(2 * std::numbers::pi * uniform_open(words[3]));
  };
  const double min = parameter.min, max = parameter.max, between = min + u * (max - min);
  const auto log_between = [&] { return std::exp(std::log(min) + u * (std::log(max) - std::log(min))); };
  constexpr double all = HUGE_VAL;
  switch (parameter.distribution) {
    using enum Distribution;
    case constant: return parameter.values.front();
    case categorical: return parameter.values[chosen(parameter, u)];
    case int_uniform: return whole_number(std::min(max, std::floor(min + u * (max - min + 1))));
    case uniform: return number_text(between, min, max);
    case q_uniform: return rounded_text(between, parameter.q, min, max);
    case log_uniform: return number_text(std::exp(between), -all, all);
    case q_log_uniform: return rounded_text(std::exp(between), parameter.q, std::exp(min), std::exp(max));
    case log_uniform_values: return number_text(log_between(), min, max);
    case q_log_uniform_values: return rounded_text(log_between(), parameter.q, min, max);
    case normal: return number_text(gaussian(), -all, all);
    case q_normal: return rounded_text(gaussian(), parameter.q, -all, all);
    case log_normal: return number_text(std::exp(gaussian()), -all, all);
    case q_log_normal: return rounded_text(std::exp(gaussian()), parameter.q, -all, all);
  }
  throw std::logic_error("a distribution without draws");
}

std::vector<SweepPoint> expand(const SweepConfig& sweep) {
  const std::vector<std::string> names = labels(sweep.parameters);
  std::vector<SweepPoint> points;
  for (std::vector<std::string>& values : sweep.method == SweepMethod::grid ? grid(sweep) : draws(sweep)) {
    std::string name = name_of_point(sweep, names, values);
    points.push_back({std::move(name), std::move(values)});
  }
  std::set<std::string> seen;
  for (const SweepPoint& point : points)
    if (!seen.insert(point.name).second)
      throw std::runtime_error(fmt::format("parameters: found two points with the same values ({})", point.name));
  return points;
}

}  // namespace smoe
