// Where a study stands, for who asks while it runs or when it does not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "trainer/study/study.h"

namespace smoe {

struct PointStatus {
  std::string name;
  std::string status;      // done, running, failed, stopped (begun, and nobody works on it) or left
  std::int64_t step = 0;   // of the last row of its metrics
  std::int64_t steps = 0;  // that it trains
  double seconds = 0;      // of training so far
  std::string error;       // of a failed one
};

struct StudyStatus {
  std::vector<PointStatus> points;
  double seconds_to_come = std::numeric_limits<double>::quiet_NaN();  // NaN: nothing to tell it by yet
  std::string best;                                                   // the point's name; empty: none
  double best_value = std::numeric_limits<double>::quiet_NaN();

  std::int64_t count(const std::string& status) const;
};

// done, running, failed, stopped or left; the record is that of the point's directory.
std::string standing_of(const PointRecord& record, const std::filesystem::path& point_directory);

// Reads the points' directories, and writes nothing. The time to come is that of the steps that are left of all points
// but failed ones, at the mean time of a step of those that have any.
StudyStatus read_status(const Study& study);

std::string to_text(const Study& study, const StudyStatus& status);
std::string to_json(const Study& study, const StudyStatus& status);  // one line

}  // namespace smoe
