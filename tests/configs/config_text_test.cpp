// The parts that reading and printing are made of: scalars, intervals, quoting, edit distance.
#include <limits>

#include "configs/field_text.h"
#include "configs/suggest.h"
#include "configs/yaml_document.h"
#include "configs/yaml_printer.h"
#include "configs/yaml_scalar.h"
#include "tests/configs/config_test_support.h"

namespace smoe {
namespace {

TEST(ConfigScalar, Integers) {
  EXPECT_EQ(parse_integer("0"), 0);
  EXPECT_EQ(parse_integer("-12"), -12);
  EXPECT_EQ(parse_integer("+12"), 12);
  EXPECT_EQ(parse_integer("9223372036854775807"), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(parse_integer("-9223372036854775808"), std::numeric_limits<std::int64_t>::min());
  for (const char* text : {"", "-", "00", "010", "-010", "0x1", "0o7", "1.0", "1e3", "1_0", " 1", "1 ", "+-1",
                           "9223372036854775808", "one"}) {
    EXPECT_EQ(parse_integer(text), std::nullopt) << text;
  }
}

TEST(ConfigScalar, Numbers) {
  EXPECT_EQ(parse_number("1"), 1.0);
  EXPECT_EQ(parse_number("-1.5e-3"), -1.5e-3);
  EXPECT_EQ(parse_number("+.5"), 0.5);
  EXPECT_EQ(parse_number("5."), 5.0);
  EXPECT_EQ(parse_number("1E+2"), 100.0);
  for (const char* text : {"", ".", "e3", "1e", "1e+", "01", "nan", ".nan", "inf", "-.inf", "0x1p3", "1e999", "1e-999",
                           "1,5", "1.5f", "1 "}) {
    EXPECT_EQ(parse_number(text), std::nullopt) << text;
  }
}

TEST(ConfigScalar, WhatElseReadsAsATypeOfItsOwn) {
  for (const char* text : {"true", "No", "OFF", "null", "~", ".NaN", "12", "-1e3", "010", "0x1F", "0o17", "1_000"}) {
    EXPECT_TRUE(reads_as_another_type(text)) << text;
  }
  for (const char* text : {"data/train", "v1", "1a", "0xyz", "12/34", "nowhere", "e3"}) {
    EXPECT_FALSE(reads_as_another_type(text)) << text;
  }
}

TEST(ConfigInterval, BoundsAreInOrOut) {
  EXPECT_TRUE(contains("[1, 4]", std::int64_t{1}));
  EXPECT_TRUE(contains("[1, 4]", std::int64_t{4}));
  EXPECT_FALSE(contains("[1, 4]", std::int64_t{5}));
  EXPECT_FALSE(contains("(0, inf)", 0.0));
  EXPECT_TRUE(contains("(0, inf)", std::numeric_limits<double>::max()));
  EXPECT_FALSE(contains("[0, 1)", 1.0));
  EXPECT_FALSE(contains("[0, 1)", std::numeric_limits<double>::quiet_NaN()));
  EXPECT_THROW(contains("0..1", 0.5), std::logic_error);
}

TEST(ConfigSuggestion, EditDistanceCountsSwapsOnce) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("beta", "ebta"), 1u);
  EXPECT_EQ(edit_distance("ca", "abc"), 3u);  // 2 under the unrestricted distance
}

TEST(ConfigSuggestion, ForeignNamesPointToKeysThatExist) {
  std::vector<std::string> keys;
  for (const FieldText& field : describe_fields(RunConfig{})) keys.push_back(field.key);
  for (const char* name : {"lr", "router_aux_loss_coef", "gradient_accumulation_steps", "per_device_train_batch_size",
                           "num_experts", "batch_size", "seq_len", "max_steps", "top_k", "save_total_limit"}) {
    const auto ours = foreign_name(name);
    ASSERT_TRUE(ours) << name;
    EXPECT_NE(std::find(keys.begin(), keys.end(), *ours), keys.end()) << *ours;
  }
  for (const std::string& key : all_foreign_targets()) {
    EXPECT_NE(std::find(keys.begin(), keys.end(), key), keys.end()) << key;
  }
}

TEST(ConfigText, TextIsQuotedWhereItMustBe) {
  EXPECT_EQ(yaml_text(std::string("data/train-1_b.x")), "data/train-1_b.x");
  EXPECT_EQ(yaml_text(std::string("true")), "\"true\"");
  EXPECT_EQ(yaml_text(std::string("12")), "\"12\"");
  EXPECT_EQ(yaml_text(std::string("a: b")), "\"a: b\"");
  EXPECT_EQ(yaml_text(std::string("-x")), "\"-x\"");
  EXPECT_EQ(yaml_text(std::string("tab\there \"q\" \\")), "\"tab\\x09here \\\"q\\\" \\\\\"");
}

TEST(ConfigText, DifferencesNameTheKeys) {
  RunConfig from, to;
  to.optimizer.learning_rate = 0.001;
  to.data.train = {{"a b", 2.0}};
  EXPECT_EQ(differences(from, from), std::vector<std::string>{});
  EXPECT_EQ(differences(from, to), (std::vector<std::string>{"data.train: [] -> [{path: \"a b\", weight: 2.0}]",
                                                             "optimizer.learning_rate: 0.0003 -> 0.001"}));
}

}  // namespace
}  // namespace smoe
