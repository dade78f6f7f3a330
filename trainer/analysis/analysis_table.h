// An analysis in the rows of a terminal: the paper's table 5 (arXiv 2401.04088), and a line for each of its layers of what else
// there is in one number.
#pragma once

#include <string>

#include "trainer/analysis/analysis.h"

namespace smoe {

std::string analysis_table(const Analysis& analysis);

}  // namespace smoe
