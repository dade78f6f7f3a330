#include "trainer/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "data/files/files.h"
#include "model/freeze.h"
#include "optim/schedule.h"
#include "parallel/comm/agreement.h"
#include "trainer/checkpoint/dump.h"
#include "trainer/checkpoint/same_model.h"
#include "trainer/evaluate.h"
#include "trainer/layout_check.h"
#include "trainer/machine.h"
#include "trainer/stopwatch.h"
#include "trainer/checkpoint/weights.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

// In transformers' unit, in which the coefficient of layers that balance alike is that much larger.
double hf_coefficient(const ModelConfig& model, const RouterConfig& router) {
  if (router.aux_loss_scope == AuxLossScope::hf) return router.aux_loss_coef;
  return router.aux_loss_coef * static_cast<double>(model.num_hidden_layers) / static_cast<double>(model.num_experts_per_tok);
}

}  // namespace

struct Trainer::Speed {
  Clock::time_point since = Clock::now();
  std::int64_t steps = 0, tokens = 0;
};

Trainer::Trainer(TrainerConfig config, const Mesh& mesh, int threads)
    : config_(std::move(config)), mesh_(mesh), paths_{config_.train.output_dir}, speed_(std::make_unique<Speed>()) {
  const LongWork work(mesh_.session(), "starting the run");  // hashes of data and checkpoints, weights to read
  Communicator& world = mesh_.group(Axis::world);
  together(world, "trainer.check", [&] { check(); });
  // The first rank of each node hashes the shards; the others take its word.
  const bool first_of_node = !mesh_.session() || mesh_.session()->local_rank() == 0;
  together(world, "trainer.hash", [&] { if (first_of_node) open_data(false); });
  together(world, "trainer.open", [&] {
    if (!first_of_node) open_data(true);
    build(threads);
  });
  start();
}

Trainer::~Trainer() = default;

// Everything that may be found unfit before anything is opened or allocated. No collective, here and in the two below.
void Trainer::check() {
  hf_.model = config_.model;
  if (config_.model.from) {
    from_ = find_model_directory(*config_.model.from);
    hf_ = read_hf_config(from_, config_.model);
  }
  require_layout(hf_.model, {config_.data.sequence_length, config_.train.global_batch_size, config_.train.micro_batch_size}, mesh_.layout());
  frozen_ = frozen_patterns(config_.router, config_.train.freeze);
  whole_.emplace(declare_parameters(hf_.model, Mesh::single(), frozen_));
  check_frozen(*whole_, frozen_);
  require_memory(hf_.model, training_state_bytes(hf_.model, mesh_.layout(), frozen_) * static_cast<std::uint64_t>(config_.ranks_on_node),
                 "weights, gradients and moments",
                 config_.ranks_on_node == 1 ? std::string() : fmt::format(", fewer than {} ranks on it, or larger parallel.ep and parallel.tp", config_.ranks_on_node));
}

void Trainer::open_data(bool verified) {
  const DataConfig& data = config_.data;
  const CorpusChecks checks{.vocab_size = hf_.model.vocab_size, .model_directory = from_, .verified = verified};
  train_sources_ = open_sources(data.train, data.sequence_length, data.document_masking, checks);
  eval_sources_ = open_sources(data.eval, data.sequence_length, data.document_masking, checks);
  if (!train_sources_.empty() && data.sequence_length > hf_.model.max_position_embeddings)
    throw std::runtime_error(fmt::format("data.sequence_length: found {}, expected at most the model's max_position_embeddings ({})",
                                         data.sequence_length, hf_.model.max_position_embeddings));
  if (!train_sources_.empty() && from_.empty()) {
    hf_.bos = train_sources_.front().dataset->info().bos;
    const std::int32_t eos = train_sources_.front().dataset->info().eos;
    hf_.eos.assign(eos < 0 ? 0 : 1, eos);
  }
}

void Trainer::build(int threads) {
  hf_.router_aux_loss_coef = hf_coefficient(hf_.model, config_.router);
  // Now and not when it saves: the directory of model.from may be an earlier run's, which is moved aside before that.
  if (is_root()) carried_files_ = carried_files(train_sources_, from_);
  if (is_root()) directory_.emplace(paths_.root);
  backend_ = make_cpu_backend(threads);
  persistent_.emplace(*backend_);
  model_.emplace(hf_.model, mesh_, frozen_);
  model_->allocate(*backend_, *persistent_, config_.data.sequence_length, true);
  optimizer_.emplace(*backend_, *persistent_, model_->parameters(), mesh_, config_.optimizer);
  step_.emplace(*backend_, mesh_, *model_, *optimizer_, config_.router, config_.train.micro_batch_size, config_.train.recompute);
}

