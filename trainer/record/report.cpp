#include "trainer/record/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <stdexcept>

#include "data/files/files.h"
#include "data/files/json.h"
#include "trainer/record/line_styles.h"
#include "trainer/record/metrics_rows.h"
#include "trainer/record/report_assets.h"
#include "trainer/record/report_config.h"
#include "trainer/record/report_page.h"

namespace smoe {

namespace {

// Points in time that the expert-load maps show; more would not be seen on a screen and make the page large.
constexpr std::size_t max_load_columns = 240;

void append_column(Json& columns, const std::string& key, Json value) { columns[key].push_back(std::move(value)); }

double mean_of(const std::vector<double>& values) {
  if (values.empty()) return not_measured;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Json step_columns(const std::map<std::int64_t, StepMetrics>& rows) {
  Json columns = {{"step", Json::array()}};
  std::map<std::string, bool> measured;  // of what not every run has
  for (const auto& [step, row] : rows) {
    append_column(columns, "step", step);
    append_column(columns, "tokens", row.tokens);
    append_column(columns, "peak_memory_bytes", row.peak_memory_bytes);
    if (row.peak_device_memory_bytes > 0)
      append_column(columns, "peak_device_memory_bytes", row.peak_device_memory_bytes);
    append_column(columns, "skipped_steps", row.skipped_steps);
    visit_numbers(row, [&columns](const char*, const char* key, double value) {
      append_column(columns, key, rounded(value, 6));
    });
    visit_layers(row.by_layer, [&](const char* object, const char* key, const std::vector<double>& values) {
      const std::string path = path_of(object, key);
      measured[path] |= !values.empty();
      append_column(columns, path, rounded(mean_of(values), 6));
    });
    measured["aux_loss_coef"] |= !row.aux_loss_coef.empty();
    append_column(columns, "aux_loss_coef", rounded(mean_of(row.aux_loss_coef), 6));
  }
  for (const auto& [key, is_there] : measured)
    if (!is_there) columns.erase(key);
  return columns;
}

// [{"step": of the row, "text": ...}]
Json warnings_of(const std::map<std::int64_t, StepMetrics>& rows) {
  Json warnings = Json::array();
  for (const auto& [step, row] : rows)
    for (const std::string& text : row.warnings) warnings.push_back({{"step", step}, {"text", text}});
  return warnings;
}

bool coefficients_by_layer(const std::map<std::int64_t, StepMetrics>& rows) {
  return std::any_of(rows.begin(), rows.end(), [](const auto& row) { return row.second.aux_loss_coef.size() > 1; });
}

Json eval_columns(const std::vector<EvalMetrics>& rows) {
  std::map<std::string, std::map<std::int64_t, EvalMetrics>> sources;
  for (const EvalMetrics& row : rows) sources[row.source][row.step] = row;
  Json result = Json::array();
  for (const auto& [name, steps] : sources) {
    Json columns = {{"source", name}};
    for (const auto& [step, row] : steps) {
      append_column(columns, "step", step);
      append_column(columns, "tokens", row.tokens);
      visit_numbers(row, [&columns](const char*, const char* key, double value) {
        append_column(columns, key, rounded(value, 6));
      });
    }
    result.push_back(std::move(columns));
  }
  return result;
}

// {"step": [n], "load": [n][layers][experts]} at up to max_load_columns steps, evenly spread, the last among them.
Json load_maps(const std::map<std::int64_t, StepMetrics>& rows) {
  std::vector<const StepMetrics*> measured;
  for (const auto& [step, row] : rows) {
    if (!row.expert_load.empty()) measured.push_back(&row);
  }
  Json steps = Json::array();
  Json load = Json::array();
  const std::size_t count = std::min(measured.size(), max_load_columns);
  for (std::size_t i = 0; i < count; ++i) {
    const StepMetrics& row = *measured[(i + 1) * measured.size() / count - 1];
    Json layers = Json::array();
    for (const std::vector<double>& layer : row.expert_load) {
      Json shares = Json::array();
      for (const double share : layer) shares.push_back(rounded(share, 4));
      layers.push_back(std::move(shares));
    }
    steps.push_back(row.step);
    load.push_back(std::move(layers));
  }
  return {{"step", steps}, {"load", load}};
}

// How experts were forced on tokens, if it was so in any row.
Json forced_routing(const std::map<std::int64_t, StepMetrics>& rows) {
  for (const auto& [step, row] : rows)
    if (!row.forced_routing.empty()) return row.forced_routing;
  return nullptr;
}

Json run_data(const std::filesystem::path& run_dir, const std::string& name) {
  const std::filesystem::path metrics = run_dir / "metrics.jsonl";
  const std::filesystem::path config_file = run_dir / "config.resolved.yaml";
  if (!std::filesystem::is_directory(run_dir)) {
    throw std::runtime_error(
        fmt::format("no run directory {}: expected the output_dir of a training run", run_dir.string()));
  }
  if (!std::filesystem::exists(metrics)) {
    throw std::runtime_error(
        fmt::format("no metrics.jsonl in {}: it is not a run directory, or its run has not logged "
                    "a step yet (log.interval)",
                    run_dir.string()));
  }
  const MetricsLog log = read_metrics(metrics);
  std::map<std::int64_t, StepMetrics> steps;
  for (const StepMetrics& row : log.steps) steps[row.step] = row;

  Json run = {{"name", name},
              {"steps", step_columns(steps)},
              {"evals", eval_columns(log.evals)},
              {"expert_load", load_maps(steps)},
              {"warnings", warnings_of(steps)},
              {"coefficients_by_layer", coefficients_by_layer(steps)},
              {"config", Json::array()},
              {"parameters", nullptr},
              {"forced_routing", forced_routing(steps)}};
  if (std::filesystem::exists(config_file)) {
    const FlatConfig config = flatten_config(read_file(config_file, 16 << 20));
    for (const auto& [key, value] : config) run["config"].push_back({key, value});
    if (const std::optional<ParameterCounts> counts = parameters_of_run(config, run_dir)) {
      run["parameters"] = {{"total", counts->total}, {"active", counts->active}};
    }
  }
  return run;
}

// The last `components` parts of a run directory's path; "./" and a trailing slash aside.
std::string path_tail(const std::filesystem::path& run_dir, int components) {
  std::filesystem::path rest = std::filesystem::absolute(run_dir).lexically_normal();
  if (!rest.has_filename()) rest = rest.parent_path();
  std::filesystem::path tail = rest.filename();
  for (; components > 1 && rest.parent_path().has_filename(); --components) {
    rest = rest.parent_path();
    tail = rest.filename() / tail;
  }
  return tail.string();
}

// What the charts show of measures by layer: means over the layers.
Json layer_charts() {
  return {{"balance/sequence", "Balance of sequences", "mean of layers; 1 is balance"},
          {"balance/micro_batch", "Balance of micro-batches", "mean of layers; 1 is balance"},
          {"balance/global_batch", "Balance of steps", "mean of layers; 1 is balance"},
          {"max_vio_interval", "MaxVio between rows", "mean of layers; 0 is balance"},
          {"changed_assignments", "Changed assignments", "share of a fixed batch's since the last row, mean of layers"},
          {"dropped_assignments", "Dropped assignments", "a layer and step"},
          {"rank_load", "Busiest rank", "rows over the mean rank's, mean of layers"},
          {"router_mean_entropy", "Entropy of the mean router", "of ln E, mean of layers; 1 is balance"},
          {"router_entropy", "Entropy of the router", "a token, of ln E, mean of layers"},
          {"router_logit_norm", "Router logits", "L2 norm a token, mean of layers"},
          {"router_margin", "Margin of the choice", "last chosen over the next, mean of layers"},
          {"router_gradient/lm", "Gate gradient: language model", "norm, mean of layers"},
          {"router_gradient/balance", "Gate gradient: balance loss", "norm, mean of layers"},
          {"router_gradient/z", "Gate gradient: z loss", "norm, mean of layers"},
          {"router_gradient_cosine/lm_balance", "Language model and balance", "cosine at the gate, mean of layers"},
          {"router_gradient_cosine/lm_z", "Language model and z loss", "cosine at the gate, mean of layers"},
          {"router_gradient_cosine/balance_z", "Balance and z loss", "cosine at the gate, mean of layers"}};
}

// As few last parts of the paths as tell the runs apart; the same directory given twice is numbered.
std::vector<std::string> names_of(const std::vector<std::filesystem::path>& run_dirs) {
  constexpr int most_components = 16;
  std::vector<std::string> names(run_dirs.size());
  for (int components = 1; components <= most_components; ++components) {
    for (std::size_t i = 0; i < names.size(); ++i) names[i] = path_tail(run_dirs[i], components);
    if (std::set<std::string>(names.begin(), names.end()).size() == names.size()) return names;
  }
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = fmt::format("{} ({})", path_tail(run_dirs[i], 1), i + 1);
  return names;
}

// As many as the fullest chart has lines: the runs, or one run's training loss and its evaluation sources.
Json line_styles(const Json& runs) {
  std::size_t lines = runs.size();
  for (const Json& run : runs) lines = std::max(lines, run.at("evals").size() + 1);
  Json styles = Json::array();
  for (std::size_t i = 0; i < lines; ++i) {
    const LineStyle style = line_style(i);
    styles.push_back({{"light", style.light}, {"dark", style.dark}, {"dash", style.dash}});
  }
  return styles;
}

}  // namespace

std::string render_report(const std::vector<std::filesystem::path>& run_dirs) {
  if (run_dirs.empty()) throw std::logic_error("a report needs at least one run");
  const std::vector<std::string> names = names_of(run_dirs);
  Json runs = Json::array();
  for (std::size_t i = 0; i < run_dirs.size(); ++i) runs.push_back(run_data(run_dirs[i], names[i]));

  const std::string title =
      names.size() == 1 ? names.front() : fmt::format("{} runs: {}", names.size(), fmt::join(names, ", "));
  return fill_page(
      report_assets::page,
      {{"TITLE", escape_html(title)},
       {"STYLE", fmt::format("{}{}", report_assets::charts_style, report_assets::style)},
       {"CHARTS", std::string(report_assets::charts)},
       {"DATA",
        script_safe_json({{"runs", runs}, {"line_styles", line_styles(runs)}, {"layer_charts", layer_charts()}})},
       {"NUMBERS", fmt::format("{}{}", report_assets::numbers, report_assets::elements)},
       {"SCRIPT", std::string(report_assets::script)}});
}

void write_report(const std::vector<std::filesystem::path>& run_dirs, const std::filesystem::path& out_html) {
  const std::string page = render_report(run_dirs);
  try {
    write_file_atomically(out_html, page);
  } catch (const std::runtime_error& error) {  // which names a temporary file
    throw std::runtime_error(fmt::format("cannot write the report {}: {}; its directory must exist and be writable",
                                         out_html.string(), error.what()));
  }
}

}  // namespace smoe
