#include "data/files/json.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "data/files/json_place.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using test::expect_refused;

TEST(Json, ParsesWhatTheLibraryParses) {
  const std::string text =
      R"( {"a": [1, -2, 3.5, true, false, null, "x\u00e9\n"], "b": {"c": {}, "d": []}, "e": 18446744073709551615} )";
  EXPECT_EQ(parse_json(text, "f"), Json::parse(text));
  EXPECT_EQ(parse_json("7", "f"), Json(7));
}

RC_GTEST_PROP(Json, DoublesReadBackExactly, (std::uint64_t bits)) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  RC_PRE(std::isfinite(value));
  const double back = parse_json(dump_json(Json(value)), "f").get<double>();
  RC_ASSERT(std::memcmp(&back, &value, sizeof value) == 0);
}

RC_GTEST_PROP(Json, FloatsReadBackExactly, (std::uint32_t bits)) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  RC_PRE(std::isfinite(value));
  const auto back = static_cast<float>(parse_json(dump_json(OrderedJson(value)), "f").get<double>());
  RC_ASSERT(std::memcmp(&back, &value, sizeof value) == 0);
}

TEST(Json, WrittenFileReadsBack) {
  test::ScratchDir scratch;
  const Json value = {{"name", "caf\u00e9"}, {"list", {1, 2.5, nullptr}}};
  write_json_file(scratch / "f.json", value);
  EXPECT_EQ(read_json_file(scratch / "f.json"), value);
  EXPECT_EQ(test::slurp(scratch / "f.json").back(), '\n');
}

TEST(Json, NonFiniteNumbersAreTakenWhereTheyAreAllowed) {
  const std::string text = R"([NaN, Infinity, -Infinity, "NaN", "a\"NaN", 1.5, {"Infinity": NaN}, 0.0])";
  const Json value = parse_json(text, "f", {.allow_non_finite = true});
  EXPECT_TRUE(std::isnan(value[0].get<double>()));
  EXPECT_EQ(value[1].get<double>(), std::numeric_limits<double>::infinity());
  EXPECT_EQ(value[2].get<double>(), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(value[3], "NaN");
  EXPECT_EQ(value[4], "a\"NaN");
  EXPECT_EQ(value[5], 1.5);
  EXPECT_TRUE(std::isnan(value[6]["Infinity"].get<double>()));
  EXPECT_EQ(value[7], 0.0);
  for (const char* strict : {"[NaN]", "[Infinity]", "{\"a\": -Infinity}"})
    expect_refused([&] { parse_json(strict, "config.json"); }, {"config.json:1:", "not valid JSON"});
  for (const char* wrong : {"[NaNa]", "[1NaN]", "[nan]", "[Inf]", "[infinity]", "NaN NaN", "[_NaN]"})
    expect_refused([&] { parse_json(wrong, "f", {.allow_non_finite = true}); }, {"f:1:", "not valid JSON"});
}

TEST(Json, PositionsCountFromWhereTheTextBegins) {
  expect_refused([] { parse_json("{\"a\": x}", "f", {}, {7, 5}); }, {"f:7:11: not valid JSON"});
  expect_refused([] { parse_json("{\"a\":\n x}", "f", {}, {7, 5}); }, {"f:8:2: not valid JSON"});
  expect_refused(
      [] {
        parse_json("{\"n\": NaN, \"a\": x}", "f", {.allow_non_finite = true}, {7, 5});
      },
      {"f:7:21: not valid JSON"});
}

