// The files that an analysis' page is made of beside those of a run's report, embedded at build time
// (trainer/record/report_assets.cmake).
#pragma once

#include <string_view>

namespace smoe::analysis_assets {

extern const std::string_view page;     // analysis_template.html
extern const std::string_view style;    // analysis_template.css, behind the report's
extern const std::string_view figures;  // analysis_figures.js: charts as SVG
extern const std::string_view script;   // analysis_template.js, which uses it and report_numbers.js

}  // namespace smoe::analysis_assets
