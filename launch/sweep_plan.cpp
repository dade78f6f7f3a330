#include "launch/sweep_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "configs/config_error.h"
#include "configs/sweep_reader.h"
#include "configs/yaml_printer.h"
#include "configs/yaml_reader.h"
#include "data/files/files.h"
#include "data/files/json.h"
#include "data/files/sha256.h"
#include "data/shards/manifest.h"
#include "trainer/corpus.h"
#include "trainer/study/sweep_points.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

constexpr const char* kept_sweep = "sweep.yaml";
constexpr const char* kept_base = "base.yaml";
constexpr const char* kept_data = "data.json";

bool is_inside(const std::string& key, const std::string& section) {
  return key == section || key.starts_with(section + ".");
}

// The parameter that a problem of a point's configuration comes of.
const SweepParameter* parameter_of(const SweepConfig& sweep, const std::string& key) {
  for (const SweepParameter& parameter : sweep.parameters)
    for (const std::string& own : parameter.keys())
      if (is_inside(key, own) || is_inside(own, key)) return &parameter;
  return nullptr;
}

ConfigError of_point(const std::string& file, const SweepConfig& sweep, const SweepPoint& point,
                     const ConfigError& error) {
  std::vector<ConfigProblem> problems;
  for (ConfigProblem problem : error.problems()) {
    problem.where = {};
    if (const SweepParameter* parameter = problem.key.empty() ? nullptr : parameter_of(sweep, problem.key)) {
      problem.where = {parameter->line, parameter->column, false};
      problem.key = "parameters." + problem.key;
    }
    problem.message += fmt::format(" (point {})", point.name);
    problems.push_back(std::move(problem));
  }
  return {file, std::move(problems)};
}

void require_own_keys(const std::string& file, const SweepConfig& sweep, const RunConfig& base) {
  std::vector<ConfigProblem> problems;
  for (const SweepParameter& parameter : sweep.parameters)
    for (const std::string& own : parameter.keys())
      for (const char* key : {"train.output_dir", "checkpoint.resume"})
        if (is_inside(key, own))
          problems.push_back({{parameter.line, parameter.column, false},
                              "parameters." + own,
                              "the sweep sets it for each point, expected it absent"});
  if (base.checkpoint.resume != "auto")
    problems.push_back(
        {{},
         "checkpoint.resume",
         fmt::format("found '{}' in the base {}, expected auto: each point goes on from its own checkpoint",
                     base.checkpoint.resume, sweep.base)});
  if (sweep.metric && sweep.metric->name.starts_with("eval") && base.data.eval.empty() &&
      !parameter_of(sweep, "data.eval"))
    problems.push_back({{},
                        "metric.name",
                        fmt::format("found {}, but the base {} has no data.eval: expected lm_loss or max_vio",
                                    sweep.metric->name, sweep.base)});
  if (!problems.empty()) throw ConfigError(file, std::move(problems));
}

std::vector<SweepPoint> points_of(const std::string& file, const SweepConfig& sweep) {
  try {
    return expand(sweep);
  } catch (const std::runtime_error& error) {
    throw ConfigError(file, {{{}, "", error.what()}});
  }
}

// Two spellings of one value, 0.01 and 1e-2, make one configuration.
void require_different(const std::string& file, const SweepPlan& plan) {
  std::map<std::string, std::string> seen;
  for (std::size_t i = 0; i < plan.configs.size(); ++i) {
    RunConfig config = plan.configs[i];
    config.train.output_dir = "x";
    const std::string& name = plan.study.points[i].name;
    const auto [first, is_new] = seen.emplace(print_yaml(config), name);
    if (!is_new)
      throw ConfigError(file, {{{},
                                "parameters",
                                fmt::format("found two points with the same values, {} and {}: write each value once",
                                            first->second, name)}});
  }
}

