// The command lines of this folder's programs, and what all of them take of their measurements.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

namespace smoe::bench {

// Calls take(name, value) for each option; value() is what follows it. take returns false for one that it does not know.
template <class Take>
void for_each_option(int argc, char** argv, const char* file, const Take& take) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 == argc) throw std::runtime_error(name + " needs a value");
      return argv[++i];
    };
    if (!take(name, value))
      throw std::runtime_error("unknown option " + name + "; the options are listed at the top of " + file);
  }
}

inline double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace smoe::bench
