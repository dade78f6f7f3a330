// Hostile and damaged safetensors files: every one is refused with a message, none is half-believed.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <random>

#include "data/files/safetensors.h"
#include "tests/data/file_size_limit.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using test::expect_refused;
using test::ScratchDir;
using test::spill;

std::string framed(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + std::string(data_bytes, '\1');
}

void expect_file_refused(const std::string& bytes, std::initializer_list<std::string_view> pieces) {
  ScratchDir scratch;
  spill(scratch / "m.safetensors", bytes);
  SCOPED_TRACE(bytes.substr(0, 300));
  expect_refused([&] { SafetensorsReader(scratch / "m.safetensors"); }, {"m.safetensors"});
  expect_refused([&] { SafetensorsReader(scratch / "m.safetensors"); }, pieces);
  expect_refused([&] { SafetensorsWriter::open_for_slices(scratch / "m.safetensors"); }, pieces);
}

std::vector<std::string> names_accepted(const std::string& bytes) {
  ScratchDir scratch;
  spill(scratch / "m", bytes);
  std::vector<std::string> names;
  const SafetensorsReader reader(scratch / "m");
  for (const TensorInfo& tensor : reader.tensors()) names.push_back(tensor.name);
  return names;
}

using Names = std::vector<std::string>;

TEST(SafetensorsBadInput, WellFormedOnesAreAccepted) {  // so that the refusals below are for their stated reason
  EXPECT_EQ(
      names_accepted(framed(
          R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
          16)),
      (Names{"a", "b"}));
  EXPECT_EQ(names_accepted(framed("{}", 0)), Names{});
  EXPECT_EQ(names_accepted(framed("{}      ", 0)), Names{});
  EXPECT_EQ(names_accepted(framed(R"({"__metadata__":null,"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8)),
            Names{"a"});
}

TEST(SafetensorsBadInput, APointerOfGitLfsIsNamed) {
  expect_file_refused("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 4221679088\n",
                      {"a pointer of Git LFS in place of the tensors", "git lfs pull"});
}

TEST(SafetensorsBadInput, OverlapAndHole) {
  expect_file_refused(
      framed(
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
          12),
      {"\"b\" begins at byte 4, expected 8", "overlap"});
  expect_file_refused(
      framed(
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
          8),
      {"overlap"});
  expect_file_refused(
      framed(
          R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})",
          20),
      {"\"b\" begins at byte 12, expected 8", "hole"});
  expect_file_refused(framed(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12), {"hole"});
}

TEST(SafetensorsBadInput, EmptyTensorsHaveTheirPlaceInTheOrder) {
  const std::string around =
      R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]})";
  EXPECT_EQ(
      names_accepted(framed(
          "{" + around +
              R"(,"y":{"dtype":"F32","shape":[0],"data_offsets":[8,8]},"z":{"dtype":"F32","shape":[3,0],"data_offsets":[8,8]}})",
          12)),
      (Names{"a", "y", "z", "b"}));
  EXPECT_EQ(names_accepted(framed(R"({"z":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})", 0)), (Names{"z"}));
  expect_file_refused(framed("{" + around + R"(,"z":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}})", 12),
                      {"\"z\" begins at byte 4", "overlap"});
  expect_file_refused(framed("{" + around + R"(,"z":{"dtype":"F32","shape":[0],"data_offsets":[99,99]}})", 12),
                      {"hole"});
  expect_file_refused(framed(R"({"z":{"dtype":"F32","shape":[],"data_offsets":[0,0]}})", 0),
                      {"do not span the 4 bytes"});
}

TEST(SafetensorsBadInput, ShapesThatOverflow) {
  // The product of this one is 4 modulo 2^64.
  expect_file_refused(
      framed(R"({"a":{"dtype":"F32","shape":[4194305,4194305,211106198978564],"data_offsets":[0,16]}})", 16),
      {"larger than any file"});
  expect_file_refused(framed(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0),
                      {"larger than any file"});
  expect_file_refused(framed(R"({"a":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})", 0),
                      {"larger than any file"});
  expect_file_refused(framed(R"({"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,0]}})", 0),
                      {"an integer from 0"});
  expect_file_refused(framed(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,0]}})", 0),
                      {"an integer from 0"});
}

