#include "configs/yaml_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <map>
#include <stdexcept>

#include "configs/field_text.h"
#include "configs/overrides.h"
#include "configs/suggest.h"
#include "configs/user_path.h"
#include "configs/validate.h"
#include "configs/yaml_document.h"
#include "configs/yaml_printer.h"
#include "configs/yaml_scalar.h"

namespace smoe {
namespace {

const std::vector<std::string>& all_keys() {
  static const std::vector<std::string> keys = [] {
    std::vector<std::string> names;
    for (const FieldText& field : describe_fields(RunConfig{})) names.push_back(field.key);
    return names;
  }();
  return keys;
}

// Reads the fields of one struct from one map, and refuses whatever else the map holds.
class FieldReader {
 public:
  // prefix: "" for the whole file, "optimizer." for a section.
  FieldReader(const YamlNode& map, std::string prefix, std::vector<ConfigProblem>& problems)
      : map_(map), prefix_(std::move(prefix)), problems_(problems) {
    refuse_duplicates();
  }

  // To be called after the visit, when the names of all fields are known.
  void refuse_unknown() {
    for (std::size_t i = 0; i < map_.keys.size(); ++i) {
      const YamlNode& key = map_.keys[i];
      if (key.kind != YamlNode::Kind::scalar) {
        refuse(key, prefix_, fmt::format("found {} as a key, expected a name", key.described()));
      } else if (std::find(fields_.begin(), fields_.end(), prefix_ + key.text) == fields_.end()) {
        refuse_unknown(key, map_.items[i]);
      }
    }
  }

  template <class Section>
  void section(const char* name, Section& value) {
    const YamlNode* node = take(name);
    if (!node) return;
    if (node->kind != YamlNode::Kind::map) {
      refuse(*node, prefix_ + name, fmt::format("found {}, expected a map of keys", node->described()));
      return;
    }
    read_struct(*node, prefix_ + name + ".", value);
  }

  // null, or a map of keys; an empty one is all defaults.
  template <class Section>
  void optional_section(const char* name, std::optional<Section>& value) {
    const YamlNode* node = take(name);
    if (!node || takes_null(*node, value)) return;
    if (node->kind != YamlNode::Kind::map) return mistyped(*node, name, std::string(expected_optional_section));
    read_struct(*node, prefix_ + name + ".", value.emplace());
  }

  template <class T>
  void path(const char* name, T& value) {
    const YamlNode* node = take(name);
    if (!node || takes_null(*node, value)) return;
    value = node->described();  // of what is refused: one complaint is enough, and an empty path would be another
    if (!is_text(*node, prefix_ + name, expected_text(is_optional<T>))) return;
    try {
      value = expand_path(node->text);
    } catch (const std::runtime_error& error) {
      refuse(*node, prefix_ + name, error.what());
    }
  }

  template <class T>
  void integer(const char* name, T& value, std::string_view interval) {
    const YamlNode* node = take(name);
    if (!node || takes_null(*node, value)) return;
    read_integer(*node, prefix_ + name, value, expected_integer(interval, is_optional<T>));
  }

  template <class T>
  void number(const char* name, T& value, std::string_view interval) {
    const YamlNode* node = take(name);
    if (!node || takes_null(*node, value)) return;
    read_number(*node, prefix_ + name, value, expected_number(interval, is_optional<T>));
  }

  // One number, or a list of some: then `one` is left as it is, else `some` empty.
  void number_or_numbers(const char* name, double& one, std::vector<double>& some, std::string_view interval) {
    const YamlNode* node = take(name);
    if (!node) return;
    const std::string expected = expected_number_or_numbers(interval);
    if (node->kind == YamlNode::Kind::list && !node->items.empty()) {
      some.resize(node->items.size());
      for (std::size_t i = 0; i < some.size(); ++i)
        read_number(node->items[i], fmt::format("{}{}.{}", prefix_, name, i), some[i],
                    expected_number(interval, false));
    } else if (node->kind == YamlNode::Kind::list) {
      mistyped(*node, name, expected + "; this one is empty");
    } else {
      read_number(*node, prefix_ + name, one, expected);
    }
  }

