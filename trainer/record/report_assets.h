// The files that a report is made of, embedded at build time (trainer/record/report_assets.cmake).
#pragma once

#include <string_view>

namespace smoe::report_assets {

extern const std::string_view page;          // report_template.html
extern const std::string_view style;         // report_template.css
extern const std::string_view numbers;       // report_numbers.js
extern const std::string_view script;        // report_template.js, which uses it
extern const std::string_view elements;      // report_elements.js, likewise
extern const std::string_view charts;        // dygraph.min.js, https://dygraphs.com, MIT licence
extern const std::string_view charts_style;  // dygraph.css

// The report of a sweep, which has the style, the numbers and the elements from here.
extern const std::string_view study_page;     // trainer/study/study_template.html
extern const std::string_view study_style;    // study_template.css
extern const std::string_view study_plots;    // study_plots.js
extern const std::string_view study_figures;  // study_figures.js, which uses it
extern const std::string_view study_view;     // study_view.js
extern const std::string_view study_tables;   // study_tables.js, which uses all of these
extern const std::string_view study_script;   // study_template.js, likewise

}  // namespace smoe::report_assets
