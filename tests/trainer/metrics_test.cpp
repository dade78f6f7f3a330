#include "trainer/record/metrics.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <random>
#include <vector>

#include "data/files/files.h"
#include "data/files/json.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "trainer/record/metrics_rows.h"

namespace smoe {
namespace {

using test::message_of;
using test::ScratchDir;

StepMetrics sample_row(std::int64_t step) {
  StepMetrics row;
  row.step = step;
  row.tokens = 4096 * step;
  row.targets = 4000;
  row.lm_loss = 10.0 / 3.0;
  row.aux_loss = 4.1;
  row.aux_loss_coef = {0.01};
  row.z_loss = 12.25;
  row.loss = 3.4;
  row.grad_norm = 0.1 + 0.2;
  row.learning_rate = 3e-4;
  row.tokens_per_sec = 1234.5;
  row.mfu = 0.41;
  row.share_of_product = 0.5;
  row.step_seconds = 3.32;
  row.max_vio = 0.52;
  row.expert_load = {{0.38, 0.25, 0.37}, {1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0}};
  row.peak_memory_bytes = 2'726'297'600;
  row.skipped_steps = 1;
  row.model_gflops = 96.5;
  return row;
}

EvalMetrics sample_eval(std::int64_t step, const std::string& source) {
  return {.step = step,
          .source = source,
          .loss = 2.5,
          .perplexity = std::exp(2.5),
          .tokens = 512,
          .aux_loss = 4.0,
          .max_vio = 0.25};
}

// Every list with numbers of its own.
LayerMetrics sample_layers() {
  LayerMetrics layers;
  double next = 0.125;
  visit_layers(layers, [&](const char*, const char*, std::vector<double>& values) { values = {next++, 0.5 * next}; });
  return layers;
}

std::string text_of(const std::filesystem::path& file) { return read_file(file, 1 << 20); }

TEST(Metrics, RowIsTheDocumentedText) {
  StepMetrics row = sample_row(7);
  row.expert_load = {{0.5, 0.5}, {1.0, 0.0}};
  EXPECT_EQ(
      to_json_line(row),
      "{\"step\":7,\"tokens\":28672,\"targets\":4000,\"lm_loss\":3.3333333333333335,\"aux_loss\":4.1,\"z_loss\":12.25,\"loss\":3.4,"
      "\"grad_norm\":0.30000000000000004,\"learning_rate\":0.0003,\"tokens_per_sec\":1234.5,\"mfu\":0.41,\"share_of_product\":0.5,"
      "\"step_seconds\":3.32,\"max_vio\":0.52,\"model_gflops\":96.5,\"aux_loss_coef\":0.01,"
      "\"expert_load\":[[0.5,0.5],[1.0,0.0]],"
      "\"peak_memory_bytes\":2726297600,\"skipped_steps\":1}\n");
}

// A run on a CPU has no such key.
TEST(Metrics, PeakOfAGpuIsARowsOwnKeyAndReadsBack) {
  const ScratchDir dir;
  StepMetrics row = sample_row(7);
  EXPECT_EQ(to_json_line(row).find("device"), std::string::npos);
  row.peak_device_memory_bytes = 5'000'000'000;
  EXPECT_NE(to_json_line(row).find("\"peak_memory_bytes\":2726297600,\"peak_device_memory_bytes\":5000000000,"),
            std::string::npos);
  MetricsWriter(dir.path() / "metrics.jsonl").write(row);
  EXPECT_EQ(read_metrics(dir.path() / "metrics.jsonl").steps.at(0), row);
}

// Of runs that are benchmarks alone.
TEST(Metrics, ForcedRoutingIsTextAndReadsBack) {
  const ScratchDir dir;
  StepMetrics row = sample_row(7);
  EXPECT_EQ(to_json_line(row).find("forced"), std::string::npos);
  row.forced_routing = "skewed, MaxVio 1.5";
  EXPECT_NE(to_json_line(row).find(",\"forced_routing\":\"skewed, MaxVio 1.5\""), std::string::npos);
  MetricsWriter(dir.path() / "metrics.jsonl").write(row);
  EXPECT_EQ(read_metrics(dir.path() / "metrics.jsonl").steps.at(0), row);
}

TEST(Metrics, EveryKeyIsExplained) {
  const std::string page = read_file(std::filesystem::path(SMOE_SOURCE_DIR) / "docs/formats.md", 1 << 20);
  const auto begin = page.find("\n## metrics.jsonl\n");
  const std::string section = page.substr(begin, page.find("\n## ", begin + 1) - begin);
  StepMetrics row = sample_row(1);
  row.peak_device_memory_bytes = 1;
  row.bytes_sent = {{"moe.dispatch", 1}};
  row.forced_routing = "uniform";
  row.warnings = {"step 1: a warning"};
  row.by_layer = sample_layers();
  visit_layers(row.by_layer, [&](const char*, const char* key, const std::vector<double>&) {
    EXPECT_NE(section.find('`' + std::string(key) + '`'), std::string::npos) << key;
  });
  const std::vector<EvalMetrics> sources = {sample_eval(1, "web")};
  for (const Json& keys : {parse_json(to_json_line(row), "row"), parse_json(to_json_line(sources), "row"),
                           parse_json(to_json_line(sources), "row").at("eval").at("web")})
    for (const auto& [key, value] : keys.items()) EXPECT_NE(section.find('`' + key + '`'), std::string::npos) << key;
}

TEST(Metrics, CoefficientsAreANumberOrOneALayerAndReadBack) {
  const ScratchDir dir;
  const auto file = dir.path() / "metrics.jsonl";
  StepMetrics row = sample_row(3), older = sample_row(4);
  row.aux_loss_coef = {0.1, 0.0, 1e-3};
  older.aux_loss_coef.clear();
  EXPECT_NE(to_json_line(row).find("\"aux_loss_coef\":[0.1,0.0,0.001],"), std::string::npos);
  EXPECT_EQ(to_json_line(older).find("aux_loss_coef"), std::string::npos) << "as in files of before";
  MetricsWriter writer(file);
  writer.write(row);
  writer.write(older);
  EXPECT_EQ(read_metrics(file).steps, (std::vector<StepMetrics>{row, older}));
  const auto other = dir.path() / "other.jsonl";
  std::ofstream(other) << "{\"step\":1,\"aux_loss_coef\":[\"x\"]}\n";
  const std::string message = message_of([&] { read_metrics(other); });
  EXPECT_NE(message.find("other.jsonl:1: aux_loss_coef must hold numbers, found \"x\""), std::string::npos) << message;
}

TEST(Metrics, MeasuresByLayerAreListsSomeInObjectsAndReadBack) {
  const ScratchDir dir;
  StepMetrics row = sample_row(3);
  row.by_layer.balance_sequence = {1.5, 1.0};
  row.by_layer.balance_global_batch = {1.25, 1.0};
  row.by_layer.rank_load = {2.0, 1.0};
  EXPECT_NE(to_json_line(row).find("],\"balance\":{\"sequence\":[1.5,1.0],\"global_batch\":[1.25,1.0]},"
                                   "\"rank_load\":[2.0,1.0],\"peak_memory_bytes\":"),
            std::string::npos)
      << to_json_line(row);
  StepMetrics full = sample_row(4);
  full.by_layer = sample_layers();
  MetricsWriter writer(dir.path() / "metrics.jsonl");
  writer.write(row);
  writer.write(full);
  EXPECT_EQ(read_metrics(dir.path() / "metrics.jsonl").steps, (std::vector<StepMetrics>{row, full}));
}

TEST(MetricsBadInput, AMeasureThatIsNoListOfNumbersIsNamed) {
  const ScratchDir dir;
  for (const auto& [bad, named] : std::vector<std::pair<std::string, std::string>>{
           {"\"rank_load\":[\"x\"]", "rank_load must hold numbers, found \"x\""},
           {"\"rank_load\":3", "rank_load"},
           {"\"balance\":[1]", "balance"},
           {"\"balance\":{\"sequence\":[[1]]}", "sequence must hold numbers, found [1]"}}) {
    write_file_atomically(dir.path() / "metrics.jsonl", "{\"step\":1," + bad + "}\n");
    const std::string message = message_of([&] { read_metrics(dir.path() / "metrics.jsonl"); });
    EXPECT_NE(message.find("metrics.jsonl:1"), std::string::npos) << bad << ": " << message;
    EXPECT_NE(message.find(named), std::string::npos) << bad << ": " << message;
  }
}

TEST(Metrics, BytesSentAreAnObjectByCollectiveAndReadBack) {
  const ScratchDir dir;
  StepMetrics row = sample_row(3);
  row.bytes_sent = {{"moe.dispatch", 4096}, {"weights.all_gather", 1'000'000'000'000}};
  EXPECT_NE(to_json_line(row).find("\"bytes_sent\":{\"moe.dispatch\":4096,\"weights.all_gather\":1000000000000}}\n"),
            std::string::npos);
  MetricsWriter(dir.path() / "metrics.jsonl").write(row);
  EXPECT_EQ(read_metrics(dir.path() / "metrics.jsonl").steps.front(), row);
}

TEST(Metrics, WarningsAreAListOfTextsOfAnyKindAndReadBack) {
  const ScratchDir dir;
  StepMetrics row = sample_row(3);
  EXPECT_EQ(to_json_line(row).find("warnings"), std::string::npos);
  row.warnings = {"step 2: \"one\"\n</script>", "step 3: \u00e9, \u2028 and \\"};
  EXPECT_NE(to_json_line(row).find(",\"skipped_steps\":1,\"warnings\":[\"step 2: \\\"one\\\"\\n</script>\",\"step 3: "),
            std::string::npos)
      << to_json_line(row);
  MetricsWriter(dir.path() / "metrics.jsonl").write(row);
  EXPECT_EQ(read_metrics(dir.path() / "metrics.jsonl").steps, std::vector<StepMetrics>{row});
  row.warnings = {"caf\xe9"};
  EXPECT_EQ(parse_json(to_json_line(row), "row").at("warnings").size(), 1u) << "no UTF-8, and JSON all the same";
}

TEST(MetricsBadInput, AWarningThatIsNoTextIsNamed) {
  const ScratchDir dir;
  for (const auto& [bad, named] : std::vector<std::pair<std::string, std::string>>{
           {"[\"a\",3]", "warnings must hold texts, found 3"}, {"\"a\"", "warnings"}, {"null", "warnings"}}) {
    write_file_atomically(dir.path() / "metrics.jsonl", "{\"step\":1,\"warnings\":" + bad + "}\n");
    const std::string message = message_of([&] { read_metrics(dir.path() / "metrics.jsonl"); });
    EXPECT_NE(message.find("metrics.jsonl:1"), std::string::npos) << bad << ": " << message;
    EXPECT_NE(message.find(named), std::string::npos) << bad << ": " << message;
  }
}

TEST(Metrics, EvaluationIsAnObjectBySource) {
  const std::vector<EvalMetrics> sources = {sample_eval(500, "web"), sample_eval(500, "a \"quoted\"\nname")};
  const Json row = parse_json(to_json_line(sources), "row");
  EXPECT_EQ(row.at("step"), 500);
  EXPECT_EQ(row.at("eval").size(), 2u);
  EXPECT_EQ(row.at("eval").at("web").at("loss"), 2.5);
  EXPECT_EQ(row.at("eval").at("web").at("tokens"), 512);
  EXPECT_TRUE(row.at("eval").contains("a \"quoted\"\nname"));
  EXPECT_FALSE(row.contains("lm_loss"));
}

TEST(Metrics, SourceNamesThatAreNotUtf8StillMakeJson) {
  const std::vector<EvalMetrics> sources = {sample_eval(1, "caf\xe9")};
  EXPECT_EQ(parse_json(to_json_line(sources), "row").at("eval").size(), 1u);
}

TEST(Metrics, EvaluationRefusesMixedStepsAndRepeatedSources) {
  const std::vector<EvalMetrics> mixed = {sample_eval(1, "a"), sample_eval(2, "b")};
  const std::vector<EvalMetrics> repeated = {sample_eval(1, "a"), sample_eval(1, "a")};
  EXPECT_THROW(to_json_line(mixed), std::logic_error);
  EXPECT_THROW(to_json_line(repeated), std::logic_error);
  EXPECT_THROW(to_json_line(std::vector<EvalMetrics>{}), std::logic_error);
}

TEST(Metrics, RowsReadBackEqual) {
  const ScratchDir dir;
  const std::vector<EvalMetrics> evals = {sample_eval(2, "books"), sample_eval(2, "web")};
  MetricsWriter writer(dir.path() / "metrics.jsonl");
  writer.write(sample_row(1));
  writer.write(sample_row(2));
  writer.write(evals);
  writer.sync();
  const MetricsLog log = read_metrics(dir.path() / "metrics.jsonl");
  ASSERT_EQ(log.steps.size(), 2u);
  EXPECT_EQ(log.steps[0], sample_row(1));
  EXPECT_EQ(log.steps[1], sample_row(2));
  EXPECT_EQ(log.evals, evals);
}

TEST(Metrics, FloatsReadBackToTheSameBits) {
  const ScratchDir dir;
  std::mt19937_64 random(7);
  std::vector<double> values = {0.0, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 123456789.0, 0.1};
  while (values.size() < 500) {
    const double value = std::bit_cast<double>(random());
    if (std::isfinite(value)) values.push_back(value);
  }
  MetricsWriter writer(dir.path() / "metrics.jsonl");
  for (std::size_t i = 0; i < values.size(); ++i) {
    StepMetrics row;
    row.step = static_cast<std::int64_t>(i);
    row.loss = values[i];
    writer.write(row);
  }
  const MetricsLog log = read_metrics(dir.path() / "metrics.jsonl");
  ASSERT_EQ(log.steps.size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(std::bit_cast<std::uint64_t>(log.steps[i].loss), std::bit_cast<std::uint64_t>(values[i])) << values[i];
  }
}

TEST(Metrics, NumbersThatAreNotFiniteAreNull) {
  StepMetrics row = sample_row(1);
  row.lm_loss = std::numeric_limits<double>::infinity();
  row.grad_norm = not_measured;
  row.expert_load = {{not_measured, 1.0}};
  const Json json = parse_json(to_json_line(row), "row");
  EXPECT_TRUE(json.at("lm_loss").is_null());
  EXPECT_TRUE(json.at("grad_norm").is_null());
  EXPECT_TRUE(json.at("expert_load")[0][0].is_null());

  const ScratchDir dir;
  MetricsWriter(dir.path() / "metrics.jsonl").write(row);
  const StepMetrics back = read_metrics(dir.path() / "metrics.jsonl").steps.at(0);
  EXPECT_TRUE(std::isnan(back.lm_loss));
  EXPECT_TRUE(std::isnan(back.grad_norm));
  EXPECT_TRUE(std::isnan(back.expert_load[0][0]));
}

TEST(Metrics, MaxViolationIsTheWorstLayers) {
  using Load = std::vector<std::vector<double>>;
  EXPECT_DOUBLE_EQ(max_violation(Load{{0.25, 0.25, 0.25, 0.25}}), 0.0);
  EXPECT_DOUBLE_EQ(max_violation(Load{{1.0, 0.0, 0.0, 0.0}}), 3.0);  // collapse: experts - 1
  EXPECT_DOUBLE_EQ(max_violation(Load{{0.25, 0.25, 0.25, 0.25}, {0.5, 0.5, 0.0, 0.0}}), 1.0);
  EXPECT_DOUBLE_EQ(max_violation(Load{{30.0, 10.0}}), 0.5);  // counts do as well as shares
  EXPECT_DOUBLE_EQ(max_violation(Load{{0.0, 0.0}}), 0.0);
  EXPECT_DOUBLE_EQ(max_violation(Load{}), 0.0);
}

TEST(Metrics, PeakMemoryGrowsWithWhatIsTouched) {
  const std::uint64_t before = peak_resident_bytes();
  ASSERT_GT(before, std::uint64_t{1} << 20);
  const std::vector<char> touched(before + (std::size_t{64} << 20), 1);  // more than the peak so far, so it must rise
  EXPECT_EQ(touched[touched.size() / 2], 1);
  EXPECT_GE(peak_resident_bytes(), before + (std::uint64_t{32} << 20));
}

TEST(Metrics, PeakMemoryForgetsWhatWasGivenBackBeforeItIsReset) {
  {
    const std::vector<char> touched(std::size_t{96} << 20, 1);
    EXPECT_EQ(touched[touched.size() / 2], 1);
  }
  const std::uint64_t before = peak_resident_bytes();
  reset_peak_resident_bytes();
  if (!std::ofstream("/proc/self/clear_refs")) GTEST_SKIP() << "this /proc cannot be written";
  EXPECT_LE(peak_resident_bytes(), before - (std::uint64_t{64} << 20));
}

TEST(MetricsResume, RowsOfLaterStepsAreDropped) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "metrics.jsonl";
  {
    MetricsWriter writer(file);
    for (std::int64_t step = 1; step <= 4; ++step) writer.write(sample_row(step));
    writer.write(std::vector<EvalMetrics>{sample_eval(4, "web")});
  }
  MetricsWriter writer(file, 2);
  writer.write(sample_row(3));
  EXPECT_EQ(text_of(file), to_json_line(sample_row(1)) + to_json_line(sample_row(2)) + to_json_line(sample_row(3)));
}

TEST(MetricsResume, AHalfLineIsDropped) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "metrics.jsonl";
  const std::string row = to_json_line(sample_row(1));
  const std::string next = to_json_line(sample_row(2));
  for (const std::size_t kept : {std::size_t{1}, std::size_t{9}, next.size() / 2, next.size() - 2}) {
    write_file_atomically(file, row + next.substr(0, kept));
    EXPECT_EQ(read_metrics(file).steps.size(), 1u) << kept;
    MetricsWriter(file, 5).write(sample_row(3));
    EXPECT_EQ(text_of(file), row + to_json_line(sample_row(3))) << kept;
  }
}

