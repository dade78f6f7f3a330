// A study's results: one object a finished point in results.jsonl, one row in results.csv, both in the order of the points.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "trainer/record/metrics.h"
#include "trainer/study/study.h"

namespace smoe {

struct PointResult {
  const StudyPoint* point = nullptr;
  PointRecord record = {};                                // done or failed
  double lm_loss = not_measured;                          // of the last step
  double max_vio = not_measured;                          // likewise
  std::vector<std::pair<std::string, double>> eval = {};  // loss by source, after the last step
  double seconds = 0;  // of training, over all that it took: the one thing that is of the clock
};

// Of a point that is done or has failed; none otherwise. Throws std::runtime_error where a done one's metrics.jsonl does
// not reach its last step.
std::optional<PointResult> result_of(const Study& study, const StudyPoint& point);
std::vector<PointResult> results_of(const Study& study);
// Of one that is done, from its rows.
PointResult result_of_done(const Study& study, const StudyPoint& point, const PointRecord& record,
                           const MetricsLog& log);

// Of training, over all rows: each stands for the steps since the one before it.
double training_seconds(const MetricsLog& log);

// The value that a metric names, NaN where the point has none.
double value_of(const PointResult& result, const SweepMetric& metric);
// The best of those that are done; null where none has a value.
const PointResult* best_of(std::span<const PointResult> results, const SweepMetric& metric);

std::string to_json_line(const PointResult& result);
std::string to_csv(const Study& study, std::span<const PointResult> results);

// Both files, whole. Throws std::runtime_error where they cannot be written.
void write_results(const Study& study, std::span<const PointResult> results);

// Holds results.jsonl, where there is one, against the points' own files. Throws std::runtime_error that names line, point
// and key where it says anything else: it was edited, or what it is made from was.
void check_results(const Study& study, std::span<const PointResult> results);

}  // namespace smoe
