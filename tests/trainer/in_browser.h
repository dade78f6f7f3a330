// A page in headless Chromium: what it makes of itself, and what its console says. Skipped where there is none.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <regex>
#include <string>

#include "data/files/files.h"
#include "tests/support/scratch_dir.h"

namespace smoe::test {

struct BrowserVisit {
  std::string dom;  // or, of a print, the file
  std::string log;
  bool console_spoke() const { return log.find("CONSOLE") != std::string::npos; }
  int count(const std::string& pattern) const {
    const std::regex piece(pattern);
    return static_cast<int>(std::distance(std::sregex_iterator(dom.begin(), dom.end(), piece), std::sregex_iterator()));
  }
  int canvases() const { return count("<canvas"); }
};

class InBrowser : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v chromium >/dev/null 2>&1") != 0) GTEST_SKIP() << "no chromium on this machine";
  }

  BrowserVisit visit(const std::filesystem::path& page) {
    const std::filesystem::path dom = dir_.path() / "dom.html";
    return run("--dump-dom 'file://" + page.string() + "' >'" + dom.string() + "'", dom);
  }

  BrowserVisit print(const std::filesystem::path& page) {
    const std::filesystem::path pdf = dir_.path() / "page.pdf";
    return run("--print-to-pdf='" + pdf.string() + "' 'file://" + page.string() + "'", pdf);
  }

  ScratchDir dir_;

 private:
  BrowserVisit run(const std::string& arguments, const std::filesystem::path& made) {
    const std::filesystem::path log = dir_.path() / "chromium.log";
    const std::string command =
        "timeout 60 chromium --headless --no-sandbox --disable-gpu --window-size=1400,2000 "
        "--user-data-dir='" +
        (dir_.path() / "profile").string() + "' --virtual-time-budget=5000 --enable-logging=stderr " + arguments +
        " 2>'" + log.string() + "'";
    const int status = std::system(command.c_str());
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << read_file(log, 1 << 24);
    return {read_file(made, 1 << 26), read_file(log, 1 << 24)};
  }
};

}  // namespace smoe::test
