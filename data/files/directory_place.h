// Which directory a path leads to, and whether one lies in another, however they are spelled: X, X/, ./X and a link to X are one.
#pragma once

#include <algorithm>
#include <filesystem>

namespace smoe {

// Of a directory that need not be there yet; without a slash at its end.
inline std::filesystem::path canonical_directory(const std::filesystem::path& directory) {
  const std::filesystem::path found = std::filesystem::weakly_canonical(directory);
  return found.has_filename() ? found : found.parent_path();
}

enum class DirectoryPlace { outside, itself, inside };

// Where `directory` is, seen from `other`.
inline DirectoryPlace place_of(const std::filesystem::path& directory, const std::filesystem::path& other) {
  const std::filesystem::path inner = canonical_directory(directory), outer = canonical_directory(other);
  const auto [end, rest] = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
  if (end != outer.end()) return DirectoryPlace::outside;
  return rest == inner.end() ? DirectoryPlace::itself : DirectoryPlace::inside;
}

}  // namespace smoe
