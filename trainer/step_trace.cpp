#include "trainer/step_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "kernels/stamp.h"
#include "kernels/trace_backend.h"
#include "model/forced_routing.h"
#include "model/freeze.h"
#include "parallel/comm/agreement.h"
#include "trainer/step_batch.h"

namespace smoe {
namespace {

// Watches the collectives of this rank, to the end of the scope.
class Watching {
 public:
  Watching(MpiSession* session, CollectiveTrace& trace) : session_(session) {
    if (session_) session_->observe(&trace);
  }
  ~Watching() {
    if (session_) session_->observe(nullptr);
  }
  Watching(const Watching&) = delete;
  Watching& operator=(const Watching&) = delete;

 private:
  MpiSession* session_;  // null for a single rank's mesh, which has no collectives
};

// Where all ranks' times count from: on one machine the same moment of the one clock.
std::int64_t common_zero(std::int64_t begin, const Mesh& mesh) {
  const MpiSession* const session = mesh.session();
  if (!session || session->local_size() < session->size()) return begin;
  std::array<double, 1> earliest{-static_cast<double>(begin)};  // exact for the first hundred days of a machine
  mesh.group(Axis::world).all_reduce(earliest, Reduce::max, "trace.zero");
  return static_cast<std::int64_t>(-earliest[0]);
}

std::vector<StepShares> gathered(const StepShares& own, const Mesh& mesh) {
  const auto ranks = static_cast<std::size_t>(mesh.size(Axis::world)),
             rank = static_cast<std::size_t>(mesh.rank(Axis::world));
  std::vector<double> numbers(4 * ranks);
  const double of_rank[] = {own.step, own.ops, own.waiting, own.overlapped};
  std::copy(std::begin(of_rank), std::end(of_rank), numbers.begin() + static_cast<std::ptrdiff_t>(4 * rank));
  mesh.group(Axis::world).all_reduce(std::span(numbers), Reduce::sum, "trace.shares");
  std::vector<StepShares> all;
  for (std::size_t r = 0; r < ranks; ++r)
    all.push_back({numbers[4 * r], numbers[4 * r + 1], numbers[4 * r + 2], numbers[4 * r + 3]});
  return all;
}

std::string name_of_rank(const Mesh& mesh) {
  std::string name = fmt::format("rank {}", mesh.rank(Axis::world));
  for (const Axis axis : all_axes)
    if (axis != Axis::world && mesh.size(axis) > 1) name += fmt::format(", {} {}", name_of(axis), mesh.rank(axis));
  return name;
}

// The rest of a step, and the next one to its gradients.
class Loop {
 public:
  Loop(const TrainerConfig& config, const Mesh& mesh, TrainingParts& parts) : step_(*parts.step), batch_() {
    batch_.sequences = config.train.global_batch_size / mesh.size(Axis::dp);
    batch_.sequence_length = config.data.sequence_length;
    const std::int64_t tokens = batch_.sequences * batch_.sequence_length;
    const auto replica = static_cast<std::uint64_t>(mesh.rank(Axis::dp));
    ids_ = random_ids(tokens, config.model.vocab_size, 2 * replica + 1);
    targets_ = random_ids(tokens, config.model.vocab_size, 2 * replica + 2);
    batch_.ids = ids_;
    batch_.targets = targets_;
    batch_.noise_key = 1;
    result_ = step_.compute_gradients(batch_);
  }
  void turn() {
    step_.start_apply(result_, ++updates_, learning_rate);
    result_ = step_.compute_gradients(batch_);
  }
  void end() { step_.settle(); }

 private:
  static constexpr double learning_rate = 1e-4;  // the configuration's may be one at which random tokens diverge
  TrainingStep& step_;
  std::vector<std::int32_t> ids_, targets_;
  StepBatch batch_;
  StepResult result_;
  std::int64_t updates_ = 0;
};

}  // namespace

StepTrace trace_step(const TrainerConfig& config, const Mesh& mesh, std::unique_ptr<Backend> backend) {
  auto tracing = std::make_unique<TraceBackend>(std::move(backend));
  TraceBackend& ops = *tracing;
  CollectiveTrace collectives(mesh.traffic());
  TrainingParts parts(std::move(tracing), config.model, config, mesh,
                      frozen_patterns(config.router, config.train.freeze));
  parts.model->parameters().initialize(ops, static_cast<std::uint64_t>(config.train.seed),
                                       parts.optimizer->keeps_masters());
  Communicator& world = mesh.group(Axis::world);
  Loop loop(config, mesh, parts);
  std::int64_t begin = 0, end = 0;
  for (int turn = 0; turn < 2; ++turn) {  // the first makes room for what the second records
    ops.start();
    collectives.clear();
    world.barrier("trace.meeting");
    const Watching watching(mesh.session(), collectives);
    begin = host_nanoseconds();
    loop.turn();
    ops.stop();
    end = host_nanoseconds();
  }
  loop.end();

  RankTrace trace = rank_trace(ops, collectives, begin, end);
  trace.rank = mesh.rank(Axis::world);
  trace.name = name_of_rank(mesh);
  StepTrace found;
  found.forced_routing = describe(config.router.forced_routing);
  found.shares = gathered(shares_of(trace), mesh);
  const std::string own = trace_events(trace, common_zero(begin, mesh));
  std::vector<std::string> of_ranks;
  for (int rank = 0; rank < world.size(); ++rank) {
    std::string events = broadcast_text(world, own, rank, "trace.events");
    if (mesh.is_root()) of_ranks.push_back(std::move(events));
  }
  if (!mesh.is_root()) return found;
  const bool one_clock = !mesh.session() || mesh.session()->local_size() == mesh.session()->size();
  found.file = trace_file(
      of_ranks,
      {{"what", "one optimizer step of smoe: an update, and the micro-batches that follow it"},
       {"layout", mesh.layout().to_string()},
       {"device", ops.device() == Device::cpu ? "cpu" : "cuda"},
       {"transport", mesh.transport()},
       {"routing", found.forced_routing.empty() ? "the routers'" : "forced: " + found.forced_routing},
       {"zero", one_clock ? "the beginning of the first rank's step; all ranks have one clock"
                          : "the beginning of each rank's own step, behind a barrier: ranks of several machines "
                            "have no clock in common"}});
  return found;
}

std::string describe(const StepTrace& trace) {
  std::string text;
  if (!trace.forced_routing.empty()) text += fmt::format("ROUTING IS FORCED: {}\n", trace.forced_routing);
  for (std::size_t rank = 0; rank < trace.shares.size(); ++rank) {
    const StepShares& of = trace.shares[rank];
    const auto percent = [&](double seconds) { return 100 * seconds / of.step; };
    text += fmt::format(
        "rank {}: {:.1f} ms, of which {:.0f}% in ops, {:.0f}% waiting in collectives; for {:.0f}% one was on its way beside "
        "ops\n",
        rank, 1e3 * of.step, percent(of.ops), percent(of.waiting), percent(of.overlapped));
  }
  return text;
}

}  // namespace smoe
