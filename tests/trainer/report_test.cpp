#include "trainer/record/report.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdlib>
#include <regex>
#include <set>
#include <string>

#include "data/files/files.h"
#include "data/files/json.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/record/metrics.h"
#include "trainer/record/report_config.h"
#include "trainer/record/metrics_rows.h"

namespace smoe {
namespace {

using test::message_of;
using test::ScratchDir;

namespace fs = std::filesystem;

constexpr const char* config_text =
    "model:\n"
    "  from: null\n"
    "  vocab_size: 32000\n"
    "  hidden_size: 4096\n"
    "  intermediate_size: 14336\n"
    "  num_hidden_layers: 32\n"
    "  num_attention_heads: 32\n"
    "  num_key_value_heads: 8\n"
    "  head_dim: null\n"
    "  num_local_experts: 8\n"
    "  num_experts_per_tok: 2\n"
    "  max_position_embeddings: 32768\n"
    "  rope_theta: 1000000.0\n"
    "data:\n"
    "  train:\n"
    "    - {path: data/a, weight: 1.0}\n"
    "    - {path: data/b, weight: 0.5}\n"
    "  eval: []\n"
    "train:\n"
    "  steps: 40\n"
    "lora: null\n";

// A run of 40 steps, two evaluation sources and a gradient norm that once was not finite.
fs::path make_run(const fs::path& path, const std::string& source = "books", double offset = 0.0) {
  make_directories(path);
  write_file_atomically(path / "config.resolved.yaml", config_text);
  MetricsWriter writer(path / "metrics.jsonl");
  for (std::int64_t step = 1; step <= 40; ++step) {
    const double t = static_cast<double>(step);
    StepMetrics row;
    row.step = step;
    row.tokens = 4096 * step;
    row.lm_loss = 3.0 + 4.0 * std::exp(-t / 10.0) + offset;
    row.aux_loss = 2.2;
    row.z_loss = 11.0;
    row.loss = row.lm_loss + 0.022;
    row.grad_norm = step == 20 ? not_measured : 1.0 / t;
    row.learning_rate = 3e-4 * t / 40.0;
    row.tokens_per_sec = 5000.0;
    row.step_seconds = 0.8;
    row.expert_load = {{0.5, 0.25, 0.125, 0.125}, {0.25, 0.25, 0.25, 0.25}};
    row.max_vio = max_violation(row.expert_load);
    row.peak_memory_bytes = 1u << 30;
    row.model_gflops = 90.0;
    writer.write(row);
    if (step % 20 == 0) {
      writer.write(std::vector<EvalMetrics>{
          {.step = step, .source = source, .loss = 3.2, .perplexity = 24.5, .tokens = 1000},
          {.step = step, .source = "web", .loss = 3.4 + offset, .perplexity = 30.0, .tokens = 1000}});
    }
  }
  return path;
}

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

// A run that was evaluated on that many sources.
fs::path make_evaluated_run(const fs::path& path, int sources) {
  make_directories(path);
  MetricsWriter writer(path / "metrics.jsonl");
  for (std::int64_t step = 1; step <= 3; ++step) {
    StepMetrics row;
    row.step = step;
    row.tokens = 100 * step;
    row.lm_loss = 5.0 - static_cast<double>(step);
    writer.write(row);
    std::vector<EvalMetrics> evals;
    for (int i = 0; i < sources; ++i)
      evals.push_back({.step = step,
                       .source = "source-" + std::to_string(i),
                       .loss = 3.0 + 0.1 * i - 0.2 * static_cast<double>(step),
                       .perplexity = 20.0,
                       .tokens = 1000});
    writer.write(evals);
  }
  return path;
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

// ---- in a browser -----------------------------------------------------------------------------------------------------

struct BrowserVisit {
  std::string dom;
  std::string log;
  bool console_spoke() const { return log.find("CONSOLE") != std::string::npos; }
  int canvases() const {
    const std::regex canvas("<canvas");
    return static_cast<int>(
        std::distance(std::sregex_iterator(dom.begin(), dom.end(), canvas), std::sregex_iterator()));
  }
};

class ReportInBrowser : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v chromium >/dev/null 2>&1") != 0) GTEST_SKIP() << "no chromium on this machine";
  }

  BrowserVisit visit(const fs::path& page) {
    const fs::path dom = dir_.path() / "dom.html", log = dir_.path() / "chromium.log";
    const std::string command =
        "timeout 60 chromium --headless --no-sandbox --disable-gpu --window-size=1400,2000 "
        "--user-data-dir='" +
        (dir_.path() / "profile").string() +
        "' --virtual-time-budget=5000 "
        "--enable-logging=stderr --dump-dom 'file://" +
        page.string() + "' >'" + dom.string() + "' 2>'" + log.string() + "'";
    const int status = std::system(command.c_str());
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << read_file(log, 1 << 24);
    return {read_file(dom, 1 << 26), read_file(log, 1 << 24)};
  }

