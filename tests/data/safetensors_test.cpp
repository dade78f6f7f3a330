#include "data/files/safetensors.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>

#include "data/files/json.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using test::ScratchDir;
using test::slurp;

float f32_of_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::vector<float> counting(std::size_t n, float first = 0) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), first);
  return values;
}

std::vector<float> read_all(const SafetensorsReader& reader, const std::string& name) {
  std::vector<float> values(static_cast<std::size_t>(reader.info(name).elements()));
  reader.read_f32(name, values.data(), 0, reader.info(name).elements());
  return values;
}

TEST(SafetensorsTypes, Bf16RoundsToNearestEven) {
  EXPECT_EQ(bf16_from_f32(1.0f), 0x3f80);
  EXPECT_EQ(bf16_from_f32(f32_of_bits(0x3f808000)), 0x3f80);  // a tie goes to the even neighbour, below
  EXPECT_EQ(bf16_from_f32(f32_of_bits(0x3f818000)), 0x3f82);  // and above
  EXPECT_EQ(bf16_from_f32(f32_of_bits(0x3f808001)), 0x3f81);
  EXPECT_EQ(bf16_from_f32(f32_of_bits(0x3f807fff)), 0x3f80);
  EXPECT_EQ(bf16_from_f32(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(bf16_from_f32(-std::numeric_limits<float>::infinity()), 0xff80);
  EXPECT_EQ(bf16_from_f32(-0.0f), 0x8000);
  for (std::uint32_t nan : {0x7f800001u, 0xff800001u, 0x7fffffffu})
    EXPECT_TRUE(std::isnan(f32_from_bf16(bf16_from_f32(f32_of_bits(nan)))));
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    if (std::isnan(f32_from_bf16(half))) continue;
    ASSERT_EQ(bf16_from_f32(f32_from_bf16(half)), half);
  }
}

TEST(SafetensorsTypes, F16WidensExactly) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    const float got = f32_from_f16(static_cast<std::uint16_t>(bits));
    if (exponent == 31) {
      ASSERT_TRUE(mantissa ? std::isnan(got) : std::isinf(got));
    } else {
      ASSERT_EQ(got, exponent ? sign * std::ldexp(1024.0 + mantissa, exponent - 25) : sign * std::ldexp(mantissa, -24));
    }
    ASSERT_EQ(std::signbit(got), sign < 0);
  }
}

TEST(SafetensorsTypes, F16RoundsToNearestEven) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = f32_from_f16(half);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(f32_from_f16(f16_from_f32(value))));
      continue;
    }
    ASSERT_EQ(f16_from_f32(value), half);
    const std::uint32_t next = bits + 1;  // of the same sign, one step further from zero
    if ((bits & 0x7fff) >= 0x7bff) continue;
    const float between = (value + f32_from_f16(static_cast<std::uint16_t>(next))) / 2;  // exact
    ASSERT_EQ(f16_from_f32(between), bits % 2 == 0 ? bits : next);
    ASSERT_EQ(f16_from_f32(std::nextafter(between, 0.0f)), bits);
    ASSERT_EQ(f16_from_f32(std::nextafter(between, 2 * between)), next);
  }
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f16_from_f32(65519.996f), 0x7bff);
  EXPECT_EQ(f16_from_f32(65520.0f), 0x7c00);
  EXPECT_EQ(f16_from_f32(-std::numeric_limits<float>::max()), 0xfc00);
  EXPECT_EQ(f16_from_f32(-infinity), 0xfc00);
  EXPECT_EQ(f16_from_f32(0x1p-149f), 0);
}