TEST(JsonReader, ReadsEveryType) {
  const Json value = parse_json(
      R"({"i": -3, "u": 18446744073709551615, "x": 0.5, "n": 2, "b": true, "s": "t", "a": [1], "o": {"k": 1}, "z": null})",
      "f");
  const JsonReader reader(value, "f");
  EXPECT_EQ(reader.require_int("i", -5, 5), -3);
  EXPECT_EQ(reader.require_u64("u"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(reader.require_number("x"), 0.5);
  EXPECT_EQ(reader.require_number("n"), 2.0);
  EXPECT_EQ(reader.require_bool("b"), true);
  EXPECT_EQ(reader.require_string("s"), "t");
  EXPECT_EQ(reader.require_array("a").size(), 1u);
  EXPECT_EQ(reader.require_object("o").require_int("k", 0, 9), 1);
  EXPECT_EQ(reader.optional_int("i", -5, 5), -3);
  EXPECT_EQ(reader.optional_int("z", 0, 1), std::nullopt);
  EXPECT_EQ(reader.optional_number("absent"), std::nullopt);
  EXPECT_EQ(reader.optional_string("s"), "t");
  EXPECT_EQ(reader.optional_bool("b"), true);
  EXPECT_FALSE(reader.optional_object("z").has_value());
  EXPECT_TRUE(reader.optional_object("o").has_value());
  EXPECT_NO_THROW(reader.refuse_other_keys({"i", "u", "x", "n", "b", "s", "a", "o", "z"}));
}

TEST(JsonReaderBadInput, NumbersAreNeverConvertedSilently) {
  const Json value = parse_json(R"({"big": 18446744073709551616, "max": 18446744073709551615, "neg": -1, "frac": 1.5,
                                    "whole": 1.0, "exp": 1e3, "flag": true, "text": "1", "odd": 9007199254740993})",
                                "c.json");
  const JsonReader reader(value, "c.json");
  constexpr auto lowest = std::numeric_limits<std::int64_t>::min(), highest = std::numeric_limits<std::int64_t>::max();
  for (const char* key : {"big", "max", "frac", "whole", "exp", "flag", "text"})
    expect_refused([&] { reader.require_int(key, lowest, highest); }, {"c.json", key, "an integer from"});
  for (const char* key : {"big", "neg", "frac", "whole", "flag", "text"})
    expect_refused([&] { reader.require_u64(key); }, {"c.json", key, "2^64 - 1"});
  for (const char* key : {"flag", "text"}) expect_refused([&] { reader.require_number(key); }, {key, "a number"});
  expect_refused([&] { reader.require_number("odd"); }, {"9007199254740993", "to 9007199254740992"});
  expect_refused([&] { reader.require_int("neg", 0, 5); }, {"\"neg\": found -1, expected an integer from 0 to 5"});
  expect_refused([&] { reader.optional_int("frac", 0, 5); }, {"found 1.5"});
}

TEST(JsonReaderBadInput, WrongTypesMissingAndUnknownKeysAreNamed) {
  const Json value = parse_json(R"({"o": {"n": 1}, "s": "x"})", "c.json");
  const JsonReader reader(value, "c.json");
  expect_refused([&] { reader.require_int("gone", 0, 1); }, {"c.json", "\"gone\" is missing"});
  expect_refused([&] { reader.require_object("o").require_string("n"); },
                 {"c.json: \"o\": \"n\": found 1, expected a string"});
  expect_refused([&] { reader.require_bool("s"); }, {"the string \"x\"", "true or false"});
  expect_refused([&] { reader.require_array("o"); }, {"found an object", "an array"});
  expect_refused([&] { reader.require_object("s"); }, {"an object"});
  expect_refused([&] { reader.refuse_other_keys({"o"}); }, {"unknown key \"s\"", "expected o"});
  expect_refused([&] { JsonReader(Json::array(), "x.json"); }, {"x.json: found an array, expected an object"});
}

TEST(JsonBadInput, SyntaxErrorsTellLineAndColumn) {
  expect_refused([] { parse_json("{\n  \"a\": 1,\n  \"b\": x\n}", "c.json"); }, {"c.json:3:8: not valid JSON"});
  expect_refused([] { parse_json("", "c.json"); }, {"c.json:1:1"});
  expect_refused([] { parse_json("{} {}", "c.json"); }, {"c.json:1:4"});
  for (const char* text : {"[1,]", "{'a': 1}", "[NaN]", "[01]", "[1.]", "// c\n1", "[\"\xff\"]", "[\"\\ud800\"]",
                           "[1e999]", "\"a", "[\"\n\"]"})
    expect_refused([&] { parse_json(text, "c.json"); }, {"c.json:1:", "not valid JSON"});
  expect_refused([] { parse_json(std::string("{}\0 hidden", 10), "c.json"); }, {"c.json:1:3", "NUL"});
}

