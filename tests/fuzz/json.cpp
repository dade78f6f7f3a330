// Strict JSON: what was read prints to text that reads back to the same value, and every way to ask for a key answers
// or refuses.
#include "data/files/json.h"

#include <cstdlib>
#include <string>

#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {
namespace {

void ask(const Json& value, const std::string& where) {
  if (value.is_array())
    for (const Json& child : value) ask(child, where);
  if (!value.is_object()) return;
  const JsonReader object(value, where);
  for (const auto& [key, child] : value.items()) {
    const std::string& name = key;
    reads([&] { require(std::abs(object.require_int(name, -1000, 1000)) <= 1000, "an integer is in its range"); });
    reads([&] { object.require_u64(name); });
    reads([&] { object.optional_number(name); });
    reads([&] { object.optional_bool(name); });
    reads([&] { object.optional_string(name); });
    reads([&] { object.require_array(name); });
    reads([&] { object.optional_object(name); });
    ask(child, where);
  }
  reads([&] { object.refuse_other_keys({"known"}); });
  reads([&] { object.require_int("absent\x1b[31m", 0, 1); });
}

}  // namespace

bool run_json(std::string_view input) {
  Json value;
  if (!reads([&] {
        value = parse_json(input, "fuzz.json", {.max_bytes = 1 << 20, .max_depth = 64, .max_values = 10'000});
      }))
    return false;
  const std::string text = dump_json(value);
  require(parse_json(text, "printed.json") == value, "printed JSON reads back to itself: " + text);
  require(parse_json(dump_json(value, 2), "indented.json") == value, "indented JSON reads back to itself: " + text);
  ask(value, "fuzz.json");
  return true;
}

}  // namespace smoe::fuzz
