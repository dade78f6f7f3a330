#include "trainer/analysis/analysis_page.h"

#include <algorithm>
#include <string>

#include "trainer/analysis/analysis_assets.h"
#include "trainer/record/line_styles.h"
#include "trainer/record/report_assets.h"
#include "trainer/record/report_page.h"

namespace smoe {
namespace {

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
  const OrderedJson data = {{"analysis", analysis}, {"line_styles", styles_for(analysis)}};
  return fill_page(analysis_assets::page,
                   {{"TITLE", escape_html(analysis.at("model").get<std::string>())},
                    {"STYLE", std::string(report_assets::style) + std::string(analysis_assets::style)},
                    {"DATA", script_safe_json(Json(data))},
                    {"NUMBERS", std::string(report_assets::numbers)},
                    {"FIGURES", std::string(analysis_assets::figures)},
                    {"SCRIPT", std::string(analysis_assets::script)}});
}

}  // namespace smoe
