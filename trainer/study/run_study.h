// The points of a study: begun by all ranks, run by them together or by slices of them beside one another, and ended by all.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>

#include "parallel/comm/communicator.h"
#include "trainer/assemble.h"
#include "trainer/study/study.h"
#include "trainer/trainer.h"

namespace smoe {

struct StudyOptions {
  bool retry_failed = false;  // failed points are run again, from their last checkpoint where they have one
  // One point alone, while other processes run others.
  std::optional<std::size_t> only = {};
  // Others write results too: the study's lock is taken for as long as that takes. Where it is false, whoever calls holds it.
  bool beside_others = false;
};

struct StudyEnd {
  RunEnd end = RunEnd::complete;
  std::size_t done = 0, failed = 0;  // points of the study, or the one that was asked for; on every rank
  bool busy = false;                 // a point was left to another process, which has not finished it
};

// Runs one point to its end in its directory. Calls `assembled` with the run's parts before its first step.
using RunPoint = std::function<RunEnd(std::size_t point, const std::function<void(RunParts&)>& assembled)>;

// Reads where the points stand, and makes their results anew. Returns '1' for each point that is to run: those that are neither
// done nor failed, and with retry_failed failed ones. All ranks call these three; the root writes. Throws where
// results.jsonl was changed by hand (check_results).
std::string begin_study(const Study& study, const StudyOptions& options, Communicator& world);

// Runs them one after another, but for those that another process, or slice, runs or has finished meanwhile. One that fails is
// recorded with its error and the next begins. A stop signal (trainer/signals.h) ends it behind the save of the running
// point; whoever calls holds a StopSignals. Throws where a rank alone fails in a point, which is no failure of the point's
// that others know of.
RunEnd run_points(const Study& study, const StudyOptions& options, const std::string& wanted, Communicator& world,
                  const RunPoint& run);

// What came of them. end: of this rank's slice. The root also writes the study's report (study_report.h), but for a stop signal:
// here, and behind points where that is quick beside them.
StudyEnd end_study(const Study& study, const StudyOptions& options, RunEnd end, Communicator& world);

// All three.
StudyEnd run_study(const Study& study, const StudyOptions& options, Communicator& world, const RunPoint& run);

}  // namespace smoe