  // A struct of which `type` says what it is: its map, or its type alone where nothing else is given.
  template <class Struct>
  void variant(const char* name, Struct& value) {
    const YamlNode* node = take(name);
    if (!node) return;
    if (node->kind == YamlNode::Kind::map) {
      if (!node->find("type")) mistyped(*node, name, expected_variant(value) + ": type is missing");
      return read_struct(*node, prefix_ + name + ".", value);
    }
    for (const auto& [type, type_name] : choices(value.type)) {
      if (node->kind != YamlNode::Kind::scalar || node->text != type_name) continue;
      value.type = type;
      return;
    }
    mistyped(
        *node, name,
        expected_variant(value) + did_you_mean(nearest(lower_case(node->text), choice_names<decltype(value.type)>())));
  }

  void flag(const char* name, bool& value) {
    const YamlNode* node = take(name);
    if (!node) return;
    const auto parsed = parse_flag(node->text);
    if (parsed && plain(*node)) {
      value = *parsed;
    } else {
      mistyped(*node, name,
               std::string(expected_flag) + (parsed ? without_quotes(*node) : did_you_mean(meant_flag(node->text))));
    }
  }

  template <class Enum>
  void choice(const char* name, Enum& value, std::initializer_list<Enum> = {}) {
    const YamlNode* node = take(name);
    if (!node) return;
    for (const auto& [choice, choice_name] : choices(value)) {
      if (node->kind == YamlNode::Kind::null ? choice_name == "null"
                                             : node->kind == YamlNode::Kind::scalar && node->text == choice_name) {
        value = choice;
        return;
      }
    }
    const std::vector<std::string> names = choice_names<Enum>();
    mistyped(*node, name, expected_choice(names) + did_you_mean(nearest(lower_case(node->text), names)));
  }

  void integers(const char* name, std::vector<std::int64_t>& values, std::string_view interval) {
    const YamlNode* node = take(name);
    if (!node) return;
    if (node->kind != YamlNode::Kind::list) return mistyped(*node, name, expected_integers(interval));
    std::vector<std::int64_t> read(node->items.size());
    bool all_read = true;
    for (std::size_t i = 0; i < read.size(); ++i) {
      const std::string key = fmt::format("{}{}.{}", prefix_, name, i);
      all_read &= read_integer(node->items[i], key, read[i], expected_integer(interval, false));
    }
    if (all_read) values = std::move(read);
  }

  void texts(const char* name, std::vector<std::string>& values) {
    const YamlNode* node = take(name);
    if (!node) return;
    if (node->kind != YamlNode::Kind::list) return mistyped(*node, name, std::string(expected_texts));
    values.clear();
    for (std::size_t i = 0; i < node->items.size(); ++i) {
      const YamlNode& item = node->items[i];
      if (is_text(item, fmt::format("{}{}.{}", prefix_, name, i), expected_text(false))) values.push_back(item.text);
    }
  }

  template <class Struct>
  void list(const char* name, std::vector<Struct>& values) {
    const YamlNode* node = take(name);
    if (!node) return;
    if (node->kind != YamlNode::Kind::list) return mistyped(*node, name, "a list such as [{path: data/train}]");
    values.clear();
    for (std::size_t i = 0; i < node->items.size(); ++i) {
      const YamlNode& item = node->items[i];
      const std::string key = fmt::format("{}{}.{}", prefix_, name, i);
      if (item.kind == YamlNode::Kind::map) {
        read_struct(item, key + ".", values.emplace_back());
      } else {
        refuse(item, key, fmt::format("found {}, expected a map such as {{path: data/train}}", item.described()));
      }
    }
  }

 private:
  void refuse_unknown(const YamlNode& key, const YamlNode& value) {
    std::string written = key.text;  // on the command line: the whole dotted key, of which this is the first part
    const YamlNode* inside = &value;
    while (key.where.command_line && inside->kind == YamlNode::Kind::map && inside->keys.size() == 1) {
      written += "." + inside->keys.front().text;
      inside = &inside->items.front();
    }
    std::string hint;
    if (written != key.text) hint = did_you_mean_dotted(prefix_ + written, all_keys());
    if (hint.empty()) hint = did_you_mean_key(key.text, fields_, all_keys());
    refuse(key, prefix_ + shown(written),
           "unknown key" + (hint.empty() ? ", expected one of " + joined(names()) : hint));
  }

  template <class Struct>
  void read_struct(const YamlNode& map, std::string prefix, Struct& value) {
    FieldReader inside(map, std::move(prefix), problems_);
    Struct::visit_fields(value, inside);
    inside.refuse_unknown();
  }

