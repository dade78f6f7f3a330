#include "data/files/sha256.h"

#include <gtest/gtest.h>

#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

// FIPS 180-4 example values.
constexpr char kEmpty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kMillionA[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, StandardVectors) {
  EXPECT_EQ(sha256_hex(""), kEmpty);
  EXPECT_EQ(sha256_hex("abc"), kAbc);
}

TEST(Sha256, StreamingInPiecesEqualsAtOnceAndHexStartsAfresh) {
  Sha256 hash;
  for (int i = 0; i < 10'000; ++i) hash.update(std::string(100, 'a'));
  EXPECT_EQ(hash.hex(), kMillionA);
  EXPECT_EQ(hash.update("abc").hex(), kAbc);
  EXPECT_EQ(hash.hex(), kEmpty);
}

TEST(Sha256, FileLargerThanTheBufferEqualsItsBytes) {
  test::ScratchDir scratch;
  std::string content((3 << 20) + 17, '\0');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 + i / 1000);
  test::spill(scratch / "f", content);
  test::spill(scratch / "empty", "");
  EXPECT_EQ(sha256_file(scratch / "f"), sha256_hex(content));
  EXPECT_EQ(sha256_file(scratch / "empty"), kEmpty);
}

TEST(Sha256BadInput, DirectoryIsRefused) {
  test::ScratchDir scratch;
  test::expect_refused([&] { sha256_file(scratch.path()); }, {"a directory"});
}

}  // namespace
}  // namespace smoe
