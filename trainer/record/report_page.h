// What makes a page of a report safe and whole: marks filled, text escaped, numbers short.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "data/files/json.h"

namespace smoe {

// A chart shows no more than so many digits, and the page is a third the size for it. Null: not finite.
Json rounded(double value, int digits);

std::string escape_html(std::string_view text);

// JSON inside a <script> element: without a '<' no text of the user's can close it or open a comment.
std::string script_safe_json(const Json& value);

// Fills the page's {{NAME}} marks from left to right; what was filled in is not searched again. Throws std::logic_error at a
// mark without a value.
std::string fill_page(std::string_view page, const std::map<std::string, std::string, std::less<>>& values);

}  // namespace smoe