  // The value of a field, if it is given; its name becomes known either way.
  const YamlNode* take(const char* name) {
    fields_.push_back(prefix_ + name);
    return map_.find(name);
  }

  // For a value that would be one but for its quotes.
  static std::string without_quotes(const YamlNode& node) {
    return fmt::format("; in quotes it is text: write {} without them", node.text);
  }

  static bool plain(const YamlNode& node) { return node.kind == YamlNode::Kind::scalar && !node.quoted; }

  template <class T>
  static bool takes_null(const YamlNode& node, std::optional<T>& value) {
    if (node.kind != YamlNode::Kind::null) return false;
    value.reset();
    return true;
  }
  template <class T>
  static bool takes_null(const YamlNode&, T&) {
    return false;
  }

  bool is_text(const YamlNode& node, const std::string& key, const std::string& expected) {
    const bool scalar = node.kind == YamlNode::Kind::scalar,
               another_type = scalar && !node.quoted && reads_as_another_type(node.text);
    if (scalar && !another_type) return true;
    const std::string hint = another_type ? fmt::format(", in quotes if it is meant: \"{}\"", node.text) : "";
    refuse(node, key, fmt::format("found {}, expected {}{}", node.described(), expected, hint));
    return false;
  }

  template <class T>
  bool read_integer(const YamlNode& node, const std::string& key, T& value, const std::string& expected) {
    const auto parsed = parse_integer(node.text);
    if (parsed && plain(node)) {
      value = *parsed;
      return true;
    }
    const std::string hint = parsed ? without_quotes(node) : did_you_mean(meant_integer(node.text));
    refuse(node, key, fmt::format("found {}, expected {}{}", node.described(), expected, hint));
    return false;
  }

  template <class T>
  void read_number(const YamlNode& node, const std::string& key, T& value, const std::string& expected) {
    const auto parsed = parse_number(node.text);
    if (parsed && plain(node)) {
      value = *parsed;
    } else {
      refuse(node, key,
             fmt::format("found {}, expected {}{}", node.described(), expected, parsed ? without_quotes(node) : ""));
    }
  }

  void refuse_duplicates() {
    std::map<std::string_view, const YamlNode*> seen;
    for (const YamlNode& key : map_.keys) {
      if (key.kind != YamlNode::Kind::scalar) continue;
      const auto [first, is_new] = seen.emplace(key.text, &key);
      if (is_new) continue;
      refuse(key, prefix_ + shown(key.text),
             fmt::format("found again (first on line {}), expected once", first->second->where.line));
    }
  }

  std::vector<std::string> names() const {
    std::vector<std::string> plain_names;
    for (const std::string& field : fields_) plain_names.push_back(field.substr(prefix_.size()));
    return plain_names;
  }

  void mistyped(const YamlNode& node, const char* name, const std::string& expected) {
    refuse(node, prefix_ + name, fmt::format("found {}, expected {}", node.described(), expected));
  }
  void refuse(const YamlNode& node, std::string key, std::string message) {
    if (key.ends_with('.')) key.pop_back();
    problems_.push_back({node.where, std::move(key), std::move(message)});
  }

