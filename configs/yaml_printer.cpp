#include "configs/yaml_printer.h"

#include <fmt/format.h>

#include <initializer_list>
#include <map>

#include "configs/field_text.h"
#include "configs/suggest.h"

namespace smoe {
namespace {

// Writes down every field that it visits.
class FieldDescriber {
 public:
  FieldDescriber(std::string prefix, std::vector<FieldText>& fields) : prefix_(std::move(prefix)), fields_(fields) {}

  template <class Section>
  void section(const char* name, const Section& value) {
    FieldDescriber inside(prefix_ + name + ".", fields_);
    Section::visit_fields(value, inside);
  }
  // Whether it is there, and its keys either way.
  template <class Section>
  void optional_section(const char* name, const std::optional<Section>& value) {
    add(name, std::string(expected_optional_section), value ? "{}" : "null");
    const std::size_t first = fields_.size();
    section(name, value.value_or(Section()));
    for (std::size_t i = first; i < fields_.size(); ++i) fields_[i].absent = !value;
  }
  template <class T>
  void path(const char* name, const T& value) {
    add(name, expected_text(is_optional<T>), yaml_text(value));
  }
  template <class T>
  void integer(const char* name, const T& value, std::string_view interval) {
    add(name, expected_integer(interval, is_optional<T>), yaml_text(value));
  }
  template <class T>
  void number(const char* name, const T& value, std::string_view interval) {
    add(name, expected_number(interval, is_optional<T>), yaml_text(value));
  }
  void number_or_numbers(const char* name, double one, const std::vector<double>& some, std::string_view interval) {
    add(name, expected_number_or_numbers(interval),
        some.empty() ? yaml_text(one) : fmt::format("[{}]", joined(yaml_texts(some))));
  }
  // Its type alone, or a flow map of what it has: {type: linear, to: 0.0, steps: 100}.
  template <class Struct>
  void variant(const char* name, const Struct& value) {
    std::vector<std::string> given;
    for (const FieldText& field : fields_of(value))
      if (field.value != "null" && field.value != "[]") given.push_back(field.key + ": " + field.value);
    add(name, expected_variant(value),
        given.size() == 1 ? yaml_text(value.type) : fmt::format("{{{}}}", joined(given)));
  }
  void flag(const char* name, bool value) { add(name, std::string(expected_flag), yaml_text(value)); }
  template <class Enum>
  void choice(const char* name, Enum value, std::initializer_list<Enum> = {}) {
    add(name, expected_choice(choice_names<Enum>()), yaml_text(value));
  }
  void integers(const char* name, const std::vector<std::int64_t>& values, std::string_view interval) {
    add_list(name, expected_integers(interval), yaml_texts(values));
  }
  void texts(const char* name, const std::vector<std::string>& values) {
    add_list(name, std::string(expected_texts), yaml_texts(values));
  }
  // A list of structs, each as a flow map: {path: a, weight: 1.0}.
  template <class Struct>
  void list(const char* name, const std::vector<Struct>& values) {
    std::vector<std::string> items;
    for (const Struct& value : values) items.push_back(fmt::format("{{{}}}", joined(pairs(value))));
    std::vector<std::string> names;
    for (const FieldText& field : fields_of(Struct{})) names.push_back(field.key);
    add_list(name, fmt::format("a list of {{{}}}", joined(names)), std::move(items));
  }

 private:
  template <class T>
  static std::vector<std::string> yaml_texts(const std::vector<T>& values) {
    std::vector<std::string> items;
    for (const T& value : values) items.push_back(yaml_text(value));
    return items;
  }
  template <class Struct>
  static std::vector<FieldText> fields_of(const Struct& value) {
    std::vector<FieldText> fields;
    FieldDescriber inside("", fields);
    Struct::visit_fields(value, inside);
    return fields;
  }
  template <class Struct>
  static std::vector<std::string> pairs(const Struct& value) {
    std::vector<std::string> texts;
    for (const FieldText& field : fields_of(value))
      if (field.value != "null") texts.push_back(field.key + ": " + field.value);
    return texts;
  }
  void add(const char* name, std::string expects, std::string value) {
    fields_.push_back({prefix_ + name, std::move(expects), std::move(value), std::nullopt, false});
  }
  void add_list(const char* name, std::string expects, std::vector<std::string> items) {
    const std::string value = fmt::format("[{}]", joined(items));
    fields_.push_back({prefix_ + name, std::move(expects), value, std::move(items), false});
  }

  std::string prefix_;
  std::vector<FieldText>& fields_;
};

}  // namespace

std::vector<FieldText> describe_fields(const RunConfig& config) {
  std::vector<FieldText> fields;
  FieldDescriber describer("", fields);
  RunConfig::visit_fields(config, describer);
  return fields;
}

std::string print_yaml(const RunConfig& config) {
  std::string yaml, open_section;
  for (const FieldText& field : describe_fields(config)) {
    const std::size_t dot = field.key.find('.');
    if (field.absent) continue;
    if (dot == std::string::npos) {
      if (field.value != "{}") yaml += fmt::format("{}: {}\n", field.key, field.value);
      continue;
    }
    const std::string section = field.key.substr(0, dot);
    if (section != open_section) yaml += section + ":\n";
    open_section = section;
    const bool beside_from =
        field.key == "model.from" || (field.key == "model.sliding_window" && config.model.sliding_window_given);
    if (section == "model" && config.model.from && !beside_from) continue;
    if (field.key == "train.steps" && config.train.epochs) continue;
    const std::string_view name = last_part(field.key);
    if (field.items && !field.items->empty()) {
      yaml += fmt::format("  {}:\n", name);
      for (const std::string& item : *field.items) yaml += fmt::format("    - {}\n", item);
    } else {
      yaml += fmt::format("  {}: {}\n", name, field.value);
    }
  }
  return yaml;
}

std::vector<std::string> differences(const RunConfig& from, const RunConfig& to) {
  std::vector<std::string> changed;
  const std::vector<FieldText> before = describe_fields(from), after = describe_fields(to);
  for (std::size_t i = 0; i < before.size(); ++i) {  // the list of fields is the same for every configuration
    if (before[i].value == after[i].value || (before[i].absent && after[i].absent)) continue;
    changed.push_back(fmt::format("{}: {} -> {}", before[i].key, before[i].value, after[i].value));
  }
  return changed;
}

}  // namespace smoe
