// The points of a study run one after another in this job, each on all of its ranks.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>

#include "parallel/comm/communicator.h"
#include "trainer/assemble.h"
#include "trainer/study/study.h"
#include "trainer/trainer.h"

namespace smoe {

struct StudyOptions {
  bool retry_failed = false;  // failed points are run again, from their last checkpoint where they have one
  // One point alone, while other processes run others. Without it, whoever calls holds the study's lock; with it, the lock is
  // taken for as long as results are written.
  std::optional<std::size_t> only = {};
};

struct StudyEnd {
  RunEnd end = RunEnd::complete;
  std::size_t done = 0, failed = 0;  // points of the study, or the one that was asked for; on every rank
  bool busy = false;                 // a point was left to another process that runs it
};

// Runs one point to its end in its directory. Calls `assembled` with the run's parts before its first step.
using RunPoint = std::function<RunEnd(std::size_t point, const std::function<void(RunParts&)>& assembled)>;

// Points that are done are left alone, as are failed ones, and those whose directory another process holds; one that fails is recorded with its error and the next begins. A
// stop signal (trainer/signals.h) ends the study behind the save of the running point; whoever calls it holds a
// StopSignals. All ranks call it; the root writes. Throws where results.jsonl was changed by hand (check_results), and where
// a rank alone fails in a point, which is no failure of the point's that others know of.
// The root also writes the study's report (study_report.h): behind points where that is quick beside them, and when the study
// ends, but for a stop signal.
StudyEnd run_study(const Study& study, const StudyOptions& options, Communicator& world, const RunPoint& run);

}  // namespace smoe
