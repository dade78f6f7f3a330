// A configuration as text: YAML that reads back to the same configuration, and the list of its keys.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "configs/run_config.h"

namespace smoe {

struct FieldText {
  std::string key;                                // dotted: optimizer.learning_rate
  std::string expects;                            // an integer in [1, 64], one of a, b, ...
  std::string value;                              // as YAML on one line
  std::optional<std::vector<std::string>> items;  // of a list, one by one
  bool absent = false;                            // of a section that is null: what it would hold
};

// Every key in the order of the interface, with what it accepts and what it holds.
std::vector<FieldText> describe_fields(const RunConfig& config);

// Every key with its value; the reader gives the same struct back. With model.from set, the shape that was
// taken from there is left out, as it must be in a file; so are steps beside epochs.
std::string print_yaml(const RunConfig& config);

// The keys whose values differ, with both values: "optimizer.learning_rate: 0.0003 -> 0.001".
std::vector<std::string> differences(const RunConfig& from, const RunConfig& to);

}  // namespace smoe
