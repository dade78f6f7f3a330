// A study's report in a browser: that its page draws itself, fits the screen, prints, and stays silent.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "data/files/files.h"
#include "trainer/record/report_page.h"
#include "tests/trainer/in_browser.h"
#include "tests/trainer/study_runs.h"
#include "trainer/study/study_report.h"

namespace smoe {
namespace {
namespace fs = std::filesystem;

using test::BrowserVisit;
using test::coefficient_study;
using test::fail_point;
using test::make_point;

class StudyInBrowser : public test::InBrowser {
 protected:
  // 0 beside powers of ten, three seeds; one point failed and one left.
  Study whole_study(const std::string& error = "loss is not finite") {
    const Study study = coefficient_study(dir_.path() / "study", {"0", "1e-4", "0.01", "1"}, {"1", "2", "3"});
    const double losses[] = {3.2, 3.1, 3.0, 3.4}, violations[] = {0.9, 0.6, 0.2, 0.01};
    for (std::size_t i = 0; i + 1 < study.points.size(); ++i)
      make_point(study, study.points[i],
                 {.loss = losses[i / 3] + 0.1 * static_cast<double>(i % 3) + (i % 2 ? 0.01 : 0),
                  .max_vio = violations[i / 3],
                  .weights = "w" + std::to_string(i % 3)});
    fail_point(study, study.points[10], error);
    return study;
  }