TEST(MetricsResume, AWholeLastRowThatLacksItsNewlineIsKept) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "metrics.jsonl";
  const std::string row = to_json_line(sample_row(1));
  write_file_atomically(file, row.substr(0, row.size() - 1));
  MetricsWriter(file, 1).write(sample_row(2));
  EXPECT_EQ(text_of(file), row + to_json_line(sample_row(2)));
}

TEST(MetricsResume, AFileThatNeedsNothingDroppedIsNotReplaced) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "metrics.jsonl";
  MetricsWriter(file).write(sample_row(1));
  struct stat before {
  }, after{};
  ASSERT_EQ(::stat(file.c_str(), &before), 0);
  MetricsWriter writer(file, 1);
  ASSERT_EQ(::stat(file.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
}

TEST(MetricsResume, AFreshRunStartsEmpty) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "metrics.jsonl";
  MetricsWriter(file).write(sample_row(1));
  MetricsWriter(file).write(sample_row(2));
  EXPECT_EQ(text_of(file), to_json_line(sample_row(2)));
}

TEST(MetricsReader, UnknownKeysArePassedOverAndAbsentOnesStayDefault) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "metrics.jsonl";
  write_file_atomically(file, "{\"step\":3,\"lm_loss\":2.5,\"router_gradient_split\":[1,2]}\n");
  const StepMetrics row = read_metrics(file).steps.at(0);
  EXPECT_EQ(row.step, 3);
  EXPECT_EQ(row.lm_loss, 2.5);
  EXPECT_TRUE(std::isnan(row.aux_loss));
  EXPECT_TRUE(row.expert_load.empty());
}