CheckpointContent Trainer::content() {
  return {*backend_, *whole_, model_->parameters(), *optimizer_, mesh_, hf_, carried_files_};
}

std::optional<fs::path> Trainer::find_checkpoint() const {
  const std::string& choice = config_.checkpoint.resume;
  if (choice == "never") return std::nullopt;
  if (choice == "auto") return latest_checkpoint(paths_.checkpoints());
  const fs::path checkpoint = find_model_directory(choice).parent_path();
  if (!fs::exists(checkpoint / "state.json"))
    throw std::runtime_error(fmt::format(
        "checkpoint.resume: {} is not a checkpoint (no state.json); to start from its weights alone, use model.from", choice));
  return checkpoint;
}

// Ranks on different nodes may see different files under the same name: all would train, on nothing that anybody meant.
void Trainer::require_same_inputs() {
  Communicator& world = mesh_.group(Axis::world);
  const auto compare = [&](const char* what, const std::string& own) {
    const std::string roots = broadcast_text(world, own, 0, "trainer.inputs");
    together(world, "trainer.inputs", [&] {
      if (own != roots) throw std::runtime_error(fmt::format("{} not what rank 0 sees\n  here:   {}\n  rank 0: {}", what, own, roots));
    });
  };
  std::string data, weights, holder;
  together(world, "trainer.describe", [&] {
    stream_ = describe_stream(train_sources_, static_cast<std::uint64_t>(config_.train.seed), config_.data.shuffle, config_.train.global_batch_size);
    data = fmt::format("{}; evaluation: {}", stream_, describe_stream(eval_sources_, 0, false, 0));
    if (!from_.empty()) weights = fingerprint_model_directory(from_);
  });
  compare("data.train or data.eval is", data);
  compare("the directory of model.from is", weights);
  together(world, "trainer.lock", [&] { holder = read_run_lock(paths_.root); });
  compare("train.output_dir must be one directory that all ranks see: its lock is", holder);
}

// Where the run begins: a checkpoint of its own, the weights of model.from, or fresh ones. The root decides and checks.
void Trainer::start() {
  Communicator& world = mesh_.group(Axis::world);
  require_same_inputs();
  std::string chosen;
  together(world, "trainer.choose", [&] {
    if (!is_root()) return;
    remove_unfinished(paths_.checkpoints());
    const auto checkpoint = find_checkpoint();
    if (checkpoint) {
      verify_checkpoint(*checkpoint);
      check_same_model(*checkpoint, hf_.model);
      left_behind_ = check_same_trained(*checkpoint, *whole_);
      for (const auto* sources : {&train_sources_, &eval_sources_}) require_tokenizer_of(*checkpoint / "model", *sources);
      chosen = checkpoint->string();
    } else if (!from_.empty()) {
      verify_model_directory(from_);
    }
  });
  chosen = broadcast_text(world, chosen, 0, "trainer.choose");
  // All have read before the root writes: an earlier run's weights may lie where its results are moved from.
  together(world, "trainer.load", [&] {
    if (!chosen.empty())
      state_ = load_checkpoint(chosen, content());
    else if (!from_.empty())
      load_weights(from_, *backend_, hf_.model, model_->parameters(), hf_.tied_head);
    else
      model_->parameters().initialize(*backend_, static_cast<std::uint64_t>(config_.train.seed));
  });
  together(world, "trainer.start", [&] { chosen.empty() ? begin_afresh() : resume(chosen); });
  for (const auto& warning : hf_.warnings) say("warning: " + warning);
}

void Trainer::begin_afresh() {
  std::optional<fs::path> aside;
  if (is_root()) aside = directory_->set_aside_earlier_results();
  state_.stream = stream_;
  open_outputs(false);
  if (aside) say(fmt::format("earlier results were moved to {}", aside->string()));
  if (!from_.empty()) say(fmt::format("weights from {}", from_.string()));
}

void Trainer::resume(const fs::path& checkpoint) {
  saved_step_ = checkpoint.parent_path() == paths_.checkpoints() ? state_.step : -1;
  std::optional<fs::path> aside;
  if (is_root()) aside = directory_->set_aside_results_after(state_.step);
  open_outputs(true);
  say(fmt::format("resumed from {} at step {}", checkpoint.string(), state_.step));
  if (aside) say(fmt::format("checkpoints of later steps were moved to {}", aside->string()));
  if (left_behind_ > 0) say(fmt::format("{} parameter(s) that the checkpoint trained are frozen here: their moments are left behind", left_behind_));
  if (stream_ != state_.stream) {
    say(fmt::format("warning: the data is not what the checkpoint was trained on, so the order of samples changes here\n"
                    "  then: {}\n  now:  {}", state_.stream, stream_));
    state_.stream = stream_;
  }
}

