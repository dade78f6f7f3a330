#include "trainer/record/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "data/files/printable.h"

namespace smoe {

namespace {

bool starts_character(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }  // UTF-8

int count_columns(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), starts_character));
}

int window_columns(std::FILE* out) {
  winsize size{};
  if (::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

// A bar that moves by eighths of a column.
std::string bar(double share, int columns) {
  static constexpr std::string_view eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
  const int filled = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * columns * 8));
  std::string text = "▕";
  for (int column = 0; column < columns; ++column) {
    text += eighths[static_cast<std::size_t>(std::clamp(filled - 8 * column, 0, 8))];
  }
  return text + "▏";
}

}  // namespace

void RateEstimate::add(double units, double seconds) {
  if (seconds <= 0.0) return;
  // Both sums decay alike, so their quotient is a weighted mean whatever their number: no start-up bias to correct.
  const double decay = std::exp2(-seconds / half_life_);
  weighted_units_ = weighted_units_ * decay + units;
  weighted_seconds_ = weighted_seconds_ * decay + seconds;
}

double RateEstimate::units_per_second() const { return known() ? weighted_units_ / weighted_seconds_ : 0.0; }

std::string format_duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02d}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h{:02d}m", whole / 3600, whole / 60 % 60);
  return fmt::format("{}d{:02d}h", whole / 86400, whole / 3600 % 24);
}

std::string format_count(double value) {
  static constexpr std::string_view letters[] = {"", "k", "M", "G", "T", "P"};
  std::size_t letter = 0;
  // 999.5 would round to "1000": it belongs to the next letter.
  while (std::abs(value) >= 999.5 && letter + 1 < std::size(letters)) {
    value /= 1000.0;
    ++letter;
  }
  const double size = std::abs(value);
  if (letter == 0 && value == std::floor(value)) return fmt::format("{:.0f}", value);
  const int decimals = size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}", value, decimals, letters[letter]);
}

std::string_view clip_columns(std::string_view text, int columns) {
  std::size_t end = 0;
  for (; end < text.size(); ++end) {
    if (starts_character(text[end]) && columns-- <= 0) break;
  }
  return text.substr(0, end);
}

Terminal Terminal::of(std::FILE* out) {
  const char* kind = std::getenv("TERM");
  Terminal terminal;
  terminal.out = out;
  terminal.interactive = ::isatty(::fileno(out)) == 1 && kind != nullptr && std::strcmp(kind, "dumb") != 0;
  terminal.columns = [out] { return window_columns(out); };
  terminal.seconds = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  return terminal;
}

Progress::Progress(ProgressOptions options, Terminal terminal)
    : options_(std::move(options)), terminal_(std::move(terminal)), done_(options_.done), first_(options_.done) {
  options_.label = printable(options_.label);
  started_ = updated_ = shown_ = terminal_.seconds();
}

Progress::~Progress() {
  try {
    finish();
  } catch (...) {  // a destructor that runs during another exception must not add one
  }
}

void Progress::update(std::int64_t done, std::string_view details) {
  if (finished_) return;
  const double now = terminal_.seconds();
  // Updates that follow each other closer than the clock's grain would count units without time: they wait.
  if (done > done_ && now > updated_) {
    rate_.add(static_cast<double>(done - done_), now - updated_);
    updated_ = now;
    done_ = done;
  } else if (now > updated_ || done <= done_) {
    done_ = done;
  }
  details_ = details;
  stale_ = true;
  const double least = terminal_.interactive ? options_.rewrite_seconds : options_.plain_seconds;
  if (now - shown_ >= least || (options_.total > 0 && done >= options_.total)) {
    show();
    shown_ = now;
  }
}

void Progress::say(std::string_view line) {
  erase();
  fmt::print(terminal_.out, "{}\n", printable(line));
  if (terminal_.interactive && !finished_) show();
  std::fflush(terminal_.out);
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (stale_ || on_screen_) show();
  if (on_screen_) fmt::print(terminal_.out, "\n");
  std::fflush(terminal_.out);
}

// "train  120/1000" and, where columns are left for it, a bar.
std::string Progress::head(int bar_columns) const {
  std::string text = options_.label.empty() ? "" : options_.label + "  ";
  if (options_.total <= 0) return text + fmt::format("{}", done_);
  const double share = static_cast<double>(done_) / static_cast<double>(options_.total);
  text += fmt::format("{:>{}}/{}", done_, fmt::formatted_size("{}", options_.total), options_.total);
  if (bar_columns > 0) text += " " + bar(share, bar_columns);
  return text + fmt::format(" {:3.0f}%", std::floor(100.0 * share));
}

// Rate, and the time to come or, at the end, the time it took.
std::string Progress::tail() const {
  constexpr double least_seconds = 0.25;  // of work before a rate says more of the clock than of the work
  const bool known = rate_.known() && updated_ - started_ >= least_seconds;
  std::string text;
  if (known && !options_.unit.empty()) {
    text += fmt::format("  {} {}/s", format_count(rate_.units_per_second()), options_.unit);
  }
  if (finished_ || (options_.total > 0 && done_ >= options_.total)) {
    text += "  took " + format_duration(terminal_.seconds() - started_);
  } else if (known && options_.total > 0) {
    text += "  ETA " + format_duration(static_cast<double>(options_.total - done_) / rate_.units_per_second());
  }
  return text;
}

std::string Progress::line() const { return head(0) + (details_.empty() ? "" : "  " + details_) + tail(); }

void Progress::show() {
  stale_ = false;
  if (!terminal_.interactive) {
    fmt::print(terminal_.out, "{}\n", line());
    std::fflush(terminal_.out);
    return;
  }
  // One column stays free: a full last column makes some terminals wrap, and then the line cannot be rewritten.
  const int columns = std::max(1, terminal_.columns() - 1);
  const int spare = columns - count_columns(line()) - 3;
  const std::string details = details_.empty() ? "" : "  " + details_;
  const std::string text = spare < 6 ? line() : head(std::min(spare, 28)) + details + tail();
  fmt::print(terminal_.out, "\r{}\x1b[K", clip_columns(text, columns));
  std::fflush(terminal_.out);
  on_screen_ = true;
}

void Progress::erase() {
  if (on_screen_) fmt::print(terminal_.out, "\r\x1b[K");
  on_screen_ = false;
}

}  // namespace smoe
