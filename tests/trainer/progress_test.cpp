#include "trainer/record/progress.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace smoe {
namespace {

// A terminal whose clock and width the test sets, and what was written to it.
class FakeTerminal {
 public:
  explicit FakeTerminal(bool interactive) : interactive_(interactive), file_(std::tmpfile(), &std::fclose) {}

  Terminal get() {
    return {.out = file_.get(),
            .interactive = interactive_,
            .columns = [this] { return columns; },
            .seconds = [this] { return now; }};
  }
  std::string text() {
    std::fflush(file_.get());
    std::string content(static_cast<std::size_t>(std::ftell(file_.get())), '\0');
    std::rewind(file_.get());
    const std::size_t read = std::fread(content.data(), 1, content.size(), file_.get());
    content.resize(read);
    return content;
  }
  std::vector<std::string> lines() {
    std::vector<std::string> result;
    const std::string content = text();
    for (std::size_t begin = 0; begin < content.size();) {
      const std::size_t end = content.find('\n', begin);
      result.push_back(content.substr(begin, end - begin));
      begin = end == std::string::npos ? content.size() : end + 1;
    }
    return result;
  }

  double now = 1000.0;
  int columns = 80;

 private:
  bool interactive_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

int columns_of(std::string_view text) {
  int count = 0;
  while (clip_columns(text, count).size() < text.size()) ++count;
  return count;
}

TEST(Progress, DurationsAndCountsAreShort) {
  EXPECT_EQ(format_duration(0.2), "0s");
  EXPECT_EQ(format_duration(59.6), "1m00s");
  EXPECT_EQ(format_duration(252), "4m12s");
  EXPECT_EQ(format_duration(3 * 3600 + 7 * 60 + 5), "3h07m");
  EXPECT_EQ(format_duration(2 * 86400 + 5 * 3600), "2d05h");
  EXPECT_EQ(format_duration(-3), "0s");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(0.5), "0.50");
  EXPECT_EQ(format_count(12.34), "12.3");
  EXPECT_EQ(format_count(999.7), "1.00k");
  EXPECT_EQ(format_count(18234), "18.2k");
  EXPECT_EQ(format_count(1.3e6), "1.30M");
  EXPECT_EQ(format_count(999'600), "1.00M");
  EXPECT_EQ(format_count(2.414e9), "2.41G");
}

TEST(Progress, ClippingCountsCharactersNotBytes) {
  EXPECT_EQ(clip_columns("abc", 2), "ab");
  EXPECT_EQ(clip_columns("▕█▏x", 3), "▕█▏");
  EXPECT_EQ(clip_columns("▕█▏", 9), "▕█▏");
  EXPECT_EQ(clip_columns("abc", 0), "");
}

TEST(Progress, RateIsExactForSteadyWorkAndForgetsAPause) {
  RateEstimate rate(10.0);
  EXPECT_FALSE(rate.known());
  EXPECT_EQ(rate.units_per_second(), 0.0);
  rate.add(4, 2.0);
  EXPECT_DOUBLE_EQ(rate.units_per_second(), 2.0);  // unbiased from the first sample
  for (int i = 0; i < 50; ++i) rate.add(2, 1.0);
  EXPECT_NEAR(rate.units_per_second(), 2.0, 1e-12);
  rate.add(2, 60.0);  // a checkpoint
  EXPECT_LT(rate.units_per_second(), 0.5);
  for (int i = 0; i < 100; ++i) rate.add(2, 1.0);
  EXPECT_NEAR(rate.units_per_second(), 2.0, 0.02);
}

TEST(Progress, PlainLinesComeAtTheirIntervalAndAtTheEnd) {
  FakeTerminal terminal(false);
  {
    Progress progress({.label = "train", .unit = "step", .total = 100, .plain_seconds = 10.0}, terminal.get());
    for (int step = 1; step <= 100; ++step) {
      terminal.now += 0.5;
      progress.update(step, "loss 2.5");
    }
  }
  const std::vector<std::string> lines = terminal.lines();
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[0], "train   20/100  20%  loss 2.5  2 step/s  ETA 40s");
  EXPECT_EQ(lines[1], "train   40/100  40%  loss 2.5  2 step/s  ETA 30s");
  EXPECT_EQ(lines[4], "train  100/100 100%  loss 2.5  2 step/s  took 50s");
  for (const std::string& line : lines) EXPECT_EQ(line.find_first_of("\r\x1b"), std::string::npos);
}

TEST(Progress, AResumedRunCountsItsRateFromWhereItStarted) {
  FakeTerminal terminal(false);
  Progress progress({.label = "train", .unit = "step", .total = 1000, .done = 900, .plain_seconds = 0.0},
                    terminal.get());
  terminal.now += 10.0;
  progress.update(910);
  EXPECT_EQ(terminal.lines().at(0), "train   910/1000  91%  1 step/s  ETA 1m30s");
}

TEST(Progress, WithoutATotalThereIsARateButNoShareOrEta) {
  FakeTerminal terminal(false);
  Progress progress({.label = "tokenise", .unit = "doc", .plain_seconds = 0.0}, terminal.get());
  terminal.now += 2.0;
  progress.update(3000);
  EXPECT_EQ(terminal.lines().at(0), "tokenise  3000  1.50k doc/s");
}

TEST(Progress, WorkOfAMomentHasNoRate) {
  FakeTerminal terminal(false);
  Progress progress({.label = "tokenize", .unit = "B", .total = 57}, terminal.get());
  terminal.now += 1e-6;
  progress.update(57, "33 tokens");
  EXPECT_EQ(terminal.lines().at(0), "tokenize  57/57 100%  33 tokens  took 0s");
}

TEST(Progress, UpdatesWithinOneTickOfTheClockAreNotLost) {
  FakeTerminal terminal(false);
  Progress progress({.label = "read", .unit = "doc", .total = 1000}, terminal.get());
  for (int i = 1; i <= 10; ++i) progress.update(i);
  terminal.now += 1.0;
  progress.update(100);
  EXPECT_EQ(progress.line(), "read   100/1000  10%  100 doc/s  ETA 9s");
}

TEST(Progress, ATerminalLineRewritesItselfAndFitsTheWindow) {
  for (const int columns : {200, 80, 60, 40, 20, 5, 1}) {
    FakeTerminal terminal(true);
    terminal.columns = columns;
    {
      Progress progress({.label = "train", .unit = "step", .total = 1000, .rewrite_seconds = 0.0}, terminal.get());
      for (int step = 1; step <= 3; ++step) {
        terminal.now += 1.0;
        progress.update(step, "loss 3.412  18.2k tok/s  96.3 GF/s");
      }
    }
    const std::string text = terminal.text();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << "only finish() ends the line";
    EXPECT_EQ(std::count(text.begin(), text.end(), '\r'), 4);
    for (std::size_t at = text.find('\r'); at != std::string::npos; at = text.find('\r', at + 1)) {
      const std::string shown = text.substr(at + 1, text.find("\x1b[K", at) - at - 1);
      EXPECT_LE(columns_of(shown), std::max(1, columns - 1)) << shown;
    }
  }
}

TEST(Progress, TheBarGrowsWithTheShareDone) {
  FakeTerminal terminal(true);
  Progress progress({.label = "x", .total = 2, .rewrite_seconds = 0.0}, terminal.get());
  terminal.now += 1.0;
  progress.update(1);
  EXPECT_NE(terminal.text().find("█"), std::string::npos);
  EXPECT_NE(terminal.text().find(" 50%"), std::string::npos);
}

TEST(Progress, RewritesAreLimitedButTheLastStateIsShown) {
  FakeTerminal terminal(true);
  {
    Progress progress({.label = "x", .total = 1000, .rewrite_seconds = 0.1}, terminal.get());
    for (int i = 1; i <= 500; ++i) {
      terminal.now += 0.001;
      progress.update(i);
    }
  }
  const std::string text = terminal.text();
  EXPECT_LE(std::count(text.begin(), text.end(), '\r'), 7);
  EXPECT_NE(text.find("500/1000"), std::string::npos);
}

TEST(Progress, WhatIsSaidStandsOnALineOfItsOwn) {
  FakeTerminal terminal(true);
  {
    Progress progress({.label = "train", .total = 10, .rewrite_seconds = 0.0}, terminal.get());
    terminal.now += 1.0;
    progress.update(1);
    progress.say("saved step-000001");
  }
  EXPECT_NE(terminal.text().find("\r\x1b[Ksaved step-000001\n\r"), std::string::npos) << terminal.text();

  FakeTerminal plain(false);
  Progress progress({.label = "train", .total = 10}, plain.get());
  progress.say("saved step-000001");
  EXPECT_EQ(plain.text(), "saved step-000001\n");
}

TEST(Progress, NothingIsPrintedForWorkThatNeverMoved) {
  FakeTerminal terminal(true);
  { const Progress progress({.label = "train", .total = 10}, terminal.get()); }
  EXPECT_EQ(terminal.text(), "");
}

TEST(Progress, AFileIsNotInteractive) {
  std::FILE* file = std::tmpfile();
  EXPECT_FALSE(Terminal::of(file).interactive);
  EXPECT_GT(Terminal::of(file).columns(), 0);
  const double first = Terminal::of(file).seconds();
  EXPECT_GE(Terminal::of(file).seconds(), first);
  std::fclose(file);
}

}  // namespace
}  // namespace smoe
