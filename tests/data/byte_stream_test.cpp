// Streams of files, of pipes and of what is compressed.
#include "data/files/byte_stream.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "data/files/read_ahead.h"
#include "tests/data/packed.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using namespace test;
using namespace std::string_literals;

// Text that does not pack away, of so many bytes.
std::string noisy_text(std::size_t bytes) {
  std::string text;
  for (std::uint32_t state = 1; text.size() < bytes;) {
    state = state * 1664525 + 1013904223;
    text += state >> 28 == 0 ? '\n' : static_cast<char>('a' + (state >> 24) % 26);
  }
  return text;
}

// What a file holds, taken `bytes` at a time behind a head that was looked at.
std::string read_all(const std::filesystem::path& path, std::size_t bytes, std::size_t head = 64) {
  PeekedStream stream(open_byte_stream(path), display_name(path), head);
  std::string all, some(bytes, '\0');
  while (const std::size_t n = stream.read(some.data(), bytes)) all.append(some, 0, n);
  EXPECT_EQ(all.substr(0, stream.head().size()), stream.head());
  EXPECT_EQ(stream.head_is_all(), all.size() == stream.head().size());
  return all;
}

TEST(ByteStream, ReadsWhatGzipAndZstdPacked) {
  const ScratchDir directory;
  const std::string text = noisy_text(700'000);
  spill(directory / "plain", text);
  spill(directory / "gzip", gzip_of(text));
  spill(directory / "members", gzip_of(text.substr(0, 100)) + gzip_of("") + gzip_of(text.substr(100)));
  spill(directory / "zstd", zstd_of(text));
  spill(directory / "frames", zstd_of(text.substr(0, 300'000)) + "\x50\x2A\x4D\x18\3\0\0\0skp"s + zstd_of("") +
                                  zstd_of(text.substr(300'000)));
  spill(directory / "skipped", "\x5F\x2A\x4D\x18\3\0\0\0skp"s + zstd_of(text));
  spill(directory / "padded", gzip_of(text) + std::string(300'000, '\0'));
  for (const char* name : {"plain", "gzip", "members", "zstd", "frames", "skipped", "padded"}) {
    for (const std::size_t bytes : {std::size_t{1000}, std::size_t{1} << 20})
      for (const std::size_t head : {std::size_t{6}, std::size_t{65536}, std::size_t{1} << 20})
        EXPECT_TRUE(read_all(directory / name, bytes, head) == text) << name << " " << bytes;
    const auto stream = std::make_shared<PeekedStream>(open_byte_stream(directory / name), name, 10);
    ReadAhead ahead(stream);
    std::string all;
    ReadAhead::Block block;
    while (ahead.next(block)) all += block.bytes;
    EXPECT_TRUE(all == text) << name;
    EXPECT_EQ(block.file_bytes, std::filesystem::file_size(directory / name)) << name;
  }
}

TEST(ByteStream, ReadsWhatIsEmpty) {
  const ScratchDir directory;
  spill(directory / "plain", "");
  spill(directory / "gzip", gzip_of(""));
  spill(directory / "zstd", zstd_of(""));
  for (const char* name : {"plain", "gzip", "zstd"}) EXPECT_EQ(read_all(directory / name, 100), "") << name;
  spill(directory / "short", "\x1F\x8B");
  EXPECT_EQ(read_all(directory / "short", 100), "\x1F\x8B");
}

// All that a kilobyte of zstd may become passes through, a block at a time.
TEST(ByteStream, ABombTakesNoMemory) {
  const ScratchDir directory;
  const std::string packed = zstd_of(std::string(64 << 20, ' '));
  ASSERT_LT(packed.size(), 20'000u);
  spill(directory / "bomb", packed);
  const auto stream = std::make_shared<PeekedStream>(open_byte_stream(directory / "bomb"), "bomb", 10);
  ReadAhead ahead(stream);
  std::uint64_t bytes = 0;
  for (ReadAhead::Block block; ahead.next(block);) {
    EXPECT_LE(block.bytes.size(), ReadAhead::block_bytes);
    bytes += block.bytes.size();
  }
  EXPECT_EQ(bytes, 64u << 20);
}

TEST(ByteStreamBadInput, NamesTheFileAndThePlace) {
  const ScratchDir directory;
  const std::string text = noisy_text(50'000), gzip = gzip_of(text), zstd = zstd_of(text);
  const auto refused = [&](const std::string& bytes, std::initializer_list<std::string_view> pieces) {
    spill(directory / "f", bytes);
    for (const std::size_t head : {6, 1 << 20}) expect_refused([&] { read_all(directory / "f", 1000, head); }, pieces);
  };
  for (const std::size_t size : {std::size_t{3}, std::size_t{12}, gzip.size() / 2, gzip.size() - 8, gzip.size() - 1})
    refused(gzip.substr(0, size),
            {"f: byte " + std::to_string(size) + " of the file: the gzip data end within a member", "complete"});
  for (const std::size_t size : {std::size_t{4}, zstd.size() / 2, zstd.size() - 1})
    refused(zstd.substr(0, size),
            {"f: byte " + std::to_string(size) + " of the file: the zstd data end within a frame", "complete"});
  refused(gzip + "x", {"f: byte " + std::to_string(gzip.size()) + " of the file: \"x\" follows a gzip member"});
  refused(gzip + std::string(200'000, '\0') + "x", {"f: byte " + std::to_string(gzip.size() + 200'000) +
                                                    " of the file: \"x\" follows the zeros behind a gzip member"});
  refused(gzip + "\x1Fx", {"f: byte ", "the gzip data are damaged"});
  refused(zstd + "some words", {"f: byte ", "no zstd frame begins here"});
  std::string damaged = gzip;
  damaged[damaged.size() - 6] ^= 1;  // of the checksum
  refused(damaged, {"the gzip data are damaged (incorrect data check)"});
  damaged = zstd;
  damaged[damaged.size() - 2] ^= 1;
  refused(damaged, {"the zstd data are damaged", "checksum"});
  refused(zstd_of(std::string(3000, 'x'), 28), {"f: was compressed with a window of more than 128 MiB", "--long=31"});
}

TEST(ByteStreamBadInput, SaysBetweenWhichBytesZstdIsDamaged) {
  const ScratchDir directory;
  const std::string first = zstd_of(noisy_text(500'000)), packed = first + zstd_of(noisy_text(2'000'000));
  // Where the blocks of the second frame begin. Each has tables first, or goes by those of the block before.
  std::vector<std::size_t> blocks;
  const auto byte = [&](std::size_t at) { return static_cast<std::size_t>(static_cast<unsigned char>(packed[at])); };
  for (std::size_t at = first.size() + 6; at + 3 < packed.size() - 4;) {
    blocks.push_back(at);
    at += 3 + ((byte(at) | byte(at + 1) << 8 | byte(at + 2) << 16) >> 3);
  }
  ASSERT_GT(blocks.size(), 10u);
  std::vector<std::size_t> places;
  for (const std::size_t block : blocks)
    for (const std::size_t offset : {4, 9, 5000}) places.push_back(std::min(block + offset, packed.size() - 1));
  int narrow = 0;
  for (const std::size_t at : places) {
    std::string damaged = packed;
    damaged[at] ^= 0x55;
    spill(directory / "f", damaged);
    const std::string said = message_of([&] { read_all(directory / "f", 10'000); });
    unsigned long long from = 0, to = 0;
    const std::size_t place = said.find("between bytes ");
    ASSERT_NE(place, std::string::npos) << said;
    ASSERT_EQ(std::sscanf(said.c_str() + place, "between bytes %llu and %llu", &from, &to), 2) << said;
    EXPECT_LE(from, at) << said;
    EXPECT_GE(to, at) << said;
    EXPECT_GE(from, first.size()) << "of the frame before";
    narrow += to < packed.size();
  }
  EXPECT_GT(narrow, 10);  // what was not read yet is not suspected
}

TEST(ByteStreamBadInput, RefusesWhatIsNoFile) {
  const ScratchDir directory;
  expect_refused([&] { open_byte_stream(directory / "nowhere"); }, {"cannot read", "nowhere", "No such file"});
  expect_refused([&] { open_byte_stream(directory.path()); }, {"is a directory"});
  expect_refused([&] { open_byte_stream("/dev/zero"); }, {"is a device"});
}

TEST(ReadAhead, GivesWhatCameBeforeAnError) {
  const ScratchDir directory;
  const std::string packed = gzip_of(noisy_text(3 << 20));
  spill(directory / "f", packed.substr(0, packed.size() - 3));
  ReadAhead ahead(std::make_shared<PeekedStream>(open_byte_stream(directory / "f"), "f", 10));
  ReadAhead::Block block;
  int blocks = 0;
  expect_refused(
      [&] {
        while (ahead.next(block)) ++blocks;
      },
      {"the gzip data end within a member"});
  EXPECT_GE(blocks, 2);
}

// Whoever gives up does not wait for a pipe that says nothing.
TEST(ReadAhead, LeavesASilentPipe) {
  const ScratchDir directory;
  const std::string name = (directory / "pipe").string();
  ASSERT_EQ(::mkfifo(name.c_str(), 0600), 0);
  std::FILE* writer = nullptr;
  std::thread opens([&] { writer = std::fopen(name.c_str(), "w"); });
  auto stream = open_byte_stream(name);
  opens.join();
  {
    const ReadAhead ahead(std::move(stream));
    ::usleep(10'000);
  }
  std::fclose(writer);
}

}  // namespace
}  // namespace smoe