TEST(Safetensors, WritesWhatTheReaderReads) {
  ScratchDir scratch;
  auto writer = SafetensorsWriter::create(scratch / "m.safetensors",
                                          {{"b", TensorType::bf16, {2, 3}},
                                           {"a", TensorType::f32, {5}},
                                           {"s", TensorType::f32, {}},
                                           {"i", TensorType::i64, {2}},
                                           {"u", TensorType::u8, {3}},
                                           {"z", TensorType::f32, {0, 7}}},
                                          {{"step", "500"}});
  writer.write_f32("b", 0, counting(6, 1));
  writer.write_f32("a", 3, counting(2, 13));
  writer.write_f32("a", 0, counting(3, 10));
  writer.write_f32("s", 0, counting(1, 42));
  const std::int64_t integers[] = {-1, 1};
  writer.write_raw("i", 0, std::as_bytes(std::span(integers)));
  const std::uint8_t bytes[] = {1, 2, 3};
  writer.write_raw("u", 0, std::as_bytes(std::span(bytes)));
  writer.finish();

  const SafetensorsReader reader(scratch / "m.safetensors");
  EXPECT_EQ(reader.metadata(), (TensorMetadata{{"format", "pt"}, {"step", "500"}}));
  EXPECT_EQ(read_all(reader, "b"), counting(6, 1));
  EXPECT_EQ(read_all(reader, "a"), counting(5, 10));
  EXPECT_EQ(read_all(reader, "s"), counting(1, 42));
  EXPECT_TRUE(read_all(reader, "z").empty());
  EXPECT_EQ(reader.info("z").shape, (std::vector<std::int64_t>{0, 7}));
  EXPECT_EQ(std::memcmp(reader.raw("i").data(), integers, sizeof integers), 0);
  EXPECT_EQ(std::memcmp(reader.raw("u").data(), bytes, sizeof bytes), 0);
  EXPECT_EQ(reader.find("absent"), nullptr);
  for (const TensorInfo& tensor : reader.tensors())
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(reader.raw(tensor.name).data()) % bytes_of(tensor.type), 0u)
        << tensor.name;
}

TEST(Safetensors, BytesFollowTheFormatToTheLetter) {
  ScratchDir scratch;
  auto writer = SafetensorsWriter::create(scratch / "m", {{"w", TensorType::f32, {1, 2}}});
  writer.write_f32("w", 0, counting(2, 1));
  writer.finish();
  std::string header = R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(slurp(scratch / "m"), std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') + header +
                                      std::string("\0\0\x80\x3f\0\0\0\x40", 8));
}

TEST(Safetensors, SlicesWrittenByManyGiveTheBytesOfOne) {
  ScratchDir scratch;
  const std::vector<TensorSpec> specs{{"a", TensorType::f32, {4, 8}}, {"b", TensorType::bf16, {6, 4}}};
  auto whole = SafetensorsWriter::create(scratch / "whole", specs);
  whole.write_f32("a", 0, counting(32));
  whole.write_f32("b", 0, counting(24));
  whole.finish();

  SafetensorsWriter::lay_out(scratch / "sliced", specs);
  auto first = SafetensorsWriter::open_for_slices(scratch / "sliced");
  auto second = SafetensorsWriter::open_for_slices(scratch / "sliced");
  second.write_f32("b", 12, counting(12, 12));
  first.write_f32("a", 0, counting(16));
  second.write_f32("a", 16, counting(16, 16));
  first.write_f32("b", 0, counting(12));
  first.finish();
  second.finish();
  EXPECT_EQ(slurp(scratch / "sliced"), slurp(scratch / "whole"));
}

TEST(Safetensors, UnfinishedFileIsRemovedAndUnwrittenTensorsAreNoticed) {
  ScratchDir scratch;
  { auto writer = SafetensorsWriter::create(scratch / "m", {{"a", TensorType::f32, {4}}}); }
  EXPECT_EQ(scratch.entries(), 0u);
  {
    auto writer = SafetensorsWriter::create(scratch / "m", {{"a", TensorType::f32, {4}}});
    writer.write_f32("a", 0, counting(3));
    EXPECT_THROW(writer.finish(), std::logic_error);
  }
  EXPECT_EQ(scratch.entries(), 0u);
}

TEST(Safetensors, CallersMistakesAreLogicErrors) {
  ScratchDir scratch;
  auto writer = SafetensorsWriter::create(scratch / "m", {{"a", TensorType::f32, {4}}, {"i", TensorType::i32, {1}}});
  const auto values = counting(4);
  EXPECT_THROW(writer.write_f32("x", 0, values), std::logic_error);
  EXPECT_THROW(writer.write_f32("a", 1, values), std::logic_error);
  EXPECT_THROW(writer.write_f32("a", -1, values), std::logic_error);
  EXPECT_THROW(writer.write_f32("a", std::numeric_limits<std::int64_t>::max(), values), std::logic_error);
  EXPECT_THROW(writer.write_f32("i", 0, counting(1)), std::logic_error);
  EXPECT_THROW(writer.write_raw("a", 13, std::as_bytes(std::span(values).first(1))), std::logic_error);
  writer.write_f32("a", 0, values);
  writer.write_raw("i", 0, std::as_bytes(std::span(values).first(1)));
  writer.finish();
  EXPECT_THROW(writer.write_f32("a", 0, values), std::logic_error);
  EXPECT_THROW(writer.finish(), std::logic_error);

  const SafetensorsReader reader(scratch / "m");
  float out[8];
  EXPECT_THROW(reader.read_f32("a", out, 1, 4), std::logic_error);
  EXPECT_THROW(reader.read_f32("a", out, -1, 1), std::logic_error);
  EXPECT_THROW(reader.read_f32("a", out, 0, -1), std::logic_error);
  EXPECT_THROW(reader.read_f32("a", out, std::numeric_limits<std::int64_t>::max(), 8), std::logic_error);
}

