#include "configs/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "configs/yaml_scalar.h"

namespace smoe {
namespace {

// Of a number that parse_number takes: JSON has no +1, .5 or 1.
bool is_json_number(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (text.empty() || !is_digit(text.front())) return false;
  const std::size_t point = text.find('.');
  return point == std::string_view::npos || (point + 1 < text.size() && is_digit(text[point + 1]));
}

std::string plain_scalar(const std::string& text) {
  if (parse_flag(text)) return text;
  if (const auto number = parse_number(text)) return is_json_number(text) ? text : fmt::format("{}", *number);
  return json_text(std::string_view(text));
}

}  // namespace

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += std::string("\\") + c;
    else if (c == '\n' || c == '\t' || c == '\r')
      out += c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r";
    else
      out += c;
  }
  return out + '"';
}

std::string json_text(const YamlNode& node) {
  std::string out;
  switch (node.kind) {
    case YamlNode::Kind::null: return "null";
    case YamlNode::Kind::scalar: return node.quoted ? json_text(std::string_view(node.text)) : plain_scalar(node.text);
    case YamlNode::Kind::list:
      for (const YamlNode& item : node.items) out += (out.empty() ? "" : ", ") + json_text(item);
      return "[" + out + "]";
    case YamlNode::Kind::map:
      for (std::size_t i = 0; i < node.items.size(); ++i)
        out += (i == 0 ? "" : ", ") + json_text(std::string_view(node.keys[i].text)) + ": " + json_text(node.items[i]);
      return "{" + out + "}";
  }
  return out;
}

}  // namespace smoe
