#include "trainer/study/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <stdexcept>

#include "data/files/files.h"
#include "data/files/json.h"
#include "trainer/checkpoint/run_directory.h"
#include "trainer/record/metrics.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t largest_results = std::uint64_t{1} << 30;

OrderedJson number_or_null(double value) { return std::isfinite(value) ? OrderedJson(value) : OrderedJson(nullptr); }

OrderedJson as_json(const PointResult& result) {
  OrderedJson parameters = OrderedJson::object(), eval = OrderedJson::object();
  for (const auto& [key, value] : result.point->parameters) parameters[key] = OrderedJson(parse_json(value, key));
  for (const auto& [source, loss] : result.eval) eval[source] = number_or_null(loss);
  OrderedJson json = {{"point", result.point->name},
                      {"parameters", parameters},
                      {"status", name_of(result.record.status)},
                      {"lm_loss", number_or_null(result.lm_loss)},
                      {"eval", eval},
                      {"max_vio", number_or_null(result.max_vio)},
                      {"initial_weights", result.record.initial_weights},
                      {"data_order", result.record.data_order}};
  if (!result.record.error.empty()) json["error"] = result.record.error;
  json["seconds"] = result.seconds;
  return json;
}

// RFC 4180.
std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

std::string csv_number(double value) { return std::isfinite(value) ? fmt::format("{}", value) : ""; }

std::string csv_value(const std::string& json) {
  const Json value = parse_json(json, "value");
  return value.is_string() ? value.get<std::string>() : json;
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string line;
  for (std::size_t i = 0; i < cells.size(); ++i) line += (i == 0 ? "" : ",") + csv_cell(cells[i]);
  return line + "\n";
}

void check_line(const std::string& line, const std::string& where, const Study& study,
                std::span<const PointResult> results, std::set<std::string>& seen) {
  const Json found = parse_json(line, where);
  const std::string point = JsonReader(found, where).require_string("point");
  const std::string advice =
      "the file, or what it is made from, was changed by hand: remove results.jsonl to have it made from the points' directories "
      "again, or a point's directory to run that again";
  if (std::none_of(study.points.begin(), study.points.end(), [&](const StudyPoint& one) { return one.name == point; }))
    throw std::runtime_error(fmt::format("{}: found the point {}, which is none of this study; {}", where,
                                         quote_for_message(point), advice));
  if (!seen.insert(point).second)
    throw std::runtime_error(fmt::format("{}: found the point {} again; {}", where, point, advice));
  const auto same = std::find_if(results.begin(), results.end(),
                                 [&](const PointResult& result) { return result.point->name == point; });
  if (same == results.end()) return;  // its directory was removed, so that it runs again
  const Json expected = parse_json(dump_json(as_json(*same)), where);
  for (const auto* one : {&expected, &found})
    for (const auto& [key, value] : one->items()) {
      const auto shown_value = [&](const Json& json) { return json.contains(key) ? dump_json(json[key]) : "nothing"; };
      if (found.contains(key) && expected.contains(key) && found[key] == expected[key]) continue;
      throw std::runtime_error(fmt::format("{}: point {}: {}: found {}, its own files say {}; {}", where, point,
                                           quote_for_message(key), shown_value(found), shown_value(expected), advice));
    }
}

}  // namespace

double training_seconds(const MetricsLog& log) {
  double seconds = 0;
  std::int64_t before = 0;
  for (const StepMetrics& row : log.steps) {
    if (std::isfinite(row.step_seconds)) seconds += row.step_seconds * static_cast<double>(row.step - before);
    before = row.step;
  }
  return std::round(1000 * seconds) / 1000;
}

PointResult result_of_done(const Study& study, const StudyPoint& point, const PointRecord& record,
                           const MetricsLog& log) {
  PointResult result{.point = &point, .record = record};
  const auto last = std::find_if(log.steps.rbegin(), log.steps.rend(),
                                 [&](const StepMetrics& row) { return row.step == point.steps; });
  if (point.steps > 0 && last == log.steps.rend())
    throw std::runtime_error(fmt::format(
        "{}: found no row of step {}, though point.json says that the point is done: remove the point's directory to run it again",
        RunPaths{study.of_point(point)}.metrics().string(), point.steps));
  if (point.steps > 0) {
    result.lm_loss = last->lm_loss;
    result.max_vio = last->max_vio;
  }
  for (const EvalMetrics& row : log.evals)
    if (row.step == point.steps) result.eval.emplace_back(row.source, row.loss);
  result.seconds = training_seconds(log);
  return result;
}

