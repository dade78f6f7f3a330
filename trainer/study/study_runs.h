// What a study's report knows of each point: its numbers, and its history made short.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/study/study.h"

namespace smoe {

// A number of a finished run. Smaller is better where `compared`, which is also what differences are taken of.
struct StudyMeasure {
  const char* key;
  const char* title;
  const char* unit;  // and where it is taken
  int digits;        // behind the point
  bool compared;
};

// All but `quality` and eval.SOURCE, which depend on the study. `tail` stands for the rows of the last tenth of the steps: a single
// step's balance is noise.
inline constexpr StudyMeasure study_measures[] = {
    {"lm_loss", "Training loss", "nats a token, mean of the tail", 4, true},
    {"max_vio", "MaxVio", "worst layer, mean of the tail; 0 is balance", 3, true},
    {"max_vio_mean", "MaxVio, mean of layers", "mean of the tail", 3, true},
    {"max_vio_interval", "MaxVio between rows", "mean of layers and of the tail", 3, true},
    {"max_vio_held_out", "MaxVio, held out", "within a source, worst layer, mean of sources", 3, true},
    {"idle_experts", "Idle experts", "of all layers: less than 1% of an even share over the tail", 1, true},
    {"dropped", "Dropped", "assignments a layer and step, mean of the tail", 1, true},
    {"changed", "Changed", "share of a fixed batch's assignments since the row before, mean of layers and of the tail",
     3, false},
    {"mean_entropy", "Entropy of the mean router", "of ln E, mean of layers and of the tail; 1 is balance", 3, false},
    {"entropy", "Entropy of the router", "a token, of ln E, mean of layers and of the tail", 3, false},
    {"rank_load", "Busiest rank", "rows over the mean rank's, mean of layers and of the tail", 3, false},
    {"tokens_per_sec", "Tokens a second", "median of the rows", 0, false},
    {"seconds", "Seconds", "of training", 0, false},
};

struct RunCurve {
  std::vector<std::int64_t> step;  // rising
  std::vector<double> value;
};

// Loads of experts over time, one letter a cell: a multiple of the even share as load_level() grades it.
struct LoadHistory {
  std::vector<std::int64_t> step;  // [columns], the last each stands for
  std::size_t layers = 0, experts = 0;
  std::string levels;  // [layers][experts][columns]
};

// '0': no assignment. The 61 letters from '1' to 'z' are even steps of log2(multiple) from -3 to 3, 'V' the even share.
char load_level(double multiple);

struct StudyRun {
  const StudyPoint* point = nullptr;
  std::string standing = {};  // study_status.h: standing_of()
  PointRecord record = {};
  // Of one that is done; else empty.
  // By StudyMeasure::key, eval.SOURCE, and `quality`, the mean of the sources' losses after the last step. Those measured alone.
  std::map<std::string, double> values = {};
  std::vector<std::string> sources = {};           // of the last evaluation, in its order
  std::int64_t tokens = 0;                         // trained on
  RunCurve lm_loss = {}, eval = {}, max_vio = {};  // eval: mean of the sources
  LoadHistory load = {};

  bool is_done() const { return record.status == PointRecord::Status::done; }
};

// A curve has at most 100 points, each the mean of the rows since the one before; the load as many columns (at most 96) as
// `load_letters` leave room for, at least 8, or none where it is 0. Throws std::runtime_error as result_of() and
// read_metrics() do.
StudyRun read_study_run(const Study& study, const StudyPoint& point, std::size_t load_letters);

}  // namespace smoe
