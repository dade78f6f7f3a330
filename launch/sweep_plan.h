// A sweep's file with its base, as the points that they make: everything that can be found unfit before any of them runs.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "trainer/checkpoint/directory_lock.h"
#include "trainer/study/study.h"
#include "trainer/study/sweep_config.h"

namespace smoe {

struct SweepPlan {
  SweepConfig sweep;
  RunConfig base;
  std::vector<RunConfig> configs;  // one a point
  Study study;
};

// Throws ConfigError, of the sweep's file where a parameter is at fault, for a key that is none, a value that does not
// fit, two points with the same configuration, and what a sweep sets itself.
// overrides: of the sweep's own keys, "runs=20".
SweepPlan read_sweep_plan(const std::string& file, const std::vector<std::string>& overrides = {});

// Whether open_study() has kept a plan there.
bool is_study(const std::filesystem::path& directory);
// That plan, of a study that may have been moved, and whose base may have gone.
SweepPlan read_kept_plan(const std::filesystem::path& directory);

// What the directory was made for is what the plan says, as far as it has been made: throws std::runtime_error that names
// what differs. Values that were added, and settings that change no number, are fine.
void require_same_study(const SweepPlan& plan);

// The root's: takes the directory, holds it against the plan, and keeps the plan there (sweep.yaml, base.yaml, data.json).
// Throws std::runtime_error also where data is not there or is not what it was. patience: seconds to wait for who holds it.
std::unique_ptr<DirectoryLock> open_study(const SweepPlan& plan, double patience = 0.05);

}  // namespace smoe