// How many steps runs have: as they say, or of those that are told in epochs as many as their data makes.
class StepCounter {
 public:
  std::int64_t steps_of(const RunConfig& config) {
    if (!config.train.epochs) return config.train.steps;
    std::string data = fmt::format("{} {}", config.data.sequence_length, static_cast<int>(config.data.packing));
    for (const DataSource& source : config.data.train) data += "\n" + source.path;
    const auto [found, is_new] = sequences_.emplace(data, 0);
    if (is_new) found->second = sequences_of_run(config.data);
    return steps_of_epochs(*config.train.epochs, found->second, config.train.global_batch_size);
  }

 private:
  // Of a stream the manifests tell; whole documents have to be packed.
  static std::int64_t sequences_of_run(DataConfig data) {
    data.eval.clear();
    if (data.packing == Packing::best_fit) return sequences_of(open_corpus(data, {})->train);
    std::int64_t sequences = 0;
    for (const DataSource& source : data.train)
      sequences += std::max<std::int64_t>(read_manifest(source.path).tokens() - 1, 0) / data.sequence_length;
    return sequences;
  }

  std::map<std::string, std::int64_t> sequences_;  // by what decides them
};

// Of every point, by path. A path without a manifest is refused.
std::map<std::string, std::string> data_hashes(const SweepPlan& plan) {
  std::map<std::string, std::string> hashes;
  for (std::size_t i = 0; i < plan.configs.size(); ++i)
    for (const auto& [key, sources] :
         {std::pair("data.train", plan.configs[i].data.train), std::pair("data.eval", plan.configs[i].data.eval)})
      for (std::size_t s = 0; s < sources.size(); ++s) {
        const std::string& path = sources[s].path;
        if (hashes.contains(path)) continue;
        const fs::path manifest = manifest_path(path);
        if (!fs::exists(manifest))
          throw std::runtime_error(fmt::format(
              "{}.{}.path of point {}: found no {}: expected shards of 'smoe prepare'; if they were moved, put them back, "
              "because the points that are done were trained on them",
              key, s, plan.study.points[i].name, manifest.string()));
        hashes[path] = sha256_file(manifest);
      }
  return hashes;
}

void require_same_data(const SweepPlan& plan, const std::map<std::string, std::string>& now) {
  const fs::path file = plan.study.directory / kept_data;
  if (!fs::exists(file)) return;
  const Json was = read_json_file(file);
  for (const auto& [path, hash] : now)
    if (was.contains(path) && was[path] != hash)
      throw std::runtime_error(fmt::format(
          "{}: its manifest is not what it was when the study in {} began (SHA-256 {}, then {}): choose another output_dir",
          path, plan.study.directory.string(), hash, was[path].get<std::string>()));
}

// eval.SOURCE is of a source that every point evaluates: without it no point would be the best, which would be found out at the end.
void require_evaluated(const SweepPlan& plan) {
  constexpr std::string_view prefix = "eval.";
  if (!plan.sweep.metric || !plan.sweep.metric->name.starts_with(prefix)) return;
  const std::string wanted = plan.sweep.metric->name.substr(prefix.size());
  for (std::size_t i = 0; i < plan.configs.size(); ++i) {
    std::vector<std::string> own, directories;
    for (const DataSource& source : plan.configs[i].data.eval) {
      own.push_back(read_manifest(source.path).info.source);
      directories.push_back(source.path);
    }
    const std::vector<std::string> names = source_names(own, directories);
    if (std::find(names.begin(), names.end(), wanted) == names.end())
      throw std::runtime_error(fmt::format(
          "metric.name: found {}, but point {} evaluates {}: expected eval. and one of these", plan.sweep.metric->name,
          plan.study.points[i].name, names.empty() ? "nothing" : fmt::format("{}", fmt::join(names, ", "))));
  }
}

// A directory that something else fills is not taken.
void require_empty(const fs::path& directory) {
  if (!fs::exists(directory)) return;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') || name == kept_base || name == kept_data) continue;  // of a study killed at its start
    throw std::runtime_error(
        fmt::format("{}: found {} and no {}, so this is no sweep's directory: choose another output_dir",
                    directory.string(), name, kept_sweep));
  }
}

