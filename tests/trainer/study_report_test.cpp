// A study's report: its settings, their numbers by hand, what it says of points that failed or are left, and its page.
#include "trainer/study/study_report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <regex>
#include <string>

#include "data/files/files.h"
#include "data/files/json.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/trainer/study_runs.h"
#include "trainer/study/study_settings.h"

namespace smoe {
namespace {
namespace fs = std::filesystem;

using test::coefficient_study;
using test::fail_point;
using test::make_point;
using test::message_of;
using test::PointNumbers;
using test::ScratchDir;

Json data_in(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t begin = page.find(open) + open.size();
  return parse_json(page.substr(begin, page.find("</script>", begin) - begin), "report");
}

// Three seeds of 0 and of 0.01: losses 1, 2, 6 and, paired, -0.1, -0.2, -0.3 from them.
Study three_seeds(const fs::path& directory) {
  const Study study = coefficient_study(directory, {"0", "0.01"}, {"1", "2", "3"});
  const double base[] = {1, 2, 6}, lower[] = {0.1, 0.2, 0.3};
  for (std::size_t i = 0; i < 6; ++i)
    make_point(study, study.points[i],
               {.loss = base[i % 3] - (i < 3 ? 0 : lower[i % 3]),
                .max_vio = i < 3 ? 0.9 : 0.1,
                .weights = "w" + std::to_string(i % 3)});
  return study;
}

TEST(StudySettings, PointsThatDifferInTheSeedAloneAreOne) {
  const ScratchDir dir;
  const StudyView view = read_study_view(coefficient_study(dir.path(), {"0", "0.01", "1e-4"}, {"1", "2"}));
  ASSERT_EQ(view.settings.size(), 3u);
  EXPECT_TRUE(view.repeated);
  EXPECT_EQ(view.settings[2].name, "1e-4");
  EXPECT_EQ(view.settings[2].runs, (std::vector<std::size_t>{4, 5}));
  const std::vector<std::pair<std::string, std::string>> only = {{"router.aux_loss_coef", "1e-4"}};
  EXPECT_EQ(view.settings[2].overrides, only);
  EXPECT_EQ(read_study_view(coefficient_study(dir.path(), {"0"}, {"1", "2"})).settings[0].name, "base");
  EXPECT_FALSE(read_study_view(coefficient_study(dir.path(), {"0", "1"}, {"1"})).repeated);
}

TEST(StudySettings, AreNamedByAllThatVaries) {
  const ScratchDir dir;
  Study study;
  study.directory = dir.path();
  study.points = {{"a", {{"optimizer.type", "\"x\""}, {"schedule.type", "\"y\""}, {"a.b", "1"}, {"a.c", "2"}}, 1, {}},
                  {"b", {{"optimizer.type", "\"z\""}, {"schedule.type", "\"w\""}, {"a.b", "2"}, {"a.c", "2"}}, 1, {}}};
  const StudyView view = read_study_view(study);
  EXPECT_EQ(view.settings[0].name, "optimizer.type x, schedule.type y, b 1");
  EXPECT_EQ(view.settings[1].parameters.size(), 3u);
}

TEST(StudySettings, NumbersByHand) {
  const ScratchDir dir;
  const Study study = three_seeds(dir.path());
  const StudyView view = read_study_view(study);
  const Summary quality = summary_of(view, view.settings[0], "quality");
  EXPECT_EQ(quality.n, 3u);
  EXPECT_NEAR(quality.mean, 3.25, 1e-12);  // the mean of both sources
  EXPECT_NEAR(quality.sd, std::sqrt(7.0), 1e-12);
  EXPECT_NEAR(summary_of(view, view.settings[0], "eval.books").mean, 3, 1e-12);
  EXPECT_NEAR(summary_of(view, view.settings[0], "eval.web").mean, 3.5, 1e-12);
  EXPECT_NEAR(summary_of(view, view.settings[1], "max_vio").mean, 0.1, 1e-12);
  EXPECT_EQ(summary_of(view, view.settings[0], "dropped").n, 0u);
  EXPECT_EQ(summary_of(view, view.settings[0], "idle_experts").mean, 0);
  const Comparison found = compare(view, view.settings[1], view.settings[0], "quality");
  EXPECT_TRUE(found.difference.paired);
  EXPECT_EQ(found.unpaired_because, "");
  EXPECT_NEAR(found.difference.mean, -0.2, 1e-12);
  EXPECT_NEAR(found.difference.half, 4.30265273 * 0.1 / std::sqrt(3.0), 1e-6);
  EXPECT_TRUE(found.difference.within_noise());
  EXPECT_EQ(front_of(view, "max_vio"), (std::vector<std::size_t>{1}));
}

TEST(StudySettings, HashesThatDifferAreNotPaired) {
  const ScratchDir dir;
  const Study study = three_seeds(dir.path());
  make_point(study, study.points[4], {.loss = 1.8, .max_vio = 0.1, .weights = "other", .data = "d"});
  StudyView view = read_study_view(study);
  Comparison found = compare(view, view.settings[1], view.settings[0], "quality");
  EXPECT_FALSE(found.difference.paired);
  EXPECT_EQ(found.unpaired_because, "initial weights differ");
  EXPECT_NEAR(found.difference.mean, -0.2, 1e-12);
  EXPECT_GT(found.difference.half, 1) << "Welch: the spread of the seeds stays in it";
  make_point(study, study.points[4], {.loss = 1.8, .weights = "other", .data = "other"});
  view = read_study_view(study);
  EXPECT_EQ(compare(view, view.settings[1], view.settings[0], "quality").unpaired_because,
            "initial weights and data differ");
}

TEST(StudySettings, PointsThatFailedOrAreLeftAreNoPartners) {
  const ScratchDir dir;
  const Study study = three_seeds(dir.path());
  fail_point(study, study.points[1], "loss is not finite");
  fs::remove_all(study.of_point(study.points[3]));
  const StudyView view = read_study_view(study);
  EXPECT_EQ(view.runs[1].standing, "failed");
  EXPECT_EQ(view.runs[3].standing, "left");
  EXPECT_EQ(summary_of(view, view.settings[0], "quality").n, 2u);
  const Comparison found = compare(view, view.settings[1], view.settings[0], "quality");
  EXPECT_EQ(found.difference.n, 1u) << "seed 3 alone";
  EXPECT_NEAR(found.difference.mean, -0.3, 1e-12);
  EXPECT_FALSE(found.difference.has_interval());
}

TEST(StudySettings, SeedsInNoCommonAreComparedUnpaired) {
  const ScratchDir dir;
  Study study = coefficient_study(dir.path(), {"0", "1"}, {"1", "2"});
  study.points[2].parameters[1].second = "3";
  study.points[3].parameters[1].second = "4";
  for (std::size_t i = 0; i < 4; ++i) make_point(study, study.points[i], {.loss = 1.0 + static_cast<double>(i)});
  const StudyView view = read_study_view(study);
  const Comparison found = compare(view, view.settings[1], view.settings[0], "quality");
  EXPECT_EQ(found.unpaired_because, "no seed that both have");
  EXPECT_NEAR(found.difference.mean, 2, 1e-12);
}

// Weights and tokens are alike, and still the losses are of different texts.
TEST(StudySettings, LossesOfDifferentTextsAreNotCompared) {
  const ScratchDir dir;
  Study study = three_seeds(dir.path());
  for (std::size_t i = 3; i < 6; ++i) study.points[i].overrides.emplace_back("eval.batches", "4");
  const StudyView view = read_study_view(study);
  for (const char* measure : {"quality", "eval.books"}) {
    const Comparison found = compare(view, view.settings[1], view.settings[0], measure);
    EXPECT_TRUE(std::isnan(found.difference.mean)) << measure;
    EXPECT_EQ(found.unpaired_because, "they were evaluated on different texts");
  }
  EXPECT_TRUE(compare(view, view.settings[1], view.settings[0], "lm_loss").difference.paired);
  const std::string text = study_markdown(study);
  EXPECT_NE(text.find("evaluated on different texts"), std::string::npos) << text;
  EXPECT_EQ(text.find("†"), std::string::npos) << text;
}

TEST(StudySettings, WithoutEvaluationTheTailOfTrainingIsTheQuality) {
  const ScratchDir dir;
  const Study study = coefficient_study(dir.path(), {"0"}, {"1"});
  make_point(study, study.points[0], {.loss = 4, .evaluated = false});
  // The last tenth of 20 steps: 19 and 20.
  dir.write("points/p0/metrics.jsonl",
            "{\"step\":18,\"lm_loss\":9.0,\"max_vio\":9.0}\n{\"step\":19,\"lm_loss\":2.0,\"max_vio\":1.0}\n"
            "{\"step\":20,\"lm_loss\":4.0,\"max_vio\":2.0}\n");
  const StudyView view = read_study_view(study);
  EXPECT_EQ(view.runs[0].values.at("quality"), 3.0);
  EXPECT_EQ(view.runs[0].values.at("max_vio"), 1.5);
  EXPECT_TRUE(view.sources.empty());
  EXPECT_EQ(data_in(render_study_report(study)).at("measures")[0].at("title"), "Training loss");
}

TEST(StudyHistory, ShareALoadOnALogarithmicScale) {
  EXPECT_EQ(load_level(0), '0');
  EXPECT_EQ(load_level(1e-9), '1');
  EXPECT_EQ(load_level(0.125), '1');
  EXPECT_EQ(load_level(1), 'V');
  EXPECT_EQ(load_level(8), 'z');
  EXPECT_EQ(load_level(100), 'z');
}

TEST(StudyHistory, HistoriesAreMadeShort) {
  const ScratchDir dir;
  Study study = coefficient_study(dir.path(), {"0"}, {"1"});
  study.points[0].steps = 1000;
  make_point(study, study.points[0], {.loss = 3, .max_vio = 1});
  const StudyRun run = read_study_run(study, study.points[0], 2 * 50);
  EXPECT_EQ(run.lm_loss.step.size(), 100u);
  EXPECT_EQ(run.lm_loss.step.front(), 10);
  EXPECT_EQ(run.lm_loss.step.back(), 1000);
  EXPECT_EQ(run.eval.step.size(), 100u);
  EXPECT_EQ(run.eval.step.back(), 1000);
  EXPECT_EQ(run.load.step.size(), 50u);
  EXPECT_EQ(run.load.levels, std::string(50, load_level(2)) + std::string(50, '0'));
  EXPECT_EQ(read_study_run(study, study.points[0], 0).load.levels, "");
  EXPECT_EQ(read_study_run(study, study.points[0], 1).load.step.size(), 8u);
  EXPECT_EQ(read_study_run(study, study.points[0], 1 << 20).load.step.size(), 96u);
}

TEST(StudyReport, HoldsWhatThePageDraws) {
  const ScratchDir dir;
  const Json data = data_in(render_study_report(three_seeds(dir.path() / "balance" / "")));
  EXPECT_EQ(data.at("facts").at("name"), "balance");
  EXPECT_EQ(data.at("facts").at("points"), 6);
  EXPECT_EQ(data.at("facts").at("steps"), (Json{20, 20}));
  EXPECT_EQ(data.at("standing").at("done"), 6);
  EXPECT_EQ(data.at("settings").size(), 2u);
  EXPECT_EQ(data.at("settings")[1].at("summary").at("quality")[1], 3.05);
  EXPECT_EQ(data.at("settings")[1].at("runs")[2].at("seed"), "3");
  EXPECT_EQ(data.at("differences").size(), 2u) << "either may be the base";
  EXPECT_EQ(data.at("differences")[0].at("quality")[1][1], -0.2);
  EXPECT_EQ(data.at("differences")[1].at("quality")[0][1], 0.2);
  EXPECT_EQ(data.at("differences")[0].at("quality")[1][3], true);
  EXPECT_FALSE(data.at("differences")[0].contains("tokens_per_sec"));
  EXPECT_EQ(data.at("fronts").at("max_vio"), Json{1});
  EXPECT_EQ(data.at("curves")[0].at("eval").at("step"), (Json{10, 20}));
  EXPECT_EQ(data.at("curves")[0].at("eval").at("runs")[2], (Json{6.25, 6.25}));
  EXPECT_EQ(data.at("loads").size(), 6u);
}

TEST(StudyReport, TellsWhatTheBaseIs) {
  const ScratchDir dir;
  const Study study = three_seeds(dir.path());
  dir.write("base.yaml",
            "model:\n  num_hidden_layers: 4\n  num_local_experts: 8\nrouter:\n  aux_loss_coef: 0.0\n"
            "data:\n  train:\n    - {path: a, weight: 1.0}\n    - {path: b, weight: 1.0}\n  eval: []\n");
  const Json config = data_in(render_study_report(study)).at("facts").at("config");
  EXPECT_EQ(config.at("model.num_local_experts"), "8");
  EXPECT_EQ(config.at("data.train"), "{path: a, weight: 1.0}; {path: b, weight: 1.0}");
  Study varied = study;
  varied.points[5].overrides.emplace_back("model.num_local_experts", "16");
  for (StudyPoint& point : varied.points) point.overrides.emplace_back("model.num_hidden_layers", "2");
  const Json other = data_in(render_study_report(varied)).at("facts").at("config");
  EXPECT_FALSE(other.contains("model.num_local_experts"));
  EXPECT_EQ(other.at("model.num_hidden_layers"), "2");
}

TEST(StudyReport, AStudyWithoutResultsHasAPage) {
  const ScratchDir dir;
  const Study study = coefficient_study(dir.path(), {"0", "1"}, {"1", "2"});
  fail_point(study, study.points[0], "no <b>memory</b>");
  const Json data = data_in(render_study_report(study));
  EXPECT_EQ(data.at("standing").at("failed"), 1);
  EXPECT_EQ(data.at("standing").at("left"), 3);
  EXPECT_EQ(data.at("settings")[0].at("runs")[0].at("error"), "no <b>memory</b>");
  EXPECT_TRUE(data.at("fronts").empty());
  EXPECT_NE(study_markdown(study).find("| 0 | 0 | – | – | the base |"), std::string::npos) << study_markdown(study);
}

TEST(StudyReport, ManySettingsAreComparedWithTheFirstAlone) {
  const ScratchDir dir;
  std::vector<std::string> values;
  for (int i = 0; i < 160; ++i) values.push_back(std::to_string(i));
  const Study study = coefficient_study(dir.path(), values, {"1"});
  for (const StudyPoint& point : study.points) make_point(study, point, {});
  const Json data = data_in(render_study_report(study));
  EXPECT_EQ(data.at("settings").size(), 160u);
  EXPECT_EQ(data.at("differences").size(), 1u);
  EXPECT_EQ(data.at("curves").size(), 120u);
  EXPECT_EQ(data.at("loads").size(), 150u);
}

TEST(StudyReport, TextFromTheStudyCannotBecomeMarkup) {
  const ScratchDir dir;
  const std::string hostile = "</script><script>document.title='owned'</script>";
  Study study;
  study.directory = dir.path() / "<b>a & \"b\"";
  study.points = {{"a", {{"x", dump_json(Json(hostile))}}, 20, {{"x", dump_json(Json(hostile))}}},
                  {"b", {{"x", "\"a|b\""}}, 20, {}}};
  for (const StudyPoint& point : study.points) make_point(study, point, {});
  fail_point(study, study.points[1], hostile);
  const std::string page = render_study_report(study);
  EXPECT_EQ(page.find("<script>document.title"), std::string::npos);
  EXPECT_EQ(page.find("<b>a"), std::string::npos);
  EXPECT_EQ(data_in(page).at("settings")[0].at("name"), hostile);
  EXPECT_NE(study_markdown(study).find("a\\|b"), std::string::npos);
  EXPECT_EQ(study_markdown(study).find("<script"), std::string::npos);
}

TEST(StudyReport, NeedsNoNetwork) {
  const ScratchDir dir;
  const std::string page = render_study_report(three_seeds(dir.path()));
  const std::regex fetches(
      R"re(<link|<img|<iframe|@import|\ssrc\s*=\s*["']|url\((?!#)|https?://(?!www\.w3\.org/2000/svg))re",
      std::regex::icase);
  std::smatch found;
  EXPECT_FALSE(std::regex_search(page, found, fetches)) << found.str();
  EXPECT_NE(page.find("Content-Security-Policy"), std::string::npos);
}

TEST(StudyReport, IsReplacedWholeOrStays) {
  const ScratchDir dir;
  const Study study = three_seeds(dir.path());
  write_study_report(study, report_of(study));
  const std::string before = read_file(report_of(study), 1 << 24);
  EXPECT_EQ(before, render_study_report(study));
  dir.write("points/p4/metrics.jsonl", "{\"step\":1}\nnonsense\n{\"step\":20}\n");
  const std::string message = message_of([&] { write_study_report(study, report_of(study)); });
  EXPECT_NE(message.find("points/p4/metrics.jsonl:2"), std::string::npos) << message;
  EXPECT_EQ(read_file(report_of(study), 1 << 24), before);
  const std::string unwritable = message_of(
      [&] { write_study_report(coefficient_study(dir.path() / "x", {"0"}, {"1"}), dir.path() / "absent" / "r.html"); });
  EXPECT_NE(unwritable.find("cannot write the report"), std::string::npos) << unwritable;
}

TEST(StudyMarkdown, HasThePagesNumbers) {
  const ScratchDir dir;
  const std::string text = study_markdown(three_seeds(dir.path()));
  EXPECT_NE(
      text.find(
          "| setting | n | held-out loss | 95% interval | difference to 0 | MaxVio | idle experts | tokens/s |\n"
          "|---|---:|---:|---:|---:|---:|---:|---:|\n"
          "| 0 | 3 | 3.2500 ± 2.6458 | -3.3224 to 9.8224 | the base | 0.900 ± 0.000 | 0.0 ± 0.0 | 1000 |\n"
          "| 0.01 | 3 | 3.0500 ± 2.5515 | -3.2882 to 9.3882 | -0.2000 ± 0.2484 | 0.100 ± 0.000 | 0.0 ± 0.0 | 1000 |\n"),
      std::string::npos)
      << text;
  EXPECT_NE(
      text.find(
          "| 0 (its loss) | 3.0000 ± 2.6458 | 3.5000 ± 2.6458 |\n| 0.01 | -0.2000 ± 0.2484 | -0.2000 ± 0.2484 |\n"),
      std::string::npos)
      << text;
  EXPECT_EQ(text.find("†"), std::string::npos);
}

TEST(StudyMarkdown, IsBoldBeyondNoiseAndMarksWhatIsUnpaired) {
  const ScratchDir dir;
  const Study study = coefficient_study(dir.path(), {"0", "1"}, {"1", "2"});
  const double losses[] = {1, 2, 1.5, 2.51};
  for (std::size_t i = 0; i < 4; ++i) make_point(study, study.points[i], {.loss = losses[i]});
  EXPECT_NE(study_markdown(study).find("**+0.5050 ± 0.0635**"), std::string::npos) << study_markdown(study);
  make_point(study, study.points[3], {.loss = 2.51, .data = "other"});
  EXPECT_NE(study_markdown(study).find("+0.5050 ± 3.0"), std::string::npos) << study_markdown(study);
  EXPECT_NE(study_markdown(study).find("† unpaired (Welch)"), std::string::npos);
}

TEST(StudyMarkdown, TellsWhereFewerArePaired) {
  const ScratchDir dir;
  const Study study = three_seeds(dir.path());
  fail_point(study, study.points[1], "loss is not finite");
  EXPECT_NE(study_markdown(study).find(" (2 of 3 paired)"), std::string::npos) << study_markdown(study);
}

}  // namespace
}  // namespace smoe
