// What a study is, as its report tells it before any result.
#pragma once

#include <string>

#include "data/files/json.h"
#include "trainer/study/study_settings.h"

namespace smoe {

std::string name_of_study(const Study& study);

// Of base.yaml in the study's directory, where it is, and of the points: {"name", "directory", "points", "parameters":
// [{"key", "values"}], "steps": [from, to], "tokens": [from, to], "counts": {"total", "active"}, "config": {key: text}}. A
// key of "config" that points set differently is left out.
Json study_facts(const Study& study, const StudyView& view);

}  // namespace smoe
