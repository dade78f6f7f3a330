// Dotted overrides of the command line: section.key=value.
#pragma once

#include <string>

#include "configs/yaml_document.h"

namespace smoe {

// Sets one value in the tree of a configuration file; its nodes are marked as coming from the command line.
// Throws ConfigError if the text is not of the form section.key=VALUE or names a place that the tree does not have.
void apply_override(YamlNode& root, const std::string& text, const std::string& source);

}  // namespace smoe
