#include "trainer/study/study.h"

#include <fmt/format.h>

#include <array>
#include <stdexcept>

#include "data/files/files.h"
#include "data/files/json.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {
constexpr const char* record_name = "point.json";
constexpr std::array record_states = {PointRecord::Status::left, PointRecord::Status::begun, PointRecord::Status::done,
                                      PointRecord::Status::failed};
}  // namespace

const char* name_of(PointRecord::Status status) {
  switch (status) {
    case PointRecord::Status::left: return "left";
    case PointRecord::Status::begun: return "begun";
    case PointRecord::Status::done: return "done";
    case PointRecord::Status::failed: return "failed";
  }
  return "?";
}

PointRecord read_point_record(const fs::path& point_directory) {
  const fs::path file = point_directory / record_name;
  if (!fs::exists(file)) return {};
  const Json json = read_json_file(file);
  const JsonReader reader(json, file.string());
  reader.refuse_other_keys({"status", "initial_weights", "data_order", "error"});
  PointRecord record;
  const std::string& status = reader.require_string("status");
  for (const PointRecord::Status one : record_states)
    if (status == name_of(one)) record.status = one;
  if (record.status == PointRecord::Status::left)
    throw std::runtime_error(
        fmt::format("{}: status: found {}, expected begun, done or failed: remove the point's directory "
                    "to run it again",
                    file.string(), quote_for_message(status)));
  record.initial_weights = reader.optional_string("initial_weights").value_or("");
  record.data_order = reader.optional_string("data_order").value_or("");
  record.error = reader.optional_string("error").value_or("");
  return record;
}

void write_point_record(const fs::path& point_directory, const PointRecord& record) {
  OrderedJson json = {{"status", name_of(record.status)}};
  if (!record.initial_weights.empty()) json["initial_weights"] = record.initial_weights;
  if (!record.data_order.empty()) json["data_order"] = record.data_order;
  if (!record.error.empty()) json["error"] = record.error;
  make_directories(point_directory);
  write_json_file(point_directory / record_name, json);
}

}  // namespace smoe
