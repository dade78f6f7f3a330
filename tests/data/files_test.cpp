#include "data/files/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <vector>

#include "tests/data/file_size_limit.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using test::expect_refused;
using test::FileSizeLimit;
using test::ScratchDir;
using test::slurp;
using test::spill;
namespace fs = std::filesystem;

mode_t mode_of(const fs::path& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return status.st_mode & 07777;
}

TEST(Files, ReadsBackWhatWasWrittenAtomically) {
  ScratchDir scratch;
  const std::string content("a\0b\n\xff", 5);
  write_file_atomically(scratch / "f", content);
  EXPECT_EQ(read_file(scratch / "f", 5), content);
  write_file_atomically(scratch / "f", "");
  EXPECT_EQ(read_file(scratch / "f", 5), "");
  EXPECT_EQ(scratch.entries(), 1u);
}

TEST(Files, AtomicFileShowsNothingBeforeCommitAndLeavesNothingWithoutIt) {
  ScratchDir scratch;
  spill(scratch / "f", "old");
  {
    AtomicFile file(scratch / "f");
    file.write("new ");
    file.write("content");
    EXPECT_EQ(slurp(scratch / "f"), "old");
  }
  EXPECT_EQ(slurp(scratch / "f"), "old");
  EXPECT_EQ(scratch.entries(), 1u);

  AtomicFile file(scratch / "f");
  file.write("new ");
  file.write("content");
  file.commit();
  EXPECT_EQ(slurp(scratch / "f"), "new content");
  EXPECT_EQ(scratch.entries(), 1u);
}

TEST(Files, TemporariesOfKilledWritersAreRemovedAndNothingElse) {
  ScratchDir scratch;
  for (const char* name :
       {".f.tmp-0123456789abcdef", ".f.tmp-0123456789abcde", ".f.tmp-0123456789abcdeg", ".g.tmp-0123456789abcdef", "f"})
    spill(scratch / name, "content");
  remove_temporaries(scratch / "f");
  EXPECT_FALSE(fs::exists(scratch / ".f.tmp-0123456789abcdef"));
  EXPECT_EQ(scratch.entries(), 4u);
  remove_temporaries(scratch / "no such directory" / "f");
}

TEST(Files, WritingOverASymlinkReplacesTheLinkAndSparesItsTarget) {
  ScratchDir scratch;
  spill(scratch / "elsewhere", "precious");
  fs::create_symlink("elsewhere", scratch / "link");
  write_file_atomically(scratch / "link", "new");
  EXPECT_EQ(slurp(scratch / "elsewhere"), "precious");
  EXPECT_FALSE(fs::is_symlink(scratch / "link"));
}

TEST(Files, ModesHonourTheUmask) {
  ScratchDir scratch;
  const mode_t before = ::umask(027);
  write_file_atomically(scratch / "f", "x");
  make_directories(scratch / "d/e");
  ::umask(before);
  EXPECT_EQ(mode_of(scratch / "f"), 0640u);
  EXPECT_EQ(mode_of(scratch / "d/e"), 0750u);
}

TEST(Files, MakesMissingDirectoriesAndAcceptsPresentOnes) {
  ScratchDir scratch;
  make_directories(scratch / "a/b/c/");
  make_directories(scratch / "a/b/c");
  EXPECT_TRUE(fs::is_directory(scratch / "a/b/c"));
  fs::create_directory_symlink("a", scratch / "link");
  make_directories(scratch / "link/d");
  EXPECT_TRUE(fs::is_directory(scratch / "a/d"));
}

