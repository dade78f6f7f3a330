// Times every op of the op table at a model's sizes and holds it against what the machine reaches in the same moment. On a CPU:
// its cores' own rate where an op computes, with the share of a product of 2048^3 beside it; its memory rate (triad) where
// it moves numbers. On a GPU: a product of 8192^3 in bf16, and a copy.
//
//   op_bench [--device cpu|cuda] [--dtype f32|bf16] [--model 123m|8x7b|8x22b|tiny] [--threads N] [--filter REGEX]
//            [--repetitions 5] [--seconds 0.05] [--limit SECONDS] [--json] [--quick]
//
// README.md says what the columns mean. --json prints one object a line. --quick runs every op once, unless --repetitions or
// --seconds say more, on a machine whose rates are hardly measured: it shows that all of it runs, and its times mean nothing.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/yardstick.h"
#include "tests/bench/arguments.h"
#include "tests/bench/device_options.h"
#include "tests/kernels/op_calls.h"

namespace smoe::bench {
namespace {

using checks::Inputs;
using checks::OpCall;
using Clock = std::chrono::steady_clock;

struct Options {
  DeviceOptions on;
  int repetitions = 0;  // 0: as many as there are by default; so with seconds, that each repetition has at least
  double seconds = 0;
  double limit = 0;  // seconds, after which no other op begins; 0: none
  std::string filter = ".";
  bool json = false, quick = false;
};

Options parse(int argc, char** argv) {
  Options o;
  for_each_option(argc, argv, "op_bench.cpp", [&](const std::string& name, const auto& value) {
    if (o.on.take(name, value)) return true;
    if (name == "--json")
      o.json = true;
    else if (name == "--quick")
      o.quick = true;
    else if (name == "--filter")
      o.filter = value();
    else if (name == "--repetitions")
      o.repetitions = std::stoi(value());
    else if (name == "--seconds")
      o.seconds = std::stod(value());
    else if (name == "--limit")
      o.limit = std::stod(value());
    else
      return false;
    return true;
  });
  if (o.on.threads < 1 || o.repetitions < 0 || o.seconds < 0 || o.limit < 0)
    throw std::runtime_error("--threads, --repetitions, --seconds and --limit must be positive");
  return o;
}

// One op's calls. Ops bound by memory walk through several sets of tensors, so that no cache holds them, as the triad
// does; ops bound by arithmetic reuse one.
class Repeated {
 public:
  Repeated(Backend& backend, const OpCall& call, DType type, checks::RepeatedNumbers& numbers, std::size_t working_set)
      : inputs_(backend, call.op, type, numbers) {
    calls_.push_back(call.prepare(inputs_).call);
    const std::size_t sets = bound_of(call.work) == Bound::matrix ? 1 : working_set / inputs_.workspace().bytes();
    while (calls_.size() < sets) calls_.push_back(call.prepare(inputs_).call);
  }
  void run() {
    calls_[next_]();
    if (++next_ == calls_.size()) next_ = 0;
  }

 private:
  Inputs inputs_;
  std::vector<std::function<void()>> calls_;
  std::size_t next_ = 0;
};

// What stands in place of a time.
struct Omission {
  enum class Kind : std::uint8_t { left_out, skipped, failed } kind;  // no time, no room, an error
  std::string why;
};
std::string name_of_call(const OpCall& call) { return call.op + "/" + call.shape; }
using Omissions = std::map<std::string, Omission>;  // by name_of_call()

// Google Benchmark calls measure() several times an op: to find how many iterations fill the time, then once a
// repetition. Each time the machine's rates are taken just before and just after.
class Bench {
 public:
  Bench(const Options& o, Omissions& omissions)
      : end_(o.limit > 0
                 ? Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(o.limit))
                 : Clock::time_point::max()),
        omissions_(omissions),
        type_(o.on.type),
        working_set_(o.quick ? 0 : std::size_t{192} << 20),
        backend_(o.on.make()),
        numbers_(*backend_, checks::uniform_block()),
        yardstick_(*backend_, o.quick ? 64 : Yardstick::product_size, yardstick_elements(o.on.device, o.quick)) {}

