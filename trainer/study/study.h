// A study on disk: the points of a sweep, each a run in a directory of its own, and where they stand.
//
// What is true is in the points' directories. results.jsonl and results.csv are made from them, whole, after every
// point, so that a study that was killed and run again has the files of one that was not, but for `seconds`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trainer/study/sweep_config.h"

namespace smoe {

struct StudyPoint {
  std::string name;
  std::vector<std::pair<std::string, std::string>> parameters;  // key and value, the value as JSON
  std::int64_t steps = 0;                                       // that it trains
  // Keys of the configuration and what it sets them to, as JSON: what `smoe train` takes to make the same run of the base.
  std::vector<std::pair<std::string, std::string>> overrides = {};
};

struct Study {
  std::filesystem::path directory;
  std::vector<StudyPoint> points;
  std::optional<SweepMetric> metric;

  std::filesystem::path of_point(const StudyPoint& point) const { return directory / "points" / point.name; }
  std::filesystem::path results() const { return directory / "results.jsonl"; }
  std::filesystem::path table() const { return directory / "results.csv"; }
};

// What a point's directory says of it, in point.json beside what the run writes.
struct PointRecord {
  enum class Status : std::uint8_t {
    left,   // nothing yet
    begun,  // it has its initial weights, and may have trained
    done,
    failed,
  };
  Status status = Status::left;
  std::string initial_weights;  // hash_of_weights() before the first step
  std::string data_order;       // SHA-256 of describe_stream(), which decides what tokens each step sees
  std::string error;            // of a failed one

  bool operator==(const PointRecord&) const = default;
};

const char* name_of(PointRecord::Status status);

// Throws std::runtime_error where point.json is not what write_point_record() writes.
PointRecord read_point_record(const std::filesystem::path& point_directory);
void write_point_record(const std::filesystem::path& point_directory, const PointRecord& record);

}  // namespace smoe
