// Times every op of the op table at the bench cases and holds it against what the machine reaches in the same moment:
// its cores' own rate where an op computes, with the share of a product of 2048^3 beside it; its memory rate (triad) where
// it moves numbers.
//
//   op_bench [--threads N] [--filter REGEX] [--repetitions 5] [--seconds 0.05] [--json] [--quick]
//
// README.md says what the columns mean. --json prints one object a line. --quick runs every op once, on a machine whose
// rates are hardly measured: it shows that all of it runs, and its times mean nothing.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>

#include "kernels/yardstick.h"
#include "tests/kernels/op_calls.h"

namespace smoe::bench {
namespace {

using checks::Inputs;
using checks::OpCall;

struct Options {
  int threads = omp_get_max_threads();
  int repetitions = 5;
  double seconds = 0.05;  // at least, of each repetition
  std::string filter = ".";
  bool json = false, quick = false;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 == argc) throw std::runtime_error(name + " needs a value");
      return argv[++i];
    };
    if (name == "--json")
      o.json = true;
    else if (name == "--quick")
      o.quick = true;
    else if (name == "--filter")
      o.filter = value();
    else if (name == "--threads")
      o.threads = std::stoi(value());
    else if (name == "--repetitions")
      o.repetitions = std::stoi(value());
    else if (name == "--seconds")
      o.seconds = std::stod(value());
    else
      throw std::runtime_error("unknown option " + name + "; the options are listed at the top of op_bench.cpp");
  }
  if (o.threads < 1 || o.repetitions < 1 || o.seconds <= 0)
    throw std::runtime_error("--threads, --repetitions and --seconds must be positive");
  return o;
}

// One op's calls. Ops bound by memory walk through several sets of tensors, so that no cache holds them, as the triad
// does; ops bound by arithmetic reuse one.
class Repeated {
 public:
  Repeated(Backend& backend, const OpCall& call, std::size_t working_set)
      : inputs_(backend, call.op, Inputs::For::bench) {
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

// Google Benchmark calls measure() several times an op: to find how many iterations fill the time, then once a
// repetition. Each time the machine's rates are taken just before and just after.
class Bench {
 public:
  explicit Bench(const Options& o)
      : working_set_(o.quick ? 0 : std::size_t{192} << 20),
        backend_(make_cpu_backend(o.threads)),
        yardstick_(*backend_, o.quick ? 64 : Yardstick::product_size, o.quick ? 3 * 4096 : Yardstick::triad_elements) {}

  void measure(benchmark::State& state, const OpCall& call) {
    if (prepared_for_ != &call) {
      prepared_.reset();  // before the next op takes its memory
      prepared_.emplace(*backend_, call, working_set_);
      prepared_for_ = &call;
    }
    const Bound bound = bound_of(call.work);
    const auto ceiling = [&] { return bound == Bound::matrix ? yardstick_.cores() : yardstick_.memory(); };
    const auto product = [&] { return bound == Bound::matrix ? yardstick_.product() : 0.0; };
    const double product_before = product(), before = ceiling();
    prepared_->run();  // the yardstick has emptied the caches and woken the threads
    for (auto _ : state) {
      prepared_->run();
    }
    backend_->synchronize();
    const double rate = (before + ceiling()) / 2, product_rate = (product_before + product()) / 2;
    const double work =
        static_cast<double>(state.iterations()) * (bound == Bound::matrix ? call.work.flops : call.work.bytes);
    using benchmark::Counter;
    state.counters["giga"] = Counter(1e-9 * work, Counter::kIsRate);
    state.counters["share"] = Counter(work / rate, Counter::kIsRate);
    state.counters["ceiling"] = 1e-9 * rate;
    state.counters["of_product"] = Counter(bound == Bound::matrix ? work / product_rate : 0.0, Counter::kIsRate);
    state.SetLabel(bound == Bound::matrix ? "matrix" : "memory");
  }

 private:
  std::size_t working_set_;  // bytes, as much as the triad's three arrays
  std::unique_ptr<Backend> backend_;
  Yardstick yardstick_;
  const OpCall* prepared_for_ = nullptr;
  std::optional<Repeated> prepared_;
};

// One line an op: the medians of its repetitions.
class Table : public benchmark::BenchmarkReporter {
 public:
  explicit Table(const Options& options) : options_(options) {}

  bool ReportContext(const Context&) override {
    if (!options_.json)
      fmt::print("{:<26}{:<60}{:>12} {:>15}{:>9} {:<7}{:>7}{:>11}\n", "op", "shape", "us", "rate", "ceiling", "of",
                 "share", "of_product");
    return true;
  }

  void ReportRuns(const std::vector<Run>& runs) override {
    // Several repetitions are reported twice, as they are and then as aggregates; a single one only as it is.
    const auto row = std::find_if(runs.begin(), runs.end(), [](const Run& run) {
      return run.repetitions <= 1 || run.aggregate_name == "median";
    });
    if (row == runs.end()) return;
    const std::string name = row->run_name.function_name;
    const std::size_t slash = name.find('/');
    const std::string op = name.substr(0, slash), what = name.substr(slash + 1);
    const double us = row->GetAdjustedRealTime(), giga = row->counters.at("giga"), share = row->counters.at("share"),
                 ceiling = row->counters.at("ceiling"), of_product = row->counters.at("of_product");
    const bool matrix = row->report_label == "matrix";
    if (options_.json)
      fmt::print(
          "{{\"op\": \"{}\", \"shape\": \"{}\", \"threads\": {}, \"us\": {:.2f}, \"bound\": \"{}\", \"{}\": {:.2f}, "
          "\"ceiling\": {:.2f}, {}\"share\": {:.3f}}}\n",
          op, what, options_.threads, us, row->report_label, matrix ? "gflops" : "gbs", giga, ceiling,
          matrix ? fmt::format("\"share_of_product\": {:.3f}, ", of_product) : "", share);
    else
      fmt::print("{:<26}{:<60}{:>12.1f} {:>8.1f} {:<6}{:>9.1f} {:<7}{:>6.0f}%{:>11}\n", op, what, us, giga,
                 matrix ? "GF/s" : "GB/s", ceiling, matrix ? "cores" : "memory", 100 * share,
                 matrix ? fmt::format("{:.0f}%", 100 * of_product) : "");
    std::fflush(stdout);
  }

 private:
  const Options& options_;
};

int run(const Options& options) {
  Bench bench(options);
  std::vector<OpCall> calls;
  for (const checks::OpCase& c : checks::all_calls())
    if (c.bench) calls.insert(calls.end(), c.calls.begin(), c.calls.end());
  for (const OpCall& call : calls) {
    auto* registered = benchmark::RegisterBenchmark((call.op + "/" + call.shape).c_str(),
                                                    [&](benchmark::State& state) { bench.measure(state, call); });
    registered->Unit(benchmark::kMicrosecond)->UseRealTime();
    if (options.quick)
      registered->Iterations(1);
    else
      registered->MinTime(options.seconds);
    registered->Repetitions(options.quick ? 1 : options.repetitions);
  }
  Table table(options);
  const std::size_t matched = benchmark::RunSpecifiedBenchmarks(&table, options.filter);
  if (matched == 0) throw std::runtime_error("no op matches --filter " + options.filter);
  return 0;
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
