// Every seed and everything that the fuzzers ever found, through the same functions, with any compiler.
#include <gtest/gtest.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {

void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }

namespace {

namespace fs = std::filesystem;

const fs::path fuzz_folder = fs::path(SMOE_SOURCE_DIR) / "tests" / "fuzz";

std::vector<fs::path> inputs(const char* kind, const std::string& target) {
  std::vector<fs::path> files;
  if (!fs::exists(fuzz_folder / kind / target)) return files;
  for (const auto& entry : fs::directory_iterator(fuzz_folder / kind / target)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// Whether it was read.
bool replay(const Target& target, const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  EXPECT_TRUE(in) << file;
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  try {
    return target.run(bytes);
  } catch (const std::exception& error) {
    ADD_FAILURE() << file << ": " << error.what();
    return false;
  }
}

class FuzzReplay : public testing::TestWithParam<Target> {};

TEST_P(FuzzReplay, Seeds) {
  int read = 0, refused = 0;
  for (const fs::path& file : inputs("seeds", GetParam().name)) ++(replay(GetParam(), file) ? read : refused);
  EXPECT_GT(read, 0) << "no seed is what the reader takes: the fuzzer would learn refusals alone";
  EXPECT_GT(refused, 0) << "no seed is refused";
}

TEST_P(FuzzReplay, Found) {
  for (const fs::path& file : inputs("found", GetParam().name)) replay(GetParam(), file);
}

INSTANTIATE_TEST_SUITE_P(, FuzzReplay, testing::ValuesIn(targets().begin(), targets().end()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(FuzzReplayTarget, HasEveryFolder) {
  std::set<std::string> names;
  for (const Target& target : targets()) names.insert(target.name);
  for (const char* kind : {"seeds", "found"})
    for (const auto& entry : fs::directory_iterator(fuzz_folder / kind))
      EXPECT_TRUE(names.contains(entry.path().filename().string())) << entry.path() << " is no target's";
}

TEST(FuzzReplayTarget, TellsReadingRefusingAndBreakingApart) {
  EXPECT_FALSE(reads([] { throw std::runtime_error("refused"); }));
  EXPECT_TRUE(reads([] {}));
  EXPECT_THROW(reads([] { throw std::runtime_error("an \x1b[31m escape"); }), Broken);
  EXPECT_THROW(reads([] { throw std::logic_error("a mistake of ours"); }), std::logic_error);
}

}  // namespace
}  // namespace smoe::fuzz
