#include "trainer/record/tensorboard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

#include "data/files/files.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using test::ScratchDir;

template <class T>
T read_little_endian(std::string_view bytes, std::size_t offset) {
  T value{};
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

// A protocol buffer message taken apart: field number -> its values, raw.
using Message = std::multimap<std::uint64_t, std::string>;

std::uint64_t take_varint(std::string_view& bytes) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.at(0));
    bytes.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

Message take_apart(std::string_view bytes) {
  Message message;
  while (!bytes.empty()) {
    const std::uint64_t key = take_varint(bytes);
    std::size_t size = 0;
    switch (key & 7) {
      case 0: {
        const std::uint64_t value = take_varint(bytes);
        message.emplace(key >> 3, std::to_string(value));
        continue;
      }
      case 1: size = 8; break;
      case 2: size = take_varint(bytes); break;
      case 5: size = 4; break;
      default: throw std::runtime_error("unknown wire type");
    }
    if (size > bytes.size()) throw std::runtime_error("field beyond the message");
    message.emplace(key >> 3, bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
  return message;
}

const std::string& only(const Message& message, std::uint64_t field) {
  if (message.count(field) != 1) throw std::runtime_error("field " + std::to_string(field) + " is not there once");
  return message.find(field)->second;
}

std::vector<Message> events_in(const std::filesystem::path& file) {
  const std::string content = read_file(file, 1 << 24);
  std::vector<Message> events;
  std::string_view rest = content;
  while (!rest.empty()) {
    const auto size = read_little_endian<std::uint64_t>(rest, 0);
    EXPECT_EQ(read_little_endian<std::uint32_t>(rest, 8), masked_crc32c(rest.substr(0, 8)));
    const std::string_view payload = rest.substr(12, size);
    EXPECT_EQ(read_little_endian<std::uint32_t>(rest, 12 + size), masked_crc32c(payload));
    events.push_back(take_apart(payload));
    rest.remove_prefix(16 + size);
  }
  return events;
}

struct Point {
  std::int64_t step;
  float value;
};

std::map<std::string, std::vector<Point>> scalars_in(const std::filesystem::path& file) {
  std::map<std::string, std::vector<Point>> scalars;
  for (const Message& event : events_in(file)) {
    if (event.count(5) == 0) continue;
    const Message summary = take_apart(only(event, 5));
    const auto [first, last] = summary.equal_range(1);
    for (auto value = first; value != last; ++value) {
      const Message parts = take_apart(value->second);
      if (parts.count(2) == 0) continue;
      scalars[only(parts, 1)].push_back({std::stoll(only(event, 2)), read_little_endian<float>(only(parts, 2), 0)});
    }
  }
  return scalars;
}

TEST(TensorBoard, ChecksumsHaveTheirKnownValues) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);              // the catalogue's check value of CRC-32/ISCSI
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);    // RFC 3720 B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);  // RFC 3720 B.4
  EXPECT_EQ(masked_crc32c("123456789"), ((0xe3069283u >> 15) | (0xe3069283u << 17)) + 0xa282ead8u);
}

TEST(TensorBoard, RecordIsLengthChecksumPayloadChecksum) {
  const std::string record = tfrecord("abc");
  ASSERT_EQ(record.size(), 8u + 4u + 3u + 4u);
  EXPECT_EQ(read_little_endian<std::uint64_t>(record, 0), 3u);
  EXPECT_EQ(read_little_endian<std::uint32_t>(record, 8), masked_crc32c(record.substr(0, 8)));
  EXPECT_EQ(record.substr(12, 3), "abc");
  EXPECT_EQ(read_little_endian<std::uint32_t>(record, 15), masked_crc32c("abc"));
}

TEST(TensorBoard, FileOpensWithItsVersion) {
  const ScratchDir dir;
  const TensorBoardWriter writer(dir.path() / "tensorboard");
  const std::vector<Message> events = events_in(writer.file());
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(only(events[0], 3), "brain.Event:2");
  const double wall_time = read_little_endian<double>(only(events[0], 1), 0);
  EXPECT_GT(wall_time, 1.6e9);
}

