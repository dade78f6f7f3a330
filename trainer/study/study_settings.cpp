#include "trainer/study/study_settings.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "data/files/json.h"

namespace smoe {
namespace {

using Values = std::vector<std::pair<std::string, std::string>>;

std::set<std::string> keys_that_vary(const Study& study) {
  std::map<std::string, std::set<std::string>> values;
  for (const StudyPoint& point : study.points)
    for (const auto& [key, value] : point.parameters) values[key].insert(value);
  std::set<std::string> keys;
  for (const auto& [key, found] : values)
    if (found.size() > 1 && key != repeated_key) keys.insert(key);
  return keys;
}

std::string last_part(const std::string& key) { return key.substr(key.rfind('.') + 1); }

std::string name_of_setting(const Values& parameters) {
  if (parameters.empty()) return "base";
  if (parameters.size() == 1) return text_of(parameters.front().second);
  std::map<std::string, int> parts;
  for (const auto& [key, value] : parameters) ++parts[last_part(key)];
  std::string name;
  for (const auto& [key, value] : parameters)
    name += (name.empty() ? "" : ", ") + (parts[last_part(key)] > 1 ? key : last_part(key)) + " " + text_of(value);
  return name;
}

std::vector<StudySetting> settings_of(const Study& study) {
  const std::set<std::string> varying = keys_that_vary(study);
  std::vector<StudySetting> settings;
  std::map<Values, std::size_t> known;
  for (std::size_t i = 0; i < study.points.size(); ++i) {
    Values all, shown, overrides;
    for (const auto& parameter : study.points[i].parameters) {
      if (parameter.first != repeated_key) all.push_back(parameter);
      if (varying.contains(parameter.first)) shown.push_back(parameter);
    }
    for (const auto& entry : study.points[i].overrides)
      if (entry.first != repeated_key) overrides.push_back(entry);
    const auto [place, is_new] = known.emplace(all, settings.size());
    if (is_new) settings.push_back({name_of_setting(shown), shown, overrides, {}});
    settings[place->second].runs.push_back(i);
  }
  return settings;
}

std::string seed_of(const StudyRun& run) {
  for (const auto& [key, value] : run.point->parameters)
    if (key == repeated_key) return value;
  return "";  // the base's, which is every point's
}

std::optional<double> value_in(const StudyRun& run, const std::string& measure) {
  const auto found = run.values.find(measure);
  return found == run.values.end() ? std::nullopt : std::optional(found->second);
}

std::vector<double> values_in(const StudyView& view, const StudySetting& setting, const std::string& measure) {
  std::vector<double> values;
  for (const std::size_t run : setting.runs)
    if (const auto value = value_in(view.runs[run], measure)) values.push_back(*value);
  return values;
}

// Why runs of the same seed are no pair; empty where they are.
std::string difference_of_start(const PointRecord& a, const PointRecord& b) {
  const bool weights = a.initial_weights != b.initial_weights || a.initial_weights.empty();
  const bool data = a.data_order != b.data_order || a.data_order.empty();
  if (weights && data) return "initial weights and data differ";
  return weights ? "initial weights differ" : data ? "data differ" : "";
}

// What a point evaluates on, of what its study varies. Losses of different texts, or of more and fewer of them, are not to be compared.
std::string evaluation_of(const StudyPoint& point) {
  std::string found;
  for (const auto& [key, value] : point.overrides)
    for (const std::string_view own : {"data.eval", "eval.batches"})
      if (key.starts_with(own)) found += key + "=" + value + "\n";
  return found;
}

bool is_held_out(const std::string& measure) {
  return measure == "quality" || measure == "max_vio_held_out" || measure.starts_with("eval.");
}

// Letters of loads that the page has room for.
constexpr std::size_t all_letters = 480'000;
constexpr std::size_t most_loads = 150;

}  // namespace

std::string text_of(const std::string& json) {
  const Json value = parse_json(json, "value");
  return value.is_string() ? value.get<std::string>() : json;
}

StudyView read_study_view(const Study& study) {
  StudyView view;
  view.settings = settings_of(study);
  std::vector<bool> first(study.points.size(), false);
  for (const StudySetting& setting : view.settings) {
    view.repeated |= setting.runs.size() > 1;
    first[setting.runs.front()] = true;
  }
  const bool all = study.points.size() <= most_loads;
  const std::size_t shown = std::min(most_loads, all ? study.points.size() : view.settings.size());
  std::size_t given = 0;
  const auto letters = [&](std::size_t i) {
    const bool has = (all || first[i]) && given < shown;
    given += has;
    return has ? all_letters / shown : 0;
  };
  for (std::size_t i = 0; i < study.points.size(); ++i)
    view.runs.push_back(read_study_run(study, study.points[i], letters(i)));
  for (const StudyRun& run : view.runs)
    for (const std::string& source : run.sources)
      if (std::find(view.sources.begin(), view.sources.end(), source) == view.sources.end())
        view.sources.push_back(source);
  if (!view.sources.empty()) return view;
  for (StudyRun& run : view.runs)
    if (const auto loss = value_in(run, "lm_loss")) run.values["quality"] = *loss;
  return view;
}

Summary summary_of(const StudyView& view, const StudySetting& setting, const std::string& measure) {
  return summarise(values_in(view, setting, measure));
}

Comparison compare(const StudyView& view, const StudySetting& setting, const StudySetting& base,
                   const std::string& measure) {
  std::vector<double> ours, theirs;
  std::string because;
  for (const std::size_t i : setting.runs)
    for (const std::size_t j : base.runs) {
      const StudyRun &a = view.runs[i], &b = view.runs[j];
      const auto of_a = value_in(a, measure), of_b = value_in(b, measure);
      if (!of_a || !of_b) continue;
      if (is_held_out(measure) && evaluation_of(*a.point) != evaluation_of(*b.point))
        return {Difference{}, "they were evaluated on different texts"};
      if (seed_of(a) != seed_of(b)) continue;
      ours.push_back(*of_a);
      theirs.push_back(*of_b);
      if (because.empty()) because = difference_of_start(a.record, b.record);
    }
  if (!ours.empty() && because.empty()) return {paired_difference(ours, theirs), ""};
  if (ours.empty()) because = "no seed that both have";
  const Difference welch = welch_difference(values_in(view, setting, measure), values_in(view, base, measure));
  return {welch, welch.n > 0 ? because : ""};
}

std::vector<std::size_t> front_of(const StudyView& view, const std::string& balance) {
  std::vector<std::pair<double, double>> points;
  for (const StudySetting& setting : view.settings)
    points.emplace_back(summary_of(view, setting, balance).mean, summary_of(view, setting, "quality").mean);
  return pareto_front(points);
}

}  // namespace smoe
