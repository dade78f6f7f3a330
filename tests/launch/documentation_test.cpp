// docs/configuration.md against the reader's own list: every key is there once, under its section, with its default.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <regex>
#include <string>

#include "configs/run_config.h"
#include "configs/yaml_printer.h"

namespace smoe {
namespace {

// Dotted key -> default, as the tables say.
std::map<std::string, std::string> documented_defaults(const std::string& file) {
  static const std::regex heading(R"(## (\w+))");
  static const std::regex row(R"(\| `(\w+)` \| ([^|]+) \|.*)");
  std::map<std::string, std::string> keys;
  std::ifstream in(file);
  std::string section;
  std::smatch match;
  for (std::string line; std::getline(in, line);) {
    if (std::regex_match(line, match, heading)) {
      section = match[1];
    } else if (std::regex_match(line, match, row)) {
      const std::string key = match[1] == section ? section : section + "." + std::string(match[1]);
      EXPECT_TRUE(keys.emplace(key, match[2]).second) << key << " is documented twice";
    }
  }
  return keys;
}

bool same_value(const std::string& documented, const std::string& actual) {
  if (documented == actual) return true;
  char* end = nullptr;
  const double a = std::strtod(documented.c_str(), &end);
  if (end == documented.c_str() || *end != '\0') return false;
  const double b = std::strtod(actual.c_str(), &end);
  return end != actual.c_str() && *end == '\0' && a == b;
}

TEST(Documentation, ConfigurationHasEveryKeyWithItsDefault) {
  // What the program fills in, or insists on, is said in words.
  const std::map<std::string, std::string> in_words = {
      {"data.train", "required"}, {"data.eval", "empty"}, {"train.output_dir", "runs/NAME"}};
  std::map<std::string, std::string> documented = documented_defaults(SMOE_SOURCE_DIR "/docs/configuration.md");
  const std::vector<FieldText> fields = describe_fields(RunConfig{});
  ASSERT_GT(fields.size(), 40u);
  for (const FieldText& field : fields) {
    const auto found = documented.find(field.key);
    if (found == documented.end()) {
      ADD_FAILURE() << "docs/configuration.md has no row for " << field.key;
      continue;
    }
    const auto words = in_words.find(field.key);
    if (words != in_words.end()) {
      EXPECT_EQ(found->second, words->second) << field.key;
    } else {
      EXPECT_TRUE(same_value(found->second, field.value))
          << field.key << ": the default is " << field.value << ", docs/configuration.md says " << found->second;
    }
    documented.erase(found);
  }
  for (const auto& [key, _] : documented) ADD_FAILURE() << "docs/configuration.md has " << key << ", which is no key";
}

}  // namespace
}  // namespace smoe