  BrowserVisit visit_report(const Study& study, const std::string& behind = "") {
    const fs::path out = dir_.path() / "report.html";
    write_file_atomically(out, render_study_report(study) + behind);
    return visit(out);
  }
};

TEST_F(StudyInBrowser, DrawsEverySectionAndLogsNothing) {
  const BrowserVisit seen = visit_report(whole_study());
  EXPECT_NE(seen.dom.find("data-ready=\"true\""), std::string::npos) << seen.log;
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
  for (const char* shown :
       {"summary", "front", "settings", "sources", "parameters", "curves", "loads", "measures", "failed", "reproduce"})
    EXPECT_EQ(seen.count("<section id=\"" + std::string(shown) + "\"[^>]*hidden"), 0) << shown;
  EXPECT_NE(seen.dom.find("10 of 12"), std::string::npos);
  EXPECT_NE(seen.dom.find("loss is not finite"), std::string::npos);
  EXPECT_EQ(seen.canvases(), 4) << "a layer of each setting, of the first seed";
  // A coefficient of 0 has its place beside the logarithmic axis, which is broken there; the two plots over it.
  EXPECT_EQ(seen.count("class=\"break\""), 2);
  EXPECT_EQ(seen.count("=\"[^\"]*(NaN|Infinity|undefined)"), 0);
}

TEST_F(StudyInBrowser, TablesHaveTheNumbers) {
  const BrowserVisit seen = visit_report(whole_study());
  // 0.01 against 0, pairs of seeds: (3.0 + 0.1 k) - (3.2 + 0.1 k), and 0.01 more or less by turns: -0.2, with 0.01 on each.
  EXPECT_EQ(seen.count("<td class=\"number clear\">−0\\.2000 ± 0\\.0000</td>"), 1);
  EXPECT_EQ(seen.count("<td class=\"number \">the base</td>"), 1);
  EXPECT_EQ(seen.count("<td class=\"number \">1 of 3</td>"), 1) << "the setting with the failed point";
  EXPECT_EQ(seen.count("<svg[^>]*role=\"img\""), seen.count("<svg[^>]*role=\"img\"[^>]*aria-label=\"[^\"]+\""));
}

TEST_F(StudyInBrowser, WhatIsFarFromTheRestStandsAtTheEdge) {
  const Study study = coefficient_study(dir_.path() / "study", {"0", "1", "2", "3", "4"}, {"1"});
  for (std::size_t i = 0; i < 5; ++i)
    make_point(study, study.points[i], {.loss = i == 4 ? 9 : 3 + 0.01 * static_cast<double>(i), .max_vio = 0.5});
  const BrowserVisit seen = visit_report(study);
  EXPECT_EQ(seen.count(">4 \\(9\\.25\\)</text>"), 1) << "beside its mark, its loss";
  // In the figure, in the table and in the forest of each of two sources.
  EXPECT_EQ(seen.count("<path class=\"mark[^>]*rotate"), 4);
  EXPECT_EQ(seen.count("cut what is far"), 2) << "the control, and the script that makes it";
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

TEST_F(StudyInBrowser, StudiesOfEveryShapeHaveAPage) {
  Study one = coefficient_study(dir_.path() / "one", {"0"}, {"1"});
  make_point(one, one.points[0], {.evaluated = false});
  Study random = coefficient_study(dir_.path() / "random", {"0.1", "0.2", "0.30001", "7"}, {"1"});
  for (StudyPoint& point : random.points) {
    point.parameters[1] = {"optimizer.learning_rate", "1e-" + point.name.substr(1)};
    make_point(random, point, {.loss = 3, .max_vio = 0});
  }
  const Study words = coefficient_study(dir_.path() / "words", {"[1, 2]", "{\"a\": 1}", "null", "\"x\""}, {"1", "2"});
  for (const StudyPoint& point : words.points) make_point(words, point, {});
  const Study empty = coefficient_study(dir_.path() / "empty", {"0", "1"}, {"1", "2"});
  const Study base_alone = coefficient_study(dir_.path() / "base_alone", {"0", "1"}, {"1", "2"});
  make_point(base_alone, base_alone.points[0], {});
  for (const Study& study : {one, random, words, empty, base_alone}) {
    const BrowserVisit seen = visit_report(study);
    EXPECT_NE(seen.dom.find("data-ready=\"true\""), std::string::npos) << study.directory << seen.log;
    EXPECT_FALSE(seen.console_spoke()) << study.directory << seen.log;
    EXPECT_EQ(seen.count("=\"[^\"]*(NaN|Infinity|undefined)"), 0) << study.directory;
  }
}

// Behind a page: turns every control.
constexpr const char* turn_controls = R"html(<script>
(function () {
  const turn = (label, value) => {
    const node = document.querySelector('select[aria-label="' + label + '"]');
    node.value = value;
    node.dispatchEvent(new Event('change'));
  };
  turn('base', '2');
  turn('order', 'quality');
  turn('balance', 'max_vio_mean');
  turn('seed', '1');
  turn('setting', '2');
  const box = document.querySelector('#front input');
  box.checked = !box.checked;
  box.dispatchEvent(new Event('change'));
  dispatchEvent(new Event('beforeprint'));
  document.documentElement.dataset.turned = document.querySelector('#front svg').getAttribute('width') + ' ' +
    document.querySelectorAll('canvas').length + ' ' + [...document.querySelectorAll('#settings tbody tr')].map(
      (row) => row.children[0].textContent + (row.className && '!')).join(' ') + ' ' +
    [...document.querySelectorAll('details')].every((one) => one.open);
})();
</script>)html";

TEST_F(StudyInBrowser, ControlsWork) {
  const BrowserVisit seen = visit_report(whole_study(), turn_controls);
  EXPECT_NE(seen.dom.find("data-turned=\"760 1 3! 2 1 4 true\""), std::string::npos)
      << seen.dom.substr(0, 300) << seen.log;
  EXPECT_NE(seen.dom.find("+0.2000 ± 0.0000"), std::string::npos) << "1 against 3 is 3 against 1 the other way";
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

// A page in a frame of the width of a screen: how much wider than that it is.
std::string framed(const std::string& page, int width) {
  return "<iframe style=\"width:" + std::to_string(width) + "px;height:800px;border:0\" srcdoc=\"" + escape_html(page) +
         "\"></iframe>";
}
constexpr const char* measure_frames = R"html(<script>
addEventListener('load', () => {
  document.documentElement.dataset.beyond = [...document.querySelectorAll('iframe')].map((frame) =>
    frame.contentDocument.documentElement.dataset.ready + ' ' +
    (frame.contentDocument.documentElement.scrollWidth - frame.contentDocument.documentElement.clientWidth)).join(', ');
});
</script>)html";

TEST_F(StudyInBrowser, FitsALaptopAndAPhone) {
  const Study study = whole_study(std::string(300, 'x'));
  const std::string page = render_study_report(study);
  const fs::path out = dir_.path() / "frames.html";
  write_file_atomically(out, "<!doctype html>" + framed(page, 1366) + framed(page, 390) + measure_frames);
  const BrowserVisit seen = visit(out);
  EXPECT_NE(seen.dom.find("data-beyond=\"true 0, true 0\""), std::string::npos) << seen.dom.substr(0, 300);
  std::string wide = page;
  wide.replace(wide.find("<main>"), 6, "<main><div style=\"width:500px;height:1px\"></div>");
  write_file_atomically(out, "<!doctype html>" + framed(wide, 390) + measure_frames);
  EXPECT_EQ(visit(out).dom.find("data-beyond=\"true 0\""), std::string::npos) << "what is too wide is seen";
}

TEST_F(StudyInBrowser, Prints) {
  const fs::path out = dir_.path() / "report.html";
  write_study_report(whole_study(), out);
  const BrowserVisit printed = print(out);
  EXPECT_EQ(printed.dom.find("%PDF"), 0u);
  EXPECT_FALSE(printed.console_spoke()) << printed.log;
}

TEST_F(StudyInBrowser, TextStaysText) {
  const std::string hostile =
      "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";
  Study study = whole_study(hostile);
  for (StudyPoint& point : study.points) point.parameters.emplace_back("name", dump_json(Json(hostile + point.name)));
  const BrowserVisit seen = visit_report(study);
  EXPECT_NE(seen.dom.find("data-ready=\"true\""), std::string::npos) << seen.log;
  EXPECT_EQ(seen.dom.find("<title>owned"), std::string::npos);
  EXPECT_EQ(seen.count("<img"), 0);
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

}  // namespace
}  // namespace smoe
