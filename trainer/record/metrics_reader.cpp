#include <fmt/format.h>

#include <stdexcept>
#include <utility>

#include "data/files/files.h"
#include "data/files/json.h"
#include "trainer/record/metrics_rows.h"

namespace smoe {

namespace {

constexpr std::int64_t any_count = std::numeric_limits<std::int64_t>::max();

// Calls visit(line, line number, whether it ends in a newline). Only a last line can lack it.
template <class Visitor>
void visit_lines(std::string_view content, Visitor&& visit) {
  for (std::int64_t number = 1; !content.empty(); ++number) {
    const std::size_t end = content.find('\n');
    const bool finished = end != std::string_view::npos;
    visit(content.substr(0, end), number, finished);
    content.remove_prefix(finished ? end + 1 : content.size());
  }
}

// The row in a line; nothing if the line is an unfinished last one that does not parse.
std::optional<Json> parse_row(std::string_view line, bool finished, const std::string& where) {
  try {
    Json row = parse_json(line, where);
    JsonReader(row, where).require_int("step", 0, any_count);
    return row;
  } catch (const std::runtime_error& error) {
    if (!finished) return std::nullopt;
    throw std::runtime_error(
        fmt::format("{}\n  expected one JSON object with a \"step\" on every line; remove the "
                    "line, or restore the file",
                    error.what()));
  }
}

template <class Row>
void read_numbers(const JsonReader& json, Row& row) {
  visit_numbers(
      row, [&json](const char*, const char* key, double& value) { value = json.optional_number(key).value_or(value); });
}

std::vector<double> numbers_of(const JsonReader& json, const char* key, const Json& list) {
  std::vector<double> values;
  for (const Json& value : list) {
    if (!value.is_number() && !value.is_null())
      throw std::runtime_error(fmt::format("{}: {} must hold numbers, found {}", json.where(), key, value.dump()));
    values.push_back(value.is_null() ? not_measured : value.get<double>());
  }
  return values;
}

void read_layers(const JsonReader& json, LayerMetrics& layers) {
  visit_layers(layers, [&json](const char* object, const char* key, std::vector<double>& values) {
    const bool inside = *object != '\0';
    if (inside && !json.has(object)) return;
    const JsonReader from = inside ? json.require_object(object) : json;
    if (from.has(key)) values = numbers_of(from, key, from.require_array(key));
  });
}

std::vector<std::vector<double>> read_expert_load(const JsonReader& json) {
  std::vector<std::vector<double>> load;
  if (!json.has("expert_load")) return load;
  for (const Json& layer : json.require_array("expert_load")) {
    if (!layer.is_array()) throw std::runtime_error(json.where() + ": expert_load must hold one list a layer");
    load.push_back(numbers_of(json, "expert_load", layer));
  }
  return load;
}

// One number, or a list of one a layer.
std::vector<double> read_coefficients(const JsonReader& json) {
  const char* const key = "aux_loss_coef";
  if (!json.has(key)) return {};
  const Json& found = json.object().at(key);
  return numbers_of(json, key, found.is_array() ? found : Json::array({found}));
}

std::vector<std::string> read_warnings(const JsonReader& json) {
  std::vector<std::string> warnings;
  if (!json.has("warnings")) return warnings;
  for (const Json& text : json.require_array("warnings")) {
    if (!text.is_string())
      throw std::runtime_error(fmt::format("{}: warnings must hold texts, found {}", json.where(), text.dump()));
    warnings.push_back(text.get<std::string>());
  }
  return warnings;
}

StepMetrics read_step(const JsonReader& json) {
  StepMetrics row;
  row.step = json.require_int("step", 0, any_count);
  row.tokens = json.optional_int("tokens", 0, any_count).value_or(0);
  row.targets = json.optional_int("targets", 0, any_count).value_or(0);
  read_numbers(json, row);
  row.aux_loss_coef = read_coefficients(json);
  row.expert_load = read_expert_load(json);
  read_layers(json, row.by_layer);
  row.peak_memory_bytes = static_cast<std::uint64_t>(json.optional_int("peak_memory_bytes", 0, any_count).value_or(0));
  row.peak_device_memory_bytes =
      static_cast<std::uint64_t>(json.optional_int("peak_device_memory_bytes", 0, any_count).value_or(0));
  row.skipped_steps = json.optional_int("skipped_steps", 0, any_count).value_or(0);
  row.forced_routing = json.optional_string("forced_routing").value_or("");
  if (json.has("bytes_sent")) {
    const JsonReader sent = json.require_object("bytes_sent");
    for (const auto& [label, unused] : sent.object().items())
      row.bytes_sent[label] = sent.require_int(label, 0, any_count);
  }
  row.warnings = read_warnings(json);
  return row;
}

std::vector<EvalMetrics> read_eval(const JsonReader& json) {
  std::vector<EvalMetrics> rows;
  const JsonReader sources = json.require_object("eval");
  for (const auto& [name, unused] : sources.object().items()) {
    const JsonReader source = sources.require_object(name);
    EvalMetrics& row = rows.emplace_back();
    row.step = json.require_int("step", 0, any_count);
    row.source = name;
    row.tokens = source.optional_int("tokens", 0, any_count).value_or(0);
    read_numbers(source, row);
  }
  return rows;
}

}  // namespace

std::string keep_rows_to(std::int64_t step, std::string_view content, const std::filesystem::path& file) {
  std::string kept;
  visit_lines(content, [&](std::string_view line, std::int64_t number, bool finished) {
    const std::optional<Json> row = parse_row(line, finished, fmt::format("{}:{}", file.string(), number));
    if (row && row->at("step").get<std::int64_t>() <= step) kept.append(line).append("\n");
  });
  return kept;
}

MetricsLog read_metrics(const std::filesystem::path& file) {
  MetricsLog log;
  const std::string content = read_file(file, max_metrics_bytes);
  visit_lines(content, [&](std::string_view line, std::int64_t number, bool finished) {
    const std::string where = fmt::format("{}:{}", file.string(), number);
    const std::optional<Json> row = parse_row(line, finished, where);
    if (!row) return;
    const JsonReader json(*row, where);
    if (json.has("eval")) {
      for (EvalMetrics& source : read_eval(json)) log.evals.push_back(std::move(source));
    } else {
      log.steps.push_back(read_step(json));
    }
  });
  return log;
}

}  // namespace smoe
