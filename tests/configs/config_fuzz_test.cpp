// Whatever the bytes of a file, the reader returns a configuration or throws ConfigError: it never crashes, hangs or
// lets another exception through.
#include <gtest/gtest.h>
#include <rapidcheck.h>
// after both of the above, which it builds on
#include <rapidcheck/gtest.h>

#include "configs/yaml_printer.h"
#include "tests/configs/config_test_support.h"

namespace smoe {
namespace {

// A legal file with a few pieces overwritten, inserted or removed.
std::string mutated(std::string text) {
  const auto pieces = rc::gen::element<std::string>(":", " ", "\n", "- ", "[", "]", "{", "}", "&a ", "*a", "!!int ",
                                                    "<<: ", "---\n", "?", "|", ">", "#", "'", "\"", "\\", "%", "\t",
                                                    std::string("\0", 1), "\x04", "\xff", "\xef\xbb\xbf", "null", "~",
                                                    ".nan", "1e999", "010", "-1", "true", "model:");
  const int count = *rc::gen::inRange(1, 8);
  for (int i = 0; i < count; ++i) {
    const std::size_t at = *rc::gen::inRange<std::size_t>(0, text.size() + 1);
    const std::size_t erased = *rc::gen::inRange<std::size_t>(0, 6);
    text.replace(at, std::min(erased, text.size() - at), *pieces);
  }
  return text;
}

RC_GTEST_PROP(ConfigBadInputFuzz, MutatedFilesAreReadOrRefused, ()) {
  static const std::string legal = print_yaml(parse_config(minimal_yaml, "c.yaml"));
  const std::string text = mutated(legal);
  RC_LOG() << text;
  try {
    const RunConfig config = parse_config(text, "c.yaml");
    RC_ASSERT(parse_config(print_yaml(config), "c.yaml") == config);
  } catch (const ConfigError& error) {
    RC_ASSERT(!error.problems().empty());
    RC_ASSERT(!std::string(error.what()).empty());
  }
}

RC_GTEST_PROP(ConfigBadInputFuzz, AnyOverrideIsReadOrRefused, ()) {
  const std::string text = mutated(*rc::gen::element<std::string>("train.steps=3", "data.train.0.path=x", "lora=null",
                                                                  "log.dump_steps=[1, 2]", "optimizer.beta1=0.5"));
  RC_LOG() << text;
  try {
    with_overrides({text});
  } catch (const ConfigError& error) {
    RC_ASSERT(!error.problems().empty());
  }
}

}  // namespace
}  // namespace smoe
