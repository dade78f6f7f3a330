#include "trainer/checkpoint/same_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smoe {
namespace {

// Gives one of the fields that it visits another value.
class ChangeOne {
 public:
  explicit ChangeOne(std::size_t which) : left_(which) {}
  void path(const char* name, std::optional<std::string>& value) {
    if (is_the_one(name)) value = "elsewhere";
  }
  void integer(const char* name, std::int64_t& value, std::string_view) {
    if (is_the_one(name)) value += 8;
  }
  void integer(const char* name, std::optional<std::int64_t>& value, std::string_view) {
    if (is_the_one(name)) value = 18;
  }
  void number(const char* name, double& value, std::string_view) {
    if (is_the_one(name)) value *= 1 + 1e-12;
  }
  void flag(const char* name, bool& value) {
    if (is_the_one(name)) value = !value;
  }
  void choice(const char* name, Score& value) {
    if (is_the_one(name)) value = Score::sigmoid;
  }
  std::string changed;  // its name

 private:
  bool is_the_one(const char* name) {
    if (left_-- != 0) return false;
    changed = name;
    return true;
  }
  std::size_t left_;
};

// The default model with one member changed, for each of its members by name.
std::map<std::string, ModelConfig> changed_models() {
  std::map<std::string, ModelConfig> models;
  for (std::size_t which = 0;; ++which) {
    ModelConfig model;
    ChangeOne change(which);
    ModelConfig::visit_fields(model, change);
    if (change.changed.empty()) break;
    models.emplace(change.changed, model);
  }
  models["rope_scaling"].rope_scaling.type = RopeType::linear;
  models["sliding_window_given"].sliding_window_given = true;
  return models;
}

bool may_differ(const std::string& field) {
  return std::find(fields_that_may_differ.begin(), fields_that_may_differ.end(), field) != fields_that_may_differ.end();
}

TEST(SameModel, EveryFieldIsComparedOrNamedAsOneThatMayDiffer) {
  const auto models = changed_models();
  for (const auto& [field, other] : models) {
    EXPECT_NE(other, ModelConfig{}) << field;
    const auto found = differences(ModelConfig{}, other);
    if (may_differ(field)) {
      EXPECT_TRUE(found.empty()) << field;
      continue;
    }
    // The width and the number of heads are also the size of the heads.
    const bool head = field == "hidden_size" || field == "num_attention_heads";
    ASSERT_EQ(found.size(), head ? 2u : 1u) << field;
    EXPECT_EQ(found.front().field, field);
    EXPECT_NE(found.front().first, found.front().second);
  }
  for (const auto field : fields_that_may_differ) EXPECT_TRUE(models.contains(std::string(field))) << field;
  // One name a member, or this does not compile: a new field is compared, or said to be one that may differ.
  [[maybe_unused]] const auto& [from, vocabulary, hidden, intermediate, layers, heads, kv_heads, head_dim, experts,
                                top_k, positions, scores, renormalised, scale, theta, scaling, epsilon, range, window,
                                window_given] = ModelConfig{};
  EXPECT_EQ(models.size(), 20u);
}

TEST(SameModel, ASizeOfHeadsMayBeSpelledOutOrNot) {
  ModelConfig spelled;
  spelled.head_dim = spelled.head_size();
  EXPECT_TRUE(differences(ModelConfig{}, spelled).empty());
  spelled.head_dim = 32;
  const auto found = differences(ModelConfig{}, spelled);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].field, "head_dim");
  EXPECT_EQ(found[0].first, "64");
  EXPECT_EQ(found[0].second, "32");
}

TEST(SameModel, AnAbsentWindowIsNull) {
  ModelConfig windowed;
  windowed.sliding_window = 128;
  const auto found = differences(windowed, ModelConfig{});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].first, "128");
  EXPECT_EQ(found[0].second, "null");
}

}  // namespace
}  // namespace smoe
