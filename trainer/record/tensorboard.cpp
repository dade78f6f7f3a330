#include "trainer/record/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cmath>
#include <vector>

#include "data/files/files.h"
#include "trainer/record/metrics_rows.h"

namespace smoe {

namespace {

constexpr std::array<std::uint32_t, 256> crc32c_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? 0x82f63b78u : 0u);
    table[byte] = remainder;
  }
  return table;
}();

template <class Unsigned>
std::string little_endian(Unsigned value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(Unsigned); ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xff);
  return bytes;
}

// Protocol buffers: a field is its number and wire type as a varint, then the value.
// https://protobuf.dev/programming-guides/encoding/
std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7f) | 0x80);
  return bytes + static_cast<char>(value);
}

std::string field_varint(unsigned number, std::uint64_t value) { return varint(number << 3 | 0) + varint(value); }

std::string field_double(unsigned number, double value) {
  return varint(number << 3 | 1) + little_endian(std::bit_cast<std::uint64_t>(value));
}

std::string field_float(unsigned number, float value) {
  return varint(number << 3 | 5) + little_endian(std::bit_cast<std::uint32_t>(value));
}

std::string field_bytes(unsigned number, std::string_view bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}

std::string field_doubles(unsigned number, const std::vector<double>& values) {
  std::string packed;
  for (const double value : values) packed += little_endian(std::bit_cast<std::uint64_t>(value));
  return field_bytes(number, packed);
}

// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;
//         SessionLog session_log = 7; }
std::string event(std::int64_t step, const std::string& what) {
  const std::chrono::duration<double> wall_time = std::chrono::system_clock::now().time_since_epoch();
  return field_double(1, wall_time.count()) + field_varint(2, static_cast<std::uint64_t>(step)) + what;
}

std::string file_version() { return event(0, field_bytes(3, "brain.Event:2")); }

// SessionLog { SessionStatus status = 1 { START = 1 } }: what older files say of this step and later ones is void.
std::string restart_mark(std::int64_t first_step) { return event(first_step, field_bytes(7, field_varint(1, 1))); }

// Summary { repeated Value value = 1; }, Value { string tag = 1; float simple_value = 2; HistogramProto histo = 5; }
std::string summary_value(const std::string& tag, const std::string& value) {
  return field_bytes(1, field_bytes(1, tag) + value);
}

// HistogramProto { double min = 1, max = 2, num = 3, sum = 4, sum_squares = 5;
//                  repeated double bucket_limit = 6, bucket = 7 [packed]; }
// Bucket i, (i - 1, i], holds the "samples" at position i. The first is an empty one that bounds bar 0 from the left.
std::string bars(std::span<const double> values) {
  std::vector<double> limits = {-1.0};
  std::vector<double> buckets = {0.0};
  double count = 0.0, sum = 0.0, sum_squares = 0.0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double position = static_cast<double>(i);
    limits.push_back(position);
    buckets.push_back(values[i]);
    count += values[i];
    sum += values[i] * position;
    sum_squares += values[i] * position * position;
  }
  const double last = std::max(0.0, static_cast<double>(values.size()) - 1.0);
  return field_double(1, -1.0) + field_double(2, last) + field_double(3, count) + field_double(4, sum) +
         field_double(5, sum_squares) + field_doubles(6, limits) + field_doubles(7, buckets);
}

// TensorBoard reads the files of a directory in the order of their names, whose first number is by custom the time in
// seconds. One that never falls keeps that order through a clock set back and through two starts in a second.
std::filesystem::path next_event_file(const std::filesystem::path& directory) {
  constexpr std::string_view prefix = "events.out.tfevents.";
  make_directories(directory);
  std::int64_t seconds =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    std::int64_t earlier = 0;
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), earlier);
    seconds = std::max(seconds, earlier + 1);
  }
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return directory / fmt::format("{}{:010d}.{}.{}", prefix, seconds, host.data(), ::getpid());
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (const char byte : bytes) crc = (crc >> 8) ^ crc32c_table[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

std::string tfrecord(std::string_view payload) {
  const std::string length = little_endian(static_cast<std::uint64_t>(payload.size()));
  return length + little_endian(masked_crc32c(length)) + std::string(payload) + little_endian(masked_crc32c(payload));
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& directory, std::int64_t resume_step)
    : file_(next_event_file(directory)) {
  file_.append(tfrecord(file_version()));
  if (resume_step != MetricsWriter::fresh_run) file_.append(tfrecord(restart_mark(resume_step + 1)));
}

void TensorBoardWriter::write(std::int64_t step, std::span<const Scalar> scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {
    if (!std::isfinite(scalar.value)) continue;
    summary += summary_value(scalar.tag, field_float(2, static_cast<float>(scalar.value)));
  }
  if (!summary.empty()) file_.append(tfrecord(event(step, field_bytes(5, summary))));
}

void TensorBoardWriter::write_bars(std::int64_t step, const std::string& tag, std::span<const double> values) {
  file_.append(tfrecord(event(step, field_bytes(5, summary_value(tag, field_bytes(5, bars(values)))))));
}

void TensorBoardWriter::write(const StepMetrics& row) {
  std::vector<Scalar> scalars;
  visit_numbers(row, [&](const char* group, const char* key, double value) {
    scalars.push_back({fmt::format("{}/{}", group, key), value});
  });
  for (std::size_t i = 0; i < row.aux_loss_coef.size(); ++i)
    scalars.push_back(
        {row.aux_loss_coef.size() == 1 ? "balance/aux_loss_coef" : fmt::format("balance/aux_loss_coef/layer_{:02d}", i),
         row.aux_loss_coef[i]});
  scalars.push_back({"train/tokens", static_cast<double>(row.tokens)});
  scalars.push_back({"train/skipped_steps", static_cast<double>(row.skipped_steps)});
  scalars.push_back({"throughput/peak_memory_mib", static_cast<double>(row.peak_memory_bytes) / (1024.0 * 1024.0)});
  if (row.peak_device_memory_bytes > 0)
    scalars.push_back(
        {"throughput/peak_device_memory_mib", static_cast<double>(row.peak_device_memory_bytes) / 0x1p20});
  if (!row.forced_routing.empty()) scalars.push_back({"forced_routing/" + row.forced_routing, 1});
  visit_layers(row.by_layer, [&](const char* object, const char* key, const std::vector<double>& values) {
    for (std::size_t layer = 0; layer < values.size(); ++layer)
      scalars.push_back({fmt::format("by_layer/{}/layer_{:02d}", path_of(object, key), layer), values[layer]});
  });
  write(row.step, scalars);
  for (std::size_t layer = 0; layer < row.expert_load.size(); ++layer) {
    write_bars(row.step, fmt::format("expert_load/layer_{:02d}", layer), row.expert_load[layer]);
  }
}

void TensorBoardWriter::write(std::span<const EvalMetrics> sources) {
  for (const EvalMetrics& source : sources) {
    std::vector<Scalar> scalars;
    visit_numbers(source, [&](const char* group, const char* key, double value) {
      scalars.push_back({fmt::format("{}/{}/{}", group, source.source, key), value});
    });
    write(source.step, scalars);
  }
}

}  // namespace smoe
