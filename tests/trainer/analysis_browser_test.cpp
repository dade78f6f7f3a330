// The page of an analysis in a browser: it draws itself at the width of a desk and of a telephone, its controls work, and what
// strangers wrote stays text.
#include <gtest/gtest.h>

#include <string>

#include "tests/trainer/analysis_fixture.h"
#include "tests/trainer/in_browser.h"
#include "trainer/analysis/analysis.h"
#include "trainer/analysis/analysis_json.h"
#include "trainer/analysis/analysis_page.h"

namespace smoe {
namespace {

// Of five layers, two domains with names that want to be markup, and a few tokens.
OrderedJson small_analysis(std::size_t experts = 8) {
  Assignments table;
  table.experts = experts;
  table.experts_per_token = 2;
  table.sequence_length = 40;
  table.choices.resize(5);
  for (std::size_t t = 0; t < 160; ++t) {
    table.ids.push_back(static_cast<std::int32_t>((t * t * 7 + t) % 23));
    table.follows.push_back(t % 40 > 0);
    for (std::size_t l = 0; l < 5; ++l) {
      const auto first = static_cast<ExpertId>((t * (l + 1) + t / 9) % experts);
      table.choices[l].push_back(first);
      table.choices[l].push_back(static_cast<ExpertId>((first + 1 + t % 3) % experts));
    }
  }
  table.sources = {{"</script><script>document.title='owned'</script>", "a", 0, 80},
                   {"a domain with a long name of its own", "b", 80, 80}};
  Analysis analysis;
  analysis.model = "runs/<i>model</i>";
  analysis.layers = 5;
  analysis.experts = experts;
  analysis.experts_per_token = 2;
  analysis.sequence_length = 40;
  analysis.sources = table.sources;
  analysis.options.permutation.permutations = 10;
  analysis.statistics = routing_statistics(table, analysis.options);
  std::vector<double> cosines(experts * experts, 0.25);
  for (std::size_t e = 0; e < experts; ++e) cosines[e * experts + e] = 1;
  analysis.overlap.assign(5, {cosines, cosines, cosines, cosines, cosines});
  return analysis_json(analysis, TokenTexts(nullptr));
}

// Behind a page's scripts: tells the frame's parent how it went, once all is drawn.
constexpr const char* tell_parent = R"html(<script>
parent.postMessage([document.documentElement.clientWidth, document.documentElement.scrollWidth,
  document.documentElement.dataset.ready, document.documentElement.dataset.figures].join(' '), '*');
</script>)html";

class AnalysisInBrowser : public test::InBrowser {
 protected:
  test::BrowserVisit visit_text(const std::string& page) {
    dir_.write("page.html", page);
    return visit(dir_ / "page.html");
  }

  // What the page tells of itself in a frame of that width, high enough for no scrollbar: its width, what it fills, ready, figures.
  std::string in_frame(const std::string& page, int width) {
    dir_.write("framed.html", page + tell_parent);
    const test::BrowserVisit seen = visit_text(
        "<!doctype html><iframe src='framed.html' style='border:0;height:20000px;width:" + std::to_string(width) +
        "px'></iframe><script>onmessage = (e) => document.body.dataset.told = e.data;</script>");
    EXPECT_FALSE(seen.console_spoke()) << seen.log;
    const std::size_t told = seen.dom.find("data-told=\"");
    return told == std::string::npos ? "nothing"
                                     : seen.dom.substr(told + 11, seen.dom.find('"', told + 11) - told - 11);
  }
};

TEST_F(AnalysisInBrowser, DrawsEveryFigureAndTakesNamesForText) {
  const test::BrowserVisit seen = visit_text(analysis_page(small_analysis()));
  EXPECT_NE(seen.dom.find("data-ready=\"true\""), std::string::npos) << seen.log;
  // Shares of three layers, two rates by layer, a cache, one mean of cosines.
  EXPECT_NE(seen.dom.find("data-figures=\"7\""), std::string::npos);
  EXPECT_NE(seen.dom.find("<title>runs/&lt;i&gt;model&lt;/i&gt;: routing analysis</title>"), std::string::npos);
  EXPECT_EQ(seen.dom.find("<title>owned"), std::string::npos);
  EXPECT_NE(seen.dom.find("<h3>&lt;/script&gt;&lt;script&gt;document.title='owned'&lt;/script&gt;, layer 2</h3>"),
            std::string::npos);
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

TEST_F(AnalysisInBrowser, FitsADeskAndATelephone) {
  for (const std::size_t experts : {8, 64}) {
    const std::string page = analysis_page(small_analysis(experts));
    EXPECT_EQ(in_frame(page, 1366), "1366 1366 true 7");
    EXPECT_EQ(in_frame(page, 390), "390 390 true 7") << "it scrolls sideways";
  }
}

// Behind a page: turns every control and tells what changed.
constexpr const char* turn_controls = R"html(<script>
(function () {
  const set = (id, property, value) => {
    document.getElementById(id)[property] = value;
    document.getElementById(id).dispatchEvent(new Event('input', {bubbles: true}));
  };
  const count = (selector) => document.querySelectorAll(selector).length;
  const told = [count('#shares svg')];
  set('layer', 'value', '3');
  told.push(count('#shares svg'), document.querySelector('.excerpt h3').textContent.endsWith(', layer 3'));
  const bar = document.querySelector('#shares rect title').textContent;
  set('choice', 'value', '1');
  told.push(bar !== document.querySelector('#shares rect title').textContent);
  set('overlap-of', 'value', 'outputs');
  told.push(count('#overlap svg'), count('.token.other'));
  document.querySelectorAll('#experts button')[2].click();
  told.push(count('.token:not(.other)') > 0, [...document.querySelectorAll('.token:not(.other) sub')].every((n) => n.textContent === '2'));
  const numbers = () => getComputedStyle(document.querySelector('.token sub')).display;
  told.push(numbers());
  set('numbers', 'checked', false);
  told.push(numbers());
  document.documentElement.dataset.told = told.join(' ');
})();
</script>)html";

TEST_F(AnalysisInBrowser, ControlsWork) {
  const test::BrowserVisit seen = visit_text(analysis_page(small_analysis()) + turn_controls);
  EXPECT_NE(seen.dom.find("data-told=\"3 4 true true 1 0 true true inline none\""), std::string::npos)
      << seen.dom.substr(0, 300) << seen.log;
  EXPECT_FALSE(seen.console_spoke()) << seen.log;
}

// The checks above can fail.
TEST_F(AnalysisInBrowser, ABrokenPageIsSeen) {
  std::string page = analysis_page(small_analysis());
  const std::string call = "const drawers = [drawShares,";
  ASSERT_NE(page.find(call), std::string::npos);
  const std::string wide = page;
  page.replace(page.find(call), call.size(), "const drawers = [nothingThatExists,");
  const test::BrowserVisit seen = visit_text(page);
  EXPECT_TRUE(seen.console_spoke());
  EXPECT_EQ(seen.dom.find("data-ready"), std::string::npos);
  EXPECT_EQ(in_frame(wide + "<div style='width:500px;height:1px'></div>", 390), "390 500 true 7");
}

}  // namespace
}  // namespace smoe
