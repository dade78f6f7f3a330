// The HTML report of a run, or of several side by side: one file, charts inline, no network.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace smoe {

// Reads each run directory's metrics.jsonl and, where present, config.resolved.yaml, and replaces `out_html`
// atomically. The page shows losses (training, and evaluation by source), learning rate, gradient norm, tokens a
// second, balance losses, MaxVio, expert load by layer, the configuration, a summary, and what the run was warned of.
// Throws std::runtime_error, leaving `out_html` as it was, if a run directory or its metrics are missing, a row is
// corrupt (named with file and line), or the file cannot be written.
void write_report(const std::vector<std::filesystem::path>& run_dirs, const std::filesystem::path& out_html);

// The same page as text.
std::string render_report(const std::vector<std::filesystem::path>& run_dirs);

}  // namespace smoe
