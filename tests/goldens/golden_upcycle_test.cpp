// Upcycled models against the dense parent by transformers: its logits, whatever top-k is and however copies are cut.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/json.h"
#include "data/files/safetensors.h"
#include "data/files/tensor_directory.h"
#include "tests/support/deviation.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/source_folder.h"
#include "tests/trainer/dense_fixture.h"
#include "trainer/convert/upcycle.h"

namespace smoe {
namespace {

constexpr double upcycled_tolerance = 2e-5;  // of the largest logit

class GoldenUpcycle : public testing::TestWithParam<std::string> {
 protected:
  GoldenUpcycle() {
    const std::string prefix = GetParam() + ".weight.";
    std::filesystem::create_directory(dense());
    write_json_file(dense() / "config.json", parse_json(golden.metadata().at("configs"), golden.path()).at(GetParam()));
    std::vector<TensorSpec> specs;
    for (const TensorInfo& info : golden.tensors())
      if (info.name.starts_with(prefix)) specs.push_back({info.name.substr(prefix.size()), info.type, info.shape});
    auto writer = TensorDirectoryWriter::create(dense(), specs);
    for (const TensorSpec& spec : specs) writer.write_raw(spec.name, 0, golden.raw(prefix + spec.name));
    writer.finish();
  }

  std::filesystem::path dense() const { return scratch / "dense"; }
  double deviation_of(std::int64_t experts, std::int64_t top_k, std::int64_t granularity = 1, double drop = 0) {
    UpcycleOptions o{.dense = {dense()},
                     .out = scratch / fmt::format("made-{}", made_++),
                     .experts = experts,
                     .top_k = top_k,
                     .granularity = granularity};
    o.drop = drop;
    upcycle(o);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(golden.info("ids").elements()));
    std::memcpy(ids.data(), golden.raw("ids").data(), golden.raw("ids").size());
    std::vector<float> expected(static_cast<std::size_t>(golden.info(GetParam() + ".logits").elements()));
    golden.read_f32(GetParam() + ".logits", expected.data(), 0, static_cast<std::int64_t>(expected.size()));
    return test::deviation(test::logits_of_directory(o.out, ids), expected);
  }

  SafetensorsReader golden{test::source_folder() + "/tests/goldens/dense.safetensors"};
  test::ScratchDir scratch;

 private:
  int made_ = 0;
};

TEST_P(GoldenUpcycle, HasTheParentsLogits) {
  test::Worst worst;
  for (const std::int64_t top_k : {1, 2, 3, 4}) worst.add(deviation_of(4, top_k), fmt::format("top-{}", top_k));
  for (const std::int64_t granularity : {2, 3, 4})
    worst.add(deviation_of(12, granularity, granularity), fmt::format("granularity {}", granularity));
  EXPECT_LE(worst.value, upcycled_tolerance) << worst.name;
  fmt::print("  {}: {:.2e} ({}), allowed {:.0e}\n", GetParam(), worst.value, worst.name, upcycled_tolerance);
  EXPECT_GT(deviation_of(4, 2, 1, 0.1), 1000 * upcycled_tolerance);
}

INSTANTIATE_TEST_SUITE_P(Transformers, GoldenUpcycle, testing::Values("llama", "mistral"),
                         [](const testing::TestParamInfo<std::string>& info) { return info.param; });

}  // namespace
}  // namespace smoe
