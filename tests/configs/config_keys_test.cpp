// Freezes the keys, what they accept and their defaults: a new key is a decision, taken in keys.txt.
#include <fmt/format.h>

#include <fstream>
#include <sstream>

#include "configs/yaml_printer.h"
#include "tests/configs/config_test_support.h"

namespace smoe {
namespace {

TEST(ConfigKeys, AreThoseOfKeysTxt) {
  std::string keys;
  for (const FieldText& field : describe_fields(
           parse_config("train: {steps: 0}", "NAME.yaml", {"train.steps=1000", "data.train=[{path: PATH}]"}))) {
    keys += fmt::format("{}: {}; default {}\n", field.key, field.expects, field.value);
  }
  std::ifstream file(SMOE_SOURCE_DIR "/tests/configs/keys.txt");
  std::stringstream frozen;
  frozen << file.rdbuf();
  EXPECT_EQ(keys, frozen.str()) << "If the change is meant, write the new list to tests/configs/keys.txt.";
}

}  // namespace
}  // namespace smoe
