#include "configs/yaml_document.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "configs/yaml_scalar.h"

namespace smoe {
namespace {

constexpr std::size_t deepest = 16;
constexpr std::size_t longest_shown = 60;
constexpr std::string_view alias_refused =
    "found an alias (*), expected the value itself: aliases are not supported, and text that begins with * needs quotes";

ConfigLocation location(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1, false}; }

// Builds the tree from yaml-cpp's events, which still show what its Node would have resolved.
class TreeBuilder : public YAML::EventHandler {
 public:
  const std::vector<ConfigProblem>& problems() const { return problems_; }
  YamlNode take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    add({YamlNode::Kind::null, location(mark), {}, false, {}, {}});
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, std::string(alias_refused));
    add({YamlNode::Kind::null, location(mark), {}, false, {}, {}});
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    // yaml-cpp: "?" plain, "!" quoted, anything else was written as a tag
    const bool quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    if (!quoted && !is_tag_of(tag, value)) refuse_tag(mark, tag);
    if (is_next_a_key() && !quoted && value == "<<") {
      refuse(mark, "found a merge key (<<), expected the keys themselves: merge keys are not supported");
    }
    add({YamlNode::Kind::scalar, location(mark), value, quoted, {}, {}});
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::list);
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::map);
  }
  void OnMapEnd() override { close(); }

 private:
  void refuse(const YAML::Mark& mark, std::string message) {
    problems_.push_back({location(mark), "", std::move(message)});
  }
  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != 0) refuse(mark, "found an anchor (&), expected a plain value: anchors are not supported");
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?") {
      refuse(mark, fmt::format("found the tag {}, expected a plain value: tags are not supported", shown(tag)));
    }
  }

  // Whether a tag says of a scalar what it is anyway. Files have them for readers to whom 1e-5 is a text.
  static bool is_tag_of(const std::string& tag, const std::string& value) {
    if (tag == "tag:yaml.org,2002:float") return parse_number(value).has_value();
    if (tag == "tag:yaml.org,2002:int") return parse_integer(value).has_value();
    if (tag == "tag:yaml.org,2002:bool") return parse_flag(value).has_value();
    return false;
  }

  bool is_next_a_key() const {
    return !open_.empty() && open_.back().kind == YamlNode::Kind::map &&
           open_.back().keys.size() == open_.back().items.size();
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (open_.size() == deepest) {
      throw YAML::ParserException(mark, fmt::format("found more than {} levels of nesting", deepest));
    }
    open_.push_back({kind, location(mark), {}, false, {}, {}});
  }

  void close() {
    YamlNode node = std::move(open_.back());
    open_.pop_back();
    add(std::move(node));
  }

  void add(YamlNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
    } else if (is_next_a_key()) {
      open_.back().keys.push_back(std::move(node));
    } else {
      // yaml-cpp places an absent value at whatever follows it; its key is where the reader looks.
      if (node.kind == YamlNode::Kind::null && !open_.back().keys.empty()) node.where = open_.back().keys.back().where;
      open_.back().items.push_back(std::move(node));
    }
  }

  YamlNode root_;
  std::vector<YamlNode> open_;  // the containers that enclose the next event, outermost first
  std::vector<ConfigProblem> problems_;
};

// Length of the UTF-8 sequence that starts text, 0 if it is not one (overlong forms and surrogates included).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xC2 && first <= 0xDF   ? 2
                             : (first & 0xF0) == 0xE0         ? 3
                             : first >= 0xF0 && first <= 0xF4 ? 4
                                                              : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool surrogate = first == 0xED && second > 0x9F;
  const bool too_large = first == 0xF4 && second > 0x8F;
  return overlong || surrogate || too_large ? 0 : length;
}

// C0, DEL and C1: a terminal takes U+009B for ESC [.
bool is_control_character(std::string_view character) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
  return byte(0) < 0x20 || byte(0) == 0x7F || (byte(0) == 0xC2 && byte(1) < 0xA0);
}

// yaml-cpp ends a document at byte 4 and replaces what is not UTF-8, without a word.
std::optional<ConfigProblem> unreadable_byte(std::string_view text) {
  ConfigLocation where{1, 1, false};
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7F) {
      return ConfigProblem{where, "", fmt::format("found the control character 0x{:02x}, expected text", byte)};
    }
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) return ConfigProblem{where, "", fmt::format("found the byte 0x{:02x}, expected UTF-8", byte)};
    i += length;
    ++where.column;
    if (byte == '\n') where = {where.line + 1, 1, false};
  }
  return std::nullopt;
}

// yaml-cpp stops on the very line, mostly in words that do not name the tab ("illegal map value").
std::optional<ConfigProblem> tab_in_indentation(std::string_view text, int line) {
  for (int before = 1; before < line; ++before) text.remove_prefix(std::min(text.size(), text.find('\n') + 1));
  const std::size_t tab = text.find('\t');
  if (tab == std::string_view::npos || tab >= std::min(text.find_first_not_of(" \t"), text.size())) return std::nullopt;
  return ConfigProblem{{line, static_cast<int>(tab) + 1, false},
                       "",
                       "found a tab in the indentation, expected spaces: YAML indents with nothing else"};
}

// Of an alias without an anchor, which is what text becomes that begins with * and is not quoted.
bool is_alias_at(std::string_view text, const YAML::Mark& mark) {
  return mark.pos >= 0 && static_cast<std::size_t>(mark.pos) < text.size() &&
         text[static_cast<std::size_t>(mark.pos)] == '*';
}

}  // namespace

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

const YamlNode* YamlNode::find(std::string_view key) const {
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].kind == Kind::scalar && keys[i].text == key) return &items[i];
  }
  return nullptr;
}

YamlNode* YamlNode::find(std::string_view key) {
  return const_cast<YamlNode*>(static_cast<const YamlNode*>(this)->find(key));
}

std::string YamlNode::described() const {
  switch (kind) {
    case Kind::null: return "nothing (null)";
    case Kind::list: return "a list";
    case Kind::map: return "a map";
    case Kind::scalar: break;
  }
  return quoted ? fmt::format("the text \"{}\"", shown(text)) : fmt::format("'{}'", shown(text));
}

std::string shown(std::string_view text) {
  std::string clean;
  while (!text.empty() && clean.size() < longest_shown) {
    const std::size_t length = utf8_length(text);  // a character is never cut
    const std::string_view character = text.substr(0, std::max<std::size_t>(1, length));
    clean += length == 0 ? "\xEF\xBF\xBD" : is_control_character(character) ? " " : character;
    text.remove_prefix(character.size());
  }
  return text.empty() ? clean : clean + "...";
}

YamlNode parse_yaml(std::string_view text, const std::string& source) {
  if (const auto problem = unreadable_byte(text)) throw ConfigError(source, {*problem});
  std::istringstream stream{std::string(text)};
  TreeBuilder first, second;
  try {
    YAML::Parser parser(stream);
    parser.HandleNextDocument(first);
    if (parser.HandleNextDocument(second)) {
      throw ConfigError(source, {{{}, "", "found several YAML documents (---), expected one"}});
    }
  } catch (const YAML::Exception& error) {
    if (const auto tab = tab_in_indentation(text, error.mark.line + 1)) throw ConfigError(source, {*tab});
    if (is_alias_at(text, error.mark))
      throw ConfigError(source, {{location(error.mark), "", std::string(alias_refused)}});
    throw ConfigError(source, {{location(error.mark), "", "not valid YAML: " + shown(error.msg)}});
  }
  if (!first.problems().empty()) throw ConfigError(source, first.problems());
  return first.take_root();
}

}  // namespace smoe
