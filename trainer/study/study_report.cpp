#include "trainer/study/study_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <stdexcept>

#include "data/files/files.h"
#include "data/files/json.h"
#include "trainer/record/report_assets.h"
#include "trainer/record/report_page.h"
#include "trainer/study/study_facts.h"
#include "trainer/study/study_settings.h"

namespace smoe {
namespace {

constexpr int table_digits = 9;           // enough that rounding them again for a table rounds nothing twice
constexpr int curve_digits = 5;           // differences of curves are drawn too
constexpr std::size_t most_bases = 24;    // a page may compare with any of so many settings; beyond, with the first
constexpr std::size_t most_curves = 120;  // settings that have them
// Keys of study_measures that may stand on the axis of balance, those measured.
constexpr std::array balances = {"max_vio", "max_vio_mean", "max_vio_interval", "max_vio_held_out"};

Json number(double value) { return rounded(value, table_digits); }

struct ShownMeasure {
  std::string key, title, unit;
  int digits;
  bool compared;
};

// Quality first, then what any run has, then the sources.
std::vector<ShownMeasure> shown_measures(const StudyView& view) {
  std::set<std::string> measured;
  for (const StudyRun& run : view.runs)
    for (const auto& [key, value] : run.values) measured.insert(key);
  std::vector<ShownMeasure> shown;
  if (view.sources.empty())
    shown.push_back({"quality", "Training loss", study_measures[0].unit, study_measures[0].digits, true});
  else
    shown.push_back(
        {"quality", "Held-out loss",
         fmt::format("nats a token, after the last step{}", view.sources.size() > 1 ? ", mean of the sources" : ""),
         study_measures[0].digits, true});
  for (const StudyMeasure& one : study_measures)
    if (measured.contains(one.key) && !(view.sources.empty() && one.key == std::string("lm_loss")))
      shown.push_back({one.key, one.title, one.unit, one.digits, one.compared});
  for (const std::string& source : view.sources)
    shown.push_back({"eval." + source, source, "held-out loss", study_measures[0].digits, true});
  return shown;
}

Json measures_json(const std::vector<ShownMeasure>& measures) {
  Json list = Json::array();
  for (const ShownMeasure& one : measures)
    list.push_back({{"key", one.key}, {"title", one.title}, {"unit", one.unit}, {"digits", one.digits}});
  return list;
}

Json run_json(const StudyRun& run) {
  Json values = Json::object();
  for (const auto& [key, value] : run.values) values[key] = number(value);
  std::string seed;
  for (const auto& [key, value] : run.point->parameters)
    if (key == repeated_key) seed = value;
  Json json = {{"point", run.point->name}, {"seed", seed}, {"standing", run.standing}, {"values", values}};
  if (!run.record.error.empty()) json["error"] = run.record.error;
  return json;
}

Json setting_json(const StudyView& view, const StudySetting& setting, const std::vector<ShownMeasure>& measures) {
  Json parameters = Json::array(), overrides = Json::array(), runs = Json::array(), summary = Json::object();
  for (const auto& [key, value] : setting.parameters) parameters.push_back({key, parse_json(value, key)});
  for (const auto& [key, value] : setting.overrides) overrides.push_back({key, value});
  for (const std::size_t run : setting.runs) runs.push_back(run_json(view.runs[run]));
  for (const ShownMeasure& one : measures) {
    const Summary of = summary_of(view, setting, one.key);
    if (of.n > 0) summary[one.key] = {of.n, number(of.mean), number(of.sd), number(of.half)};
  }
  return {{"name", setting.name},
          {"parameters", parameters},
          {"overrides", overrides},
          {"runs", runs},
          {"summary", summary}};
}

// By measure, a [n, mean, half, paired] a setting; null where one of the two has no value.
Json differences_to(const StudyView& view, const StudySetting& base, const std::vector<ShownMeasure>& measures) {
  Json by_measure = Json::object();
  for (const ShownMeasure& one : measures) {
    if (!one.compared) continue;
    Json list = Json::array();
    for (const StudySetting& setting : view.settings) {
      const Comparison found = compare(view, setting, base, one.key);
      if (std::isnan(found.difference.mean)) {
        list.push_back(nullptr);
        continue;
      }
      list.push_back(
          {found.difference.n, number(found.difference.mean), number(found.difference.half), found.difference.paired});
      if (!found.unpaired_because.empty()) list.back().push_back(found.unpaired_because);
    }
    by_measure[one.key] = list;
  }
  return by_measure;
}

// {"step": [...], "runs": [[...], ...]}: where all runs that are done have a value, so that their mean makes no jump. Null for
// each run that has none.
Json curve_json(const StudyView& view, const StudySetting& setting, RunCurve StudyRun::*curve) {
  std::map<std::int64_t, std::size_t> counts;
  std::size_t having = 0;
  for (const std::size_t i : setting.runs) {
    const RunCurve& one = view.runs[i].*curve;
    having += !one.step.empty();
    for (const std::int64_t step : one.step) ++counts[step];
  }
  std::erase_if(counts, [&](const auto& entry) { return entry.second < having; });
  if (counts.empty()) return nullptr;
  Json steps = Json::array(), runs = Json::array();
  for (const auto& [step, count] : counts) steps.push_back(step);
  for (const std::size_t i : setting.runs) {
    const RunCurve& one = view.runs[i].*curve;
    Json values = one.step.empty() ? Json(nullptr) : Json::array();
    for (std::size_t k = 0; k < one.step.size(); ++k)
      if (counts.contains(one.step[k])) values.push_back(rounded(one.value[k], curve_digits));
    runs.push_back(std::move(values));
  }
  return {{"step", steps}, {"runs", runs}};
}

Json curves_json(const StudyView& view) {
  Json list = Json::array();
  for (std::size_t i = 0; i < std::min(most_curves, view.settings.size()); ++i) {
    const StudySetting& setting = view.settings[i];
    list.push_back({{"lm_loss", curve_json(view, setting, &StudyRun::lm_loss)},
                    {"eval", curve_json(view, setting, &StudyRun::eval)},
                    {"max_vio", curve_json(view, setting, &StudyRun::max_vio)}});
  }
  return list;
}

Json loads_json(const StudyView& view) {
  Json list = Json::array();
  for (std::size_t i = 0; i < view.settings.size(); ++i)
    for (std::size_t k = 0; k < view.settings[i].runs.size(); ++k) {
      const LoadHistory& load = view.runs[view.settings[i].runs[k]].load;
      if (load.step.empty()) continue;
      list.push_back({{"setting", i},
                      {"run", k},
                      {"step", load.step},
                      {"layers", load.layers},
                      {"experts", load.experts},
                      {"levels", load.levels}});
    }
  return list;
}

Json study_data(const Study& study) {
  const StudyView view = read_study_view(study);
  const std::vector<ShownMeasure> measures = shown_measures(view);
  Json settings = Json::array(), differences = Json::array(), fronts = Json::object(), standing = Json::object();
  for (const StudySetting& setting : view.settings) settings.push_back(setting_json(view, setting, measures));
  const std::size_t bases = view.settings.size() <= most_bases ? view.settings.size() : 1;
  for (std::size_t i = 0; i < bases; ++i) differences.push_back(differences_to(view, view.settings[i], measures));
  for (const char* balance : balances)
    if (std::any_of(measures.begin(), measures.end(), [&](const auto& one) { return one.key == balance; }))
      fronts[balance] = front_of(view, balance);
  for (const char* one : {"done", "running", "failed", "stopped", "left"})
    standing[one] =
        std::count_if(view.runs.begin(), view.runs.end(), [&](const StudyRun& run) { return run.standing == one; });
  return {{"facts", study_facts(study, view)}, {"standing", standing},      {"measures", measures_json(measures)},
          {"sources", view.sources},           {"repeated", view.repeated}, {"settings", settings},
          {"differences", differences},        {"fronts", fronts},          {"curves", curves_json(view)},
          {"loads", loads_json(view)}};
}

}  // namespace

std::string render_study_report(const Study& study) {
  return fill_page(report_assets::study_page,
                   {{"TITLE", escape_html(name_of_study(study))},
                    {"STYLE", fmt::format("{}{}", report_assets::style, report_assets::study_style)},
                    {"DATA", script_safe_json(study_data(study))},
                    {"NUMBERS", fmt::format("{}{}", report_assets::numbers, report_assets::elements)},
                    {"PLOTS", fmt::format("{}{}", report_assets::study_plots, report_assets::study_figures)},
                    {"SCRIPT", fmt::format("{}{}{}", report_assets::study_view, report_assets::study_tables,
                                           report_assets::study_script)}});
}

void write_study_report(const Study& study, const std::filesystem::path& out_html) {
  const std::string page = render_study_report(study);
  try {
    write_file_atomically(out_html, page);
  } catch (const std::runtime_error& error) {  // which names a temporary file
    throw std::runtime_error(fmt::format("cannot write the report {}: {}; its directory must exist and be writable",
                                         out_html.string(), error.what()));
  }
}

}  // namespace smoe
