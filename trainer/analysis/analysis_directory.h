// Where an analysis is written: DIR/analysis.json and DIR/analysis.html, each whole or absent, and a page there is always that
// of the numbers beside it.
#pragma once

#include <filesystem>
#include <string>

namespace smoe {

// Throws std::runtime_error unless an analysis may be written there: the directory is absent and can be made, or it is empty, or
// holds a former analysis and nothing else. Nothing is changed. For a look before hours of work.
void require_analysis_directory(const std::filesystem::path& directory);

// Checks the same once more, and writes both.
void write_analysis(const std::filesystem::path& directory, const std::string& json, const std::string& html);

}  // namespace smoe
