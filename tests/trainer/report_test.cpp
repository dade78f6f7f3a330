#include "trainer/record/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <regex>
#include <set>
#include <string>

#include "data/files/files.h"
#include "data/files/json.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/trainer/report_runs.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/record/metrics.h"
#include "trainer/record/report_config.h"
#include "trainer/record/metrics_rows.h"

namespace smoe {
namespace {

using test::config_text;
using test::make_evaluated_run;
using test::make_run;
using test::message_of;
using test::ScratchDir;

namespace fs = std::filesystem;

// What the page's script reads.
Json data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  return parse_json(page.substr(begin, page.find("</script>", begin) - begin), "report");
}

TEST(Report, HoldsTheRunsNumbersConfigurationAndCounts) {
  const ScratchDir dir;
  const Json data = data_of(render_report({make_run(dir.path() / "first")}));
  ASSERT_EQ(data.at("runs").size(), 1u);
  const Json& run = data.at("runs")[0];
  EXPECT_EQ(run.at("name"), "first");
  EXPECT_EQ(run.at("steps").at("step").size(), 40u);
  EXPECT_EQ(run.at("steps").at("tokens")[39], 4096 * 40);
  EXPECT_NEAR(run.at("steps").at("lm_loss")[39].get<double>(), 3.0 + 4.0 * std::exp(-4.0), 1e-5);
  EXPECT_TRUE(run.at("steps").at("grad_norm")[19].is_null());
  EXPECT_EQ(run.at("evals").size(), 2u);
  EXPECT_EQ(run.at("evals")[0].at("source"), "books");
  EXPECT_EQ(run.at("evals")[0].at("step"), (Json{20, 40}));
  EXPECT_EQ(run.at("expert_load").at("load")[39][0], (Json{0.5, 0.25, 0.125, 0.125}));
  EXPECT_EQ(run.at("parameters").at("total"), 46'702'792'704);  // Mixtral-8x7B
  EXPECT_EQ(run.at("parameters").at("active"), 12'879'925'248);
}

TEST(Report, HasThePeakOfAGpuWhereTheRunHadOne) {
  const ScratchDir dir;
  EXPECT_FALSE(data_of(render_report({make_run(dir.path() / "cpu")}))
                   .at("runs")[0]
                   .at("steps")
                   .contains("peak_device_memory_bytes"));
  dir.write("gpu/metrics.jsonl", "{\"step\":1,\"lm_loss\":5.0,\"peak_device_memory_bytes\":77}\n");
  const Json data = data_of(render_report({dir.path() / "gpu"}));
  EXPECT_EQ(data.at("runs")[0].at("steps").at("peak_device_memory_bytes"), Json{77});
}

TEST(Report, ShowsMeasuresByLayerAsTheirMeansWhereTheRunHasThem) {
  const ScratchDir dir;
  dir.write("run/metrics.jsonl",
            "{\"step\":1,\"balance\":{\"sequence\":[1.5,1.0]}}\n{\"step\":2}\n{\"step\":3,\"rank_load\":[3.0]}\n");
  const Json data = data_of(render_report({dir.path() / "run"}));
  const Json& steps = data.at("runs")[0].at("steps");
  EXPECT_EQ(steps.at("balance/sequence"), (Json{1.25, nullptr, nullptr}));
  EXPECT_EQ(steps.at("rank_load"), (Json{nullptr, nullptr, 3.0}));
  EXPECT_FALSE(steps.contains("balance/global_batch"));
  std::set<std::string> shown, known;
  for (const Json& chart : data.at("layer_charts")) shown.insert(chart.at(0));
  const LayerMetrics none;
  visit_layers(none, [&](const char* object, const char* key, const auto&) { known.insert(path_of(object, key)); });
  known.erase("max_vio_by_layer");  // the map of loads has it, and the worst layer's is a chart
  EXPECT_EQ(shown, known);
}

TEST(Report, HasTheWarningsOfARunWithTheirRows) {
  const ScratchDir dir;
  dir.write(
      "run/metrics.jsonl",
      "{\"step\":1}\n{\"step\":2,\"warnings\":[\"step 2: a\",\"</script><b>\"]}\n{\"step\":9,\"warnings\":[\"step 7: c\"]}\n");
  const std::string page = render_report({dir.path() / "run"});
  EXPECT_EQ(page.find("</script><b>"), std::string::npos);
  const auto entry = [](int step, const char* text) { return Json{{"step", step}, {"text", text}}; };
  EXPECT_EQ(data_of(page).at("runs")[0].at("warnings"),
            (Json{entry(2, "step 2: a"), entry(2, "</script><b>"), entry(9, "step 7: c")}));
  EXPECT_EQ(data_of(render_report({make_run(dir.path() / "quiet")})).at("runs")[0].at("warnings"), Json::array());
}

TEST(Report, HasTheCoefficientOfTheBalanceLossAsItsMeanOverLayers) {
  const ScratchDir dir;
  dir.write("one/metrics.jsonl",
            "{\"step\":1,\"aux_loss_coef\":0.5}\n{\"step\":2}\n{\"step\":3,\"aux_loss_coef\":0.25}\n");
  dir.write("layers/metrics.jsonl", "{\"step\":1,\"aux_loss_coef\":[0.5,1.0]}\n");
  const Json runs =
      data_of(render_report({dir.path() / "one", dir.path() / "layers", make_run(dir.path() / "none")})).at("runs");
  EXPECT_EQ(runs[0].at("steps").at("aux_loss_coef"), (Json{0.5, nullptr, 0.25}));
  EXPECT_EQ(runs[1].at("steps").at("aux_loss_coef"), Json{0.75});
  EXPECT_FALSE(runs[2].at("steps").contains("aux_loss_coef"));
  EXPECT_EQ(runs[0].at("coefficients_by_layer"), false);
  EXPECT_EQ(runs[1].at("coefficients_by_layer"), true);
}

TEST(Report, KeepsTheLastOfRowsThatRepeatAStep) {
  const ScratchDir dir;
  write_file_atomically(dir.path() / "metrics.jsonl",
                        "{\"step\":2,\"lm_loss\":5.0}\n{\"step\":1,\"lm_loss\":6.0}\n"
                        "{\"step\":2,\"lm_loss\":4.0}\n");
  const Json steps = data_of(render_report({dir.path()})).at("runs")[0].at("steps");
  EXPECT_EQ(steps.at("step"), (Json{1, 2}));
  EXPECT_EQ(steps.at("lm_loss"), (Json{6.0, 4.0}));
}

TEST(Report, LongRunsAreThinnedInTheLoadMapsOnly) {
  const ScratchDir dir;
  MetricsWriter writer(dir.path() / "metrics.jsonl");
  for (std::int64_t step = 1; step <= 1000; ++step) {
    StepMetrics row;
    row.step = step;
    row.lm_loss = 1.0;
    row.expert_load = {{0.5, 0.5}};
    writer.write(row);
  }
  const Json run = data_of(render_report({dir.path()})).at("runs")[0];
  EXPECT_EQ(run.at("steps").at("step").size(), 1000u);
  const Json& shown = run.at("expert_load").at("step");
  EXPECT_EQ(shown.size(), 240u);
  EXPECT_EQ(shown[239], 1000);
  EXPECT_LT(shown[0], 10);
}

TEST(Report, NamesTellRunsApart) {
  const ScratchDir dir;
  const fs::path a = make_run(dir.path() / "a" / "run"), b = make_run(dir.path() / "b" / "run");
  const auto names = [](const std::vector<fs::path>& runs) {
    const Json data = data_of(render_report(runs));
    std::vector<std::string> result;
    for (const Json& run : data.at("runs")) result.push_back(run.at("name"));
    return result;
  };
  EXPECT_EQ(names({a / ""}), (std::vector<std::string>{"run"}));
  EXPECT_EQ(names({a, b}), (std::vector<std::string>{"a/run", "b/run"}));
  EXPECT_EQ(names({a, a}), (std::vector<std::string>{"run (1)", "run (2)"}));
}

TEST(Report, HasAStyleForEveryLineOfItsFullestChart) {
  const ScratchDir dir;
  const auto styles = [](const std::vector<fs::path>& runs) { return data_of(render_report(runs)).at("line_styles"); };
  const fs::path run = make_evaluated_run(dir.path() / "run", 12);
  ASSERT_EQ(styles({run}).size(), 13u) << "the training loss and 12 sources";
  EXPECT_EQ(styles(std::vector<fs::path>(20, run)).size(), 20u);
  EXPECT_EQ(styles({run})[1], (Json{{"light", "#cf4a12"}, {"dark", "#ff9a66"}, {"dash", Json::array()}}));
  EXPECT_FALSE(styles({run})[8].at("dash").empty());
}

TEST(Report, NeedsNoNetwork) {
  const ScratchDir dir;
  const std::string page = render_report({make_run(dir.path() / "run")});
  const std::regex fetches(R"re(<link|<img|<iframe|@import|\ssrc\s*=\s*["']|url\()re", std::regex::icase);
  // The library's own code is looked at without the library: it is minified, and may mention what it never does.
  const std::size_t library = page.find("danvk/dygraphs");
  ASSERT_NE(library, std::string::npos);
  const std::string ours = page.substr(0, library) + page.substr(page.find("</script>", library));
  EXPECT_FALSE(std::regex_search(ours, fetches));
  EXPECT_EQ(page.find("sourceMappingURL"), std::string::npos);
  EXPECT_NE(page.find("Content-Security-Policy"), std::string::npos);
}

TEST(Report, TextFromTheRunCannotBecomeMarkup) {
  const ScratchDir dir;
  const std::string hostile = "</script><script>document.title='owned'</script><!--";
  const fs::path run = make_run(dir.path() / "<b>run & \"co\"", hostile);
  const std::string page = render_report({run});
  EXPECT_EQ(page.find("<script>document.title"), std::string::npos);
  EXPECT_EQ(page.find("<b>run"), std::string::npos);
  EXPECT_NE(page.find("&lt;b&gt;run &amp; &quot;co&quot;"), std::string::npos);
  EXPECT_EQ(data_of(page).at("runs")[0].at("evals")[0].at("source"), hostile);
}

TEST(Report, IsReplacedWhole) {
  const ScratchDir dir;
  const fs::path run = make_run(dir.path() / "run");
  const fs::path out = dir.path() / "report.html";
  write_file_atomically(out, "an older report");
  write_report({run}, out);
  EXPECT_EQ(read_file(out, 1 << 24), render_report({run}));
  for (const auto& entry : fs::directory_iterator(dir.path())) {
    EXPECT_TRUE(entry.path() == out || entry.path() == run) << "left behind: " << entry.path();
  }
}

TEST(Report, ARunWithoutAnyRowOrConfigurationStillHasAPage) {
  const ScratchDir dir;
  write_file_atomically(dir.path() / "metrics.jsonl", "");
  const Json run = data_of(render_report({dir.path()})).at("runs")[0];
  EXPECT_TRUE(run.at("parameters").is_null());
  EXPECT_TRUE(run.at("config").empty());
}

TEST(ReportConfig, KeysAreDottedAndListsJoined) {
  const FlatConfig flat = flatten_config(config_text);
  const std::map<std::string, std::string> values(flat.begin(), flat.end());
  EXPECT_EQ(flat.front(), (std::pair<std::string, std::string>{"model.from", "null"}));
  EXPECT_EQ(values.at("model.hidden_size"), "4096");
  EXPECT_EQ(values.at("data.train"), "{path: data/a, weight: 1.0}; {path: data/b, weight: 0.5}");
  EXPECT_EQ(values.at("data.eval"), "[]");
  EXPECT_EQ(values.at("train.steps"), "40");
  EXPECT_EQ(values.at("lora"), "null");
  EXPECT_EQ(values.size(), 16u);
}

TEST(ReportConfig, AShapeTakenFromElsewhereIsReadFromTheCheckpoint) {
  const ScratchDir dir;
  const FlatConfig config = flatten_config("model:\n  from: some/dir\n");
  EXPECT_FALSE(parameters_of_run(config, dir.path()).has_value());

  const fs::path checkpoint = dir.path() / "checkpoints" / "step-000010";
  make_directories(checkpoint / "model");
  write_file_atomically(checkpoint / "manifest.json", "{}");
  write_file_atomically(dir.path() / "checkpoints" / "latest", "step-000010\n");
  EXPECT_FALSE(parameters_of_run(config, dir.path()).has_value()) << "a damaged checkpoint is no reason to fail";

  HfConfig model;
  model.model.num_hidden_layers = 3;
  write_hf_config(checkpoint / "model", model);
  ASSERT_TRUE(parameters_of_run(config, dir.path()).has_value());
  EXPECT_EQ(parameters_of_run(config, dir.path())->total, count_parameters(model.model).total);
}

TEST(ReportBadInput, MissingRunDirectoryIsNamed) {
  const ScratchDir dir;
  const std::string message = message_of([&] { write_report({dir.path() / "absent"}, dir.path() / "report.html"); });
  EXPECT_NE(message.find("no run directory " + (dir.path() / "absent").string()), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(dir.path() / "report.html"));
}

TEST(ReportBadInput, MissingMetricsAreNamed) {
  const ScratchDir dir;
  const std::string message = message_of([&] { write_report({dir.path()}, dir.path() / "report.html"); });
  EXPECT_NE(message.find("no metrics.jsonl in " + dir.path().string()), std::string::npos) << message;
}

TEST(ReportBadInput, CorruptRowIsNamedAndTheOldReportStays) {
  const ScratchDir dir;
  const fs::path run = make_run(dir.path() / "run");
  const fs::path out = run / "report.html";
  write_report({run}, out);
  const std::string before = read_file(out, 1 << 24);
  const std::string rows = read_file(run / "metrics.jsonl", 1 << 24);
  write_file_atomically(run / "metrics.jsonl", rows.substr(0, 30) + "\n" + rows);
  const std::string message = message_of([&] { write_report({run}, out); });
  EXPECT_NE(message.find((run / "metrics.jsonl").string() + ":1"), std::string::npos) << message;
  EXPECT_EQ(read_file(out, 1 << 24), before);
}

TEST(ReportBadInput, OutputThatCannotBeWrittenIsNamed) {
  const ScratchDir dir;
  const fs::path run = make_run(dir.path() / "run");
  const fs::path out = dir.path() / "absent" / "report.html";
  const std::string message = message_of([&] { write_report({run}, out); });
  EXPECT_NE(message.find(out.string()), std::string::npos) << message;
}

}  // namespace
}  // namespace smoe
