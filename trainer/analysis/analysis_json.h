// An analysis as one JSON object: what analysis.json holds and the page is drawn from. Key by key: docs/analysis.md.
#pragma once

#include "data/files/json.h"
#include "trainer/analysis/analysis.h"

namespace smoe {

inline constexpr const char* analysis_format = "smoe-routing-analysis";
inline constexpr std::int64_t analysis_format_version = 1;

// Numbers that are not finite are null; the others read back exactly.
OrderedJson analysis_json(const Analysis& analysis, const TokenTexts& texts);

}  // namespace smoe
