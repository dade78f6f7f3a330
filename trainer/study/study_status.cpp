#include "trainer/study/study_status.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "data/files/json.h"
#include "trainer/checkpoint/directory_lock.h"
#include "trainer/checkpoint/run_directory.h"
#include "trainer/record/metrics.h"
#include "trainer/record/progress.h"
#include "trainer/study/results.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

// Of the rows that there are.
void read_progress(const RunPaths& paths, PointStatus& status) {
  if (!fs::exists(paths.metrics())) return;
  const MetricsLog log = read_metrics(paths.metrics());
  status.seconds = training_seconds(log);
  status.step = log.steps.empty() ? 0 : log.steps.back().step;
}

double time_to_come(const StudyStatus& status) {
  double seconds = 0, done = 0, left = 0;
  for (const PointStatus& point : status.points) {
    seconds += point.seconds;
    done += static_cast<double>(point.step);
    if (point.status != "failed" && point.status != "done") left += static_cast<double>(point.steps - point.step);
  }
  if (left <= 0) return 0;
  return done > 0 ? seconds / done * left : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

std::int64_t StudyStatus::count(const std::string& wanted) const {
  return std::count_if(points.begin(), points.end(), [&](const PointStatus& point) { return point.status == wanted; });
}

std::string standing_of(const PointRecord& record, const fs::path& point_directory) {
  if (record.status != PointRecord::Status::done && is_locked(point_directory)) return "running";
  return record.status == PointRecord::Status::begun ? "stopped" : name_of(record.status);
}

StudyStatus read_status(const Study& study) {
  StudyStatus status;
  std::vector<PointResult> results;
  for (const StudyPoint& point : study.points) {
    const fs::path directory = study.of_point(point);
    const PointRecord record = read_point_record(directory);
    PointStatus one{
        .name = point.name, .status = standing_of(record, directory), .steps = point.steps, .error = record.error};
    read_progress({directory}, one);
    if (record.status == PointRecord::Status::done || record.status == PointRecord::Status::failed) {
      if (auto result = result_of(study, point)) results.push_back(std::move(*result));
    }
    status.points.push_back(std::move(one));
  }
  status.seconds_to_come = time_to_come(status);
  if (study.metric)
    if (const PointResult* best = best_of(results, *study.metric)) {
      status.best = best->point->name;
      status.best_value = value_of(*best, *study.metric);
    }
  return status;
}

std::string to_text(const Study& study, const StudyStatus& status) {
  std::string text =
      fmt::format("{}: {} points: {} done, {} running, {} failed, {} stopped, {} left; ", study.directory.string(),
                  status.points.size(), status.count("done"), status.count("running"), status.count("failed"),
                  status.count("stopped"), status.count("left"));
  text += std::isnan(status.seconds_to_come) ? "the time to come is not known before the first steps\n"
                                             : format_duration(status.seconds_to_come) + " of training to come\n";
  for (const PointStatus& point : status.points)
    text += fmt::format("  {:<8} {:>8} of {:<8} {}{}\n", point.status, point.step, point.steps, point.name,
                        point.error.empty() ? "" : ": " + point.error);
  if (!status.best.empty())
    text += fmt::format("best by {}: {} ({})\n", study.metric->name, status.best, status.best_value);
  return text;
}

std::string to_json(const Study& study, const StudyStatus& status) {
  const auto number = [](double value) { return std::isfinite(value) ? OrderedJson(value) : OrderedJson(nullptr); };
  OrderedJson points = OrderedJson::array();
  for (const PointStatus& point : status.points) {
    points.push_back({{"point", point.name}, {"status", point.status}, {"step", point.step}, {"steps", point.steps}});
    if (!point.error.empty()) points.back()["error"] = point.error;
  }
  OrderedJson json = {{"study", study.directory.string()}};
  for (const char* one : {"done", "running", "failed", "stopped", "left"}) json[one] = status.count(one);
  json["seconds_to_come"] = number(status.seconds_to_come);
  if (study.metric)
    json["best"] = {{"metric", study.metric->name},
                    {"point", status.best.empty() ? OrderedJson(nullptr) : OrderedJson(status.best)},
                    {"value", number(status.best_value)}};
  json["points"] = points;
  return dump_json(json);
}

}  // namespace smoe
