// The directory that a conversion writes, and what it carries over as it is.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "trainer/convert/carried.h"
#include "trainer/convert/new_directory.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;
using test::expect_refused;
using test::ScratchDir;
using test::slurp;
using test::spill;

TEST(NewDirectory, AppearsWholeUnderItsName) {
  const ScratchDir scratch;
  const fs::path out = scratch / "below" / "out";
  {
    NewDirectory directory(out, {});
    spill(directory.path() / "file", "content");
    EXPECT_FALSE(fs::exists(out));
    EXPECT_EQ(directory.path().filename().string().front(), '.');
    directory.commit();
  }
  EXPECT_EQ(slurp(out / "file"), "content");
  EXPECT_EQ(std::distance(fs::directory_iterator(out.parent_path()), {}), 1);
}

TEST(NewDirectory, LeavesNothingWhereItIsNotCommitted) {
  const ScratchDir scratch;
  {
    NewDirectory directory(scratch / "out", {});
    spill(directory.path() / "file", "content");
  }
  EXPECT_EQ(scratch.entries(), 0u);
}

TEST(NewDirectory, TakesThePlaceOfAnEmptyOneAndOfWhatAKilledOneLeft) {
  const ScratchDir scratch;
  fs::create_directories(scratch / "out");
  scratch.write(".out.unfinished/part", "of an earlier one");
  {
    NewDirectory directory((scratch / "out").string() + "/", {});
    EXPECT_TRUE(fs::is_empty(directory.path()));
    spill(directory.path() / "file", "content");
    directory.commit();
  }
  EXPECT_EQ(slurp(scratch / "out" / "file"), "content");
  EXPECT_EQ(scratch.entries(), 1u);
}

TEST(NewDirectory, FollowsALinkToAnEmptyDirectory) {
  const ScratchDir scratch;
  fs::create_directories(scratch / "elsewhere");
  fs::create_directory_symlink("elsewhere", scratch / "out");
  {
    NewDirectory directory(scratch / "out", {});
    spill(directory.path() / "file", "content");
    directory.commit();
  }
  EXPECT_TRUE(fs::is_symlink(scratch / "out"));
  EXPECT_EQ(slurp(scratch / "elsewhere" / "file"), "content");
}

TEST(NewDirectory, RefusesWhatIsThereAlready) {
  const ScratchDir scratch;
  scratch.write("full/mine", "x");
  scratch.write("file", "x");
  fs::create_symlink("nowhere", scratch / "dangling");
  fs::create_directory(scratch / "source");
  expect_refused([&] { NewDirectory(scratch / "full", {}); }, {"full holds mine", "new or empty", "--out"});
  expect_refused([&] { NewDirectory(scratch / "file", {}); }, {"file exists and is not a directory"});
  expect_refused([&] { NewDirectory(scratch / "file" / "below", {}); }, {"file", "not a directory"});
  expect_refused(
      [&] {
        NewDirectory(scratch / "source", {scratch / "full", scratch / "full" / ".." / "source"});
      },
      {"source is what is read", "--out"});
  expect_refused([&] { NewDirectory(scratch / "source" / "new", {scratch / "source" / ""}); },
                 {"new lies in", "source/, which is read", "--out"});
  EXPECT_TRUE(fs::is_empty(scratch / "source"));
  expect_refused([&] { NewDirectory("", {}); }, {"names no new directory"});
  expect_refused([&] { NewDirectory(scratch / "source" / "..", {}); }, {"names no new directory"});
  expect_refused([&] { NewDirectory(scratch / "dangling", {}); }, {"dangling is a link to nothing"});
  EXPECT_EQ(scratch.entries(), 4u);
  EXPECT_EQ(slurp(scratch / "full" / "mine"), "x");
}

TEST(NewDirectory, OneProcessAtATime) {
  const ScratchDir scratch;
  auto first = std::make_unique<NewDirectory>(scratch / "out", std::vector<fs::path>());
  spill(first->path() / "file", "content");
  expect_refused([&] { NewDirectory(scratch / "out", {}); }, {"another process is writing it"});
  EXPECT_EQ(slurp(first->path() / "file"), "content");
  first->commit();
  first.reset();
  expect_refused([&] { NewDirectory(scratch / "out", {}); }, {"out holds file"});
  EXPECT_EQ(scratch.entries(), 1u);
}

TEST(Carried, TensorsBitForBitWhateverTheirTypeAndSize) {
  const ScratchDir scratch;
  std::vector<std::uint16_t> large((5 << 20) / 2);  // more than a piece, and no whole number of them
  std::iota(large.begin(), large.end(), std::uint16_t{0});
  const std::vector<TensorSpec> specs{{"large", TensorType::bf16, {std::int64_t{5 << 19}}},
                                      {"bytes", TensorType::f8_e4m3, {3}},
                                      {"none", TensorType::f32, {0, 4}}};
  const fs::path from = scratch / "from", to = scratch / "to";
  fs::create_directories(from);
  fs::create_directories(to);
  auto source = TensorDirectoryWriter::create(from, specs);
  source.write_raw("large", 0, std::as_bytes(std::span(large)));
  source.write_raw("bytes", 0, std::as_bytes(std::span("abc", 3)));
  source.finish();

  const TensorDirectory read(from);
  std::vector<TensorSpec> there = specs;
  there[0].name = "renamed";
  auto writer = TensorDirectoryWriter::create(to, there);
  carry_tensor(read, "large", writer, "renamed");
  carry_tensor(read, "bytes", writer, "bytes");
  carry_tensor(read, "none", writer, "none");
  writer.finish();
  const TensorDirectory written(to);
  EXPECT_TRUE(std::ranges::equal(written.raw("renamed"), std::as_bytes(std::span(large))));
  EXPECT_TRUE(std::ranges::equal(written.raw("bytes"), std::as_bytes(std::span("abc", 3))));
}

TEST(Carried, TheTokenizersFilesAndHowItGenerates) {
  const ScratchDir scratch;
  scratch.write("from/tokenizer.json", "{ }");
  scratch.write("from/chat_template.jinja", "{{ x }}");
  scratch.write("from/generation_config.json", "{\"temperature\":  0.6}");
  scratch.write("from/README.md", "stays");
  scratch.write("to/generation_config.json", "{}");
  carry_text_files(scratch / "from", scratch / "to");
  EXPECT_EQ(slurp(scratch / "to" / "tokenizer.json"), "{ }");
  EXPECT_EQ(slurp(scratch / "to" / "chat_template.jinja"), "{{ x }}");
  EXPECT_EQ(slurp(scratch / "to" / "generation_config.json"), "{\"temperature\":  0.6}");
  EXPECT_FALSE(fs::exists(scratch / "to" / "README.md"));
}

}  // namespace
}  // namespace smoe
