// A timeline read back as a viewer reads it (trainer/trace_events.h), and what has to hold of every one.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "data/files/json.h"

namespace smoe::test {

struct ReadSlice {
  std::string name, category;
  std::int64_t begin, end;  // nanoseconds
  Json args;
};

struct ReadRank {
  std::string name;
  std::map<std::string, std::vector<ReadSlice>> slices;  // by track, as they begin, the outer one first
  std::vector<ReadSlice> flights;                        // on the track "category"

  bool has_track(const std::string& track) const { return slices.contains(track); }
  std::set<std::string> names(const std::string& track) const {
    std::set<std::string> found;
    if (const auto of_track = slices.find(track); of_track != slices.end())
      for (const ReadSlice& slice : of_track->second) found.insert(slice.name);
    return found;
  }
};

// By rank. Fails the test where the text is not JSON, a field is missing, a slice has negative length or crosses another one of
// its track, one that is on its way never arrives, or a track has no name.
inline std::map<int, ReadRank> read_trace(const std::string& text) {
  const auto nanoseconds = [](const Json& microseconds) {
    return static_cast<std::int64_t>(std::llround(1e3 * microseconds.get<double>()));
  };
  std::map<int, ReadRank> ranks;
  std::map<std::pair<int, int>, std::string> tracks;
  std::map<std::string, std::pair<int, ReadSlice>> on_the_way;
  const Json file = parse_json(text, "trace");
  for (const Json& event : file.at("traceEvents")) {
    const int rank = event.at("pid"), track = event.at("tid");
    const std::string phase = event.at("ph"), name = event.at("name");
    if (phase == "M") {
      if (name == "process_name") ranks[rank].name = event.at("args").at("name");
      if (name == "thread_name") tracks[{rank, track}] = event.at("args").at("name");
      continue;
    }
    EXPECT_TRUE(ranks.contains(rank) && tracks.contains({rank, track}))
        << name << ": of no rank or track that was named";
    ReadSlice slice{name, event.at("cat"), nanoseconds(event.at("ts")), 0, event.value("args", Json::object())};
    slice.end = slice.begin;
    if (phase == "X") {
      slice.end = slice.begin + nanoseconds(event.at("dur"));
      ranks[rank].slices[tracks[{rank, track}]].push_back(slice);
    } else if (phase == "b") {
      EXPECT_TRUE(on_the_way.try_emplace(event.at("id"), rank, slice).second) << name << ": an id that is in use";
    } else if (phase == "e") {
      const auto begun = on_the_way.find(event.at("id"));
      if (begun == on_the_way.end() || begun->second.second.name != name) {
        ADD_FAILURE() << name << ": arrives without having begun";
        continue;
      }
      begun->second.second.end = slice.begin;
      ranks[rank].flights.push_back(begun->second.second);
      on_the_way.erase(begun);
    } else {
      ADD_FAILURE() << "phase " << phase;
    }
  }
  EXPECT_TRUE(on_the_way.empty()) << on_the_way.size() << " never arrive";
  for (auto& [rank, read] : ranks)
    for (auto& [track, slices] : read.slices) {
      std::vector<std::int64_t> open;  // ends, the innermost last
      std::int64_t last = 0;
      for (const ReadSlice& slice : slices) {
        EXPECT_GE(slice.begin, last) << "rank " << rank << ", " << track << ", " << slice.name << ": out of order";
        EXPECT_GE(slice.end, slice.begin) << slice.name;
        last = slice.begin;
        while (!open.empty() && open.back() <= slice.begin) open.pop_back();
        if (!open.empty()) {
          EXPECT_LE(slice.end, open.back()) << "rank " << rank << ", " << track << ", " << slice.name;
        }
        open.push_back(slice.end);
      }
    }
  return ranks;
}

}  // namespace smoe::test
