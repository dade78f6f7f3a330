#include "trainer/analysis/analysis_page.h"

#include <algorithm>
#include <functional>
#include <map>
#include <stdexcept>
#include <string_view>

#include "trainer/analysis/analysis_assets.h"
#include "trainer/record/line_styles.h"
#include "trainer/record/report_assets.h"

namespace smoe {
namespace {

// JSON inside a <script> element: without a '<' no text of a stranger's can close it or open a comment.
std::string json_for_script(const OrderedJson& value) {
  std::string safe;
  for (const char c : value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace))
    if (c == '<')
      safe += "\\u003c";
    else
      safe += c;
  return safe;
}

std::string text_for_html(std::string_view text) {
  std::string safe;
  for (const char c : text) safe += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '"' ? "&quot;" : std::string(1, c);
  return safe;
}

// Puts values in place of the page's {{NAME}} marks; what was put in is not searched again.
std::string with_values(std::string_view page, const std::map<std::string, std::string, std::less<>>& values) {
  std::string result;
  for (;;) {
    const std::size_t open = page.find("{{");
    result += page.substr(0, open);
    if (open == std::string_view::npos) return result;
    const std::size_t close = page.find("}}", open);
    const auto value = values.find(page.substr(open + 2, close - open - 2));
    if (value == values.end())
      throw std::logic_error("analysis_template.html: a mark that analysis_page.cpp does not fill");
    result += value->second;
    page.remove_prefix(close + 2);
  }
}

// One for every domain and one for every expert, whichever are more.
OrderedJson styles_for(const OrderedJson& analysis) {
  const std::size_t lines =
      std::max(analysis.at("experts").get<std::size_t>(), analysis.at("sources").size() + std::size_t{3});
  OrderedJson styles = OrderedJson::array();
  for (std::size_t i = 0; i < lines; ++i) {
    const LineStyle style = line_style(i);
    styles.push_back({{"light", style.light}, {"dark", style.dark}, {"dash", style.dash}});
  }
  return styles;
}

}  // namespace

std::string analysis_page(const OrderedJson& analysis) {
  return with_values(analysis_assets::page,
                     {{"TITLE", text_for_html(analysis.at("model").get<std::string>())},
                      {"STYLE", std::string(report_assets::style) + std::string(analysis_assets::style)},
                      {"DATA", json_for_script({{"analysis", analysis}, {"line_styles", styles_for(analysis)}})},
                      {"NUMBERS", std::string(report_assets::numbers)},
                      {"FIGURES", std::string(analysis_assets::figures)},
                      {"SCRIPT", std::string(analysis_assets::script)}});
}

}  // namespace smoe