TEST(SafetensorsBadInput, FieldsOfTheWrongKind) {
  const auto tensor = [](const std::string& fields) { return framed("{\"a\":{" + fields + "}}", 8); };
  expect_file_refused(tensor(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), {"found 2.0"});
  expect_file_refused(tensor(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), {"found -2"});
  expect_file_refused(tensor(R"("dtype":"F32","shape":[true],"data_offsets":[0,8])"), {"found true"});
  expect_file_refused(tensor(R"("dtype":"F32","shape":"2","data_offsets":[0,8])"), {"\"shape\"", "an array"});
  expect_file_refused(tensor(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])"), {"dtype \"F33\"", "BF16"});
  expect_file_refused(tensor(R"("dtype":7,"shape":[2],"data_offsets":[0,8])"), {"\"dtype\"", "a string"});
  expect_file_refused(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), {"1 data_offsets"});
  expect_file_refused(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), {"do not span"});
  expect_file_refused(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,7])"), {"do not span the 8 bytes"});
  expect_file_refused(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[-8,0])"), {"found -8"});
  expect_file_refused(tensor(R"("dtype":"F32","shape":[2])"), {"data_offsets", "missing"});
  expect_file_refused(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1)"), {"unknown key \"more\""});
  expect_file_refused(framed(R"({"a":7})", 0), {"expected an object"});
  expect_file_refused(framed(R"({"__metadata__":{"format":1}})", 0), {"__metadata__", "a string"});
  expect_file_refused(framed(R"({"__metadata__":[]})", 0), {"__metadata__", "an object"});
}

TEST(SafetensorsBadInput, DuplicateKeys) {
  const std::string a = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  expect_file_refused(framed("{" + a + "," + a + "}", 8), {"\"a\" appears twice"});
  expect_file_refused(framed(R"({"a":{"dtype":"U8","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8),
                      {"\"dtype\" appears twice"});
  expect_file_refused(framed(R"({"__metadata__":{},"__metadata__":{}})", 0), {"appears twice"});
}