  void measure(benchmark::State& state, const OpCall& call) {
    if (prepared_for_ != &call) {
      prepared_.reset();  // before the next op takes its memory
      prepared_for_ = &call;
      if (Clock::now() >= end_) omissions_[name_of_call(call)] = {Omission::Kind::left_out, {}};
    }
    if (!omissions_.contains(name_of_call(call))) try {
        if (!prepared_) prepared_.emplace(*backend_, call, type_, numbers_, working_set_);
        return time(state, call.work);
      } catch (const std::bad_alloc& error) {
        omissions_[name_of_call(call)] = {Omission::Kind::skipped, error.what()};
      } catch (const std::exception& error) {  // the next op may do better
        omissions_[name_of_call(call)] = {Omission::Kind::failed, error.what()};
      }
    prepared_.reset();
    state.SkipWithError("omitted");
  }

 private:
  // A device works behind the host: the calls of a repetition are one batch, between two stamps of the device's own.
  void time(benchmark::State& state, const Work& work_of_call) {
    const bool matrix = bound_of(work_of_call) == Bound::matrix, on_gpu = backend_->device() == Device::cuda;
    const auto ceiling = [&] {
      if (on_gpu) return matrix ? yardstick_.product() : yardstick_.copy();
      return matrix ? yardstick_.cores() : yardstick_.memory();
    };
    const auto product = [&] { return matrix && !on_gpu ? yardstick_.product() : 0.0; };
    const double product_before = product(), before = ceiling();
    prepared_->run();  // the yardstick has emptied the caches and woken the threads
    while (state.KeepRunningBatch(state.max_iterations)) {
      const Stamp begin = backend_->stamp();
      for (benchmark::IterationCount i = 0; i < state.max_iterations; ++i) prepared_->run();
      const Stamp end = backend_->stamp();
      backend_->synchronize();
      state.SetIterationTime(backend_->seconds_between(begin, end));
    }
    const double rate = (before + ceiling()) / 2, product_rate = on_gpu ? rate : (product_before + product()) / 2;
    backend_->forget_stamps();
    const double work = static_cast<double>(state.iterations()) * (matrix ? work_of_call.flops : work_of_call.bytes);
    using benchmark::Counter;
    state.counters["giga"] = Counter(1e-9 * work, Counter::kIsRate);
    state.counters["share"] = Counter(work / rate, Counter::kIsRate);
    state.counters["ceiling"] = 1e-9 * rate;
    state.counters["of_product"] = Counter(matrix ? work / product_rate : 0.0, Counter::kIsRate);
    state.counters["flops"] = work_of_call.flops;
    state.counters["bytes"] = work_of_call.bytes;
    state.SetLabel(matrix ? "matrix" : "memory");
  }

  Clock::time_point end_;  // no op begins after it
  Omissions& omissions_;
  DType type_;
  std::size_t working_set_;  // bytes, as much as the triad's three arrays
  std::unique_ptr<Backend> backend_;
  checks::RepeatedNumbers numbers_;
  Yardstick yardstick_;
  const OpCall* prepared_for_ = nullptr;
  std::optional<Repeated> prepared_;
};

// One line an op: the medians of its repetitions.
class Table : public benchmark::BenchmarkReporter {
 public:
  Table(const Options& options, const Omissions& omissions) : options_(options), omissions_(omissions) {}

  bool ReportContext(const Context&) override {
    if (!options_.json)
      fmt::print("{:<26}{:<60}{:>12} {:>15}{:>9} {:<7}{:>7}{:>11}\n", "op", "shape", "us", "rate", "ceiling", "of",
                 "share", "of_product");
    return true;
  }