std::optional<PointResult> result_of(const Study& study, const StudyPoint& point) {
  const fs::path directory = study.of_point(point);
  const PointRecord record = read_point_record(directory);
  if (record.status == PointRecord::Status::failed) return PointResult{.point = &point, .record = record};
  if (record.status != PointRecord::Status::done) return std::nullopt;
  return result_of_done(study, point, record, read_metrics(RunPaths{directory}.metrics()));
}

std::vector<PointResult> results_of(const Study& study) {
  std::vector<PointResult> results;
  for (const StudyPoint& point : study.points)
    if (auto result = result_of(study, point)) results.push_back(std::move(*result));
  return results;
}

double value_of(const PointResult& result, const SweepMetric& metric) {
  if (result.record.status != PointRecord::Status::done) return not_measured;
  if (metric.name == "lm_loss") return result.lm_loss;
  if (metric.name == "max_vio") return result.max_vio;
  double sum = 0;
  for (const auto& [source, loss] : result.eval) {
    if (metric.name == "eval." + source) return loss;
    sum += loss;
  }
  return metric.name == "eval" && !result.eval.empty() ? sum / static_cast<double>(result.eval.size()) : not_measured;
}

const PointResult* best_of(std::span<const PointResult> results, const SweepMetric& metric) {
  const PointResult* best = nullptr;
  for (const PointResult& result : results) {
    const double value = value_of(result, metric);
    if (std::isnan(value)) continue;
    if (!best || (metric.maximize ? value > value_of(*best, metric) : value < value_of(*best, metric))) best = &result;
  }
  return best;
}

std::string to_json_line(const PointResult& result) { return dump_json(as_json(result)) + "\n"; }

std::string to_csv(const Study& study, std::span<const PointResult> results) {
  std::vector<std::string> sources, header = {"point", "status"};
  for (const PointResult& result : results)
    for (const auto& [source, loss] : result.eval)
      if (std::find(sources.begin(), sources.end(), source) == sources.end()) sources.push_back(source);
  if (!study.points.empty())
    for (const auto& [key, value] : study.points.front().parameters) header.push_back(key);
  header.insert(header.end(), {"lm_loss", "max_vio"});
  for (const std::string& source : sources) header.push_back("eval." + source);
  header.insert(header.end(), {"initial_weights", "data_order", "error", "seconds"});
  std::string text = csv_line(header);
  for (const PointResult& result : results) {
    std::vector<std::string> cells = {result.point->name, name_of(result.record.status)};
    for (const auto& [key, value] : result.point->parameters) cells.push_back(csv_value(value));
    cells.insert(cells.end(), {csv_number(result.lm_loss), csv_number(result.max_vio)});
    for (const std::string& source : sources) {
      const auto same = std::find_if(result.eval.begin(), result.eval.end(),
                                     [&](const auto& entry) { return entry.first == source; });
      cells.push_back(same == result.eval.end() ? "" : csv_number(same->second));
    }
    cells.insert(cells.end(), {result.record.initial_weights, result.record.data_order, result.record.error,
                               csv_number(result.seconds)});
    text += csv_line(cells);
  }
  return text;
}

void write_results(const Study& study, std::span<const PointResult> results) {
  std::string lines;
  for (const PointResult& result : results) lines += to_json_line(result);
  write_file_atomically(study.table(), to_csv(study, results));
  write_file_atomically(study.results(), lines);
}

void check_results(const Study& study, std::span<const PointResult> results) {
  if (!fs::exists(study.results())) return;
  std::istringstream lines(read_file(study.results(), largest_results));
  std::set<std::string> seen;
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number)
    check_line(line, fmt::format("{}:{}", study.results().string(), number), study, results, seen);
}

}  // namespace smoe
