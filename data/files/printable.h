// Text for a terminal or a log.
#pragma once

#include <string>
#include <string_view>

namespace smoe {

// The text with control characters but newline and tab, and bytes that are not UTF-8, written as \x1b. Names of files,
// tensors and sources come from strangers: printed so, they move no cursor, set no colour and hide no line.
std::string printable(std::string_view text);

}  // namespace smoe