bool changes_numbers(const std::string& difference) {
  for (const char* key : {"parallel.", "log.", "checkpoint.", "train.threads", "train.output_dir"})
    if (difference.starts_with(key)) return false;
  return true;
}

SweepPlan plan_of(const std::string& file, SweepConfig sweep) {
  SweepPlan plan;
  plan.sweep = std::move(sweep);
  plan.base = read_config(plan.sweep.base);
  require_own_keys(file, plan.sweep, plan.base);
  plan.study.directory = plan.sweep.output_dir;
  plan.study.metric = plan.sweep.metric;
  StepCounter counter;
  for (const SweepPoint& point : points_of(file, plan.sweep)) {
    StudyPoint made{.name = point.name, .parameters = {}};
    SweepOverrides changes;
    for (std::size_t i = 0; i < point.values.size(); ++i) {
      const SweepParameter& parameter = plan.sweep.parameters[i];
      made.parameters.emplace_back(parameter.key, point.values[i]);
      for (const auto& change : parameter.overrides(point.values[i])) changes.push_back(change);
    }
    std::vector<std::string> overrides;
    for (const auto& [key, value] : changes) overrides.push_back(key + "=" + value);
    try {
      plan.configs.push_back(read_config(plan.sweep.base, overrides));
    } catch (const ConfigError& error) {
      throw of_point(file, plan.sweep, point, error);
    }
    plan.configs.back().train.output_dir = plan.study.of_point(made).string();
    made.steps = counter.steps_of(plan.configs.back());
    made.overrides = std::move(changes);
    plan.study.points.push_back(std::move(made));
  }
  require_different(file, plan);
  return plan;
}

}  // namespace

SweepPlan read_sweep_plan(const std::string& file, const std::vector<std::string>& overrides) {
  return plan_of(file, read_sweep(file, overrides));
}

bool is_study(const fs::path& directory) { return fs::exists(directory / kept_sweep); }

SweepPlan read_kept_plan(const fs::path& directory) {
  const fs::path file = directory / kept_sweep;
  SweepConfig sweep = read_sweep(file);
  sweep.base = directory / kept_base;
  sweep.output_dir = directory;
  return plan_of(file, std::move(sweep));
}

void require_same_study(const SweepPlan& plan) {
  const fs::path& directory = plan.study.directory;
  if (!fs::exists(directory / kept_sweep)) return require_empty(directory);
  std::vector<std::string> found = differences(read_sweep(directory / kept_sweep), plan.sweep);
  for (const std::string& difference : differences(read_config(directory / kept_base), plan.base))
    if (changes_numbers(difference)) found.push_back("base: " + difference);
  if (!found.empty())
    throw std::runtime_error(
        fmt::format("{}: another study is kept here; choose another output_dir. It differs in\n  {}",
                    directory.string(), fmt::join(found, "\n  ")));
}

std::unique_ptr<DirectoryLock> open_study(const SweepPlan& plan, double patience) {
  const fs::path& directory = plan.study.directory;
  require_same_study(plan);
  auto lock = std::make_unique<DirectoryLock>(directory, "sweep", "output_dir", patience);
  require_same_study(plan);  // another may have made it meanwhile
  for (const char* name : {kept_base, kept_data, kept_sweep, "results.jsonl", "results.csv", "report.html"})
    remove_temporaries(directory / name);
  const auto hashes = data_hashes(plan);
  require_same_data(plan, hashes);
  require_evaluated(plan);
  if (!fs::exists(directory / kept_sweep)) write_file_atomically(directory / kept_base, print_yaml(plan.base));
  write_json_file(directory / kept_data, Json(hashes));
  write_file_atomically(directory / kept_sweep, print_sweep(plan.sweep));
  return lock;
}

}  // namespace smoe
