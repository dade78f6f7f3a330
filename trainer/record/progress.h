// One line that says how far a long piece of work is, how fast it goes and when it will end.
//
// On a terminal the line rewrites itself; into a file or a pipe it is printed whole, at intervals, so that a log stays
// readable. Time is a monotonic clock's: setting the wall clock changes neither rate nor ETA.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

namespace smoe {

// Seconds a unit of work takes, as an exponentially weighted mean over elapsed time (half-life in seconds), unbiased
// from the first sample on. A pause (checkpoint, evaluation) raises it for a while and is forgotten.
class RateEstimate {
 public:
  explicit RateEstimate(double half_life_seconds = 15.0) : half_life_(half_life_seconds) {}

  void add(double units, double seconds);
  bool known() const { return weighted_units_ > 0.0; }
  double units_per_second() const;  // 0 while unknown

 private:
  double half_life_;
  double weighted_units_ = 0.0;
  double weighted_seconds_ = 0.0;
};

// "42s", "4m12s", "3h07m", "2d05h".
std::string format_duration(double seconds);
// Three significant digits and an SI letter: "950", "18.2k", "1.30M", "2.41G".
std::string format_count(double value);
// The first `columns` characters (not bytes) of a UTF-8 text.
std::string_view clip_columns(std::string_view text, int columns);

struct Terminal {
  std::FILE* out = stderr;
  bool interactive = false;         // the line may be rewritten in place
  std::function<int()> columns;     // asked at every line, so that a resized window is seen
  std::function<double()> seconds;  // monotonic

  // Interactive if `out` is a terminal and TERM is not "dumb".
  static Terminal of(std::FILE* out = stderr);
};

struct ProgressOptions {
  std::string label = {};        // "train", "eval web", "tokenise"
  std::string unit = {};         // shown with the rate ("step", "doc"); empty: no rate of its own
  std::int64_t total = 0;        // 0: not known, then neither share nor ETA
  std::int64_t done = 0;         // where a resumed run starts
  double rewrite_seconds = 0.1;  // least time between two rewrites of the line on a terminal
  double plain_seconds = 10.0;   // least time between two plain lines; 0: every update is one
};

class Progress {
 public:
  explicit Progress(ProgressOptions options, Terminal terminal = Terminal::of());
  ~Progress();  // as finish(), without the final line if nothing was ever updated
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` units are behind us; `details` is what to show with it ("loss 3.412  18.2k tok/s  96.3 GF/s").
  void update(std::int64_t done, std::string_view details = {});
  // Prints a line of its own ("saved step-000500") and puts the progress line back below it.
  void say(std::string_view line);
  // Leaves the last state on the screen, with the time that it all took. Further calls do nothing.
  void finish();

  std::string line() const;  // the whole line, as a plain log would show it

 private:
  std::string head(int bar_columns) const;
  std::string tail() const;
  void show();
  void erase();

  ProgressOptions options_;
  Terminal terminal_;
  RateEstimate rate_;
  std::int64_t done_;
  std::int64_t first_;
  double started_;
  double updated_;
  double shown_;
  bool on_screen_ = false;
  bool stale_ = false;  // an update has not been shown yet
  bool finished_ = false;
  std::string details_;
};

}  // namespace smoe