TEST(JsonBadInput, DuplicateKeysAreRefusedWithTheirPlace) {
  expect_refused([] { parse_json("{\"a\": 1,\n \"a\": 2}", "c.json"); }, {"c.json:2:5", "\"a\" appears twice"});
  expect_refused([] { parse_json(R"({"x": {"b": [{"k": 1, "\u006b": 2}]}})", "c.json"); }, {"\"k\" appears twice"});
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": {"a": 2}}])", "c.json"));
}

TEST(JsonBadInput, DepthSizeAndCountAreCapped) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(64), "f"));
  expect_refused([&] { parse_json(nested(65), "f"); }, {"f:1:", "deeper than 64"});
  expect_refused([&] { parse_json(std::string(1 << 20, '['), "f"); }, {"deeper than 64"});
  expect_refused([] { parse_json("[1,2,3]", "f", {.max_values = 3}); }, {"more than 3 values"});
  expect_refused([] { parse_json("[1,2,3]", "f", {.max_bytes = 6}); }, {"7 bytes", "at most 6"});
  test::ScratchDir scratch;
  test::spill(scratch / "f.json", "[1,2,3]");
  expect_refused([&] { read_json_file(scratch / "f.json", {.max_bytes = 6}); }, {"f.json", "at most 6"});
}

TEST(JsonBadInput, WritingWhatJsonCannotHoldIsRefused) {
  expect_refused([] { dump_json(Json{{"a", {1.0, std::nan("")}}}); }, {"not-a-number"});
  expect_refused([] { dump_json(OrderedJson(HUGE_VAL)); }, {"infinity"});
  expect_refused([] { dump_json(Json("\xff")); }, {"UTF-8"});
}

TEST(JsonPlace, IsThatOfTheLastThingAMessageNames) {
  const std::string text =
      "{\n  \"a\": {\"x, ]\": [1, \"}\\\"\"],\n \"b\": [\n[],\n  {\"c\": 1}]},\n\"\\u00e9\": 2, \"\xC3\xA8\": {}, \"\": 3, \"m\": [\"p q\",\n \"r s\"]}";
  const auto placed = [&](const std::string& path) { return with_place_in_json("f: " + path, "f", text); };
  EXPECT_EQ(placed("a: found 1"), "f:2:3: a: found 1");
  EXPECT_EQ(placed("\"a\": \"b\": found 1"), "f:3:2: \"a\": \"b\": found 1");
  EXPECT_EQ(placed("a: b[0]: is empty"), "f:4:1: a: b[0]: is empty");
  EXPECT_EQ(placed("a: b[1]: c: found 1"), "f:5:4: a: b[1]: c: found 1");
  EXPECT_EQ(placed("a: \"x, ]\"[1]: found"), "f:2:21: a: \"x, ]\"[1]: found");
  EXPECT_EQ(placed("m: entry 1 (\"r\"): no"), "f:7:2: m: entry 1 (\"r\"): no");
  EXPECT_EQ(placed(quote_for_message("\xC3\xA9") + ": found 2"), "f:6:1: \"\\u00e9\": found 2");
  EXPECT_EQ(placed(quote_for_message("\xC3\xA8") + ": found"), "f:6:14: \"\\u00e8\": found");
  EXPECT_EQ(placed("\"\": found 3"), "f:6:24: \"\": found 3");
  // As far as it goes: what is not there has no place of its own.
  EXPECT_EQ(placed("a: d: found nothing"), "f:2:3: a: d: found nothing");
  EXPECT_EQ(placed("m: entry 2 is no pair"), "f:6:31: m: entry 2 is no pair");
  for (const char* path : {"d: found nothing", "a is not what it was", "found an array", "\"a", "a", ""})
    EXPECT_EQ(placed(path), "f: " + std::string(path));
  EXPECT_EQ(with_place_in_json("g: a: found 1", "f", text), "g: a: found 1");
}

TEST(JsonBadInput, NamesInMessagesAreHarmless) {
  EXPECT_EQ(quote_for_message("a\x1b[31m\n\"\u00e9\x7f\xff"), "\"a\\u001b[31m\\n\\\"\\u00e9\\u007f\\ufffd\"");
  EXPECT_LT(quote_for_message(std::string(100'000, 'a')).size(), 220u);
}

}  // namespace
}  // namespace smoe
