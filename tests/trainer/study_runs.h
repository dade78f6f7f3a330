// Studies that a report is made of, written as a sweep writes them.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/files/files.h"
#include "trainer/record/metrics.h"
#include "trainer/study/study.h"

namespace smoe::test {

// What a point's run comes to.
struct PointNumbers {
  double loss = 3;     // held out, on the first source, and of every row of training
  double shift = 0.5;  // of the second source
  double max_vio = 1;  // of every row
  bool evaluated = true;
  std::string weights = "w", data = "d";  // hashes
};

inline constexpr std::int64_t study_steps = 20;

// One layer of two experts: the first has (1 + max_vio) / 2 of the load.
inline void make_point(const Study& study, const StudyPoint& point, const PointNumbers& numbers) {
  const std::filesystem::path directory = study.of_point(point);
  write_point_record(directory, {PointRecord::Status::done, numbers.weights, numbers.data, ""});
  MetricsWriter writer(directory / "metrics.jsonl");
  for (std::int64_t step = 1; step <= point.steps; ++step) {
    StepMetrics row;
    row.step = step;
    row.tokens = 100 * step;
    row.lm_loss = numbers.loss;
    row.tokens_per_sec = 1000;
    row.step_seconds = 0.1;
    row.max_vio = numbers.max_vio;
    row.by_layer.max_vio = {numbers.max_vio};
    row.expert_load = {{(1 + numbers.max_vio) / 2, (1 - numbers.max_vio) / 2}};
    writer.write(row);
    if (numbers.evaluated && step % 10 == 0)
      writer.write(std::vector<EvalMetrics>{
          {.step = step, .source = "books", .loss = numbers.loss, .perplexity = 1, .tokens = 10, .max_vio = 0.5},
          {.step = step, .source = "web", .loss = numbers.loss + numbers.shift, .perplexity = 1, .tokens = 10}});
  }
}

inline void fail_point(const Study& study, const StudyPoint& point, const std::string& error) {
  write_point_record(study.of_point(point), {PointRecord::Status::failed, "w", "d", error});
}

// Every value of router.aux_loss_coef with every seed, none run yet.
inline Study coefficient_study(const std::filesystem::path& directory, const std::vector<std::string>& coefficients,
                               const std::vector<std::string>& seeds) {
  Study study;
  study.directory = directory;
  for (const std::string& coefficient : coefficients)
    for (const std::string& seed : seeds) {
      StudyPoint point;
      point.parameters = {{"router.aux_loss_coef", coefficient}, {"train.seed", seed}};
      point.overrides = point.parameters;
      point.steps = study_steps;
      point.name = "p" + std::to_string(study.points.size());
      study.points.push_back(point);
    }
  return study;
}

}  // namespace smoe::test
