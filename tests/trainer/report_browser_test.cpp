// The report in a browser: that its page draws itself, and stays silent.
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>
#include <string>

#include "data/files/files.h"
#include "tests/trainer/in_browser.h"
#include "tests/trainer/report_runs.h"
#include "trainer/record/report.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;

using test::BrowserVisit;
using test::make_evaluated_run;
using test::make_run;

class ReportInBrowser : public test::InBrowser {};

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

// Rows of a warned run, whose coefficients go from one to the other.
std::string warned_rows(const std::string& warnings, const std::string& from, const std::string& to) {
  return "{\"step\":1,\"lm_loss\":5.0,\"aux_loss_coef\":" + from +
         "}\n{\"step\":2,\"lm_loss\":4.0,\"aux_loss_coef\":" + to + ",\"warnings\":[" + warnings + "]}\n";
}

// What is between the element that begins with `open` and the next `close`.
std::string inner(const std::string& dom, const std::string& open, const std::string& close) {
  const std::size_t begin = dom.find(open);
  return begin == std::string::npos ? "absent" : dom.substr(begin, dom.find(close, begin) - begin);
}

TEST_F(ReportInBrowser, WarningsStandAtTheTopWithTheirSteps) {
  dir_.write("run/metrics.jsonl", warned_rows("\"step 1: <i>idle</i>\",\"no step\"", "0.5", "0.25"));
  const fs::path out = dir_.path() / "report.html";
  write_report({dir_.path() / "run"}, out);
  const BrowserVisit seen = visit(out);
  const std::string section = inner(seen.dom, "<section id=\"warnings\"", "</section>");
  EXPECT_NE(section.find("<li><b>step 1</b>: &lt;i&gt;idle&lt;/i&gt;</li><li><b>step 2: </b>no step</li>"),
            std::string::npos)
      << section;
  EXPECT_EQ(inner(section, "<section", ">").find("hidden"), std::string::npos) << section;
  EXPECT_LT(seen.dom.find("<section id=\"warnings\""), seen.dom.find("<section id=\"summary\""));
  EXPECT_NE(seen.dom.find("<h3>Balance coefficient</h3><span class=\"soft\">weight of the balance loss</span>"),
            std::string::npos);
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

TEST_F(ReportInBrowser, WarningsOfSeveralRunsAreToldApartAndCoefficientsAreMeans) {
  dir_.write("a/metrics.jsonl", warned_rows("\"step 2: of a\"", "[0.5,1.0]", "[0.5,2.0]"));
  dir_.write("b/metrics.jsonl", warned_rows("", "0.5", "0.5"));
  dir_.write("c/metrics.jsonl", warned_rows("\"step 2: of c\"", "0.5", "0.5"));
  const fs::path out = dir_.path() / "report.html";
  write_report({dir_.path() / "a", dir_.path() / "b", dir_.path() / "c"}, out);
  const BrowserVisit seen = visit(out);
  const std::string section = inner(seen.dom, "<section id=\"warnings\"", "</section>");
  const std::size_t a = section.find("</span>a</span></h3><ul><li><b>step 2</b>: of a</li></ul>"),
                    c = section.find("</span>c</span></h3><ul><li><b>step 2</b>: of c</li></ul>");
  EXPECT_LT(a, c) << section;
  EXPECT_NE(c, std::string::npos) << section;
  EXPECT_EQ(section.find("</span>b</span>"), std::string::npos) << section;
  EXPECT_NE(seen.dom.find(
                "<h3>Balance coefficient</h3><span class=\"soft\">weight of the balance loss, mean of layers</span>"),
            std::string::npos);
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

// Before a page's scripts: the theme changes where it is told to.
constexpr const char* theme_in_hand = R"html(<script>
(function () {
  const theme = new EventTarget();
  theme.matches = false;
  window.matchMedia = () => theme;
  window.turnDark = () => { theme.matches = true; theme.dispatchEvent(new Event('change')); };
})();
</script>)html";

TEST_F(ReportInBrowser, ARunWithoutWarningsHasNoneInEitherTheme) {
  dir_.write("run/metrics.jsonl", warned_rows("", "0.5", "0.5"));
  std::string page = render_report({dir_.path() / "run"});
  page.insert(page.find("<body>"), theme_in_hand);
  const fs::path out = dir_.path() / "report.html";
  write_file_atomically(out, page + "<script>turnDark();document.documentElement.dataset.dark = 'true';</script>");
  const BrowserVisit seen = visit(out);
  EXPECT_NE(inner(seen.dom, "<section id=\"warnings\"", ">").find("hidden"), std::string::npos);
  EXPECT_EQ(seen.dom.find("Balance coefficient</h3>"), std::string::npos) << "it does not change";
  EXPECT_NE(seen.dom.find("data-dark=\"true\""), std::string::npos) << "the page is drawn a second time";
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
