#include "configs/config_error.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace smoe {
namespace {

constexpr std::size_t problems_shown = 10;

// The file from top to bottom, then what is missing from it, then the command line.
auto reading_order(const ConfigProblem& problem) {
  const ConfigLocation& where = problem.where;
  return std::make_tuple(where.command_line, where.line == 0, where.line, where.column);
}

std::vector<ConfigProblem> in_order(std::vector<ConfigProblem> problems) {
  std::stable_sort(problems.begin(), problems.end(),
                   [](const auto& a, const auto& b) { return reading_order(a) < reading_order(b); });
  return problems;
}

std::string line_of(const std::string& source, const ConfigProblem& problem) {
  const ConfigLocation& where = problem.where;
  std::string text = where.command_line ? "command line"
                     : where.line == 0  ? source
                                        : fmt::format("{}:{}:{}", source, where.line, where.column);
  if (!problem.key.empty()) text += ": " + problem.key;
  return text + ": " + problem.message;
}

std::string summary(const std::string& source, const std::vector<ConfigProblem>& problems) {
  std::string text;
  for (std::size_t i = 0; i < std::min(problems_shown, problems.size()); ++i) {
    if (i > 0) text += "\n";
    text += line_of(source, problems[i]);
  }
  if (problems.size() > problems_shown) text += fmt::format("\nand {} more", problems.size() - problems_shown);
  return text;
}

}  // namespace

ConfigError::ConfigError(const std::string& source, std::vector<ConfigProblem> problems)
    : std::runtime_error(summary(source, in_order(problems))), problems_(in_order(std::move(problems))) {}

}  // namespace smoe
