// Where in a JSON text stands what a message is about.
//
// Readers of parsed JSON name the keys that lead to what they refuse: "FILE: model: merges: entry 17 is ...". The parsed form knows no
// lines, and to keep them would cost every file that is in order; so the text is gone through once more when there is a message to put a
// line to.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "data/files/json.h"

namespace smoe {

// The message with line and column of the last key, element or entry it names that is there: "FILE:12:5: model: ...". As it is
// where it does not begin with `where` and a key of the text. text: as parse_json() took it.
std::string with_place_in_json(const std::string& message, const std::string& where, std::string_view text);

// What `read` refuses of a text already parsed (std::runtime_error), with its place.
template <class Read>
void read_placed(std::string_view text, const std::string& where, Read&& read) {
  try {
    read();
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(with_place_in_json(error.what(), where, text));
  }
}

}  // namespace smoe
