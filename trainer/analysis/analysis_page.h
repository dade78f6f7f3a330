// An analysis as one HTML page: no network, no external resource, all text from strangers escaped.
#pragma once

#include <string>

#include "data/files/json.h"

namespace smoe {

// analysis: of analysis_json().
std::string analysis_page(const OrderedJson& analysis);

}  // namespace smoe
