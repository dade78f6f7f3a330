// A value of a YAML file as JSON on one line, which is YAML too and reads back to the same value.
#pragma once

#include <string>
#include <string_view>

#include "configs/yaml_document.h"

namespace smoe {

// A number stays as it was written where JSON writes it so too; what was in quotes stays text.
std::string json_text(const YamlNode& node);
std::string json_text(std::string_view text);  // in quotes

}  // namespace smoe