TEST(Safetensors, LargeTensorsPassThroughTheBuffersWhole) {
  ScratchDir scratch;
  constexpr std::size_t n = 200'003;
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = f32_from_bf16(static_cast<std::uint16_t>(i % 0x7f00));
  auto writer = SafetensorsWriter::create(scratch / "m", {{"b", TensorType::bf16, {n}}});
  writer.write_f32("b", 0, values);
  writer.finish();
  const SafetensorsReader reader(scratch / "m");
  EXPECT_EQ(read_all(reader, "b"), values);
  std::vector<float> part(70'000);
  reader.read_f32("b", part.data(), 65'535, 70'000);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), values.begin() + 65'535));
}

TEST(Safetensors, ReadsF16) {
  ScratchDir scratch;
  auto writer = SafetensorsWriter::create(scratch / "m", {{"h", TensorType::f16, {3}}});
  const std::uint16_t halves[] = {0x3c00, 0xc000, 0x3555};  // 1, -2, 1/3
  writer.write_raw("h", 0, std::as_bytes(std::span(halves)));
  writer.finish();
  EXPECT_EQ(read_all(SafetensorsReader(scratch / "m"), "h"), (std::vector<float>{1.0f, -2.0f, 0.333251953125f}));
}

TEST(Safetensors, ReadsF16SubnormalsInfinitiesAndNan) {
  ScratchDir scratch;
  auto writer = SafetensorsWriter::create(scratch / "m", {{"h", TensorType::f16, {6}}});
  const std::uint16_t halves[] = {0x0001, 0x83ff, 0x7bff, 0x7c00, 0xfc00, 0x7e01};
  writer.write_raw("h", 0, std::as_bytes(std::span(halves)));
  writer.finish();
  const std::vector<float> got = read_all(SafetensorsReader(scratch / "m"), "h");
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(std::vector(got.begin(), got.end() - 1),
            (std::vector<float>{0x1p-24f, -0x1.ff8p-15f, 65504.0f, infinity, -infinity}));
  EXPECT_TRUE(std::isnan(got.back()));
}

TEST(Safetensors, NumbersAreRoundedToTheTypeOfTheTensor) {
  ScratchDir scratch;
  const std::vector<float> values{1.0f, -0.1f, 3.14159274f};
  std::vector<TensorSpec> specs;
  for (const TensorType type : {TensorType::f64, TensorType::f32, TensorType::bf16, TensorType::f16})
    specs.push_back({name_of(type), type, {4}});
  auto writer = SafetensorsWriter::create(scratch / "m", specs);
  for (const TensorSpec& spec : specs) {
    writer.write_f32(spec.name, 1, values);
    writer.write_f32(spec.name, 0, std::span(values).first(1));
  }
  writer.finish();
  const SafetensorsReader reader(scratch / "m");
  EXPECT_EQ(read_all(reader, "F64"), (std::vector<float>{1.0f, 1.0f, -0.1f, 3.14159274f}));
  EXPECT_EQ(read_all(reader, "F32"), (std::vector<float>{1.0f, 1.0f, -0.1f, 3.14159274f}));
  EXPECT_EQ(read_all(reader, "BF16"), (std::vector<float>{1.0f, 1.0f, -0.10009765625f, 3.140625f}));
  EXPECT_EQ(read_all(reader, "F16"), (std::vector<float>{1.0f, 1.0f, -0.0999755859375f, 3.140625f}));

  std::vector<std::byte> bytes(8);
  reader.read_raw("F64", 8, bytes);
  EXPECT_TRUE(std::ranges::equal(bytes, reader.raw("F64").subspan(8, 8)));
  EXPECT_THROW(reader.read_raw("F64", 25, bytes), std::logic_error);
  EXPECT_THROW(reader.read_raw("F64", std::numeric_limits<std::uint64_t>::max(), bytes), std::logic_error);
}