  void ReportRuns(const std::vector<Run>& runs) override {
    if (runs.empty()) return;
    if (omissions_.contains(runs.front().run_name.function_name)) return omit(runs.front());
    // Several repetitions are reported twice, as they are and then as aggregates; a single one only as it is.
    const auto row = std::find_if(runs.begin(), runs.end(), [](const Run& run) {
      return run.repetitions <= 1 || run.aggregate_name == "median";
    });
    if (row == runs.end()) return;
    const auto [op, what] = op_and_shape(*row);
    const double us = row->GetAdjustedRealTime(), giga = row->counters.at("giga"), share = row->counters.at("share"),
                 ceiling = row->counters.at("ceiling"), of_product = row->counters.at("of_product");
    const bool matrix = row->report_label == "matrix", on_gpu = options_.on.device == Device::cuda;
    const char* const ceiling_of = matrix ? (on_gpu ? "product" : "cores") : (on_gpu ? "copy" : "triad");
    if (options_.json)
      fmt::print(
          "{{{}, \"threads\": {}, \"us\": {:.2f}, \"bound\": \"{}\", \"{}\": {:.2f}, \"flops\": {:.0f}, \"bytes\": {:.0f}, "
          "\"ceiling\": {:.2f}, \"ceiling_of\": \"{}\", {}\"share\": {:.3f}}}\n",
          keys(op, what), options_.on.threads, us, row->report_label, matrix ? "gflops" : "gbs", giga,
          row->counters.at("flops").value, row->counters.at("bytes").value, ceiling, ceiling_of,
          matrix ? fmt::format("\"share_of_product\": {:.3f}, ", of_product) : "", share);
    else
      fmt::print("{:<26}{:<60}{:>12.1f} {:>8.1f} {:<6}{:>9.1f} {:<7}{:>6.0f}%{:>11}\n", op, what, us, giga,
                 matrix ? "GF/s" : "GB/s", ceiling, ceiling_of, 100 * share,
                 matrix ? fmt::format("{:.0f}%", 100 * of_product) : "");
    std::fflush(stdout);
  }

 private:
  static std::pair<std::string, std::string> op_and_shape(const Run& run) {
    const std::string& name = run.run_name.function_name;
    const std::size_t slash = name.find('/');
    return {name.substr(0, slash), name.substr(slash + 1)};
  }

  std::string keys(const std::string& op, const std::string& shape) const {
    return fmt::format(R"("op": "{}", "shape": "{}", "device": "{}", "dtype": "{}", "model": "{}")", op, shape,
                       options_.on.device_name(), name_of(options_.on.type), options_.on.model.name);
  }

  void omit(const Run& run) {
    const std::string& name = run.run_name.function_name;
    const Omission& omission = omissions_.at(name);
    if (omission.kind == Omission::Kind::left_out || !said_.insert(name).second) return;
    const char* const word = omission.kind == Omission::Kind::failed ? "failed" : "skipped";
    std::string why = omission.why.substr(0, omission.why.find('\n'));
    std::replace_if(
        why.begin(), why.end(), [](char c) { return c == '"' || c == '\\'; }, '\'');
    const auto [op, what] = op_and_shape(run);
    if (options_.json)
      fmt::print("{{{}, \"{}\": \"{}\"}}\n", keys(op, what), word, why);
    else
      fmt::print("{:<26}{:<60}{}: {}\n", op, what, word, why);
    std::fflush(stdout);
  }

  const Options& options_;
  const Omissions& omissions_;
  std::set<std::string> said_;
};

int run(const Options& options) {
  Omissions omissions;
  Bench bench(options, omissions);
  std::vector<OpCall> calls;
  for (const checks::OpCase& c : checks::bench_calls(options.on.model, options.on.type))
    calls.insert(calls.end(), c.calls.begin(), c.calls.end());
  for (const OpCall& call : calls) {
    auto* registered = benchmark::RegisterBenchmark(name_of_call(call).c_str(),
                                                    [&](benchmark::State& state) { bench.measure(state, call); });
    registered->Unit(benchmark::kMicrosecond)->UseManualTime();
    if (options.quick && options.seconds == 0)
      registered->Iterations(1);
    else
      registered->MinTime(options.seconds > 0 ? options.seconds : 0.05);
    registered->Repetitions(options.repetitions > 0 ? options.repetitions : options.quick ? 1 : 5);
  }
  Table table(options, omissions);
  const std::size_t matched = benchmark::RunSpecifiedBenchmarks(&table, options.filter);
  if (matched == 0) throw std::runtime_error("no op matches --filter " + options.filter);
  const auto count = [&](Omission::Kind kind) {
    return std::count_if(omissions.begin(), omissions.end(), [=](const auto& of) { return of.second.kind == kind; });
  };
  if (const auto left_out = count(Omission::Kind::left_out); left_out > 0)
    options.json ? fmt::print("{{\"left_out\": {}}}\n", left_out)
                 : fmt::print("{} ops were left out: the time was over\n", left_out);
  return count(Omission::Kind::failed) > 0 ? 1 : 0;
}

}  // namespace
}  // namespace smoe::bench

int main(int argc, char** argv) {
  try {
    return smoe::bench::run(smoe::bench::parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "op_bench: %s\n", error.what());
    return 1;
  }
}