TEST(TensorBoard, ScalarsReadBack) {
  const ScratchDir dir;
  TensorBoardWriter writer(dir.path());
  const Scalar at_one[] = {{"train/loss", 3.5}, {"train/grad_norm", 0.25}};
  const Scalar at_large[] = {{"train/loss", 2.5}, {"train/grad_norm", not_measured}};
  writer.write(1, at_one);
  writer.write(300'000'000'000, at_large);
  const auto scalars = scalars_in(writer.file());
  ASSERT_EQ(scalars.at("train/loss").size(), 2u);
  EXPECT_EQ(scalars.at("train/loss")[0].step, 1);
  EXPECT_EQ(scalars.at("train/loss")[0].value, 3.5f);
  EXPECT_EQ(scalars.at("train/loss")[1].step, 300'000'000'000);
  EXPECT_EQ(scalars.at("train/loss")[1].value, 2.5f);
  EXPECT_EQ(scalars.at("train/grad_norm").size(), 1u) << "what was not measured is left out";
}

TEST(TensorBoard, MetricsRowsBecomeTags) {
  const ScratchDir dir;
  TensorBoardWriter writer(dir.path());
  StepMetrics row;
  row.step = 10;
  row.tokens = 2048;
  row.lm_loss = 4.0;
  row.max_vio = 0.5;
  row.peak_memory_bytes = 3u << 20;
  row.expert_load = {{0.25, 0.75}, {0.5, 0.5}};
  row.by_layer.balance_sequence = {1.5, 1.25};
  row.by_layer.rank_load = {2.0};
  writer.write(row);
  writer.write(std::vector<EvalMetrics>{{.step = 10, .source = "web", .loss = 3.0, .perplexity = 20.0, .tokens = 9}});
  const auto scalars = scalars_in(writer.file());
  EXPECT_EQ(scalars.at("train/lm_loss")[0].value, 4.0f);
  EXPECT_EQ(scalars.at("train/tokens")[0].value, 2048.0f);
  EXPECT_EQ(scalars.at("balance/max_vio")[0].value, 0.5f);
  EXPECT_EQ(scalars.at("throughput/peak_memory_mib")[0].value, 3.0f);
  EXPECT_EQ(scalars.at("by_layer/balance/sequence/layer_01")[0].value, 1.25f);
  EXPECT_EQ(scalars.at("by_layer/rank_load/layer_00")[0].value, 2.0f);
  EXPECT_EQ(scalars.at("eval/web/loss")[0].value, 3.0f);
  EXPECT_EQ(scalars.count("throughput/mfu"), 0u);
  EXPECT_EQ(scalars.count("throughput/peak_device_memory_mib"), 0u);
}

TEST(TensorBoard, CoefficientsAreATagOrOneALayer) {
  const ScratchDir dir;
  TensorBoardWriter one(dir.path() / "one"), by_layer(dir.path() / "by_layer");
  StepMetrics row;
  row.aux_loss_coef = {0.25};
  one.write(row);
  EXPECT_EQ(scalars_in(one.file()).at("balance/aux_loss_coef")[0].value, 0.25f);
  row.aux_loss_coef = {0.25, 0.0};
  by_layer.write(row);
  const auto scalars = scalars_in(by_layer.file());
  EXPECT_EQ(scalars.at("balance/aux_loss_coef/layer_00")[0].value, 0.25f);
  EXPECT_EQ(scalars.at("balance/aux_loss_coef/layer_01")[0].value, 0.0f);
  EXPECT_EQ(scalars.count("balance/aux_loss_coef"), 0u);
}

TEST(TensorBoard, PeakOfAGpuIsATag) {
  const ScratchDir dir;
  TensorBoardWriter writer(dir.path());
  StepMetrics row;
  row.step = 1;
  row.peak_device_memory_bytes = 5u << 20;
  writer.write(row);
  EXPECT_EQ(scalars_in(writer.file()).at("throughput/peak_device_memory_mib")[0].value, 5.0f);
}

TEST(TensorBoard, BarsStandAtTheirPositions) {
  const ScratchDir dir;
  TensorBoardWriter writer(dir.path());
  const double load[] = {0.125, 0.5, 0.375};
  writer.write_bars(5, "expert_load/layer_00", load);
  const Message value = take_apart(only(take_apart(only(events_in(writer.file()).at(1), 5)), 1));
  EXPECT_EQ(only(value, 1), "expert_load/layer_00");
  const Message histogram = take_apart(only(value, 5));
  const auto doubles = [&histogram](std::uint64_t field) {
    const std::string& bytes = only(histogram, field);
    std::vector<double> values(bytes.size() / 8);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  };
  EXPECT_EQ(doubles(3), (std::vector<double>{1.0}));
  EXPECT_EQ(doubles(4), (std::vector<double>{0.5 + 2 * 0.375}));
  EXPECT_EQ(doubles(6), (std::vector<double>{-1.0, 0.0, 1.0, 2.0}));
  EXPECT_EQ(doubles(7), (std::vector<double>{0.0, 0.125, 0.5, 0.375}));
}

TEST(TensorBoard, AResumedRunVoidsTheStepsItWritesAgain) {
  const ScratchDir dir;
  const TensorBoardWriter first(dir.path());
  const TensorBoardWriter resumed(dir.path(), 20);
  EXPECT_LT(first.file(), resumed.file()) << "TensorBoard reads files in the order of their names";
  const std::vector<Message> events = events_in(resumed.file());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(only(events[1], 2), "21");
  EXPECT_EQ(only(take_apart(only(events[1], 7)), 1), "1");  // SessionLog.START
}

TEST(TensorBoard, NamesGoOnRisingWhenTheClockWasSetBack) {
  const ScratchDir dir;
  write_file_atomically(dir.path() / "events.out.tfevents.4000000000.elsewhere.1", "");
  const TensorBoardWriter writer(dir.path());
  EXPECT_NE(writer.file().find("events.out.tfevents.4000000001."), std::string::npos) << writer.file();
}

TEST(TensorBoardBadInput, DirectoryThatCannotBeMadeIsNamed) {
  const ScratchDir dir;
  const std::filesystem::path blocked = dir.path() / "tensorboard";
  write_file_atomically(blocked, "a file stands here");
  test::expect_refused([&] { const TensorBoardWriter writer(blocked); }, {blocked.string()});
}

}  // namespace
}  // namespace smoe