TEST(Files, ReservedFileHasItsSizeAndReadsAsZeros) {
  ScratchDir scratch;
  File file = File::create(scratch / "f");
  file.reserve(100'000);
  EXPECT_EQ(file.size(), 100'000u);
  file.pwrite_all("end", 3, 99'997);
  std::vector<char> bytes(100'000, 'x');
  file.pread_all(bytes.data(), bytes.size(), 0);
  EXPECT_EQ(bytes[0], 0);
  EXPECT_EQ(std::string(bytes.end() - 4, bytes.end()), std::string("\0end", 4));
  file.sync();
  file.close();
  EXPECT_FALSE(file.is_open());
}

TEST(Files, MappedFileShowsTheContentAndMoves) {
  ScratchDir scratch;
  spill(scratch / "f", "mapped");
  spill(scratch / "empty", "");
  MappedFile map(scratch / "f");
  const MappedFile moved = std::move(map);
  EXPECT_TRUE(map.bytes().empty());
  ASSERT_EQ(moved.bytes().size(), 6u);
  EXPECT_EQ(static_cast<char>(moved.bytes()[5]), 'd');
  EXPECT_TRUE(MappedFile(scratch / "empty").bytes().empty());
}

TEST(FilesBadInput, MissingFileIsNamed) {
  ScratchDir scratch;
  expect_refused([&] { read_file(scratch / "absent", 10); }, {"absent", "No such file"});
}

TEST(FilesBadInput, DirectoryAndFifoAreRefusedWithoutWaiting) {
  ScratchDir scratch;
  ASSERT_EQ(::mkfifo((scratch / "fifo").c_str(), 0600), 0);
  expect_refused([&] { read_file(scratch / "fifo", 10); }, {"fifo", "a FIFO", "regular file"});
  expect_refused([&] { read_file(scratch.path(), 10); }, {"a directory", "regular file"});
  expect_refused([&] { read_file("/dev/null", 10); }, {"/dev/null", "a device"});
}

// A file under their name would be the end of them.
TEST(FilesBadInput, DevicesAndFifosAreNotReplaced) {
  ScratchDir scratch;
  ASSERT_EQ(::mkfifo((scratch / "fifo").c_str(), 0600), 0);
  std::filesystem::create_symlink("/dev/null", scratch / "link");
  expect_refused([&] { write_file_atomically(scratch / "fifo", "x"); },
                 {"cannot write", "fifo", "a FIFO", "regular file"});
  expect_refused([&] { write_file_atomically(scratch / "link", "x"); }, {"link", "a device"});
  EXPECT_TRUE(std::filesystem::is_fifo(scratch / "fifo"));
  EXPECT_TRUE(std::filesystem::is_symlink(scratch / "link"));
}

TEST(FilesBadInput, FileOverTheCapIsRefusedBeforeReading) {
  ScratchDir scratch;
  spill(scratch / "f", "12345");
  expect_refused([&] { read_file(scratch / "f", 4); }, {"f holds 5 bytes", "at most 4"});
}

TEST(FilesBadInput, ReadPastTheEndIsRefused) {
  ScratchDir scratch;
  spill(scratch / "f", "12345");
  char buffer[8];
  expect_refused([&] { File::open_to_read(scratch / "f").pread_all(buffer, 8, 0); }, {"ends at byte 5", "3 more"});
}

TEST(FilesBadInput, CreateRefusesWhatExistsAndUpdateRefusesSymlinks) {
  ScratchDir scratch;
  spill(scratch / "f", "x");
  fs::create_symlink("nowhere", scratch / "dangling");
  fs::create_symlink("f", scratch / "link");
  expect_refused([&] { File::create(scratch / "f"); }, {"File exists"});
  expect_refused([&] { File::create(scratch / "dangling"); }, {"dangling"});
  EXPECT_FALSE(fs::exists(scratch / "nowhere"));
  expect_refused([&] { File::open_to_update(scratch / "link"); }, {"link"});
}

TEST(FilesBadInput, FullDiskNamesPathAndBytesAndLeavesTheOldFile) {
  ScratchDir scratch;
  write_file_atomically(scratch / "f", "old");
  {
    const FileSizeLimit limit(1000);
    expect_refused([&] { write_file_atomically(scratch / "f", std::string(5000, 'x')); },
                   {"4000 bytes at offset 1000", ".f.tmp-", "File too large"});
    File file = File::create(scratch / "g");
    expect_refused([&] { file.reserve(5000); }, {"5000 bytes", "/g", "File too large"});
  }
  EXPECT_EQ(slurp(scratch / "f"), "old");
  EXPECT_EQ(scratch.entries(), 2u);
}

TEST(FilesBadInput, OutputIntoNothingIsRefused) {
  ScratchDir scratch;
  spill(scratch / "file", "x");
  expect_refused([&] { write_file_atomically(scratch / "absent/f", "x"); }, {"absent", "No such file"});
  expect_refused([&] { write_file_atomically(scratch / "file/f", "x"); }, {"Not a directory"});
  expect_refused([&] { write_file_atomically(scratch.path() / "", "x"); }, {"names no file"});
  expect_refused([&] { make_directories(scratch / "file/d"); }, {"file exists and is not a directory"});
  EXPECT_EQ(scratch.entries(), 1u);
}

}  // namespace
}  // namespace smoe
