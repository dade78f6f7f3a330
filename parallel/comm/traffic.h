// How many bytes this rank has sent to others, by the label of the collective.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace smoe {

class Traffic {
 public:
  struct Line {
    std::string_view label;  // a literal
    std::int64_t calls = 0, bytes = 0;
  };

  // A call is counted where it ends, also one that sent nothing.
  void add(std::string_view label, std::int64_t bytes) {
    for (Line& line : lines_)
      if (line.label == label) {
        ++line.calls;
        line.bytes += bytes;
        return;
      }
    lines_.push_back({label, 1, bytes});
  }
  // Counts start at zero again; labels that were seen stay, so that a warm step allocates nothing.
  void reset() {
    for (Line& line : lines_) line.calls = line.bytes = 0;
  }
  const std::vector<Line>& lines() const { return lines_; }
  std::int64_t bytes(std::string_view label) const {
    for (const Line& line : lines_)
      if (line.label == label) return line.bytes;
    return 0;
  }
  std::int64_t total() const {
    std::int64_t sum = 0;
    for (const Line& line : lines_) sum += line.bytes;
    return sum;
  }

 private:
  std::vector<Line> lines_;  // in the order in which labels were first seen
};

}  // namespace smoe
