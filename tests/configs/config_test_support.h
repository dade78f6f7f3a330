// Shared by the tests of configs: the smallest valid file and the messages that a text is refused with.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/yaml_reader.h"

namespace smoe {

inline const std::string minimal_yaml = "data:\n  train: [{path: shards}]\n";

// What the reader says about a text called c.yaml; empty if it accepts it.
inline std::string refusal(std::string_view yaml, const std::vector<std::string>& overrides = {}) {
  try {
    parse_config(yaml, "c.yaml", overrides);
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

// The same for a text that holds what a run must have besides.
inline std::string refusal_of(const std::string& yaml) { return refusal(yaml + "\n" + minimal_yaml); }

inline RunConfig with_overrides(const std::vector<std::string>& overrides) {
  return parse_config(minimal_yaml, "c.yaml", overrides);
}

// HOME for a while; null: not set.
class Home {
 public:
  explicit Home(const char* directory) {
    if (const char* set = std::getenv("HOME")) before_ = set;
    directory ? ::setenv("HOME", directory, 1) : ::unsetenv("HOME");
  }
  ~Home() { before_ ? ::setenv("HOME", before_->c_str(), 1) : ::unsetenv("HOME"); }
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;

 private:
  std::optional<std::string> before_;
};

}  // namespace smoe
