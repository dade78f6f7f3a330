#include "configs/overrides.h"

#include <fmt/format.h>

#include "configs/yaml_scalar.h"

namespace smoe {
namespace {

constexpr ConfigLocation command_line{0, 0, true};

[[noreturn]] void refuse(const std::string& source, const std::string& key, std::string message) {
  throw ConfigError(source, {{command_line, shown(key), std::move(message)}});
}

std::vector<std::string> split(std::string_view dotted) {
  std::vector<std::string> parts(1);
  for (const char c : dotted) {
    if (c == '.') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

void mark_as_command_line(YamlNode& node) {
  node.where = command_line;
  for (YamlNode& key : node.keys) mark_as_command_line(key);
  for (YamlNode& item : node.items) mark_as_command_line(item);
}

YamlNode parse_value(const std::string& key, std::string_view value, const std::string& source) {
  try {
    YamlNode node = parse_yaml(value, source);
    mark_as_command_line(node);
    return node;
  } catch (const ConfigError& error) {
    refuse(source, key, error.problems().front().message);
  }
}

// Makes an absent (or empty) node a container, so that a section which the file leaves out can be given.
void become(YamlNode& node, YamlNode::Kind kind) {
  if (node.kind == YamlNode::Kind::null) node = {kind, command_line, {}, false, {}, {}};
}

YamlNode& entry(YamlNode& map, const std::string& name) {
  if (YamlNode* found = map.find(name)) return *found;
  map.keys.push_back({YamlNode::Kind::scalar, command_line, name, false, {}, {}});
  map.items.push_back({YamlNode::Kind::null, command_line, {}, false, {}, {}});
  return map.items.back();
}

// The entry of a list that a part of the key names; the next one after the last may be named to append.
YamlNode& entry_at(YamlNode& list, const std::string& part, const std::string& key, const std::string& source) {
  const auto index = parse_integer(part);
  const auto size = static_cast<std::int64_t>(list.items.size());
  if (!index || *index < 0 || *index > size) {
    refuse(source, key, fmt::format("found the list index '{}', expected 0 to {}", shown(part), size));
  }
  if (*index == size) list.items.push_back({YamlNode::Kind::null, command_line, {}, false, {}, {}});
  return list.items[static_cast<std::size_t>(*index)];
}

}  // namespace

void apply_override(YamlNode& root, const std::string& text, const std::string& source) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    refuse(source, "", fmt::format("found '{}', expected section.key=value", shown(text)));
  }
  const std::string key = text.substr(0, equals);
  const std::vector<std::string> parts = split(key);

  become(root, YamlNode::Kind::map);
  YamlNode* node = &root;
  for (const std::string& part : parts) {
    if (part.empty()) refuse(source, "", fmt::format("found '{}', expected section.key=value", shown(text)));
    // A number after a list that is not there yet starts it: data.train.0.path=DIR.
    become(*node, parse_integer(part) ? YamlNode::Kind::list : YamlNode::Kind::map);
    if (node->kind == YamlNode::Kind::scalar) {
      refuse(source, key,
             fmt::format("found {} where '{}' would be, expected a map or a list", node->described(), shown(part)));
    }
    node = node->kind == YamlNode::Kind::map ? &entry(*node, part) : &entry_at(*node, part, key, source);
  }
  YamlNode value = parse_value(key, std::string_view(text).substr(equals + 1), source);
  if (value.kind == YamlNode::Kind::map && parts.size() == 1) {
    refuse(source, key, fmt::format("found a map, expected one key at a time: {}.KEY=VALUE", shown(key)));
  }
  *node = std::move(value);
}

}  // namespace smoe
