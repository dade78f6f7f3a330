// The points of a sweep, their draws and names; a study's results and where it stands; the hash of weights.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "data/files/files.h"
#include "tests/support/message_of.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/study/results.h"
#include "trainer/study/run_study.h"
#include "trainer/study/study_status.h"
#include "trainer/study/sweep_points.h"
#include "trainer/study/weights_hash.h"

namespace smoe {
namespace {
namespace fs = std::filesystem;

SweepParameter listed(const std::string& key, const std::vector<std::string>& values) {
  SweepParameter parameter;
  parameter.key = key;
  parameter.values = values;
  return parameter;
}
SweepParameter between(const std::string& key, Distribution distribution, double min, double max, double q = 1) {
  SweepParameter parameter;
  parameter.key = key;
  parameter.distribution = distribution;
  parameter.min = min;
  parameter.max = max;
  parameter.q = q;
  return parameter;
}
SweepConfig sweep_of(SweepMethod method, std::vector<SweepParameter> parameters, std::int64_t runs = 0) {
  SweepConfig sweep;
  sweep.method = method;
  sweep.runs = runs;
  sweep.parameters = std::move(parameters);
  return sweep;
}
std::vector<std::string> names_of(const SweepConfig& sweep) {
  std::vector<std::string> names;
  for (const SweepPoint& point : expand(sweep)) names.push_back(point.name);
  return names;
}

TEST(SweepPoints, TheFirstParameterOfAGridIsSlowest) {
  EXPECT_EQ(names_of(sweep_of(SweepMethod::grid, {listed("router.aux_loss_coef", {"0", "0.01"}),
                                                  between("train.seed", Distribution::int_uniform, 1, 3)})),
            (std::vector<std::string>{"aux_loss_coef-0_seed-1", "aux_loss_coef-0_seed-2", "aux_loss_coef-0_seed-3",
                                      "aux_loss_coef-0.01_seed-1", "aux_loss_coef-0.01_seed-2",
                                      "aux_loss_coef-0.01_seed-3"}));
}

TEST(SweepPoints, AGridTakesTheMultiplesThatLieInARange) {
  const auto values = [](double min, double max, double q) {
    std::vector<std::string> found;
    for (const SweepPoint& point :
         expand(sweep_of(SweepMethod::grid, {between("a.b", Distribution::q_uniform, min, max, q)})))
      found.push_back(point.values[0]);
    return found;
  };
  EXPECT_EQ(values(0, 0.3, 0.1), (std::vector<std::string>{"0", "0.1", "0.2", "0.3"}));
  EXPECT_EQ(values(3, 17, 8), (std::vector<std::string>{"8", "16"}));
  EXPECT_NE(test::message_of([&] { values(9, 15, 8); }).find("empty range"), std::string::npos);
}

TEST(SweepPoints, NamesAreFilesAndStayWhenValuesAreAdded) {
  const std::vector<SweepParameter> few = {listed("data.train.0.path", {"\"data/web\"", "\"data web\""}),
                                           listed("log.dump_steps", {"[1, 2]"})};
  const auto names = names_of(sweep_of(SweepMethod::grid, few));
  ASSERT_EQ(names.size(), 2u);
  EXPECT_NE(names[0], names[1]);  // though both are data-web in letters that fit
  for (const std::string& name : names) {
    EXPECT_EQ(name.find("path-data-web_dump_steps-1-2-_"), 0u) << name;
    EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_."), std::string::npos) << name;
  }
  std::vector<SweepParameter> more = few;
  more[0].values.insert(more[0].values.begin(), "\"c\"");
  const auto longer = names_of(sweep_of(SweepMethod::grid, more));
  EXPECT_EQ(std::vector<std::string>(longer.begin() + 1, longer.end()), names);
  const auto alike =
      names_of(sweep_of(SweepMethod::grid, {listed("optimizer.type", {"1"}), listed("schedule.type", {"2"})}));
  EXPECT_EQ(alike[0], "optimizer.type-1_schedule.type-2");
  EXPECT_EQ(names_of(sweep_of(SweepMethod::grid, {listed("a.b", {"\"" + std::string(300, 'x') + "\""})}))[0].size(),
            129u);
  SweepParameter fixed = listed("a.b", {"1"});
  fixed.distribution = Distribution::constant;
  EXPECT_EQ(names_of(sweep_of(SweepMethod::grid, {fixed})), std::vector<std::string>{"base"});
}

// A group of settings may be called anything, and its points stay inside the study's directory.
TEST(SweepPoints, NoLabelLeadsOutOfTheStudy) {
  for (const char* key : {"x./tmp/elsewhere", "a/../../../z", "größe/β x", ".././y", ".."}) {
    const auto names = names_of(sweep_of(SweepMethod::grid, {listed(key, {"1", "2"})}));
    ASSERT_EQ(names.size(), 2u);
    EXPECT_NE(names[0], names[1]) << key;
    for (const std::string& name : names) {
      EXPECT_EQ(name.find('/'), std::string::npos) << name;
      EXPECT_NE(name, "..");
    }
  }
}

TEST(SweepPoints, ADrawFindsAMultipleInItsRange) {
  for (const auto& [distribution, min, max] :
       {std::tuple{Distribution::q_uniform, 0.2, 0.8}, std::tuple{Distribution::q_log_uniform_values, 0.2, 0.8},
        std::tuple{Distribution::q_log_uniform, -1.5, -0.5}})
    EXPECT_NE(test::message_of([&, d = distribution, low = min, high = max] {
                expand(sweep_of(SweepMethod::random, {between("a.b", d, low, high, 1)}, 2));
              }).find("no multiple of q lies in it"),
              std::string::npos);
  EXPECT_EQ(expand(sweep_of(SweepMethod::random, {between("a.b", Distribution::q_uniform, 0.2, 2.8, 1)}, 2)).size(),
            2u);
}

TEST(SweepPoints, TooManyAreRefused) {
  const auto large = sweep_of(SweepMethod::grid, {between("a.b", Distribution::int_uniform, 1, 101),
                                                  between("a.c", Distribution::int_uniform, 1, 100)});
  EXPECT_NE(test::message_of([&] { expand(large); }).find("more than 10000 points"), std::string::npos);
  const auto larger = sweep_of(SweepMethod::grid, {between("a.b", Distribution::int_uniform, 0, 1e18)});
  EXPECT_NE(test::message_of([&] { expand(larger); }).find("at most 10000"), std::string::npos);
}

// Of this seed, key and number, on every machine.
TEST(SweepPoints, DrawsHaveKnownValues) {
  const auto draw = [](const SweepParameter& parameter) {
    return drawn(parameter, 7, 0) + " " + drawn(parameter, 7, 1) + " " + drawn(parameter, 8, 0);
  };
  const std::string key = "optimizer.learning_rate";
  SweepParameter gaussian = between(key, Distribution::normal, 0, 0);
  gaussian.mu = 10;
  EXPECT_EQ(draw(between(key, Distribution::uniform, 0, 1)), "0.0142977 0.792633 0.0239992");
  EXPECT_EQ(draw(between(key, Distribution::int_uniform, 1, 1000)), "15 793 24");
  EXPECT_EQ(draw(between(key, Distribution::q_uniform, 0, 1000, 8)), "16 792 24");
  EXPECT_EQ(draw(between(key, Distribution::log_uniform_values, 1e-5, 1e-1)), "1.14075e-05 0.0148093 1.24737e-05");
  EXPECT_EQ(draw(between(key, Distribution::log_uniform, -5, -1)), "0.00713453 0.160499 0.00741683");
  EXPECT_EQ(draw(gaussian), "9.60707 10.3787 9.6996");
  EXPECT_EQ(draw(listed(key, {"1", "2", "3", "4", "5"})), "1 4 1");
}

TEST(SweepPoints, DrawsFollowTheirDistribution) {
  constexpr int count = 4000;
  double below = 0, small = 0, sum = 0, squares = 0, rare = 0;
  SweepParameter gaussian = between("a", Distribution::normal, 0, 0), weighted = listed("b", {"0", "1"});
  weighted.probabilities = {0.9, 0.1};
  std::set<std::string> integers;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double x = std::stod(drawn(between("a", Distribution::uniform, -2, 2), 1, i));
    EXPECT_TRUE(x >= -2 && x <= 2);
    below += x < -1;
    const double y = std::stod(drawn(between("a", Distribution::log_uniform_values, 1e-4, 1), 1, i));
    EXPECT_TRUE(y >= 1e-4 && y <= 1);
    small += y < 1e-3;
    const double z = std::stod(drawn(gaussian, 1, i));
    sum += z;
    squares += z * z;
    rare += drawn(weighted, 1, i) == "1";
    integers.insert(drawn(between("a", Distribution::int_uniform, 1, 3), 1, i));
    const double step = std::stod(drawn(between("a", Distribution::q_uniform, 3, 17, 8), 1, i));
    EXPECT_TRUE(step == 8 || step == 16);
    const double size =
        std::stod(drawn(between("a", Distribution::q_log_uniform, std::log(32), std::log(256), 4), 1, i));
    EXPECT_TRUE(size >= 32 && size <= 256 && std::fmod(size, 4) == 0) << size;
  }
  EXPECT_NEAR(below / count, 0.25, 0.03);
  EXPECT_NEAR(small / count, 0.25, 0.03);
  EXPECT_NEAR(sum / count, 0, 0.06);
  EXPECT_NEAR(squares / count, 1, 0.1);
  EXPECT_NEAR(rare / count, 0.1, 0.02);
  EXPECT_EQ(integers, (std::set<std::string>{"1", "2", "3"}));
}

// Whatever else varies and however many follow.
TEST(SweepPoints, ADrawnPointIsItsOwn) {
  const SweepParameter rate = between("optimizer.learning_rate", Distribution::uniform, 0, 1);
  const auto few = expand(sweep_of(SweepMethod::random, {rate}, 3));
  const auto more = expand(sweep_of(SweepMethod::random, {listed("train.seed", {"1", "2"}), rate}, 9));
  ASSERT_EQ(few.size(), 3u);
  ASSERT_EQ(more.size(), 9u);
  for (std::size_t i = 0; i < few.size(); ++i) EXPECT_EQ(few[i].values[0], more[i].values[1]);
}

TEST(SweepPoints, DrawsThatRepeatAreLeftOut) {
  const auto all = expand(sweep_of(SweepMethod::random, {listed("a", {"1", "2", "3"})}, 3));
  EXPECT_EQ(all.size(), 3u);
  EXPECT_NE(test::message_of([] {
              expand(sweep_of(SweepMethod::random, {listed("a", {"1", "2", "3"})}, 4));
            }).find("found 4, expected at most 3"),
            std::string::npos);
}

class StudyRuns : public TrainingTest {
 protected:
  Study study_of(const std::vector<std::string>& seeds) const {
    Study study;
    study.directory = root() / "study";
    for (const std::string& seed : seeds) study.points.push_back({"seed-" + seed, {{"train.seed", seed}}, 6});
    return study;
  }
  RunParts parts_of(const Study& study, std::size_t i) const {
    TrainerConfig c = config("unused");
    c.train.steps = 6;
    c.checkpoint.interval = c.eval.interval = 3;
    c.train.output_dir = study.of_point(study.points[i]).string();
    c.train.seed = std::stoi(study.points[i].parameters[0].second);
    return assemble(c, mesh(), make_cpu_backend(1));
  }
  RunPoint runner(const Study& study) const {
    return [this, &study](std::size_t i, const std::function<void(RunParts&)>& assembled) {
      RunParts parts = parts_of(study, i);
      assembled(parts);
      return Trainer(std::move(parts)).run().end;
    };
  }
  StudyEnd run(const Study& study, const RunPoint& point, bool retry = false) const {
    return run_study(study, {.retry_failed = retry}, mesh().group(Axis::world), point);
  }
};

TEST_F(StudyRuns, APointThatThrowsIsARowAndTheNextOneRuns) {
  const Study study = study_of({"1", "2", "3"});
  const RunPoint whole = runner(study);
  std::vector<std::size_t> ran;
  bool fails = true;
  const RunPoint point = [&](std::size_t i, const auto& assembled) {
    ran.push_back(i);
    if (i == 1 && fails) throw std::runtime_error("the disk is full");
    return whole(i, assembled);
  };
  StudyEnd end = run(study, point);
  EXPECT_EQ(end.done, 2u);
  EXPECT_EQ(end.failed, 1u);
  EXPECT_EQ(ran, (std::vector<std::size_t>{0, 1, 2}));
  EXPECT_EQ(results_of(study)[1].record.error, "the disk is full");
  ran.clear();
  end = run(study, point);
  EXPECT_TRUE(ran.empty());
  EXPECT_EQ(end.failed, 1u);
  fails = false;
  end = run(study, point, true);
  EXPECT_EQ(ran, std::vector<std::size_t>{1});
  EXPECT_EQ(end.done, 3u);
  EXPECT_TRUE(results_of(study)[1].record.error.empty());
}

// A point whose process ended at any of the moments around its end comes to the same results.
TEST_F(StudyRuns, APointThatWasCutOffComesToTheSameResults) {
  const Study study = study_of({"1"});
  run(study, runner(study));
  const auto results = [&] {
    auto result = results_of(study).front();
    result.seconds = 0;
    return to_json_line(result);
  };
  const std::string expected = results();
  const fs::path point = study.of_point(study.points[0]);
  PointRecord begun = read_point_record(point);
  begun.status = PointRecord::Status::begun;
  write_point_record(point, begun);  // the run is over, nobody has said so
  fs::remove(study.results());
  run(study, runner(study));
  EXPECT_EQ(results(), expected);
  write_point_record(point, begun);  // the last checkpoint is not there
  fs::remove_all(point / "checkpoints/step-000006");
  run(study, runner(study));
  EXPECT_EQ(results(), expected);
  EXPECT_TRUE(fs::exists(point / "checkpoints/step-000006"));
  fs::remove_all(point / "checkpoints");  // none is, nor a record
  fs::remove(point / "point.json");
  run(study, runner(study));
  EXPECT_EQ(results(), expected);
}

TEST_F(StudyRuns, ACheckpointOfNoPointIsNotTakenOver) {
  const Study study = study_of({"1"});
  run(study, runner(study));
  fs::remove(study.of_point(study.points[0]) / "point.json");
  fs::remove(study.results());
  const StudyEnd end = run(study, runner(study));
  EXPECT_EQ(end.failed, 1u);
  EXPECT_NE(results_of(study)[0].record.error.find("no point.json of this study"), std::string::npos);
}

TEST_F(StudyRuns, RecordsThatAreNoneAreRefused) {
  const Study study = study_of({"1"});
  const fs::path point = study.of_point(study.points[0]);
  make_directories(point);
  write_file_atomically(point / "point.json", "{\"status\": \"finished\"}");
  EXPECT_NE(test::message_of([&] { run(study, runner(study)); }).find("status: found \"finished\""), std::string::npos);
  write_file_atomically(point / "point.json", "{\"status\": \"done\", \"loss\": 1}");
  EXPECT_NE(test::message_of([&] { run(study, runner(study)); }).find("loss"), std::string::npos);
}

TEST_F(StudyRuns, TheTimeToComeIsThatOfTheStepsThatAreLeft) {
  const Study study = study_of({"1", "2"});
  const RunPoint whole = runner(study);
  run(study, [&](std::size_t i, const auto& assembled) { return i == 0 ? whole(i, assembled) : RunEnd::stopped; });
  const StudyStatus status = read_status(study);
  EXPECT_EQ(status.count("done"), 1);
  EXPECT_EQ(status.count("left"), 1);
  EXPECT_NEAR(status.seconds_to_come, status.points[0].seconds, 1e-12);
  EXPECT_GT(status.seconds_to_come, 0);
}

TEST_F(StudyRuns, HashesTellWeightsApart) {
  const Study study = study_of({"1", "2"});
  const auto hash = [&](RunParts& parts) {
    return hash_of_weights(*parts.training.backend, *parts.whole, parts.training.model->parameters(), parts.mesh);
  };
  RunParts one = parts_of(study, 0);
  const std::string first = hash(one);
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(hash(one), first);
  RunParts other = parts_of(study, 1);
  EXPECT_NE(hash(other), first);
  // Two neighbours that differ change places.
  Parameter& parameter = *one.training.model->parameters().begin();
  std::vector<float> values(static_cast<std::size_t>(parameter.value.elements()));
  one.training.backend->copy_to_host(values.data(), parameter.value);
  std::swap(values[0], values[1]);
  one.training.backend->copy_from_host(parameter.value, values.data());
  EXPECT_NE(hash(one), first);
}

TEST(StudyResults, TheBestIsByTheMetric) {
  const StudyPoint points[] = {{"a", {}, 1}, {"b", {}, 1}, {"c", {}, 1}};
  std::vector<PointResult> results(3);
  for (std::size_t i = 0; i < 3; ++i) {
    results[i].point = &points[i];
    results[i].record.status = PointRecord::Status::done;
    results[i].lm_loss = 3 - static_cast<double>(i);
    results[i].eval = {{"web", static_cast<double>(i)}, {"code", 1 - static_cast<double>(i)}};
  }
  results[2].record.status = PointRecord::Status::failed;
  EXPECT_EQ(best_of(results, {"lm_loss", false})->point->name, "b");
  EXPECT_EQ(best_of(results, {"lm_loss", true})->point->name, "a");
  EXPECT_EQ(best_of(results, {"eval.code", false})->point->name, "b");
  EXPECT_EQ(value_of(results[0], {"eval", false}), 0.5);
  EXPECT_EQ(best_of(results, {"eval.absent", false}), nullptr);
}

TEST(StudyResults, TablesAreQuoted) {
  Study study;
  study.points = {{"p", {{"a.b", "\"x, \\\"y\\\"\""}, {"a.c", "[1, 2]"}}, 1}};
  PointResult failed;
  failed.point = &study.points[0];
  failed.record = {PointRecord::Status::failed, "", "", "line one\nline two"};
  EXPECT_EQ(to_csv(study, std::vector{failed}),
            "point,status,a.b,a.c,lm_loss,max_vio,initial_weights,data_order,error,seconds\n"
            "p,failed,\"x, \"\"y\"\"\",\"[1, 2]\",,,,,\"line one\nline two\",0\n");
}

}  // namespace
}  // namespace smoe
