#include "trainer/step_profile_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/files/json.h"
#include "trainer/record/progress.h"

namespace smoe {
namespace {

bool is_small(const OpTime& op, double share) {
  const bool short_call = op.seconds < short_call_seconds * static_cast<double>(op.calls);
  const bool few = op.rows > 0 && op.rows < few_rows;
  return (short_call || few) && share < small_rate;
}

double rate_of(double at_the_ceiling, double seconds) { return seconds > 0 ? at_the_ceiling / seconds : 0; }

// The small op that takes the most time.
std::string foremost_small(const StepProfile& profile) {
  for (const OpTime& op : profile.ops)
    if (is_small(op, share_of_ceiling(op, profile.ceilings))) return op.op + " " + op.shape;
  return "none";
}

double percent(double share) { return 100 * share; }
double giga(double rate) { return 1e-9 * rate; }

// What products and attention are held against.
const char* name_of_rate(const StepProfile& profile) {
  return profile.on_gpu() ? "the bf16 product's rate" : "the cores' rate";
}

std::string why_slow(const StepProfile& profile) {
  if (profile.on_gpu())
    return profile.type == DType::f32
               ? "f32 is computed without the tensor cores that the bf16 product has; train.precision: bf16 uses them"
               : fmt::format(
                     "the shapes of this model are what its kernels ({} and attention's) do slowly, as are products of few rows",
                     profile.device.product_kernel);
  const double product = profile.ceilings.product_flops / profile.ceilings.core_flops;
  if (profile.cpu_share < least_cpu_share)
    return fmt::format(
        "the threads ran {:.0f}% of the time only, since other programs hold the cores or the ops are too small to be shared",
        percent(profile.cpu_share));
  if (product >= least_matrix_rate)
    return fmt::format(
        "a product of 2048^3 reaches {:.0f}%, so the shapes of this model are what its kernels ({}) do slowly",
        percent(product), profile.device.product_kernel);
  return fmt::format("a product of 2048^3 reaches {:.0f}% only, so the kernels ({}) do not suit this CPU",
                     percent(product), profile.device.product_kernel);
}

}  // namespace

std::string_view name_of(Limit limit) {
  switch (limit) {
    case Limit::arithmetic: return "arithmetic";
    case Limit::slow_products: return "slow_products";
    case Limit::memory: return "memory";
    case Limit::small_work: return "small_work";
    case Limit::outside: return "outside";
    case Limit::mixed: break;
  }
  return "mixed";
}

TimeShares time_shares(const StepProfile& profile) {
  TimeShares shares;
  const double step = profile.step_seconds();
  if (step <= 0) return shares;
  double matrix = 0, memory = 0, small = 0;  // seconds that the same work takes at its ceiling
  for (const OpTime& op : profile.ops) {
    const double share = share_of_ceiling(op, profile.ceilings);
    if (is_small(op, share)) {
      shares.small += op.seconds / step;
      small += share * op.seconds / step;
    } else if (bound_of(op.work) == Bound::matrix) {
      shares.matrix += op.seconds / step;
      matrix += share * op.seconds / step;
    } else {
      shares.memory += op.seconds / step;
      memory += share * op.seconds / step;
      if (is_update(op)) shares.update += op.seconds / step;
    }
  }
  shares.outside = profile.outside_seconds / step;
  shares.matrix_rate = rate_of(matrix, shares.matrix);
  shares.memory_rate = rate_of(memory, shares.memory);
  shares.small_rate = rate_of(small, shares.small);
  return shares;
}

Verdict judge(const StepProfile& profile) {
  const TimeShares s = time_shares(profile);
  const bool on_gpu = profile.on_gpu();
  const char* const rate = name_of_rate(profile);
  if (s.outside >= least_outside)
    return {
        Limit::outside,
        fmt::format(
            "{:.0f}% of the step passes between the ops: {} the model is so small that calling its ops takes as long as they do; more "
            "tokens at once (train.micro_batch_size) make the ops longer.",
            percent(s.outside),
            on_gpu ? "each is waited for here, which no training step does, or"
                   : "another program holds the cores, or")};
  if (s.small >= least_small)
    return {
        Limit::small_work,
        fmt::format(
            "{:.0f}% of the step is small work, products of few rows and calls too short for the {}, at {:.0f}% of what bounds "
            "them (most of it {}): more tokens at once (train.micro_batch_size) or fewer experts fill them.",
            percent(s.small), on_gpu ? "GPU" : "threads", percent(s.small_rate), foremost_small(profile))};
  if (s.memory >= least_memory && s.memory_rate < least_memory_rate)
    return {
        Limit::memory,
        fmt::format("{:.0f}% of the step moves memory, but at {:.0f}% of its rate, where {:.0f}% can be expected: {}.",
                    percent(s.memory), percent(s.memory_rate), percent(least_memory_rate),
                    on_gpu ? "its ops are too short to fill it, or another program has the GPU too"
                           : "the threads are too few to fill it, or other programs hold cores or memory")};
  if (s.memory >= least_memory && s.update >= s.memory / 2)
    return {
        Limit::memory,
        fmt::format(
            "{:.0f}% of the step moves memory at {:.0f}% of its rate, {:.0f}% the optimizer's weights, gradients and moments: this "
            "configuration is bound by memory; more tokens a step (train.micro_batch_size, or accumulation by train.global_batch_size) "
            "make it cheaper a token.",
            percent(s.memory), percent(s.memory_rate), percent(s.update))};
  if (s.memory >= least_memory)
    return {
        Limit::memory,
        fmt::format(
            "{:.0f}% of the step moves memory at {:.0f}% of its rate, most of it activations: this configuration is bound by memory; "
            "wider layers do more arithmetic for each number that they move, larger batches do not.",
            percent(s.memory), percent(s.memory_rate))};
  if (s.matrix >= least_matrix && s.matrix_rate >= least_matrix_rate)
    return {Limit::arithmetic,
            fmt::format(
                "{:.0f}% of the step is matrix products and attention at {:.0f}% of {}: this configuration is bound by "
                "arithmetic; larger batches change little.",
                percent(s.matrix), percent(s.matrix_rate), rate)};
  if (s.matrix >= least_matrix)
    return {
        Limit::slow_products,
        fmt::format(
            "{:.0f}% of the step is matrix products and attention at {:.0f}% of {}, where {:.0f}% can be expected: {}.",
            percent(s.matrix), percent(s.matrix_rate), rate, percent(least_matrix_rate), why_slow(profile))};
  return {
      Limit::mixed,
      fmt::format(
          "No one thing bounds the step: {:.0f}% is matrix products and attention at {:.0f}% of {}, {:.0f}% moves memory at "
          "{:.0f}% of its rate, {:.0f}% is small work, {:.0f}% passes between the ops.",
          percent(s.matrix), percent(s.matrix_rate), rate, percent(s.memory), percent(s.memory_rate), percent(s.small),
          percent(s.outside))};
}

std::string describe(const StepProfile& p) {
  const double step = p.step_seconds(), tokens = static_cast<double>(p.tokens());
  std::string text;
  const auto line = [&](const char* name, const std::string& what) { text += fmt::format("{:<12} {}\n", name, what); };
  const Ceilings& rates = p.ceilings;
  if (p.on_gpu()) {
    line("device",
         fmt::format("{}, products by {}, computing in {}", p.device.name, p.device.product_kernel, name_of(p.type)));
    line("rates", fmt::format("{} {:.1f} TF/s, memory {:.1f} GB/s", p.device.peak_form, 1e-12 * rates.core_flops,
                              giga(rates.memory_bytes)));
  } else {
    line("device",
         fmt::format("{}, {} thread(s), products by {}", p.device.name, p.device.threads, p.device.product_kernel));
    line("rates",
         fmt::format(
             "cores {:.1f} GF/s ({} multiply-adds), a product of 2048^3 {:.1f} GF/s ({:.0f}%), memory {:.1f} GB/s",
             giga(rates.core_flops), p.device.peak_form, giga(rates.product_flops),
             percent(rates.product_flops / rates.core_flops), giga(rates.memory_bytes)));
  }
  const std::string trained = p.trained_parameters == p.parameters
                                  ? std::string()
                                  : format_count(static_cast<double>(p.trained_parameters)) + " trained; ";
  line("model", fmt::format("{} parameters, {} active for a token; {}random weights and tokens",
                            format_count(static_cast<double>(p.parameters)),
                            format_count(static_cast<double>(p.active_parameters)), trained));
  if (!p.forced_routing.empty())
    line("ROUTING", fmt::format("forced: {} (router.forced_routing); a step of these routers takes another time",
                                p.forced_routing));
  line("step", fmt::format("{} tokens: {} micro-batch(es) of {} x {} and one update, in one process", p.tokens(),
                           p.micro_batches, p.micro_batch_size, p.sequence_length));
  line("", fmt::format("{:.1f} ms = {} x {:.1f} ms a micro-batch + {:.1f} ms the update ({:.1f}%)", 1e3 * step,
                       p.micro_batches, 1e3 * p.micro_batch_seconds, 1e3 * p.update_seconds,
                       percent(p.update_seconds / step)));
  if (p.on_gpu())
    line("", fmt::format("each op is waited for there; queued up, as in training, the step takes {:.1f} ms",
                         1e3 * p.queued_seconds));
  const double flops = p.model_flops / p.training_seconds();
  line("speed", fmt::format("{:.1f} tokens/s, {}", tokens / p.training_seconds(),
                            p.on_gpu() ? fmt::format("{:.1f} TF/s: {:.1f}% of that product (mfu)", 1e-12 * flops,
                                                     percent(p.mfu()))
                                       : fmt::format("{:.1f} GF/s: {:.0f}% of the cores (mfu), {:.0f}% of the product",
                                                     giga(flops), percent(p.mfu()), percent(p.share_of_product()))));
  if (p.cpu_share < least_cpu_share)
    line("warning",
         fmt::format(
             "the threads ran {:.0f}% of the time: other programs held the cores, or ops were too small to be shared",
             percent(p.cpu_share)));
  const auto mib = [](std::uint64_t bytes) { return static_cast<double>(bytes) / 0x1p20; };
  line("memory", p.on_gpu() ? fmt::format("{:.0f} MiB of the GPU at the peak, {:.0f} of the host",
                                          mib(p.peak_device_memory_bytes), mib(p.peak_memory_bytes))
                            : fmt::format("{:.0f} MiB at the peak", mib(p.peak_memory_bytes)));

  std::size_t width = 20;
  constexpr double least_row = 0.0005;
  for (const OpTime& op : p.ops)
    if (op.seconds >= least_row * step) width = std::max(width, op.shape.size());
  text += fmt::format("\n{:<26}{:<{}}{:>8}{:>12}{:>8}{:>11} {:<6}{:<8}{:>6}\n", "op", "shape", width + 2, "calls",
                      "ms a step", "%", "rate", "", "bound", "share");
  double other = 0;
  int others = 0;
  for (const OpTime& op : p.ops) {
    if (op.seconds < least_row * step) {
      other += op.seconds;
      ++others;
      continue;
    }
    const bool matrix = bound_of(op.work) == Bound::matrix;
    text += fmt::format("{:<26}{:<{}}{:>8}{:>12.3f}{:>7.1f}%{:>11.1f} {:<6}{:<8}{:>5.0f}%\n", op.op, op.shape,
                        width + 2, op.calls, 1e3 * op.seconds, percent(op.seconds / step),
                        giga((matrix ? op.work.flops : op.work.bytes) / op.seconds), matrix ? "GF/s" : "GB/s",
                        matrix ? "matrix" : "memory", percent(share_of_ceiling(op, p.ceilings)));
  }
  const auto rest = [&](const std::string& name, double seconds) {
    text += fmt::format("{:<{}}{:>12.3f}{:>7.1f}%\n", name, 26 + width + 2 + 8, 1e3 * seconds, percent(seconds / step));
  };
  if (others > 0) rest(fmt::format("{} other(s)", others), other);
  rest("in no op", p.outside_seconds);

  text += "\n" + judge(p).sentence + "\n";
  if (const GenerationProfile& g = p.generation; g.tokens > 0) {
    const double share = g.bytes / g.seconds / p.ceilings.memory_bytes;
    text += fmt::format(
        "Generation, one sequence behind {} positions: {:.1f} tokens/s; {:.1f} MB of active weights a token at {:.1f} GB/s, {:.0f}% of the "
        "memory's rate{}.\n",
        g.past, 1 / g.seconds, 1e-6 * g.bytes, giga(g.bytes / g.seconds), percent(share),
        share >= memory_bound_generation ? ", which bounds it"
        : p.on_gpu()                     ? ": calls too short for the GPU take the rest"
                                         : ": products of one row, too short for the threads, take the rest");
  }
  return text;
}

std::string to_json_line(const StepProfile& p) {
  const double step = p.step_seconds();
  OrderedJson ops = OrderedJson::array();
  for (const OpTime& op : p.ops) {
    const double seconds = op.seconds > 0 ? op.seconds : 1e-9;  // a clock that did not move
    ops.push_back({{"op", op.op},
                   {"shape", op.shape},
                   {"calls", op.calls},
                   {"seconds", op.seconds},
                   {"share_of_step", op.seconds / step},
                   {"gflops", giga(op.work.flops / seconds)},
                   {"gbs", giga(op.work.bytes / seconds)},
                   {"bound", bound_of(op.work) == Bound::matrix ? "matrix" : "memory"},
                   {"share_of_bound", share_of_ceiling(op, p.ceilings)}});
  }
  OrderedJson generation;  // null
  if (const GenerationProfile& g = p.generation; g.tokens > 0)
    generation = {{"tokens", g.tokens},
                  {"past", g.past},
                  {"tokens_per_sec", 1 / g.seconds},
                  {"weight_bytes", g.bytes},
                  {"gbs", giga(g.bytes / g.seconds)},
                  {"share_of_memory", g.bytes / g.seconds / p.ceilings.memory_bytes}};
  const Verdict verdict = judge(p);
  OrderedJson object = {{"device", p.device.name},
                        {"threads", p.device.threads},
                        {"product_kernel", p.device.product_kernel},
                        {"core_gflops", giga(p.ceilings.core_flops)},
                        {"core_form", p.device.peak_form},
                        {"product_gflops", giga(p.ceilings.product_flops)},
                        {"memory_gbs", giga(p.ceilings.memory_bytes)},
                        {"parameters", p.parameters},
                        {"active_parameters", p.active_parameters},
                        {"trained_parameters", p.trained_parameters},
                        {"sequence_length", p.sequence_length},
                        {"micro_batch_size", p.micro_batch_size},
                        {"micro_batches", p.micro_batches},
                        {"tokens", p.tokens()},
                        {"step_seconds", step},
                        {"micro_batch_seconds", p.micro_batch_seconds},
                        {"update_seconds", p.update_seconds},
                        {"outside_seconds", p.outside_seconds},
                        {"tokens_per_sec", static_cast<double>(p.tokens()) / p.training_seconds()},
                        {"model_gflops", giga(p.model_flops / p.training_seconds())},
                        {"mfu", p.mfu()},
                        {"share_of_product", p.share_of_product()},
                        {"cpu_share", p.cpu_share},
                        {"peak_memory_bytes", p.peak_memory_bytes},
                        {"limit", std::string(name_of(verdict.limit))},
                        {"sentence", verdict.sentence},
                        {"ops", ops},
                        {"generation", generation}};
  if (!p.forced_routing.empty()) object["forced_routing"] = p.forced_routing;
  if (p.on_gpu()) {
    object["precision"] = p.type == DType::bf16 ? "bf16" : "fp32";
    object["queued_step_seconds"] = p.queued_seconds;
    object["peak_device_memory_bytes"] = p.peak_device_memory_bytes;
  }
  return object.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

}  // namespace smoe
