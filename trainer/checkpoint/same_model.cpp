#include "trainer/checkpoint/same_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <utility>

#include "data/files/json.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/hf_rope.h"

namespace smoe {
namespace {

// Names and values of the fields that it visits; what is absent is null.
class FieldTexts {
 public:
  void path(const char* name, const std::optional<std::string>& value) { add(name, value.value_or("null")); }
  void integer(const char* name, std::int64_t value, std::string_view) { add(name, fmt::format("{}", value)); }
  void integer(const char* name, const std::optional<std::int64_t>& value, std::string_view) {
    add(name, value ? fmt::format("{}", *value) : "null");
  }
  void number(const char* name, double value, std::string_view) {
    add(name, fmt::format("{}", value));
  }  // reads back exactly
  void flag(const char* name, bool value) { add(name, value ? "true" : "false"); }
  template <class Enum>
  void choice(const char* name, Enum value) {
    for (const auto& [choice, text] : choices(value))
      if (choice == value) add(name, std::string(text));
  }

  void add(const char* name, std::string text) { fields_.emplace_back(name, std::move(text)); }
  const std::vector<std::pair<std::string, std::string>>& fields() const { return fields_; }

 private:
  std::vector<std::pair<std::string, std::string>> fields_;
};

FieldTexts texts_of(ModelConfig model) {
  FieldTexts texts;
  model.head_dim = model.head_size();  // spelled out or not
  ModelConfig::visit_fields(std::as_const(model), texts);
  texts.add("rope_scaling", dump_json(hf_rope_scaling(model)));  // without keys, so that no visitor comes to it
  return texts;
}

}  // namespace

std::vector<ModelDifference> differences(const ModelConfig& first, const ModelConfig& second) {
  const FieldTexts a = texts_of(first), b = texts_of(second);
  std::vector<ModelDifference> found;
  for (std::size_t i = 0; i < a.fields().size(); ++i) {
    const auto& [field, text] = a.fields()[i];
    const std::string& other = b.fields()[i].second;
    if (text != other &&
        std::find(fields_that_may_differ.begin(), fields_that_may_differ.end(), field) == fields_that_may_differ.end())
      found.push_back({field, text, other});
  }
  return found;
}

void check_same_model(const std::filesystem::path& checkpoint, const ModelConfig& expected) {
  std::vector<std::string> lines;
  for (const ModelDifference& d : differences(read_hf_config(checkpoint / "model").model, expected))
    lines.push_back(fmt::format("model.{}: the checkpoint has {}, the configuration {}", d.field, d.first, d.second));
  if (lines.empty()) return;
  throw std::runtime_error(fmt::format(
      "{}: holds another model than the configuration describes:\n  {}\nresume with the configuration it was made with, choose another "
      "train.output_dir, or start afresh with checkpoint.resume=never",
      checkpoint.string(), fmt::join(lines, "\n  ")));
}

}  // namespace smoe
