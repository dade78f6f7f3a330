// Times the whole training step (forward, loss, balance, backward, norm, clip, AdamW) of the 123.5M-parameter Mixtral:
// hidden 512, 4 layers, 8 experts of 1792, top 2, vocabulary 32000.
//
//   step_bench [--batch 4] [--seq 512] [--threads 2] [--steps 7] [--measures 1]
//   mpirun -n 2 step_bench [--tp 1] [--ep 2] [--threads 1] ...     threads of each rank; the batch is of all together
//
// Prints one JSON line. The cores' own rate and a product of 2048^3 are measured between the steps, so that the shares hold
// on a machine whose speed changes from minute to minute. --measures: each step again, now one that measures its routers
// (model/router_measures.h), as a step that is logged; what it takes more, of a step, is the median over the pairs.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/yardstick.h"
#include "tests/bench/arguments.h"
#include "trainer/training_step.h"

namespace smoe {
namespace {
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
using bench::median;

struct Options {
  std::int64_t batch = 4, sequence_length = 512, threads = 2, steps = 7, tp = 1, ep = 1, measures = 0;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::int64_t value = std::atoll(argv[i + 1]);
    if (name == "--batch")
      o.batch = value;
    else if (name == "--seq")
      o.sequence_length = value;
    else if (name == "--threads")
      o.threads = value;
    else if (name == "--steps")
      o.steps = value;
    else if (name == "--tp")
      o.tp = value;
    else if (name == "--ep")
      o.ep = value;
    else if (name == "--measures")
      o.measures = value;
    else
      std::fprintf(stderr, "unknown option %s\n", argv[i]), std::exit(2);
  }
  return o;
}

int run(const Options& o, MpiSession& session) {
  const auto start = Clock::now();
  ModelConfig config;  // its defaults are this shape
  const Mesh mesh =
      Mesh::over(session, {.ranks = session.size(), .tp = static_cast<int>(o.tp), .ep = static_cast<int>(o.ep)});
  Communicator& world = mesh.group(Axis::world);
  const auto backend = make_cpu_backend(static_cast<int>(o.threads));
  Arena persistent(*backend);
  Mixtral model(config, mesh);
  model.allocate(*backend, persistent, o.sequence_length, true);
  model.parameters().initialize(*backend, 1);
  AdamW optimizer(*backend, persistent, model.parameters(), mesh, {});
  const std::int64_t dp = mesh.size(Axis::dp), sequences = o.batch / dp;
  TrainingStep step(*backend, mesh, model, optimizer, {}, sequences, Recompute::none);

  std::vector<std::int32_t> ids(static_cast<std::size_t>(o.batch * o.sequence_length)), targets(ids.size());
  std::uint64_t state = 1;
  const auto draw = [&] {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<std::int32_t>((state >> 33) % static_cast<std::uint64_t>(config.vocab_size));
  };
  for (auto& id : ids) id = draw();
  for (auto& id : targets) id = draw();
  const auto part = [&](const std::vector<std::int32_t>& all) {
    return std::span(all).subspan(static_cast<std::size_t>(mesh.rank(Axis::dp) * sequences * o.sequence_length),
                                  static_cast<std::size_t>(sequences * o.sequence_length));
  };
  const StepBatch batch{sequences, o.sequence_length, part(ids), part(targets), {}};

  std::int64_t updates = 0;
  const auto one_step = [&](bool measuring = false) {
    step.measure_routers(measuring);
    world.barrier("bench.step");
    mesh.traffic().reset();
    const auto begin = Clock::now();
    const StepResult result = step.compute_gradients(batch);
    step.apply(result, ++updates, 1e-4);
    if (measuring) step.router_measures();
    return seconds_since(begin);
  };
  one_step();
  const double first_step = seconds_since(start);
  one_step();

  Yardstick yardstick(*backend, Yardstick::product_size, 3);    // nothing here asks for the memory's rate
  const auto gflops_of = [&](double (Yardstick::*measure)()) {  // on all ranks at once, added up
    world.barrier("bench.yardstick");
    double rate = 1e-9 * (yardstick.*measure)();
    world.all_reduce(std::span(&rate, 1), Reduce::sum, "bench.yardstick");
    return rate;
  };
  std::vector<double> seconds, products, cores, measures;
  for (std::int64_t i = 0; i < o.steps; ++i) {
    gflops_of(&Yardstick::product);  // the first after a step pays for cold caches
    for (int r = 0; r < 3; ++r) {
      products.push_back(gflops_of(&Yardstick::product));
      cores.push_back(gflops_of(&Yardstick::cores));
    }
    seconds.push_back(one_step());
    if (o.measures == 0) continue;
    const double with = i % 2 == 0 ? one_step(true) : 0;  // in turns before and behind one without
    const double without = one_step();
    measures.push_back((with > 0 ? with : one_step(true)) / without - 1);
  }
  const double tokens = static_cast<double>(ids.size()), time = median(seconds), product = median(products),
               core = median(cores);
  const double gflops = 3e-9 * forward_flops_per_token(config, o.sequence_length) * tokens / time;
  const std::int64_t sent = mesh.traffic().total();
  if (!mesh.is_root()) return 0;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "{\"what\": \"smoe\", \"kernel\": \"%s\", \"batch\": %ld, \"seq\": %ld, \"threads\": %ld, \"ranks\": %d, \"tp\": %ld, \"ep\": %ld, \"tokens_per_sec\": %.1f, "
      "\"best_tokens_per_sec\": %.1f, \"gflops\": %.1f, \"core_gflops\": %.1f, \"share_of_cores\": %.3f, "
      "\"sgemm_gflops\": %.1f, \"share_of_sgemm\": %.3f, "
      "\"peak_rss_mib\": %ld, \"first_step_s\": %.2f, \"bytes_sent\": %ld, \"measures_share\": %.4f}\n",
      backend->measure_profile().product_kernel.c_str(), o.batch, o.sequence_length, o.threads, session.size(), o.tp,
      o.ep, tokens / time, tokens / *std::min_element(seconds.begin(), seconds.end()), gflops, core, gflops / core,
      product, gflops / product, usage.ru_maxrss / 1024, first_step, sent, measures.empty() ? 0.0 : median(measures));
  return 0;
}

}  // namespace
}  // namespace smoe

int main(int argc, char** argv) {
  const smoe::Options options = smoe::parse(argc, argv);
  smoe::MpiSession session(&argc, &argv);
  return smoe::run(options, session);
}
