#include "trainer/step_profile.h"

#include <algorithm>
#include <ctime>
#include <map>
#include <memory>
#include <span>
#include <utility>

#include "kernels/cuda_device.h"
#include "kernels/yardstick.h"
#include "model/forced_routing.h"
#include "model/freeze.h"
#include "model/mixtral.h"
#include "optim/adamw.h"
#include "trainer/record/metrics.h"
#include "trainer/step_batch.h"
#include "trainer/stopwatch.h"
#include "trainer/training_step.h"

namespace smoe {
namespace {
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }  // of all threads

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// Times of the same ops in several steps, by op and shape.
class OpMedians {
 public:
  void add(const std::vector<OpTime>& times) {
    for (const OpTime& time : times) {
      auto& [first, seconds] = ops_.try_emplace({time.op, time.shape}, time, std::vector<double>()).first->second;
      seconds.push_back(time.seconds);
    }
  }
  std::vector<OpTime> take() {
    std::vector<OpTime> ops;
    for (auto& [key, entry] : ops_) {
      entry.first.seconds = median(entry.second);
      ops.push_back(std::move(entry.first));
    }
    return ops;
  }

 private:
  std::map<std::pair<std::string, std::string>, std::pair<OpTime, std::vector<double>>> ops_;
};

// The model in training, on random tokens, and the clock beside it.
class Workbench {
 public:
  explicit Workbench(const StepProfileCase& what)
      : what_(what),
        backend_(make_backend(what.device, what.threads)),
        timed_(*backend_),
        persistent_(timed_),
        model_(what.model, mesh_, frozen_patterns(what.router, what.freeze), what.router.routing(),
               type_of(what.precision, backend_->device()), pointer_to(what.lora)) {
    model_.allocate(timed_, persistent_, what.sequence_length + what.generated, true);
    optimizer_ = std::make_unique<AdamW>(timed_, persistent_, model_.parameters(), mesh_, what.optimizer);
    model_.parameters().initialize(timed_, 1, optimizer_->keeps_masters());
    step_ = std::make_unique<TrainingStep>(timed_, mesh_, model_, *optimizer_, what.router, what.micro_batch_size,
                                           what.recompute);
    step_->drop_in_adapters(pointer_to(what.lora));
    const std::int64_t tokens = what.micro_batch_size * what.sequence_length;
    ids_ = random_ids(tokens, what.model.vocab_size, 1);
    targets_ = random_ids(tokens, what.model.vocab_size, 2);
  }

  Backend& backend() { return *backend_; }
  DType type() const { return model_.type(); }
  std::int64_t trained() const { return count_trained(model_.parameters()); }

  struct Times {
    double gradients = 0, apply = 0;  // of the clock on the wall
    double cpu = 0;
    std::vector<OpTime> ops;
  };
  // As training runs it.
  Times queued_step() {
    timed_.time_ops(false);
    const Times times = step();
    timed_.time_ops(true);
    return times;
  }
  Times step() {
    Times times;
    timed_.reset();
    const double cpu = cpu_seconds();
    const auto start = Clock::now();
    const StepResult result =
        step_->compute_gradients({what_.micro_batch_size, what_.sequence_length, ids_, targets_, {}, 1});
    times.gradients = seconds_since(start);
    step_->apply(result, ++updates_, learning_rate);
    timed_.synchronize();
    times.apply = seconds_since(start) - times.gradients;
    times.cpu = cpu_seconds() - cpu;
    times.ops = timed_.times();
    return times;
  }

  GenerationProfile generate() {
    GenerationProfile found;
    const ModelConfig& model = what_.model;
    const ParameterCounts counts = count_parameters(model);
    found.tokens = what_.generated;
    found.past = std::max<std::int64_t>(1, what_.sequence_length - what_.generated);
    // The input embedding is read a row at a time.
    found.bytes = static_cast<double>(bytes_of(model_.type())) *
                  static_cast<double>(counts.active - model.vocab_size * model.hidden_size + model.hidden_size);
    const ArenaScope scope(persistent_);
    KvCache cache = model_.make_cache(persistent_, found.past + found.tokens);
    forward(std::span(ids_).first(static_cast<std::size_t>(found.past)), cache);
    std::vector<double> seconds;
    for (std::int64_t i = 0; i < found.tokens; ++i) {
      const auto start = Clock::now();
      forward(std::span(ids_).subspan(static_cast<std::size_t>(i) % ids_.size(), 1), cache);
      seconds.push_back(seconds_since(start));
    }
    found.seconds = median(seconds);
    return found;
  }

 private:
  // As trainer/generate.cpp computes the logits of the last position.
  void forward(std::span<const std::int32_t> ids, KvCache& cache) {
    Context context = step_->context();
    context.activations.rewind({});
    context.scratch.rewind({});
    const auto length = static_cast<std::int64_t>(ids.size());
    const TokenBatch batch = make_token_batch(timed_, context.activations, 1, length, ids, {}, {}, cache.length);
    model_.forward_cached(context, batch, cache, saved_);
    const Tensor logits = context.activations.take({1, what_.model.vocab_size});
    model_.logits(context, saved_.hidden.rows(length - 1, 1), logits);
    logits_.resize(static_cast<std::size_t>(logits.elements()));
    timed_.copy_to_host(logits_.data(), logits);
  }

