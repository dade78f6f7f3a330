#include "data/import/path_pattern.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <set>
#include <stdexcept>
#include <system_error>

namespace smoe {
namespace fs = std::filesystem;

namespace {

using Names = std::vector<std::string>;

class PatternSearch {
 public:
  explicit PatternSearch(Names names) : names_(std::move(names)) {}

  // All below `directory` ("" is the current one) that matches the names from `next` on.
  void search(const fs::path& directory, std::size_t next) {
    if (next == names_.size()) {
      found_.insert(directory);
      return;
    }
    const std::string& name = names_[next];
    std::error_code none;
    if (name == "**") {
      const bool last = next + 1 == names_.size();  // then the files below, and not the directories as well
      if (!last) search(directory, next + 1);
      for (const fs::directory_entry& entry : entries_of(directory)) {
        if (is_hidden(entry)) continue;
        if (entry.is_directory(none) && !entry.is_symlink(none))
          search(directory / entry.path().filename(), next);
        else if (last && !entry.is_directory(none))
          found_.insert(directory / entry.path().filename());
      }
      return;
    }
    if (!is_pattern(name)) {
      if (fs::exists(directory / name, none)) search(directory / name, next + 1);
      return;
    }
    const bool last = next + 1 == names_.size();
    for (const fs::directory_entry& entry : entries_of(directory)) {
      const std::string found = entry.path().filename().string();
      if (::fnmatch(name.c_str(), found.c_str(), FNM_PERIOD) == 0 && (last || entry.is_directory(none)))
        search(directory / found, next + 1);
    }
  }

  const std::set<fs::path>& found() const { return found_; }

 private:
  static bool is_hidden(const fs::directory_entry& entry) { return entry.path().filename().native().starts_with('.'); }

  static std::vector<fs::directory_entry> entries_of(const fs::path& directory) {
    std::vector<fs::directory_entry> entries;
    const fs::path path = directory.empty() ? "." : directory;
    std::error_code error;
    for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error))
      entries.push_back(*entry);
    if (error && error != std::errc::not_a_directory)
      throw std::runtime_error(fmt::format("cannot read the directory {}: {}", path.string(), error.message()));
    return entries;
  }

  Names names_;
  std::set<fs::path> found_;
};

}  // namespace

bool is_pattern(std::string_view text) { return text.find_first_of("*?[") != std::string_view::npos; }

std::vector<fs::path> expand_pattern(const std::string& pattern) {
  const fs::path path(pattern);
  Names names;
  for (const fs::path& name : path.relative_path())
    if (!name.empty()) names.push_back(name.string());
  PatternSearch search(std::move(names));
  search.search(path.root_path(), 0);
  return {search.found().begin(), search.found().end()};
}

}  // namespace smoe