TEST(MetricsBadInput, MissingFileIsNamed) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "metrics.jsonl";
  const std::string message = message_of([&] { read_metrics(file); });
  EXPECT_NE(message.find(file.string()), std::string::npos) << message;
}

TEST(MetricsBadInput, CorruptLineInTheMiddleIsNamedWithItsNumber) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "metrics.jsonl";
  const std::string row = to_json_line(sample_row(1));
  for (const std::string bad : {"{\"step\":2,\"lm_loss\":", "not json", "[1,2]", "{\"lm_loss\":2.5}", "{\"step\":-2}",
                                "{\"step\":2.5}", "{\"step\":\"2\"}", ""}) {
    const std::string before = row + bad + "\n" + row;
    write_file_atomically(file, before);
    const std::string named = file.string() + ":2";
    const std::string reading = message_of([&] { read_metrics(file); });
    EXPECT_NE(reading.find(named), std::string::npos) << bad << ": " << reading;
    const std::string resuming = message_of([&] { MetricsWriter writer(file, 1); });
    EXPECT_NE(resuming.find(named), std::string::npos) << bad << ": " << resuming;
    EXPECT_EQ(text_of(file), before) << "a refused file must stay as it was";
  }
}

TEST(MetricsBadInput, WrongTypesAreNamed) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "metrics.jsonl";
  for (const std::string bad :
       {"{\"step\":1,\"lm_loss\":\"high\"}", "{\"step\":1,\"expert_load\":[1]}",
        "{\"step\":1,\"expert_load\":[[\"a\"]]}", "{\"step\":1,\"eval\":3}", "{\"step\":1,\"eval\":{\"web\":3}}"}) {
    write_file_atomically(file, bad + "\n");
    const std::string message = message_of([&] { read_metrics(file); });
    EXPECT_NE(message.find(file.string() + ":1"), std::string::npos) << bad << ": " << message;
  }
}

TEST(MetricsBadInput, DirectoryThatDoesNotExistIsNamed) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "absent" / "metrics.jsonl";
  const std::string message = message_of([&] { MetricsWriter writer(file); });
  EXPECT_NE(message.find(file.string()), std::string::npos) << message;
}

// A limit on the size of files fails a write as a full disk does: after a part of it.
TEST(MetricsBadInput, AFailedWriteLeavesTheRowsBefore) {
  const ScratchDir dir;
  const std::filesystem::path file = dir.path() / "metrics.jsonl";
  const std::string row = to_json_line(sample_row(1));
  MetricsWriter writer(file);
  writer.write(sample_row(1));

  rlimit usual{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &usual), 0);
  const auto usual_handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit small = usual;
  small.rlim_cur = row.size() + 10;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = message_of([&] { writer.write(sample_row(2)); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &usual), 0);
  ::signal(SIGXFSZ, usual_handler);

  EXPECT_NE(message.find(file.string()), std::string::npos) << message;
  EXPECT_EQ(text_of(file), row);
  writer.write(sample_row(3));
  EXPECT_EQ(text_of(file), row + to_json_line(sample_row(3)));
}

}  // namespace
}  // namespace smoe