  static constexpr double learning_rate = 1e-4;  // the configuration's may be one at which random tokens diverge
  const StepProfileCase& what_;
  Mesh mesh_ = Mesh::single();
  std::unique_ptr<Backend> backend_;
  TimedBackend timed_;
  Arena persistent_;
  Mixtral model_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<TrainingStep> step_;
  std::vector<std::int32_t> ids_, targets_;
  Mixtral::Saved saved_;
  std::vector<float> logits_;
  std::int64_t updates_ = 0;
};

double seconds_of(const std::vector<OpTime>& ops, bool update) {
  double seconds = 0;
  for (const OpTime& op : ops)
    if (is_update(op) == update) seconds += op.seconds;
  return seconds;
}

}  // namespace

bool is_update(const OpTime& op) { return op.op == "adamw" || op.op == "sum_of_squares"; }

double share_of_ceiling(const OpTime& op, const Ceilings& ceilings) {
  if (op.seconds <= 0) return 0;
  return (bound_of(op.work) == Bound::matrix ? op.work.flops / ceilings.core_flops
                                             : op.work.bytes / ceilings.memory_bytes) /
         op.seconds;
}

StepProfile profile_step(const StepProfileCase& what) {
  if (device_of(what.device) == Device::cuda) restart_cuda_peak();
  Workbench bench(what);
  Yardstick yardstick(bench.backend(), Yardstick::product_size, what.triad_elements);
  const std::int64_t total = what.steps + 2;
  const auto done = [&](std::int64_t steps) {
    if (what.on_progress) what.on_progress(steps, total);
  };
  for (std::int64_t i = 1; i <= 2; ++i) {  // the first takes its memory from the system, the second joins its arenas
    bench.step();
    done(i);
  }

  OpMedians ops;
  std::vector<double> cores, products, memory, outside_micro_batch, outside_update, cpu_shares, queued_micro_batch,
      queued_update;
  for (std::int64_t i = 0; i < what.steps; ++i) {
    yardstick.product();  // the first after a step pays for cold caches
    for (int r = 0; r < 3; ++r) {
      cores.push_back(yardstick.cores());
      products.push_back(yardstick.product());
      cores.back() =
          std::max(cores.back(), products.back());  // on a busy machine the product may have had the cores for longer
      memory.push_back(yardstick.memory());
    }
    const Workbench::Times times = bench.step();
    // The gradient's norm is taken at the end of compute_gradients(), and belongs to the update.
    double norm = 0, update = 0;
    for (const OpTime& op : times.ops) {
      if (op.op == "sum_of_squares") norm += op.seconds;
      if (op.op == "adamw") update += op.seconds;
    }
    outside_micro_batch.push_back(times.gradients - norm - seconds_of(times.ops, false));
    outside_update.push_back(times.apply - update);
    cpu_shares.push_back(times.cpu / (times.gradients + times.apply));
    ops.add(times.ops);
    if (bench.backend().device() == Device::cuda) {
      const Workbench::Times queued = bench.queued_step();
      queued_micro_batch.push_back(queued.gradients);
      queued_update.push_back(queued.apply);
    }
    done(i + 3);
  }

  StepProfile profile;
  profile.device = bench.backend().measure_profile();
  profile.type = bench.type();
  profile.ceilings = {median(cores), median(products), median(memory)};
  const ParameterCounts counts = count_parameters(what.model);
  profile.parameters = counts.total;
  profile.active_parameters = counts.active;
  profile.trained_parameters = bench.trained();
  profile.micro_batch_size = what.micro_batch_size;
  profile.sequence_length = what.sequence_length;
  profile.micro_batches = what.micro_batches;
  profile.forced_routing = describe(what.router.forced_routing);
  profile.model_flops = training_flops_per_token(what.model, what.sequence_length, what.lora.has_value()) *
                        static_cast<double>(profile.tokens());
  profile.ops = ops.take();
  // A clock that is read twice is not negative time; a median taken of its own may be.
  const double outside_a_micro_batch = std::max(0.0, median(outside_micro_batch)),
               outside_an_update = std::max(0.0, median(outside_update));
  profile.micro_batch_seconds = seconds_of(profile.ops, false) + outside_a_micro_batch;
  profile.update_seconds = seconds_of(profile.ops, true) + outside_an_update;
  profile.queued_seconds = static_cast<double>(what.micro_batches) * median(queued_micro_batch) + median(queued_update);
  profile.outside_seconds = static_cast<double>(what.micro_batches) * outside_a_micro_batch + outside_an_update;
  for (OpTime& op : profile.ops) {
    if (is_update(op)) continue;
    op.calls *= what.micro_batches;
    op.seconds *= static_cast<double>(what.micro_batches);
    op.work = static_cast<double>(what.micro_batches) * op.work;
  }
  std::sort(profile.ops.begin(), profile.ops.end(),
            [](const OpTime& a, const OpTime& b) { return a.seconds > b.seconds; });
  if (!profile.on_gpu()) profile.cpu_share = std::min(1.0, median(cpu_shares) / profile.device.threads);
  if (what.generated > 0) profile.generation = bench.generate();
  profile.peak_memory_bytes = peak_resident_bytes();
  if (profile.on_gpu()) profile.peak_device_memory_bytes = cuda_memory().peak;
  return profile;
}

}  // namespace smoe
