#include "trainer/trace_events.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <span>

#include "data/files/json.h"

namespace smoe {
namespace {

using Details = std::vector<std::pair<std::string, std::string>>;

Details details_of(const CollectiveCall& call) {
  Details details{{"collective", std::string(call.operation)}, {"axis", std::string(call.axis)}};
  if (call.elements > 0) details.emplace_back("elements", fmt::format("{} {}", call.elements, call.type));
  return details;
}

Details details_of(std::span<const TracedArgument> arguments) {
  Details details;
  for (const TracedArgument& argument : arguments)
    details.emplace_back(argument.name, fmt::format("{} {}", argument.shape.to_string(), name_of(argument.type)));
  return details;
}

std::string name_of_range(const TracedRange& range) {
  return range.number < 0 ? range.name : fmt::format("{} {}", range.name, range.number);
}

void add_track(RankTrace& trace, const std::string& track) {
  if (std::find(trace.tracks.begin(), trace.tracks.end(), track) == trace.tracks.end()) trace.tracks.push_back(track);
}

// What a host does while it computes itself.
void add_ops(RankTrace& trace, TraceBackend& ops, const std::string& prefix) {
  const std::string parts = prefix + "parts", track = prefix + "ops";
  trace.tracks.insert(trace.tracks.end(), {parts, track});
  for (const TracedRange& range : ops.ranges()) {
    const std::int64_t begin = ops.host_time(range.begin);
    trace.slices.push_back(
        {TraceKind::part, parts, name_of_range(range), begin, std::max(begin, ops.host_time(range.end)), {}});
  }
  for (const TracedOp& op : ops.ops()) {
    const std::int64_t begin = ops.host_time(op.begin);
    trace.slices.push_back({TraceKind::op, track, op.name, begin, std::max(begin, ops.host_time(op.end)),
                            details_of(ops.arguments_of(op))});
  }
}

// What it does beside a GPU that computes: it calls ops, and waits.
void add_host(RankTrace& trace, const TraceBackend& ops) {
  const std::string parts = "host: parts", calls = "host: calls";
  trace.tracks.insert(trace.tracks.end(), {parts, calls});
  for (const TracedRange& range : ops.ranges())
    trace.slices.push_back({TraceKind::part, parts, name_of_range(range), range.host.begin, range.host.end, {}});
  const std::size_t first = trace.slices.size();
  for (const TracedOp& op : ops.ops())
    trace.slices.push_back({TraceKind::call, calls, op.name, op.call.begin, op.call.end, {}});
  for (const TracedWait& wait : ops.waits())
    trace.slices.push_back({TraceKind::call, calls, wait.name, wait.host.begin, wait.host.end, {}});
  std::stable_sort(trace.slices.begin() + static_cast<std::ptrdiff_t>(first), trace.slices.end(),
                   [](const TraceSlice& a, const TraceSlice& b) { return a.begin < b.begin; });
}

// The host's collectives of each axis on a track of their own, and what is on its way between start and finish.
void add_host_collectives(RankTrace& trace, const CollectiveTrace& collectives) {
  std::map<std::string_view, std::deque<const HostCollective*>> started;  // by axis, the oldest first
  for (const HostCollective& collective : collectives.host()) {
    const CollectiveCall& call = collective.call;
    const std::string track = fmt::format("collectives {}", call.axis);
    add_track(trace, track);
    trace.slices.push_back({TraceKind::wait, track, std::string(call.label), collective.begin, collective.end,
                            details_of(call), collective.bytes});
    auto& of_axis = started[call.axis];
    if (call.operation == start_of_reduce_scatter) of_axis.push_back(&collective);
    if (call.operation != finish_of_reduce_scatter || of_axis.empty()) continue;
    const HostCollective& begun = *of_axis.front();
    of_axis.pop_front();
    trace.flights.push_back({track,
                             std::string(call.label),
                             begun.begin,
                             collective.end,
                             {{"collective", "reduce_scatter"}, {"axis", std::string(call.axis)}},
                             begun.bytes});
  }
}

void add_device_collectives(RankTrace& trace, TraceBackend& ops, const CollectiveTrace& collectives) {
  const std::string tracks[] = {"GPU: foreground", "GPU: background"};
  trace.tracks.insert(trace.tracks.end(), std::begin(tracks), std::end(tracks));
  for (const DeviceCollective& collective : collectives.device()) {
    const std::int64_t begin = ops.host_time(collective.begin);
    trace.slices.push_back({TraceKind::device, tracks[static_cast<std::size_t>(collective.lane)],
                            std::string(collective.call.label), begin, std::max(begin, ops.host_time(collective.end)),
                            details_of(collective.call), collective.bytes});
  }
}

// ---- time ----

struct Span {
  std::int64_t begin, end;
};
using Spans = std::vector<Span>;  // apart, in order

Spans united(Spans spans) {
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  Spans united;
  for (const Span& span : spans) {
    if (united.empty() || span.begin > united.back().end)
      united.push_back(span);
    else
      united.back().end = std::max(united.back().end, span.end);
  }
  return united;
}

std::int64_t length(const Spans& spans) {
  std::int64_t sum = 0;
  for (const Span& span : spans) sum += span.end - span.begin;
  return sum;
}

std::int64_t common_length(const Spans& a, const Spans& b) {
  std::int64_t sum = 0;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    sum += std::max<std::int64_t>(0, std::min(a[i].end, b[j].end) - std::max(a[i].begin, b[j].begin));
    (a[i].end < b[j].end ? i : j)++;
  }
  return sum;
}

// ---- JSON ----

double microseconds(std::int64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e3;
}  // the nearest to three digits

OrderedJson arguments(const Details& details, std::int64_t bytes) {
  OrderedJson args = OrderedJson::object();
  for (const auto& [name, text] : details) args[name] = text;
  if (bytes >= 0) args["bytes"] = bytes;
  return args;
}

// One event a line.
class Events {
 public:
  explicit Events(int rank) : rank_(rank) {}