  ScratchDir dir_;
};

TEST_F(ReportInBrowser, OneRunDrawsItsChartsAndLogsNothing) {
  const fs::path out = dir_.path() / "report.html";
  write_report({make_run(dir_.path() / "run")}, out);
  const BrowserVisit seen = visit(out);
  EXPECT_NE(seen.dom.find("data-ready=\"true\""), std::string::npos) << seen.log;
  // Loss, learning rate, gradient norm, throughput, MaxVio, balance loss, z-loss, compute: two canvases each, and one
  // for each layer's load over time.
  EXPECT_NE(seen.dom.find("data-charts=\"8\""), std::string::npos);
  EXPECT_EQ(seen.canvases(), 2 * 8 + 2);
  EXPECT_NE(seen.dom.find("46.7B"), std::string::npos);
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

TEST_F(ReportInBrowser, SeveralRunsStandSideBySide) {
  const fs::path out = dir_.path() / "report.html";
  const std::string hostile = "</script><script>document.title='owned'</script>";
  write_report({make_run(dir_.path() / "a", hostile), make_run(dir_.path() / "b", hostile, 0.5)}, out);
  const BrowserVisit seen = visit(out);
  EXPECT_NE(seen.dom.find("data-ready=\"true\""), std::string::npos) << seen.log;
  EXPECT_NE(seen.dom.find("data-charts=\"10\""), std::string::npos) << "one more chart an evaluation source";
  EXPECT_EQ(seen.canvases(), 2 * 10 + 2 * 2);
  EXPECT_NE(seen.dom.find("2 runs side by side"), std::string::npos);
  EXPECT_EQ(seen.dom.find("<title>owned"), std::string::npos);
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

TEST_F(ReportInBrowser, ARunThatHasLoggedNothingYetIsNoError) {
  write_file_atomically(dir_.path() / "metrics.jsonl", "");
  const fs::path out = dir_.path() / "report.html";
  write_report({dir_.path()}, out);
  const BrowserVisit seen = visit(out);
  EXPECT_NE(seen.dom.find("data-ready=\"true\""), std::string::npos) << seen.log;
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

// Appended to a page: turns every control, and drags across the first chart to zoom; then the x axes of all charts must
// have changed together.
constexpr const char* exercise = R"html(<script>
(function () {
  const set = (id, property, value) => {
    document.getElementById(id)[property] = value;
    document.getElementById(id).dispatchEvent(new Event('input', {bubbles: true}));
  };
  set('smoothing', 'value', 0);
  set('log-loss', 'checked', true);
  set('x-axis', 'value', 'tokens');
  set('x-axis', 'value', 'step');
  const axes = () => [...document.querySelectorAll('.plot')].map(
    (plot) => [...plot.querySelectorAll('.dygraph-axis-label-x')].map((label) => label.textContent).join());
  const before = axes();
  const canvas = document.querySelector('.plot canvas:last-of-type');
  const box = canvas.getBoundingClientRect();
  const mouse = (target, type, share) => target.dispatchEvent(new MouseEvent(type, {bubbles: true, cancelable: true,
    view: window, button: 0, detail: 1, clientX: box.left + share * box.width, clientY: box.top + box.height / 2}));
  mouse(canvas, 'mousemove', 0.5);
  const values = document.querySelectorAll('.legend b').length;
  mouse(canvas, 'mousedown', 0.5);
  mouse(document, 'mousemove', 0.6);
  mouse(document, 'mousemove', 0.7);
  mouse(document, 'mouseup', 0.7);
  const changed = axes().filter((axis, i) => axis !== before[i]).length;
  document.documentElement.dataset.exercised = values + ' values, ' + changed + ' of ' + before.length + ' zoomed';
})();
</script>)html";

TEST_F(ReportInBrowser, ControlsWorkAndChartsMoveTogether) {
  const fs::path out = dir_.path() / "report.html";
  write_file_atomically(out, render_report({make_run(dir_.path() / "run")}) + exercise);
  const BrowserVisit seen = visit(out);
  // A value from each of the 8 charts, and from both evaluations where the cursor is at their step.
  EXPECT_TRUE(std::regex_search(seen.dom, std::regex("data-exercised=\"(8|9|10) values, 8 of 8 zoomed\"")))
      << seen.dom.substr(0, 400) << seen.log;
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

// Appended to a page: how many different looks the legend of its first chart has.
constexpr const char* count_looks = R"html(<script>
(function () {
  const swatches = [...document.querySelector('.legend').querySelectorAll('.swatch')];
  document.documentElement.dataset.looks = swatches.length + ' lines, ' +
    new Set(swatches.map((swatch) => swatch.style.background)).size + ' looks, ' +
    swatches.filter((swatch) => swatch.classList.contains('dashed')).length + ' dashed';
})();
</script>)html";

TEST_F(ReportInBrowser, NoTwoLinesOfAChartLookTheSame) {
  const fs::path out = dir_.path() / "report.html";
  write_file_atomically(out, render_report({make_evaluated_run(dir_.path() / "run", 12)}) + count_looks);
  const BrowserVisit seen = visit(out);
  EXPECT_NE(seen.dom.find("data-looks=\"13 lines, 13 looks, 5 dashed\""), std::string::npos) << seen.dom.substr(0, 400);
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

// The checks above can fail: a script error reaches the log, and a page that did not get to its end is not ready.
TEST_F(ReportInBrowser, ABrokenScriptIsSeen) {
  const fs::path out = dir_.path() / "report.html";
  std::string page = render_report({make_run(dir_.path() / "run")});
  const std::string call = "    drawSummary();\n";
  ASSERT_NE(page.find(call), std::string::npos);
  page.replace(page.find(call), call.size(), "    drawNothingThatExists();\n");
  write_file_atomically(out, page);
  const BrowserVisit seen = visit(out);
  EXPECT_TRUE(seen.console_spoke());
  EXPECT_EQ(seen.dom.find("data-ready"), std::string::npos);
}

}  // namespace
}  // namespace smoe
