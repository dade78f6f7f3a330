// parse, print, parse: what a configuration prints reads back to the same one.
#include <stdlib.h>

#include <algorithm>
#include <string>
#include <vector>

#include "configs/yaml_printer.h"
#include "configs/yaml_reader.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {
namespace {

constexpr const char* source = "fuzz.yaml";

std::vector<std::string> lines_of_text(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    lines.emplace_back(line);
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  return lines;
}

}  // namespace

bool run_config(std::string_view input) {
  ::setenv("HOME", "/the/home", 1);
  const std::vector<std::string> overrides = lines_of_text(take_before_nul(input));
  RunConfig config;
  if (!reads([&] { config = parse_config(input, source, overrides); })) return false;
  RunConfig again;
  const std::string printed = print_yaml(config);
  require(reads([&] { again = parse_config(printed, source); }), "a printed configuration is read:\n" + printed);
  require(again == config, "a printed configuration reads back to itself:\n" + printed);
  return true;
}

}  // namespace smoe::fuzz
