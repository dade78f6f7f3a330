// A study as its settings: points that differ in train.seed alone repeat one another, and are compared with the repetitions
// of another setting, same seed against same seed.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "trainer/study/study_numbers.h"
#include "trainer/study/study_runs.h"

namespace smoe {

inline constexpr const char* repeated_key = "train.seed";

struct StudySetting {
  std::string name;  // of the values that vary: the value alone where it is one parameter's; "base" where none varies
  std::vector<std::pair<std::string, std::string>>
      parameters;                                              // those that vary, with values as JSON, without the seed
  std::vector<std::pair<std::string, std::string>> overrides;  // likewise without the seed
  std::vector<std::size_t> runs;                               // in StudyView::runs, in the order of the file
};

struct StudyView {
  std::vector<StudyRun> runs;          // one a point
  std::vector<StudySetting> settings;  // in the order of the file; the first is what others are compared with
  // Of all runs' evaluations. Where there is none, the value `quality` of a run is its `lm_loss`.
  std::vector<std::string> sources;
  bool repeated = false;  // some setting has several points
};

// Reads every point's directory. Throws as read_study_run() does.
// The study must outlive the view.
StudyView read_study_view(const Study& study);

// Over the runs that are done and have the measure.
Summary summary_of(const StudyView& view, const StudySetting& setting, const std::string& measure);

struct Comparison {
  Difference difference;
  std::string unpaired_because;  // of an unpaired one with values
};

// setting minus base. Paired over the seeds that both have, where their initial weights and their data agree; else the
// means of all values, by Welch.
Comparison compare(const StudyView& view, const StudySetting& setting, const StudySetting& base,
                   const std::string& measure);

// Of the settings, by the means of a measure of balance (x) and of quality (y).
std::vector<std::size_t> front_of(const StudyView& view, const std::string& balance);

// A value as a person writes it: text without its quotes.
std::string text_of(const std::string& json);

}  // namespace smoe