TEST(Safetensors, ReadsF64RoundedToNearestEven) {
  ScratchDir scratch;
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<double, float>> pairs{{0.1, 0.1f},
                                                    {-0.0, -0.0f},
                                                    {1 + 0x1p-24, 1.0f},  // a tie goes to the even neighbour, below
                                                    {1 + 0x3p-24, 1 + 0x1p-22f},  // and above
                                                    {1 + 0x1p-24 + 0x1p-52, 1 + 0x1p-23f},
                                                    {0x1p-149, 0x1p-149f},  // subnormal
                                                    {0x1.8p-149, 0x1p-148f},
                                                    {0x1p-150, 0.0f},  // a tie again
                                                    {-0x1.000002p-150, -0x1p-149f},
                                                    {0x1.fffffefp127, 0x1.fffffep127f},
                                                    {0x1.ffffffp127, infinity},
                                                    {-1e300, -infinity},
                                                    {std::numeric_limits<double>::infinity(), infinity}};
  std::vector<double> stored{std::numeric_limits<double>::quiet_NaN()};
  for (const auto& [value, expected] : pairs) stored.push_back(value);
  auto writer =
      SafetensorsWriter::create(scratch / "m", {{"d", TensorType::f64, {static_cast<std::int64_t>(stored.size())}}});
  writer.write_raw("d", 0, std::as_bytes(std::span(stored)));
  writer.finish();
  const SafetensorsReader reader(scratch / "m");
  const std::vector<float> got = read_all(reader, "d");
  EXPECT_TRUE(std::isnan(got[0]));
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    EXPECT_EQ(got[i + 1], pairs[i].second) << pairs[i].first;
    EXPECT_EQ(std::signbit(got[i + 1]), std::signbit(pairs[i].second)) << pairs[i].first;
  }
  float third;
  reader.read_f32("d", &third, 3, 1);
  EXPECT_EQ(third, 1.0f) << "from the middle";
}

// Any list of tensors: what is written reads back, twice gives the same bytes, and any cut into slices gives them too.
RC_GTEST_PROP(SafetensorsProperty, AnyListRoundTrips,
              (const std::vector<std::vector<std::uint8_t>>& shapes, std::uint32_t seed)) {
  ScratchDir scratch;
  std::mt19937 random(seed);
  std::vector<TensorSpec> specs;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    TensorSpec spec{"t\u00e9\"\n." + std::to_string(i), random() % 2 ? TensorType::f32 : TensorType::bf16, {}};
    for (std::size_t d = 0; d < std::min<std::size_t>(shapes[i].size(), 4); ++d) spec.shape.push_back(shapes[i][d] % 6);
    specs.push_back(spec);
  }
  std::vector<std::vector<float>> values;
  for (const TensorSpec& spec : specs) {
    std::vector<float> v(tensor_bytes(spec, "") / bytes_of(spec.type));
    for (float& x : v) x = f32_from_bf16(static_cast<std::uint16_t>(random() % 0x7f80));  // holds in both types
    values.push_back(v);
  }
  for (const char* name : {"one", "two"}) {
    auto writer = SafetensorsWriter::create(scratch / name, specs);
    for (std::size_t i = specs.size(); i-- > 0;) {
      const std::size_t cut = values[i].empty() ? 0 : random() % values[i].size();
      writer.write_f32(specs[i].name, static_cast<std::int64_t>(cut), std::span(values[i]).subspan(cut));
      writer.write_f32(specs[i].name, 0, std::span(values[i]).first(cut));
    }
    writer.finish();
  }
  RC_ASSERT(slurp(scratch / "one") == slurp(scratch / "two"));
  const SafetensorsReader reader(scratch / "one");
  RC_ASSERT(reader.tensors().size() == specs.size());
  for (std::size_t i = 0; i < specs.size(); ++i) {
    RC_ASSERT(static_cast<const TensorSpec&>(reader.info(specs[i].name)) == specs[i]);
    RC_ASSERT(read_all(reader, specs[i].name) == values[i]);
  }
}

}  // namespace
}  // namespace smoe
