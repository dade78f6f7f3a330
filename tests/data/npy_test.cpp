#include "data/import/npy.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <numeric>

#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using test::expect_refused;
using test::ScratchDir;
using test::spill;

std::string npy(int version, std::string header, std::string_view data) {
  header += '\n';
  const auto length = static_cast<std::uint32_t>(header.size());
  std::string file = std::string("\x93NUMPY") + static_cast<char>(version) + '\0';
  file.append(reinterpret_cast<const char*>(&length), version == 1 ? 2 : 4);
  return file + header + std::string(data);
}

template <class T>
std::string bytes_of_values(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <class T>
void expect_reads(const std::string& descr, const std::vector<T>& values) {
  ScratchDir scratch;
  for (int version : {1, 2, 3}) {
    spill(scratch / "a.npy",
          npy(version,
              "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + std::to_string(values.size()) + ",), }",
              bytes_of_values(values)));
    const NpyFile file(scratch / "a.npy");
    EXPECT_EQ(file.type(), descr.substr(1));
    EXPECT_EQ(file.shape(), std::vector<std::int64_t>{static_cast<std::int64_t>(values.size())});
    EXPECT_EQ(file.values(), std::vector<std::int64_t>(values.begin(), values.end())) << descr;
  }
}

TEST(Npy, ReadsEveryIntegerTypeAndVersion) {
  expect_reads<std::int8_t>("|i1", {-128, 0, 127});
  expect_reads<std::uint8_t>("|u1", {0, 255});
  expect_reads<std::int16_t>("<i2", {-32768, 32767});
  expect_reads<std::uint16_t>("<u2", {0, 65535});
  expect_reads<std::int32_t>("<i4",
                             {std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()});
  expect_reads<std::uint32_t>("<u4", {0, 4294967295u});
  expect_reads<std::int64_t>("<i8",
                             {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()});
  expect_reads<std::uint64_t>("<u8", {0, std::uint64_t{1} << 62});
  expect_reads<std::int32_t>("<i4", {});
}

TEST(Npy, WrittenArrayHasNumpysOwnBytesAndReadsBack) {
  ScratchDir scratch;
  std::vector<std::int32_t> values(6);
  std::iota(values.begin(), values.end(), -2);
  write_npy(scratch / "a.npy", values, 3, 2);
  // numpy.save pads its header with spaces so that the data begins at a multiple of 64.
  std::string header = "{'descr': '<i4', 'fortran_order': False, 'shape': (3, 2), }";
  header.resize(128 - 10 - 1, ' ');
  EXPECT_EQ(test::slurp(scratch / "a.npy"), npy(1, header, bytes_of_values(values)));

  const NpyFile file(scratch / "a.npy");
  EXPECT_EQ(file.shape(), (std::vector<std::int64_t>{3, 2}));
  std::int64_t middle[2];
  file.read(3, 2, middle);
  EXPECT_EQ(middle[0], 1);
  EXPECT_EQ(middle[1], 2);
  EXPECT_THROW(file.read(5, 2, middle), std::logic_error);
  EXPECT_THROW(write_npy(scratch / "b.npy", values, 4, 2), std::logic_error);
}

TEST(NpyBadInput, HeadersThatAreNotUnderstoodAreRefused) {
  ScratchDir scratch;
  const auto refuse = [&](const std::string& header, std::initializer_list<std::string_view> pieces) {
    SCOPED_TRACE(header);
    spill(scratch / "a.npy", npy(1, header, std::string(16, '\0')));
    expect_refused([&] { NpyFile(scratch / "a.npy"); }, pieces);
  };
  refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", {"a.npy", "\"<f4\"", "<i4", "integers"});
  refuse("{'descr': '>i4', 'fortran_order': False, 'shape': (4,), }", {"big-endian"});
  refuse("{'descr': '|O', 'fortran_order': False, 'shape': (4,), }", {"\"|O\""});
  refuse("{'descr': '<i4', 'fortran_order': True, 'shape': (2, 2), }", {"Fortran", "ascontiguousarray"});
  refuse("{'descr': '<i4', 'fortran_order': False, 'shape': (), }", {"0 dims"});
  refuse("{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2, 2), }", {"3 dims"});
  refuse("{'descr': '<i4', 'fortran_order': False, 'shape': (5,), }", {"16 bytes", "cut short"});
  refuse("{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }", {"16 bytes"});
  refuse("{'descr': '<i4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", {"does not match"});
  refuse("{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999999999999,), }", {"64 bits"});
  refuse("{'descr': '<i4', 'fortran_order': False, 'shape': (-4,), }", {"not negative"});
  refuse("{'descr': '<i4', 'fortran_order': False, 'shape': (4), }", {"expected ','"});
  refuse("{'descr': '<i4', 'fortran_order': False, }", {"expected the keys"});
  refuse("{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (4,)}", {"repeated"});
  refuse("{'descr': '<i4', 'fortran_order': False, 'shape': (4,), 'x': 1}", {"unknown"});
  refuse("{'descr': '<i4', 'fortran_order': 0, 'shape': (4,), }", {"True or False"});
  refuse("{'descr': '<i4', 'fortran_order': False, 'shape': (4,), } x", {"text follows"});
  refuse("__import__('os')", {"expected '{'"});
  refuse("", {"expected '{'"});
}

TEST(NpyBadInput, DamagedFramesAreRefused) {
  ScratchDir scratch;
  const std::string good = npy(1, "{'descr': '<i4', 'fortran_order': False, 'shape': (4,), }", std::string(16, '\0'));
  for (std::size_t length = 0; length < good.size(); ++length) {
    spill(scratch / "a.npy", good.substr(0, length));
    expect_refused([&] { NpyFile(scratch / "a.npy"); }, {"a.npy"});
  }
  std::string version = good;
  version[6] = 4;
  spill(scratch / "a.npy", version);
  expect_refused([&] { NpyFile(scratch / "a.npy"); }, {"version 4.0"});
  spill(scratch / "a.npy", "PK\3\4" + good);
  expect_refused([&] { NpyFile(scratch / "a.npy"); }, {"not an .npy file"});
}

TEST(NpyBadInput, UnsignedValueBeyondSignedRangeIsNamed) {
  ScratchDir scratch;
  const std::vector<std::uint64_t> values{1, std::uint64_t{1} << 63};
  spill(scratch / "a.npy",
        npy(1, "{'descr': '<u8', 'fortran_order': False, 'shape': (2,), }", bytes_of_values(values)));
  expect_refused([&] { NpyFile(scratch / "a.npy").values(); }, {"a.npy", "9223372036854775808"});
}

}  // namespace
}  // namespace smoe
