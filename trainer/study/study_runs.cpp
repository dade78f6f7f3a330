#include "trainer/study/study_runs.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "trainer/checkpoint/run_directory.h"
#include "trainer/record/metrics.h"
#include "trainer/router_watch.h"
#include "trainer/study/results.h"
#include "trainer/study/study_numbers.h"
#include "trainer/study/study_status.h"

namespace smoe {
namespace {

constexpr std::int64_t curve_points = 100;
constexpr std::size_t fewest_columns = 8, most_columns = 96;
constexpr std::string_view level_letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

using Rows = std::vector<const StepMetrics*>;  // by step, the last of those that repeat one

Rows rows_by_step(const MetricsLog& log) {
  std::map<std::int64_t, const StepMetrics*> by_step;
  for (const StepMetrics& row : log.steps) by_step[row.step] = &row;
  Rows rows;
  for (const auto& [step, row] : by_step) rows.push_back(row);
  return rows;
}

// Of the last tenth of the steps.
Rows tail_of(const Rows& rows, std::int64_t steps) {
  Rows tail;
  for (const StepMetrics* row : rows)
    if (10 * row->step > 9 * steps) tail.push_back(row);
  return tail;
}

double mean_or_nan(const std::vector<double>& values) { return summarise(values).mean; }

template <class Number>
double mean_over(const Rows& rows, Number&& number) {
  std::vector<double> values;
  for (const StepMetrics* row : rows) values.push_back(number(*row));
  return mean_or_nan(values);
}

// Shares by layer and expert, the mean over the rows that have them; empty where none has, or layers differ in experts.
std::vector<std::vector<double>> mean_load(const Rows& rows) {
  std::vector<std::vector<double>> sum;
  double count = 0;
  for (const StepMetrics* row : rows) {
    if (row->expert_load.empty()) continue;
    if (sum.empty()) sum.assign(row->expert_load.size(), std::vector<double>(row->expert_load.front().size(), 0));
    if (row->expert_load.size() != sum.size()) return {};
    for (std::size_t l = 0; l < sum.size(); ++l) {
      if (row->expert_load[l].size() != sum[l].size()) return {};
      for (std::size_t e = 0; e < sum[l].size(); ++e) sum[l][e] += row->expert_load[l][e];
    }
    ++count;
  }
  for (auto& layer : sum)
    for (double& share : layer) share /= count;
  return sum;
}

double idle_experts(const Rows& tail) {
  const auto load = mean_load(tail);
  if (load.empty()) return not_measured;
  double idle = 0;
  for (const auto& layer : load)
    for (const double share : layer)
      if (share * static_cast<double>(layer.size()) < RouterWatch::idle_share) ++idle;
  return idle;
}

std::map<std::string, double> values_of(const MetricsLog& log, const PointResult& result) {
  const Rows rows = rows_by_step(log), tail = tail_of(rows, result.point->steps);
  const auto by_layer = [&](std::vector<double> LayerMetrics::*list) {
    return mean_over(tail, [&](const StepMetrics& row) { return mean_or_nan(row.by_layer.*list); });
  };
  std::map<std::string, double> values;
  values["lm_loss"] = mean_over(tail, [](const StepMetrics& row) { return row.lm_loss; });
  values["quality"] = value_of(result, {"eval", false});
  values["max_vio"] = mean_over(tail, [](const StepMetrics& row) { return row.max_vio; });
  values["max_vio_mean"] = by_layer(&LayerMetrics::max_vio);
  values["max_vio_interval"] = by_layer(&LayerMetrics::max_vio_interval);
  values["idle_experts"] = idle_experts(tail);
  values["dropped"] = by_layer(&LayerMetrics::dropped);
  values["changed"] = by_layer(&LayerMetrics::changed);
  values["mean_entropy"] = by_layer(&LayerMetrics::mean_entropy);
  values["entropy"] = by_layer(&LayerMetrics::entropy);
  values["rank_load"] = by_layer(&LayerMetrics::rank_load);
  std::vector<double> speeds, held_out;
  for (const StepMetrics* row : rows) speeds.push_back(row->tokens_per_sec);
  values["tokens_per_sec"] = median(speeds);
  values["seconds"] = result.seconds;
  for (const EvalMetrics& row : log.evals)
    if (row.step == result.point->steps) held_out.push_back(row.max_vio);
  values["max_vio_held_out"] = mean_or_nan(held_out);
  for (const auto& [source, loss] : result.eval) values["eval." + source] = loss;
  std::erase_if(values, [](const auto& entry) { return !std::isfinite(entry.second); });
  return values;
}

// Step s of n belongs to part ceil(s count / n) of `count`.
std::int64_t part_of(std::int64_t step, std::int64_t steps, std::int64_t count) {
  return std::clamp<std::int64_t>((step * count + steps - 1) / std::max<std::int64_t>(1, steps), 1, count);
}
std::int64_t end_of_part(std::int64_t part, std::int64_t steps, std::int64_t count) { return part * steps / count; }

// Runs that train as many steps have their parts alike, so that seeds can be averaged point by point.
template <class Number>
RunCurve curve_of(const Rows& rows, std::int64_t steps, Number&& number) {
  std::map<std::int64_t, std::vector<double>> parts;
  const std::int64_t count = std::min(curve_points, std::max<std::int64_t>(1, steps));
  for (const StepMetrics* row : rows) parts[part_of(row->step, steps, count)].push_back(number(*row));
  RunCurve curve;
  for (const auto& [part, values] : parts) {
    const double mean = mean_or_nan(values);
    if (std::isnan(mean)) continue;
    curve.step.push_back(end_of_part(part, steps, count));
    curve.value.push_back(mean);
  }
  return curve;
}

RunCurve eval_curve(const MetricsLog& log) {
  std::map<std::int64_t, std::vector<double>> steps;
  for (const EvalMetrics& row : log.evals) steps[row.step].push_back(row.loss);
  RunCurve curve;
  const auto stride = 1 + (static_cast<std::int64_t>(steps.size()) - 1) / curve_points;
  std::int64_t place = static_cast<std::int64_t>(steps.size());  // counted from the end, so that the last is kept
  for (const auto& [step, losses] : steps) {
    if (--place % stride != 0) continue;
    curve.step.push_back(step);
    curve.value.push_back(mean_or_nan(losses));
  }
  return curve;
}

LoadHistory load_of(const Rows& rows, std::int64_t steps, std::size_t letters) {
  const auto first = std::find_if(rows.begin(), rows.end(), [](const auto* row) { return !row->expert_load.empty(); });
  if (letters == 0 || first == rows.end() || mean_load(rows).empty()) return {};
  LoadHistory history;
  history.layers = (*first)->expert_load.size();
  history.experts = (*first)->expert_load.front().size();
  const std::size_t cells = std::max<std::size_t>(1, history.layers * history.experts);
  const auto count = static_cast<std::int64_t>(std::clamp(letters / cells, fewest_columns, most_columns));
  std::map<std::int64_t, Rows> parts;
  for (const StepMetrics* row : rows)
    if (!row->expert_load.empty()) parts[part_of(row->step, steps, count)].push_back(row);
  history.levels.resize(cells * parts.size());
  std::size_t column = 0;
  for (const auto& [part, members] : parts) {
    const auto load = mean_load(members);
    for (std::size_t l = 0; l < history.layers; ++l)
      for (std::size_t e = 0; e < history.experts; ++e)
        history.levels[(l * history.experts + e) * parts.size() + column] =
            load_level(load[l][e] * static_cast<double>(history.experts));
    history.step.push_back(end_of_part(part, steps, count));
    ++column;
  }
  return history;
}

}  // namespace

char load_level(double multiple) {
  if (!(multiple > 0)) return level_letters.front();
  const double place = (std::clamp(std::log2(multiple), -3.0, 3.0) + 3) / 6;
  return level_letters[1 + static_cast<std::size_t>(std::lround(60 * place))];
}

StudyRun read_study_run(const Study& study, const StudyPoint& point, std::size_t load_letters) {
  const std::filesystem::path directory = study.of_point(point);
  StudyRun run{.point = &point, .record = read_point_record(directory)};
  run.standing = standing_of(run.record, directory);
  if (!run.is_done()) return run;
  const MetricsLog log = read_metrics(RunPaths{directory}.metrics());
  const PointResult result = result_of_done(study, point, run.record, log);
  const Rows rows = rows_by_step(log);
  run.values = values_of(log, result);
  for (const auto& [source, loss] : result.eval) run.sources.push_back(source);
  if (!rows.empty()) run.tokens = rows.back()->tokens;
  run.lm_loss = curve_of(rows, point.steps, [](const StepMetrics& row) { return row.lm_loss; });
  run.max_vio = curve_of(rows, point.steps, [](const StepMetrics& row) { return row.max_vio; });
  run.eval = eval_curve(log);
  run.load = load_of(rows, point.steps, load_letters);
  return run;
}

}  // namespace smoe
