// A timeline of one step in the format that chrome://tracing and https://ui.perfetto.dev read ("Trace Event Format", Google 2016):
// of each rank the parts of the step, the ops and the collectives, and what a step's time went into.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/trace_backend.h"
#include "parallel/comm/collective_trace.h"

namespace smoe {

enum class TraceKind : std::uint8_t {
  part,    // of the step (kernels/range.h)
  op,      // where it ran
  call,    // of an op, or a wait for the device: the host's time beside a GPU
  wait,    // the host is in a collective
  device,  // a collective on a stream of a GPU
};

// Times are nanoseconds of the host's clock.
struct TraceSlice {
  TraceKind kind;
  std::string track;
  std::string name;
  std::int64_t begin, end;
  std::vector<std::pair<std::string, std::string>> details;
  std::int64_t bytes = -1;  // sent; below 0: not shown
};

// A collective from where it was started to where it was found done, while its rank went on. Several overlap.
struct TraceFlight {
  std::string track, name;
  std::int64_t begin, end;
  std::vector<std::pair<std::string, std::string>> details;
  std::int64_t bytes = -1;
};

struct RankTrace {
  int rank = 0;
  std::string name;                 // of the rank, in words
  std::int64_t begin = 0, end = 0;  // of the step
  std::vector<std::string> tracks;  // from the top
  std::vector<TraceSlice> slices;   // those of one track begin in this order, and are apart or one inside the other
  std::vector<TraceFlight> flights;
};

// What the two have recorded between begin and end, of which the first has been stopped.
RankTrace rank_trace(TraceBackend& ops, const CollectiveTrace& collectives, std::int64_t begin, std::int64_t end);

// Seconds of a rank's step. Waiting and overlapped do not add up to a collective's time: what is on its way while the host
// computes nothing that is an op, and nobody waits for it, is in neither.
struct StepShares {
  double step = 0;
  double ops = 0;         // at least one runs
  double waiting = 0;     // a collective is under way that the host, or the GPU, has stopped for: no op runs
  double overlapped = 0;  // a collective is under way, and an op runs
};
StepShares shares_of(const RankTrace& trace);

// The rank's events, one after the other, comma between: JSON, without the brackets around. Times count from zero.
std::string trace_events(const RankTrace& trace, std::int64_t zero);
// A file of them. about: what it says of itself.
std::string trace_file(const std::vector<std::string>& events_of_ranks,
                       const std::vector<std::pair<std::string, std::string>>& about);

}  // namespace smoe
