// The part of YAML that a configuration may use, as a tree that remembers where everything stood: maps, lists and
// scalars. Anchors, aliases, tags, merge keys, several documents, control characters and bytes that are not UTF-8 are
// refused, because yaml-cpp resolves or drops some of them in silence. Nothing is typed here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "configs/config_error.h"

namespace smoe {

struct YamlNode {
  enum class Kind { null, scalar, list, map };

  Kind kind = Kind::null;
  ConfigLocation where;
  std::string text;             // scalar
  bool quoted = false;          // scalar: written in quotes, so it is text whatever it looks like
  std::vector<YamlNode> keys;   // map: keys[i] belongs to items[i]; a key may be there twice
  std::vector<YamlNode> items;  // list and map

  // The value of a key of this map, the first if there are several; nullptr if there is none.
  const YamlNode* find(std::string_view key) const;
  YamlNode* find(std::string_view key);

  // For messages: 'text', the text "in quotes", a list, a map, nothing.
  std::string described() const;
};

// Text of a file or of the command line for a message: UTF-8 without control characters, and cut where it is long.
std::string shown(std::string_view text);

// The tree of a whole text. Throws ConfigError, naming source, if the text is not of the form above.
YamlNode parse_yaml(std::string_view text, const std::string& source);

bool is_utf8(std::string_view text);

}  // namespace smoe