  const YamlNode& map_;
  std::string prefix_;
  std::vector<ConfigProblem>& problems_;
  std::vector<std::string> fields_;  // dotted keys of the struct's fields, as the visit meets them
};

// Where a dotted key was written, or else the innermost section or list entry around it that was; line 0: nowhere.
ConfigLocation location_of(const YamlNode& root, std::string_view dotted) {
  const YamlNode* node = &root;
  ConfigLocation where;
  while (!dotted.empty()) {
    const std::size_t dot = dotted.find('.');
    const std::string_view part = dotted.substr(0, dot);
    dotted = dot == std::string_view::npos ? std::string_view{} : dotted.substr(dot + 1);
    if (node->kind == YamlNode::Kind::list) {
      const auto index = parse_integer(part);
      if (!index || *index < 0 || *index >= static_cast<std::int64_t>(node->items.size())) break;
      node = &node->items[static_cast<std::size_t>(*index)];
    } else {
      node = node->find(part);
      if (!node) break;
    }
    where = node->where;
  }
  return where;
}

// Weights and shape come from one place: a directory, or the keys of this section. A window is no shape, and derived
// checkpoints carry one by mistake.
void refuse_shape_beside_from(const YamlNode& root, RunConfig& config, std::vector<ConfigProblem>& problems) {
  const YamlNode* model = root.find("model");
  if (!config.model.from || !model) return;
  for (const YamlNode& key : model->keys) {
    if (key.text == "from") continue;
    if (key.text == "sliding_window") {
      config.model.sliding_window_given = true;
      continue;
    }
    problems.push_back(
        {key.where, "model." + shown(key.text),
         fmt::format("found beside model.from, expected it absent: the shape is taken from {}/config.json",
                     shown(*config.model.from))});
  }
}

// A run's length is told in one of two ways. On the command line either takes the place of the other in the file.
void choose_steps_or_epochs(const YamlNode& root, RunConfig& config, std::vector<ConfigProblem>& problems) {
  const YamlNode* train = root.find("train");
  const YamlNode *steps = train ? train->find("steps") : nullptr, *epochs = train ? train->find("epochs") : nullptr;
  if (!steps || !config.train.epochs) return;
  if (epochs->where.command_line == steps->where.command_line) {
    problems.push_back({epochs->where, "train.epochs", "found beside train.steps, expected one of the two"});
  } else if (steps->where.command_line) {
    config.train.epochs.reset();
  } else {
    config.train.steps = TrainConfig().steps;
  }
}

// Routers that nothing trains are not to be balanced: the loss would train the layers below to please them. Unless it is asked
// for.
void choose_balance(const YamlNode& root, RunConfig& config) {
  const YamlNode* router = root.find("router");
  if (!routers_are_trained(config.router, config.lora) && !(router && router->find("aux_loss_coef")))
    config.router.aux_loss_coef = 0;
}

// Where a run is told in epochs, no weight says something: the size decides (DataSource).
void weigh_sources(RunConfig& config) {
  if (!config.train.epochs)
    for (auto* sources : {&config.data.train, &config.data.eval})
      for (DataSource& source : *sources) source.weight = source.weight.value_or(1.0);
}

std::string run_name(const std::string& source) {
  const std::string stem = std::filesystem::path(source).stem().string();
  if (stem.empty() || !is_utf8(stem)) {
    throw ConfigError(source,
                      {{{}, "train.output_dir", "the file's name gives no name for the run, expected this key"}});
  }
  return stem;
}

std::string read_text(const std::filesystem::path& file) {
  const std::string name = file.string();
  const auto refuse = [&](std::string message) { throw ConfigError(name, {{{}, "", std::move(message)}}); };
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) refuse("is a directory, expected a YAML file");
  std::ifstream stream(file, std::ios::binary);
  if (!stream) refuse(fmt::format("cannot be read: {}", std::strerror(errno)));
  std::string text(largest_config_bytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad()) refuse(fmt::format("cannot be read: {}", std::strerror(errno)));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text;
}

}  // namespace

RunConfig parse_config(std::string_view yaml, const std::string& source, const std::vector<std::string>& overrides) {
  if (yaml.size() > largest_config_bytes) {
    throw ConfigError(
        source, {{{}, "", fmt::format("is larger than {} bytes, which no configuration is", largest_config_bytes)}});
  }
  YamlNode root = parse_yaml(yaml, source);
  for (const std::string& text : overrides) apply_override(root, text, source);
  if (root.kind == YamlNode::Kind::null) root.kind = YamlNode::Kind::map;
  if (root.kind != YamlNode::Kind::map) {
    throw ConfigError(source,
                      {{root.where, "", fmt::format("found {}, expected a map of sections", root.described())}});
  }

  RunConfig config;
  config.train.output_dir = "runs/" + run_name(source);
  std::vector<ConfigProblem> problems;
  FieldReader reader(root, "", problems);
  RunConfig::visit_fields(config, reader);
  reader.refuse_unknown();
  refuse_shape_beside_from(root, config, problems);
  choose_steps_or_epochs(root, config, problems);
  choose_balance(root, config);
  weigh_sources(config);
  const auto add = [&](std::vector<ConfigProblem> found) {
    for (ConfigProblem& problem : found) {
      problem.where = location_of(root, problem.key);
      problems.push_back(std::move(problem));
    }
  };
  add(find_range_problems(config));
  // A value that could not be read left its default behind: relations between fields would mislead then.
  if (problems.empty()) add(find_relation_problems(config, /*resolved_model=*/!config.model.from));
  if (!problems.empty()) throw ConfigError(source, std::move(problems));
  return config;
}

RunConfig read_config(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  return parse_config(read_text(file), file.string(), overrides);
}

}  // namespace smoe
