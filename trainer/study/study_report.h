// The report of a study: quality against balance, settings with their spread over seeds and their differences to a base, curves
// and loads. One HTML file, no network; also of a study that runs, or has points that failed.
#pragma once

#include <filesystem>
#include <string>

#include "trainer/study/study.h"

namespace smoe {

inline std::filesystem::path report_of(const Study& study) { return study.directory / "report.html"; }

// The page. Throws std::runtime_error where a point's record or metrics are not what a run writes (named with file and
// line).
std::string render_study_report(const Study& study);

// The tables of settings and of differences by source in Markdown, with the page's numbers.
std::string study_markdown(const Study& study);

// Replaces `out_html` atomically; leaves it as it was where it throws, which is also where it cannot be written.
void write_study_report(const Study& study, const std::filesystem::path& out_html);

}  // namespace smoe
