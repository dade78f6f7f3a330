#include "parallel/comm/stall_report.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

namespace smoe {
namespace {

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", seconds);
  return text;
}

// "rank 3", "ranks 0, 1 and 3"
std::string names(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i)
    text += (i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ") + std::to_string(ranks[i]);
  return text;
}

std::string call_of(const LedgerEntry& entry) {
  return std::string(entry.operation.data()) + " '" + entry.label.data() + "' over " + entry.axis.data();
}

std::string numbered_call_of(const LedgerEntry& entry) {
  if (entry.number == 0) return "no collective yet";
  std::string text = "number " + std::to_string(entry.number) + ": " + call_of(entry);
  if (entry.elements > 0) text += ", " + std::to_string(entry.elements) + " of " + entry.type.data();
  return text;
}

std::vector<int> awaited_by(const LedgerEntry& entry) {
  const std::size_t known = std::min<std::size_t>(entry.awaited_count, entry.awaited.size());
  std::vector<int> ranks(entry.awaited.begin(), entry.awaited.begin() + static_cast<std::ptrdiff_t>(known));
  std::sort(ranks.begin(), ranks.end());
  return ranks;
}

std::string awaited_names(const LedgerEntry& entry) {
  std::string text = names(awaited_by(entry));
  if (entry.awaited_count > entry.awaited.size())
    text += " and " + std::to_string(entry.awaited_count - entry.awaited.size()) + " more";
  return text;
}

bool waits(const LedgerEntry& entry) { return entry.place == Place::inside && entry.awaited_count > 0; }

bool same_call(const LedgerEntry& a, const LedgerEntry& b) {
  return a.place == Place::inside && b.place == Place::inside && a.operation == b.operation && a.axis == b.axis &&
         a.label == b.label && a.type == b.type && a.elements == b.elements;
}

class Findings {
 public:
  explicit Findings(const std::vector<RankState>& ranks) : ranks_(ranks) {}

  std::string text() {
    name_silent();
    name_waiting();
    name_absent();
    name_devices();
    if (!found_)
      text_ +=
          "  no rank of this node is at fault alone: see the reports of other nodes, or whether the ranks wait in a circle\n";
    return text_;
  }

 private:
  void name_silent() {
    for (const RankState& r : ranks_) {
      if (r.answers) continue;
      found_ = true;
      text_ += "  rank " + std::to_string(r.rank) + " does not answer: ";
      if (r.process.empty())
        text_ += "no sign of life for " + seconds_text(r.silent) + ", stopped? (pid " + std::to_string(r.pid) + ")\n";
      else
        text_ += "its process " + r.process + " (pid " + std::to_string(r.pid) + ", no sign of life for " +
                 seconds_text(r.silent) + ")\n";
    }
  }

  // Ranks that wait in the same collective for the same ranks share a line.
  void name_waiting() {
    std::map<std::string, std::vector<int>> waiting;
    for (const RankState& r : ranks_) {
      if (r.answers && waits(r.entry))
        waiting[awaited_names(r.entry) + " in " + numbered_call_of(r.entry)].push_back(r.rank);
    }
    for (const auto& [what, ranks] : waiting)
      text_ += "  " + names(ranks) + (ranks.size() == 1 ? " waits for " : " wait for ") + what + "\n";
  }

  // Ranks that answer, and are awaited in a collective that they are not in.
  void name_absent() {
    for (const RankState& awaited : ranks_) {
      if (!awaited.answers) continue;
      std::set<std::string> missed;
      for (const RankState& r : ranks_)
        if (r.answers && is_absent(awaited, r)) missed.insert(call_of(r.entry));
      for (const std::string& call : missed) {
        found_ = true;
        text_ += "  rank " + std::to_string(awaited.rank) + " diverged: it is not in " + call + ", but " +
                 whereabouts(awaited) + "\n";
      }
    }
  }

  // A collective that some GPUs are in and others are not.
  void name_devices() {
    std::map<std::string, std::vector<int>> in;
    std::vector<int> in_none;
    for (const RankState& r : ranks_) {
      if (r.device.place == Place::inside)
        in[numbered_call_of(r.device)].push_back(r.rank);
      else
        in_none.push_back(r.rank);
    }
    if (in.empty()) return;
    const auto gpus = [](const std::vector<int>& of) {
      return (of.size() == 1 ? "  the GPU of " : "  the GPUs of ") + names(of) +
             (of.size() == 1 ? " is in " : " are in ");
    };
    for (const auto& [call, ranks] : in) text_ += gpus(ranks) + call + "\n";
    if (!in_none.empty()) text_ += gpus(in_none) + "no collective\n";
    found_ = found_ || in.size() > 1 || !in_none.empty();
  }

  bool is_absent(const RankState& awaited, const RankState& waiting) const {
    if (!waits_for(waiting, awaited) || same_call(awaited.entry, waiting.entry)) return false;
    if (awaited.entry.place != Place::inside) return true;
    // It is in another collective. Where it waits there for yet others, it is only behind. Where the two wait for each
    // other, the collective with fewer ranks in it is the wrong one; at a tie, both are named.
    return waits_for(awaited, waiting) && ranks_in(awaited.entry) <= ranks_in(waiting.entry);
  }

  static bool waits_for(const RankState& waiting, const RankState& awaited) {
    const std::vector<int> all = awaited_by(waiting.entry);
    return waits(waiting.entry) && std::find(all.begin(), all.end(), awaited.rank) != all.end();
  }

  std::ptrdiff_t ranks_in(const LedgerEntry& call) const {
    return std::count_if(ranks_.begin(), ranks_.end(), [&](const RankState& r) { return same_call(r.entry, call); });
  }

  static std::string whereabouts(const RankState& r) {
    switch (r.entry.place) {
      case Place::inside: return "in " + numbered_call_of(r.entry);
      case Place::ended: return "at the end of the program, for " + seconds_text(r.seconds);
      case Place::outside: return "outside any collective, for " + seconds_text(r.seconds);
    }
    return "";
  }

  const std::vector<RankState>& ranks_;
  std::string text_;
  bool found_ = false;
};

std::string last_collective(const RankState& r) {
  std::string text = "    rank " + std::to_string(r.rank) + ": " + numbered_call_of(r.entry);
  switch (r.entry.place) {
    case Place::inside: text += ", inside for " + seconds_text(r.seconds); break;
    case Place::outside: text += r.entry.number ? ", done " + seconds_text(r.seconds) + " ago" : ""; break;
    case Place::ended: text += ", then the end of the program " + seconds_text(r.seconds) + " ago"; break;
  }
  if (waits(r.entry)) text += ", waiting for " + awaited_names(r.entry);
  if (r.entry.work[0]) text += std::string(", while ") + r.entry.work.data();
  if (r.device.place == Place::inside)
    text += "; its GPU in number " + std::to_string(r.device.number) + ": " + call_of(r.device) + ", for " +
            seconds_text(r.device_seconds);
  return text + "\n";
}

}  // namespace

std::string stall_report(const std::vector<RankState>& ranks, double limit_seconds, const std::string& node) {
  std::string text = "\nsmoe: no progress on node " + node + " within the limit of " + seconds_text(limit_seconds) +
                     "; the job ends with status 1\n";
  text += Findings(ranks).text();
  text += "  the last collective of each rank of this node:\n";
  for (const RankState& r : ranks) text += last_collective(r);
  return text;
}

}  // namespace smoe