void Trainer::open_outputs(bool resumed) {
  if (!is_root()) return;
  const std::int64_t from_step = resumed ? state_.step : MetricsWriter::fresh_run;
  directory_->write_config(config_.resolved_yaml);
  metrics_.emplace(paths_.metrics(), from_step);
  if (config_.log.tensorboard) tensorboard_.emplace(paths_.tensorboard(), from_step);
  progress_.emplace(ProgressOptions{.label = "train", .unit = "step", .total = config_.train.steps, .done = state_.step});
}

void Trainer::say(const std::string& line) {
  if (directory_) directory_->log(line);
  if (progress_) progress_->say(line);
}

bool Trainer::stop_requested() {
  double received = StopSignals::received();
  mesh_.group(Axis::world).all_reduce(std::span(&received, 1), Reduce::max, "trainer.stop");
  return received != 0;
}

int Trainer::run() {
  const TrainConfig& train = config_.train;
  if (train.steps == 0 && saved_step_ != state_.step) save();
  if (state_.step >= train.steps) {
    if (progress_) progress_->finish();
    say(fmt::format("nothing left to train: step {} of {} is done", state_.step, train.steps));
    return 0;
  }
  say(fmt::format("{} parameters, {} active a token; {} sequences of {} tokens a step", count_parameters(hf_.model).total,
                  count_parameters(hf_.model).active, train.global_batch_size, config_.data.sequence_length));
  if (!frozen_.empty())
    say(fmt::format("{} of {} parameters are trained; frozen: {}", count_trained(*whole_), count_parameters(hf_.model).total, fmt::join(frozen_, ", ")));
  if (mesh_.layout().ranks > 1) say(fmt::format("{} ranks: {}", mesh_.layout().ranks, mesh_.layout().to_string()));
  rates_ = measure_machine_rates(*backend_, mesh_.group(Axis::world), config_.ranks_on_node);
  for (const std::string& line : describe(rates_)) say(line);
  std::vector<std::shared_ptr<const Dataset>> datasets;
  for (const Source& source : train_sources_) datasets.push_back(source.dataset);
  loader_.emplace(datasets, make_sampler(train_sources_, static_cast<std::uint64_t>(train.seed), config_.data.shuffle, train.global_batch_size),
                  train.micro_batch_size, mesh_.rank(Axis::dp), mesh_.size(Axis::dp), state_.step + 1);

  *speed_ = Speed{};
  while (state_.step < train.steps) {
    if (stop_requested()) {
      if (saved_step_ != state_.step) save();
      if (progress_) progress_->finish();
      say(fmt::format("stopped by a signal after step {}; saved, and the same command goes on from here", state_.step));
      return preempted_status;
    }
    const std::int64_t step = state_.step + 1;
    const double rate = learning_rate(config_.schedule, config_.optimizer.learning_rate, step, train.steps);
    const StepResult result = train_step(step, rate);
    report_step(result, rate);
    if (state_.skipped_in_a_row >= train.max_skipped_steps) stop_refusing();
    const bool last = step == train.steps;
    if (!eval_sources_.empty() && (last || step % config_.eval.interval == 0)) evaluate_sources();
    if (last || step % config_.checkpoint.interval == 0) save();
  }
  if (progress_) progress_->finish();
  return 0;
}

// Every rank has refused the same steps, and all of them come here: one speaks for all.
void Trainer::stop_refusing() {
  together(mesh_.group(Axis::world), "trainer.skipped", [&] {
    throw std::runtime_error(fmt::format(
        "{} steps in a row had a loss or gradient that is not finite (train.max_skipped_steps); the weights are those of update {}, "
        "the last checkpoint is {}: lower optimizer.learning_rate, or look at the data of steps {} to {}",
        state_.skipped_in_a_row, state_.updates, saved_step_ < 0 ? "none" : checkpoint_name(saved_step_),
        state_.step - state_.skipped_in_a_row + 1, state_.step));
  });
}