  void add(OrderedJson event) {
    event["pid"] = rank_;
    if (!text_.empty()) text_ += ",\n";
    text_ += dump_json(event);
  }
  void name(const char* what, int track, const std::string& name) {
    add({{"ph", "M"}, {"name", what}, {"tid", track}, {"args", {{"name", name}}}});
  }
  void place(const char* what, int track, int place) {
    add({{"ph", "M"}, {"name", what}, {"tid", track}, {"args", {{"sort_index", place}}}});
  }
  std::string take() { return std::move(text_); }

 private:
  int rank_;
  std::string text_;
};

const char* category(TraceKind kind) {
  switch (kind) {
    case TraceKind::part: return "part";
    case TraceKind::op: return "op";
    case TraceKind::call: return "host";
    case TraceKind::wait:
    case TraceKind::device: return "collective";
  }
  return "?";
}

}  // namespace

RankTrace rank_trace(TraceBackend& ops, const CollectiveTrace& collectives, std::int64_t begin, std::int64_t end) {
  RankTrace trace;
  trace.begin = begin;
  trace.end = end;
  const bool gpu = ops.device() != Device::cpu;
  if (gpu) add_host(trace, ops);
  add_ops(trace, ops, gpu ? "GPU: " : "");
  if (gpu) add_device_collectives(trace, ops, collectives);
  add_host_collectives(trace, collectives);
  return trace;
}

StepShares shares_of(const RankTrace& trace) {
  Spans running, stopping, under_way;
  for (const TraceSlice& slice : trace.slices) {
    const Span span{slice.begin, slice.end};
    if (slice.kind == TraceKind::op) running.push_back(span);
    if (slice.kind == TraceKind::wait || slice.kind == TraceKind::device) stopping.push_back(span);
    if (slice.kind == TraceKind::device) under_way.push_back(span);
  }
  for (const TraceFlight& flight : trace.flights) under_way.push_back({flight.begin, flight.end});
  const Spans ops = united(std::move(running)), stops = united(std::move(stopping)),
              on_the_way = united(std::move(under_way));
  const auto seconds = [](std::int64_t nanoseconds) { return 1e-9 * static_cast<double>(nanoseconds); };
  return {.step = seconds(trace.end - trace.begin),
          .ops = seconds(length(ops)),
          .waiting = seconds(length(stops) - common_length(stops, ops)),
          .overlapped = seconds(common_length(on_the_way, ops))};
}

std::string trace_events(const RankTrace& trace, std::int64_t zero) {
  // A device's clock is laid beside the host's to some nanoseconds: its first work does not come before what called it.
  const auto since = [zero](std::int64_t moment) { return std::max<std::int64_t>(0, moment - zero); };
  Events events(trace.rank);
  std::map<std::string_view, int> numbers;
  events.name("process_name", 0, trace.name);
  events.place("process_sort_index", 0, trace.rank);
  for (const std::string& track : trace.tracks) {
    const int number = static_cast<int>(numbers.size()) + 1;
    numbers[track] = number;
    events.name("thread_name", number, track);
    events.place("thread_sort_index", number, number);
  }
  for (const TraceSlice& slice : trace.slices)
    events.add({{"ph", "X"},
                {"name", slice.name},
                {"cat", category(slice.kind)},
                {"tid", numbers.at(slice.track)},
                {"ts", microseconds(since(slice.begin))},
                {"dur", microseconds(since(slice.end) - since(slice.begin))},
                {"args", arguments(slice.details, slice.bytes)}});
  for (std::size_t i = 0; i < trace.flights.size(); ++i) {
    const TraceFlight& flight = trace.flights[i];
    OrderedJson begin{{"ph", "b"},
                      {"name", flight.name},
                      {"cat", "on its way"},
                      {"id", fmt::format("{}.{}", trace.rank, i)},
                      {"tid", numbers.at(flight.track)},
                      {"ts", microseconds(since(flight.begin))}};
    OrderedJson end = begin;
    end["ph"] = "e";
    end["ts"] = microseconds(since(flight.end));
    begin["args"] = arguments(flight.details, flight.bytes);
    events.add(std::move(begin));
    events.add(std::move(end));
  }
  return events.take();
}

std::string trace_file(const std::vector<std::string>& events_of_ranks, const Details& about) {
  std::string text = "{\"traceEvents\": [\n";
  for (std::size_t rank = 0; rank < events_of_ranks.size(); ++rank) {
    if (rank > 0) text += ",\n";
    text += events_of_ranks[rank];
  }
  return text + "\n],\n\"displayTimeUnit\": \"ms\",\n\"otherData\": " + dump_json(arguments(about, -1)) + "}\n";
}

}  // namespace smoe
