#include "trainer/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "kernels/check_backend.h"
#include "kernels/cuda_device.h"
#include "kernels/philox.h"
#include "model/balance_units.h"
#include "model/forced_routing.h"
#include "model/freeze.h"
#include "optim/schedule.h"
#include "parallel/comm/agreement.h"
#include "parallel/comm/mpi_session.h"
#include "parallel/token_split.h"
#include "trainer/activation_memory.h"
#include "trainer/evaluate.h"
#include "trainer/outliers.h"
#include "trainer/sample_columns.h"
#include "trainer/stopwatch.h"

namespace smoe {
namespace fs = std::filesystem;

Trainer::Trainer(RunParts parts)
    : parts_(std::move(parts)),
      watch_({.model = parts_.hf.model,
              .router = parts_.config.router,
              .trained_gates = trained_gates(*parts_.whole),
              // A benchmark that leaves experts out means to.
              .idle_expert_steps = parts_.config.router.forced_routing.type == ForcedRoutingType::none
                                       ? parts_.config.log.idle_expert_steps
                                       : 0,
              .warmup_steps = parts_.config.schedule.warmup_steps}) {
  const LongWork work(parts_.mesh.session(), "starting the run");
  together(parts_.mesh.group(Axis::world), "trainer.start",
           [&] { parts_.checkpoint.empty() ? begin_afresh() : resume(); });
  for (const auto& note : parts_.notes) record_.say(note);
  for (const auto& warning : parts_.hf.warnings) record_.say("warning: " + warning);
}

void Trainer::begin_afresh() {
  std::optional<fs::path> aside;
  if (parts_.directory) aside = parts_.directory->set_aside_earlier_results();
  parts_.state.stream = parts_.stream;
  parts_.state.type = parts_.training.model->type();
  open_record(false);
  if (aside) record_.say(fmt::format("earlier results were moved to {}", aside->string()));
  if (!parts_.from.empty()) record_.say(fmt::format("weights from {}", parts_.from.string()));
  if (parts_.converts)
    record_.say(fmt::format("train.steps is 0: the weights are written again, in {}; the checkpoint has no moments",
                            parts_.hf.weights == DType::bf16 ? "bf16" : "f32"));
}

void Trainer::resume() {
  TrainingState& state = parts_.state;
  saved_step_ = parts_.checkpoint.parent_path() == parts_.paths().checkpoints() ? state.step : -1;
  std::optional<fs::path> aside;
  if (parts_.directory) aside = parts_.directory->set_aside_results_after(state.step);
  if (!parts_.config.train.outlier_deviations)
    state.recent_losses = state.recent_grad_norms = {};  // they would grow old
  open_record(true);
  record_.say(fmt::format("resumed from {} at step {}", parts_.checkpoint.string(), state.step));
  if (aside) record_.say(fmt::format("checkpoints of later steps were moved to {}", aside->string()));
  if (parts_.left_behind > 0)
    record_.say(
        fmt::format("{} parameter(s) that the checkpoint trained are frozen here: their moments are left behind",
                    parts_.left_behind));
  if (const DType type = parts_.training.model->type(); type != state.type) {
    record_.say(fmt::format(
        "the checkpoint was trained in {}, this run computes in {}: it goes on from the same weights and moments in f32",
        name_of(state.type), name_of(type)));
    state.type = type;
  }
  if (parts_.stream != state.stream) {
    record_.say(fmt::format(
        "warning: the data is not what the checkpoint was trained on, so the order of samples changes here\n"
        "  then: {}\n  now:  {}",
        state.stream, parts_.stream));
    state.stream = parts_.stream;
  }
}

void Trainer::open_record(bool resumed) {
  if (!parts_.is_root()) return;
  const TrainerConfig& config = parts_.config;
  record_ = RunRecord(parts_.directory.get(), parts_.paths(),
                      {.configuration = config.resolved_yaml,
                       .tensorboard = config.log.tensorboard,
                       .terminal = !config.quiet,
                       .from_step = resumed ? parts_.state.step : MetricsWriter::fresh_run,
                       .total_steps = config.train.steps});
}

bool Trainer::stop_requested() {
  double received = StopSignals::received();
  parts_.mesh.group(Axis::world).all_reduce(std::span(&received, 1), Reduce::max, "trainer.stop");
  return received != 0;
}

RunSummary Trainer::run() {
  const TrainerConfig& config = parts_.config;
  TrainingState& state = parts_.state;
  const std::int64_t last = config.train.steps;
  const auto ended = [&](RunEnd end) {
    parts_.training.step->settle();
    summary_.end = end;
    summary_.state = state;
    return std::exchange(summary_, {});
  };
  if (last == 0 && saved_step_ != state.step) save();
  if (state.step >= last) {
    record_.finish();
    record_.say(fmt::format("nothing left to train: step {} of {} is done", state.step, last));
    return ended(RunEnd::complete);
  }
  const ParameterCounts parameters = count_parameters(parts_.hf.model);
  record_.say(fmt::format("{} parameters, {} active a token; {} sequences of {} tokens a step", parameters.total,
                          parameters.active, config.train.global_batch_size, config.data.sequence_length));
  for (const auto& [key, sources] :
       {std::pair("data.train", &parts_.corpus->train), std::pair("data.eval", &parts_.corpus->eval)})
    for (const Source& source : *sources)
      if (const std::string packing = describe_packing(source); !packing.empty())
        record_.say(fmt::format("{}: {}", key, packing));
  if (const auto& adapters = parts_.adapters)
    record_.say(
        fmt::format("adapters of rank {} beside {}, weighed by {:.6g}: {} parameters are trained, and none of the {}",
                    adapters->lora.r, fmt::join(adapters->lora.target_modules, ", "), adapters->lora.scale(),
                    count_trained(*parts_.whole), parameters.total));
  if (!parts_.frozen.empty())
    record_.say(fmt::format("{} of {} parameters are trained; frozen: {}", count_trained(*parts_.whole),
                            parameters.total, fmt::join(parts_.frozen, ", ")));
  const Layout& layout = parts_.mesh.layout();
  if (layout.ranks > 1) record_.say(fmt::format("{} ranks: {}", layout.ranks, layout.to_string()));
  if (const std::string how = parts_.mesh.transport(); !how.empty())
    record_.say(fmt::format("GPUs are joined by {}", how));
  if (const RouterConfig& router = config.router; router.aux_loss_coef > 0 && router.aux_loss_coef_by_layer.empty())
    record_.say("balance loss: router.aux_loss_coef " +
                in_every_unit(router.aux_loss_coef,
                              router.aux_loss_scope == AuxLossScope::hf ? BalanceUnit::hf : BalanceUnit::smoe,
                              {parts_.hf.model.num_hidden_layers, parts_.hf.model.num_experts_per_tok}));
  if (const RouterConfig& router = config.router; router.capacity_factor) record_.say(describe_capacity());
  if (parts_.training.model->type() == DType::bf16 && parts_.training.backend->device() == Device::cpu)
    record_.say("bf16 on a CPU is widened to f32 and rounded back: the numbers of a GPU, and no time saved");
  if (config.train.device == DeviceChoice::check) record_.say(check_notice);
  // Where there is but one expert, there is nothing to learn.
  if (const ModelConfig& model = parts_.hf.model;
      model.num_local_experts > 1 && model.num_experts_per_tok == 1 && model.norm_topk_prob)
    record_.say(
        "warning: with one expert a token and model.norm_topk_prob, its weight is always 1, so the language-model loss does not train "
        "the routers; norm_topk_prob: false weighs by the score");
  rates_ = measure_machine_rates(*parts_.training.backend, parts_.mesh.group(Axis::world), config.ranks_on_node);
  for (const std::string& line : describe(rates_)) record_.say(line);
  start_loader();
  start_probe();

  meter_.restart();
  while (state.step < last) {
    if (stop_requested()) {
      if (saved_step_ != state.step) save();
      record_.finish();
      record_.say(
          fmt::format("stopped by a signal after step {}; saved, and the same command goes on from here", state.step));
      return ended(RunEnd::stopped);
    }
    train(state.step + 1);
    if (state.skipped_in_a_row >= config.train.max_skipped_steps) stop_refusing();
    if (!parts_.corpus->eval.empty() && (state.step == last || state.step % config.eval.interval == 0))
      evaluate_sources();
    if (state.step == last || state.step % config.checkpoint.interval == 0) save();
  }
  record_.finish();
  return ended(RunEnd::complete);
}

void Trainer::start_loader() {
  const TrainerConfig& config = parts_.config;
  const std::vector<Source>& sources = parts_.corpus->train;
  std::vector<std::shared_ptr<const Dataset>> datasets;
  for (const Source& source : sources) datasets.push_back(source.dataset);
  loader_.emplace(datasets,
                  make_sampler(sources, static_cast<std::uint64_t>(config.train.seed), config.data.shuffle,
                               config.train.global_batch_size),
                  config.train.micro_batch_size, parts_.mesh.rank(Axis::dp), parts_.mesh.size(Axis::dp),
                  parts_.state.step + 1);
}

std::string Trainer::describe_capacity() const {
  const TrainerConfig& config = parts_.config;
  const ModelConfig& model = parts_.hf.model;
  const std::int64_t length = config.data.sequence_length,
                     run = TokenSplit(parts_.mesh).run(config.train.micro_batch_size, length);
  const Capacity capacity = config.router.routing().capacity(model.num_local_experts, model.num_experts_per_tok, run);
  return fmt::format(
      "an expert takes at most {} of the {} assignments of {}; {} are dropped (router.capacity_factor, "
      "router.capacity_order)",
      capacity.rows, model.num_experts_per_tok * run,
      run == length ? "a sequence" : fmt::format("each {} tokens, in which parallel.tp cuts sequences", run),
      config.router.capacity_order == CapacityOrder::position ? "later ones" : "less probable ones");
}

// Its first choices are those of the weights that the run begins with.
void Trainer::start_probe() {
  const TrainerConfig& config = parts_.config;
  const std::int64_t sequences = config.log.probe_sequences.value_or(
      probe_sequences(config.log.interval, config.train.global_batch_size, parts_.mesh.size(Axis::dp)));
  if (sequences == 0) {
    if (!config.log.probe_sequences)
      record_.say(
          "no probe of changed assignments: a sequence would take more than one part in 120 of the time between two rows "
          "(log.probe_sequences, log.interval)");
    return;
  }
  const std::vector<Source>& held_out = parts_.corpus->eval.empty() ? parts_.corpus->train : parts_.corpus->eval;
  probe_.emplace(held_out.front().dataset, sequences, config.train.micro_batch_size);
  probe_->changed(*parts_.training.model, parts_.training.step->context());
  record_.say(fmt::format("probe of changed assignments: {} sequence(s) of {} with every row (log.probe_sequences)",
                          probe_->sequences(), config.data.sequence_length));
}

// Every rank has refused the same steps, and all of them come here: one speaks for all.
void Trainer::stop_refusing() {
  const TrainingState& state = parts_.state;
  together(parts_.mesh.group(Axis::world), "trainer.skipped", [&] {
    throw std::runtime_error(fmt::format(
        "{} steps in a row had a loss or gradient that is not finite{} (train.max_skipped_steps); the weights are those of update {}, "
        "the last checkpoint is {}: lower optimizer.learning_rate, or look at the data of steps {} to {}",
        state.skipped_in_a_row,
        parts_.config.train.outlier_deviations ? ", or far above those before (train.outlier_deviations)" : "",
        state.updates, saved_step_ < 0 ? "none" : checkpoint_name(saved_step_), state.step - state.skipped_in_a_row + 1,
        state.step));
  });
}

void Trainer::train(std::int64_t step) {
  const TrainingParts& training = parts_.training;
  const double rate =
      learning_rate(parts_.config.schedule, parts_.config.optimizer.learning_rate, step, parts_.config.train.steps);
  const Batch& batch = loader_->next();
  parts_.mesh.traffic().reset();
  training.step->steer(step);
  training.step->measure_routers(is_due(step));
  StepResult result = gradients_of(batch);
  result.outlier = looks_odd(result);
  const auto dump = start_dump(step);
  training.step->start_apply(result, parts_.state.updates + 1, rate);
  if (dump) {
    training.step->settle();
    dump->write_parameters();
  }
  parts_.state.step = step;
  count(result);
  report(result, rate);
}

// Of the step: the same on every rank, and after resuming.
std::uint64_t Trainer::noise_key(std::int64_t step) const {
  constexpr std::string_view name = "router.jitter_noise";
  const std::uint64_t seed = key_of(static_cast<std::uint64_t>(parts_.config.train.seed), name.data(), name.size());
  const auto words = philox(seed, static_cast<std::uint64_t>(step));
  return words[0] | std::uint64_t{words[1]} << 32;
}

// What fits a rehearsal may not fit a step: experts that are split over ranks get as many rows as tokens choose them.
StepResult Trainer::gradients_of(const Batch& batch) {
  try {
    return parts_.training.step->compute_gradients({batch.sequences, batch.sequence_length, batch.ids, batch.targets,
                                                    batch.document_start, noise_key(batch.step),
                                                    positions_of(batch.whole_documents)});
  } catch (const OutOfMemory& error) {
    throw std::runtime_error(
        fmt::format("step {}: {}: {}", batch.step, error.what(),
                    how_to_lower(micro_batch_of(parts_.config.train, parts_.config.data, parts_.config.router))));
  }
}

// All ranks see the same numbers; the vote is for those whose last bits differ from another's, on another kind of CPU.
bool Trainer::looks_odd(const StepResult& result) const {
  const std::optional<double>& most = parts_.config.train.outlier_deviations;
  if (!most) return false;
  const TrainingState& state = parts_.state;
  double odd = result.count > 0 && (deviations_above(result.loss, state.recent_losses) > *most ||
                                    deviations_above(result.grad_norm, state.recent_grad_norms) > *most);
  parts_.mesh.group(Axis::world).all_reduce(std::span(&odd, 1), Reduce::max, "trainer.outlier");
  return odd != 0;
}

// Between the step's gradients, which it writes, and the update, after which it takes the weights.
std::unique_ptr<StepDump> Trainer::start_dump(std::int64_t step) {
  const auto& wanted = parts_.config.log.dump_steps;
  if (parts_.config.train.output_dir.empty() || std::find(wanted.begin(), wanted.end(), step) == wanted.end())
    return nullptr;
  const TrainingParts& training = parts_.training;
  auto dump = std::make_unique<StepDump>(parts_.paths().dumps(), step, *training.backend, *parts_.whole,
                                         training.model->parameters(), training.optimizer->shards(), parts_.mesh);
  dump->write_gradients();
  return dump;
}

std::string Trainer::far_above(const StepResult& result) const {
  return fmt::format(", {:.1f} and {:.1f} deviations above those of the last {} steps",
                     deviations_above(result.loss, parts_.state.recent_losses),
                     deviations_above(result.grad_norm, parts_.state.recent_grad_norms),
                     parts_.state.recent_losses.size());
}

void Trainer::count(const StepResult& result) {
  TrainingState& state = parts_.state;
  const auto tokens = static_cast<std::int64_t>(result.tokens);
  state.tokens += tokens;
  if (const auto& controller = parts_.training.step->controller()) state.controller = controller->state();
  if (!result.refused()) {
    ++state.updates;
    state.skipped_in_a_row = 0;
    if (parts_.config.train.outlier_deviations && result.count > 0) {  // without a target there is no loss
      remember(result.loss, state.recent_losses);
      remember(result.grad_norm, state.recent_grad_norms);
    }
  } else {
    ++state.skipped;
    ++state.skipped_in_a_row;
  }
  ++summary_.steps;
  meter_.count_step(tokens);
}

// A line of progress a step; a row of metrics where one is due, and for a step that was refused.
void Trainer::report(const StepResult& result, double learning_rate) {
  const std::int64_t step = parts_.state.step;
  StepMetrics row = measured(result, learning_rate);
  load_interval_.add(parts_.training.step->balance().load);
  if (!result.refused()) warn(watch_.see_step(step, parts_.training.step->balance().load));
  record_.show_progress(
      step,
      fmt::format("{}loss {:.4f}  {} tok/s  {}", row.forced_routing.empty() ? "" : "FORCED ROUTING  ", row.lm_loss,
                  format_count(row.tokens_per_sec), describe_rate(rates_.device.kind, row.model_gflops, row.mfu)));
  if (result.refused())
    record_.say(fmt::format("warning: step {} refused: loss {}, gradient norm {}{}; no weight changed", step,
                            result.loss, result.grad_norm, result.outlier ? far_above(result) : ""));
  if (!is_due(step) && !result.refused() && untold_warnings_.empty()) return;
  meter_.restart();  // what a row takes counts in the next
  const bool on_gpu = parts_.training.backend->device() == Device::cuda;
  double peaks[] = {static_cast<double>(peak_resident_bytes()), on_gpu ? static_cast<double>(cuda_memory().peak) : 0};
  parts_.mesh.group(Axis::world).all_reduce(std::span(peaks, on_gpu ? 2 : 1), Reduce::max, "trainer.peak_memory");
  row.peak_memory_bytes = static_cast<std::uint64_t>(peaks[0]);
  row.peak_device_memory_bytes = static_cast<std::uint64_t>(peaks[1]);
  const std::span<const double> coefficients = parts_.training.step->aux_loss_coef();
  row.aux_loss_coef.assign(coefficients.begin(), coefficients.end());
  row.expert_load = parts_.training.step->balance().load;
  row.max_vio = max_violation(row.expert_load);
  row.by_layer = layer_metrics(parts_.training.step->balance(), parts_.training.step->router_measures(),
                               parts_.training.model->has_capacity());
  row.by_layer.max_vio_interval = load_interval_.take_max_violations();
  if (!result.refused()) warn(watch_.see_row(row));
  row.warnings = std::exchange(untold_warnings_, {});
  for (const Traffic::Line& line : parts_.mesh.traffic().lines())
    if (line.bytes > 0) row.bytes_sent[std::string(line.label)] = line.bytes;
  if (probe_) {
    parts_.training.step->settle();
    row.by_layer.changed = probe_->changed(*parts_.training.model, parts_.training.step->context());
  }
  record_.write(row);
  summary_.last = std::move(row);
}

// In the log at once, and in the step's row.
void Trainer::warn(const std::vector<std::string>& texts) {
  for (const std::string& text : texts) record_.say("warning: " + text);
  untold_warnings_.insert(untold_warnings_.end(), texts.begin(), texts.end());
}

// What costs nothing to know.
StepMetrics Trainer::measured(const StepResult& result, double learning_rate) const {
  const TrainingState& state = parts_.state;
  StepMetrics row;
  row.step = state.step;
  row.tokens = state.tokens;
  row.targets = static_cast<std::int64_t>(result.count);
  // A batch that holds no target, all of it masked, has no loss: its sum of nothing is not a loss of 0.
  if (result.count > 0) row.lm_loss = result.lm_loss;
  row.aux_loss = result.aux_loss;
  row.z_loss = result.z_loss;
  row.loss = result.loss;
  row.grad_norm = result.grad_norm;
  row.learning_rate = learning_rate;
  row.tokens_per_sec = meter_.tokens_per_second();
  row.step_seconds = meter_.seconds_per_step();
  row.model_gflops =
      1e-9 *
      training_flops_per_token(parts_.hf.model, parts_.config.data.sequence_length, parts_.adapters.has_value()) *
      row.tokens_per_sec;
  row.mfu = 1e9 * row.model_gflops / rates_.peak_flops;
  row.share_of_product = 1e9 * row.model_gflops / rates_.product_flops;
  row.skipped_steps = state.skipped;
  row.forced_routing = describe(parts_.config.router.forced_routing);
  return row;
}

void Trainer::evaluate_sources() {
  const RateMeter::Pause pause(meter_);
  parts_.training.step->settle();
  const TrainerConfig& config = parts_.config;
  std::vector<EvalMetrics> rows;
  for (const Source& source : parts_.corpus->eval) {
    rows.push_back(evaluate(*parts_.training.model, parts_.training.step->context(), *source.dataset,
                            {.batches = config.eval.batches,
                             .sequences = config.train.micro_batch_size,
                             .name = source.name,
                             .on_progress = {}},
                            parts_.state.step));
    const EvalMetrics& row = rows.back();
    record_.say(fmt::format("eval {}: loss {:.4f}, perplexity {:.2f} over {} tokens", source.name, row.loss,
                            row.perplexity, row.tokens));
  }
  record_.write(rows);
  summary_.evaluations.insert(summary_.evaluations.end(), rows.begin(), rows.end());
}

void Trainer::save() {
  if (parts_.config.train.output_dir.empty()) return;
  const RateMeter::Pause pause(meter_);
  parts_.training.step->settle();
  const LongWork work(parts_.mesh.session(), "saving a checkpoint");
  const auto start = Clock::now();
  record_.sync();
  const fs::path path = save_checkpoint(parts_.paths().checkpoints(), parts_.checkpoint_content(), parts_.state,
                                        parts_.config.checkpoint.keep);
  saved_step_ = parts_.state.step;
  record_.say(fmt::format("saved {} ({:.1f} s)", path.string(), seconds_since(start)));
  if (!parts_.training.selection_bias->empty() && !std::exchange(told_of_bias_, true))
    record_.say(
        "its model/ has a selection bias (gate.e_score_correction_bias), by which every command of smoe chooses experts; "
        "transformers' Mixtral has no such tensor: it names it as unused, ignores it, and may choose other experts");
  if (!parts_.hf.model.routes_as_mixtral() && !std::exchange(told_of_rule_, true))
    record_.say(
        "its config.json has scoring_func, norm_topk_prob and routed_scaling_factor, by which every command of smoe weighs experts; "
        "transformers' Mixtral knows none of them and computes another model");
}

}  // namespace smoe
