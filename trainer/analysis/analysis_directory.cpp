#include "trainer/analysis/analysis_directory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "data/files/files.h"
#include "trainer/analysis/analysis_json.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

constexpr const char *json_name = "analysis.json", *html_name = "analysis.html";

// Whether a file begins as an analysis does (analysis_json.h), of whatever version.
bool is_analysis(const fs::path& path) {
  const std::string expected = fmt::format("{{\"format\":\"{}\"", analysis_format);
  try {
    const File file = File::open_to_read(path);
    std::string found(std::min<std::uint64_t>(file.size(), expected.size()), '\0');
    file.pread_all(found.data(), found.size(), 0);
    return found == expected;
  } catch (const std::runtime_error&) {
    return false;
  }
}

// What a killed write left behind.
bool is_leftover(const std::string& name) {
  return name.starts_with(std::string(".") + json_name) || name.starts_with(std::string(".") + html_name);
}

// The last part of the path that exists, which may be a file.
fs::path nearest_existing(fs::path path) {
  while (!fs::exists(path) && path.has_parent_path() && path != path.parent_path()) path = path.parent_path();
  return path;
}

void require_room_for_directory(const fs::path& directory) {
  const fs::path absolute = fs::absolute(directory), nearest = nearest_existing(absolute);
  if (!fs::is_directory(nearest))
    throw std::runtime_error(
        fmt::format("{}: {} is not a directory, expected one for an analysis", directory.string(), nearest.string()));
  if (::access(nearest.c_str(), W_OK | X_OK) != 0)
    throw std::runtime_error(fmt::format("{}: cannot write in {}: {}", directory.string(), nearest.string(),
                                         std::generic_category().message(errno)));
}

}  // namespace

void require_analysis_directory(const fs::path& directory) {
  require_room_for_directory(directory);
  if (!fs::exists(directory)) return;
  std::vector<std::string> others;
  bool has_json = false, has_page = false;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name == json_name)
      has_json = true;
    else if (name == html_name)
      has_page = true;
    else if (!is_leftover(name))
      others.push_back(name);
  }
  std::sort(others.begin(), others.end());
  if (others.empty() && has_page && !has_json) others.emplace_back(html_name);
  if (others.empty() && has_json && !is_analysis(directory / json_name)) others.emplace_back(json_name);
  if (!others.empty())
    throw std::runtime_error(fmt::format(
        "{} holds {}{}, expected a directory that is new, empty, or a former analysis: name another with --out",
        directory.string(), others.front(),
        others.size() > 1 ? fmt::format(" and {} more that are none of an analysis", others.size() - 1)
                          : ", which is none of an analysis"));
}

void write_analysis(const fs::path& directory, const std::string& json, const std::string& html) {
  require_analysis_directory(directory);
  make_directories(directory);
  remove_temporaries(directory / json_name);
  remove_temporaries(directory / html_name);
  fs::remove(directory / html_name);  // of other numbers
  write_file_atomically(directory / json_name, json);
  write_file_atomically(directory / html_name, html);
}

}  // namespace smoe