StepResult Trainer::train_step(std::int64_t step, double learning_rate) {
  const Batch& batch = loader_->next();
  mesh_.traffic().reset();
  const StepResult result = step_->gradients({batch.sequences, batch.sequence_length, batch.inputs, batch.targets, batch.document_start});
  const auto& dumped = config_.log.dump_steps;
  std::optional<StepDump> dump;
  if (std::find(dumped.begin(), dumped.end(), step) != dumped.end()) {
    dump.emplace(paths_.dumps(), step, *backend_, *whole_, model_->parameters(), optimizer_->shards(), mesh_);
    dump->write_gradients();
  }
  step_->apply(result, state_.updates + 1, learning_rate);
  if (dump) dump->write_parameters();

  state_.step = step;
  state_.tokens += config_.train.global_batch_size * config_.data.sequence_length;
  if (result.finite) {
    ++state_.updates;
    state_.skipped_in_a_row = 0;
  } else {
    ++state_.skipped;
    ++state_.skipped_in_a_row;
  }
  ++speed_->steps;
  speed_->tokens += config_.train.global_batch_size * config_.data.sequence_length;
  return result;
}

void Trainer::report_step(const StepResult& result, double learning_rate) {
  const bool due = state_.step % config_.log.interval == 0 || state_.step == 1 || state_.step == config_.train.steps;
  double peak_memory = static_cast<double>(peak_resident_bytes());
  if (due || !result.finite) mesh_.group(Axis::world).all_reduce(std::span(&peak_memory, 1), Reduce::max, "trainer.peak_memory");
  if (!is_root()) return;
  const double seconds = seconds_since(speed_->since), tokens = static_cast<double>(speed_->tokens);
  const double gflops = 3e-9 * forward_flops_per_token(hf_.model, config_.data.sequence_length) * tokens / seconds;
  // A batch that holds no target, all of it masked, has no loss: its sum of nothing is not a loss of 0.
  const double lm_loss = result.targets > 0 ? result.lm_loss : std::numeric_limits<double>::quiet_NaN();
  progress_->update(state_.step, fmt::format("loss {:.4f}  {} tok/s  {:.1f} GF/s ({:.0f}% of the cores)", lm_loss,
                                             format_count(tokens / seconds), gflops, 1e11 * gflops / rates_.peak_flops));
  if (!result.finite)
    say(fmt::format("warning: step {} refused: loss {}, gradient norm {}; no weight changed", state_.step, result.loss, result.grad_norm));
  if (!due && result.finite) return;

  StepMetrics row;
  row.step = state_.step;
  row.tokens = state_.tokens;
  row.lm_loss = lm_loss;
  row.aux_loss = result.aux_loss;
  row.z_loss = result.z_loss;
  row.loss = result.loss;
  row.grad_norm = result.grad_norm;
  row.learning_rate = learning_rate;
  row.tokens_per_sec = tokens / seconds;
  row.step_seconds = seconds / static_cast<double>(speed_->steps);
  row.model_gflops = gflops;
  row.mfu = 1e9 * gflops / rates_.peak_flops;
  row.share_of_product = 1e9 * gflops / rates_.product_flops;
  row.expert_load = step_->balance().load;
  row.max_vio = max_violation(row.expert_load);
  row.peak_memory_bytes = static_cast<std::uint64_t>(peak_memory);
  row.skipped_steps = state_.skipped;
  for (const Traffic::Line& line : mesh_.traffic().lines())
    if (line.bytes > 0) row.bytes_sent[std::string(line.label)] = line.bytes;
  metrics_->write(row);
  if (tensorboard_) tensorboard_->write(row);
  *speed_ = Speed{};
}

void Trainer::evaluate_sources() {
  std::vector<EvalMetrics> rows;
  for (const Source& source : eval_sources_) {
    rows.push_back(evaluate(*model_, step_->context(), *source.dataset,
                            {.batches = config_.eval.batches, .sequences = config_.train.micro_batch_size, .name = source.name, .on_progress = {}},
                            state_.step));
    say(fmt::format("eval {}: loss {:.4f}, perplexity {:.2f} over {} tokens", source.name, rows.back().loss, rows.back().perplexity, rows.back().tokens));
  }
  if (metrics_) metrics_->write(rows);
  if (tensorboard_) tensorboard_->write(rows);
  speed_->since = Clock::now();  // rates are of training alone
  speed_->steps = speed_->tokens = 0;
}

void Trainer::save() {
  const auto start = Clock::now();
  const LongWork work(mesh_.session(), "saving a checkpoint");
  if (metrics_) metrics_->sync();
  const fs::path path = save_checkpoint(paths_.checkpoints(), content(), state_, config_.checkpoint.keep);
  saved_step_ = state_.step;
  say(fmt::format("saved {} ({:.1f} s)", path.string(), seconds_since(start)));
  speed_->since = Clock::now();
  speed_->steps = speed_->tokens = 0;
}

}  // namespace smoe