TEST(SafetensorsBadInput, HeadersThatAreNoHeaders) {
  expect_file_refused("", {"0 bytes"});
  expect_file_refused("1234567", {"7 bytes"});
  expect_file_refused(std::string(8, '\0'), {"does not open with '{'"});
  expect_file_refused(std::string(8, '\xff') + "{}", {"header of 18446744073709551615 bytes", "at most 2"});
  expect_file_refused(framed("{}", 0).replace(0, 1, "\3"), {"header of 3 bytes in a file of 10"});
  expect_file_refused(framed(" {}", 0), {"does not open with '{'"});
  expect_file_refused(framed("[]", 0), {"does not open with '{'"});
  expect_file_refused(framed("\xef\xbb\xbf{}", 0), {"does not open with '{'"});
  expect_file_refused(framed(std::string("{}\0\0", 4), 0), {"not valid JSON"});
  expect_file_refused(framed("{}{}", 0), {"not valid JSON"});
  expect_file_refused(framed("{\"a\xff\":1}", 0), {"not valid JSON"});
  expect_file_refused(framed("{\"a\":" + std::string(100'000, '['), 0), {"deeper than 3"});
}

TEST(SafetensorsBadInput, HeaderOverTheFormatsLimit) {
  ScratchDir scratch;
  const std::uint64_t length = 100'000'001;
  spill(scratch / "m", std::string(reinterpret_cast<const char*>(&length), 8) + "{}");
  std::filesystem::resize_file(scratch / "m", 200'000'000);  // sparse
  expect_refused([&] { SafetensorsReader(scratch / "m"); }, {"header of 100000001 bytes", "at most 100000000"});
}

TEST(SafetensorsBadInput, TruncationAtEveryLengthAndForeignTail) {
  const std::string good = framed(R"({"a":{"dtype":"BF16","shape":[3,7],"data_offsets":[0,42]}})", 42);
  ASSERT_EQ(names_accepted(good), (Names{"a"}));
  for (std::size_t length = 0; length < good.size(); ++length) expect_file_refused(good.substr(0, length), {});
  expect_file_refused(good + "PK\3\4 a second file in the first", {"foreign bytes follow"});
  expect_file_refused(good.substr(0, good.size() - 1), {"42 bytes", "41", "cut short"});
}

TEST(SafetensorsBadInput, MessagesCarryNoControlCharacters) {
  ScratchDir scratch;
  spill(scratch / "m", framed(R"({"\u001b[31m\n":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})", 9));
  try {
    SafetensorsReader reader(scratch / "m");
    FAIL();
  } catch (const std::runtime_error& error) {
    for (const char c : std::string(error.what())) EXPECT_GE(c, ' ');
  }
}

TEST(SafetensorsBadInput, NotAFileAndWrongTypes) {
  ScratchDir scratch;
  ASSERT_EQ(::mkfifo((scratch / "fifo").c_str(), 0600), 0);
  expect_refused([&] { SafetensorsReader(scratch / "fifo"); }, {"fifo", "a FIFO"});
  expect_refused([&] { SafetensorsReader(scratch / "absent"); }, {"absent", "No such file"});
  spill(scratch / "m", framed(R"({"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", 8));
  const SafetensorsReader reader(scratch / "m");
  float out;
  expect_refused([&] { reader.read_f32("i", &out, 0, 1); }, {"\"i\" is I64", "expected F32, F64, BF16 or F16"});
  expect_refused([&] { reader.read_f32("x", &out, 0, 1); }, {"no tensor \"x\""});
}

TEST(SafetensorsBadInput, WriterRefusesDuplicatesAndExistingFiles) {
  ScratchDir scratch;
  const TensorSpec a{"a", TensorType::f32, {2}};
  expect_refused([&] { SafetensorsWriter::create(scratch / "m", {a, a}); }, {"\"a\" appears twice"});
  expect_refused(
      [&] {
        SafetensorsWriter::create(scratch / "m", {{"__metadata__", TensorType::f32, {2}}});
      },
      {"__metadata__"});
  expect_refused([&] { SafetensorsWriter::create(scratch / "m", {{"a", TensorType::f32, {-1}}}); }, {"negative"});
  EXPECT_EQ(scratch.entries(), 0u);
  spill(scratch / "m", "precious");
  expect_refused([&] { SafetensorsWriter::create(scratch / "m", {a}); }, {"File exists"});
  EXPECT_EQ(test::slurp(scratch / "m"), "precious");
}

TEST(SafetensorsBadInput, FullDiskIsNoticedAtOnceAndLeavesNothing) {
  ScratchDir scratch;
  {
    const test::FileSizeLimit limit(1 << 20);
    expect_refused(
        [&] {
          SafetensorsWriter::create(scratch / "m.safetensors", {{"a", TensorType::f32, {1 << 20}}});
        },
        {"m.safetensors", "cannot write 4194", "File too large"});
  }
  EXPECT_EQ(scratch.entries(), 0u);
}

// Mutated headers either parse to something that obeys the rules or are refused; nothing else may happen.
TEST(SafetensorsBadInput, TwoThousandMutationsParseOrAreRefused) {
  const std::string good =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},"z":{"dtype":"I64","shape":[0,4],"data_offsets":[26,26]}})";
  ASSERT_EQ(SafetensorsHeader::parse(good, 26, "f").tensors().size(), 3u);
  const std::string tokens[] = {"{",          "}",     "[",         "]",       ",",    ":",
                                "\"",         "0",     "26",        "-1",      "1e9",  "18446744073709551615",
                                "null",       "\"a\"", "\"shape\"", "\\u0000", "\xff", "9223372036854775807",
                                "4294967296,"};
  std::mt19937 random(20240601);
  int parsed = 0, refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string text = good;
    for (std::uint32_t edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % text.size(), length = std::min<std::size_t>(1 + random() % 8, text.size() - at);
      switch (random() % 5) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text[at] = static_cast<char>('0' + random() % 10); break;
        case 2: text.replace(at, random() % 2 ? length : 0, tokens[random() % std::size(tokens)]); break;
        case 3: text.insert(random() % text.size(), text.substr(at, length)); break;
        default: text.erase(at, text.size() > length ? length : 0);
      }
    }
    try {
      const SafetensorsHeader header = SafetensorsHeader::parse(text, 26, "f");
      std::uint64_t reached = 0;
      for (const TensorInfo& tensor : header.tensors()) {
        ASSERT_EQ(tensor.begin, reached) << text;
        ASSERT_EQ(tensor.end - tensor.begin, tensor_bytes(tensor, "f")) << text;
        reached = tensor.end;
      }
      ASSERT_EQ(reached, 26u) << text;
      ++parsed;
    } catch (const std::runtime_error& error) {
      ASSERT_TRUE(std::string(error.what()).starts_with("f:")) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(parsed, 20);  // both ways were walked
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace smoe
