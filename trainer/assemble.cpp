#include "trainer/assemble.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <utility>

#include "data/files/directory_place.h"
#include "data/files/files.h"
#include "kernels/arena.h"
#include "kernels/cuda_device.h"
#include "model/balance_units.h"
#include "model/forced_routing.h"
#include "model/freeze.h"
#include "parallel/comm/agreement.h"
#include "parallel/comm/mpi_session.h"
#include "trainer/activation_memory.h"
#include "trainer/checkpoint/peft.h"
#include "trainer/checkpoint/same_model.h"
#include "trainer/checkpoint/weights.h"
#include "trainer/layout_check.h"
#include "trainer/machine.h"
#include "trainer/record/metrics.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

// In transformers' unit, in which the coefficient of layers that balance alike is that much larger. It has one: of a list
// the mean, and the configured one whatever the schedule makes of it.
double hf_coefficient(const ModelConfig& model, const RouterConfig& router) {
  if (router.aux_loss_scope == AuxLossScope::hf) return router.aux_loss_coef;
  const std::vector<double>& by_layer = router.aux_loss_coef_by_layer;
  const double mean =
      by_layer.empty() ? router.aux_loss_coef
                       : std::accumulate(by_layer.begin(), by_layer.end(), 0.0) / static_cast<double>(by_layer.size());
  return converted(mean, BalanceUnit::smoe, BalanceUnit::hf, {model.num_hidden_layers, model.num_experts_per_tok});
}

// What holds everything, of which nothing is trained: for a run that only writes weights again.
const std::vector<std::string> all_frozen = {"*"};

// Whether a run writes the weights of a directory and ends: then it needs no gradients, moments and masters, and holds the
// weights in the type that it writes them in.
bool only_converts(const TrainerConfig& config) {
  if (!config.model.from || config.lora || config.train.epochs || config.train.steps > 0) return false;
  const std::string& resume = config.checkpoint.resume;
  if (resume != "auto") return resume == "never";
  const std::string& output = config.train.output_dir;
  return output.empty() || !latest_checkpoint(RunPaths{output}.checkpoints());
}

// A directory cannot be written while it is read. A run's own may: what it holds is moved aside.
void require_other_directory(const std::string& output_dir, const fs::path& from) {
  if (output_dir.empty() || from.empty()) return;
  const DirectoryPlace place = place_of(output_dir, from);
  if (place == DirectoryPlace::outside) return;
  throw std::runtime_error(fmt::format(
      "train.output_dir: {} is {} the directory of model.from, which a run must leave as it is: choose another",
      output_dir, place == DirectoryPlace::itself ? "itself" : "inside"));
}

struct FoundModel {
  HfConfig hf;
  fs::path from;
  bool converts = false;
  std::vector<std::string> frozen;
  std::unique_ptr<const ParameterSet> whole;
  std::optional<AdapterRun> adapters;
};

// The count of a step's assignments must be one that dropout can number.
AdapterRun describe_adapters(const TrainerConfig& config, const FoundModel& found) {
  const LoraConfig& lora = *config.lora;
  const ModelConfig& model = found.hf.model;
  for (const auto& [key, message] : lora.problems(model.num_hidden_layers))
    throw std::runtime_error(fmt::format("lora.{}: {}", key, message));
  const std::int64_t assignments =
      config.train.global_batch_size * config.data.sequence_length * model.num_experts_per_tok;
  if (lora.dropout > 0 && assignments > std::numeric_limits<std::int32_t>::max())
    throw std::runtime_error(
        fmt::format("lora.dropout: a step has {} assignments of tokens to experts, expected at most {} with dropout: a "
                    "smaller train.global_batch_size, or lora.dropout 0",
                    assignments, std::numeric_limits<std::int32_t>::max()));
  return {lora, found.from, found.from.empty() ? "" : fingerprint_model_directory(found.from)};
}

// Everything that may be found unfit before anything is opened or allocated. No collective, here and in the two below.
FoundModel check(TrainerConfig& config, const Layout& layout, Device device) {
  FoundModel found;
  found.converts = only_converts(config);
  if (found.converts && config.checkpoint.export_dtype != ExportType::of_run)
    config.train.precision =
        config.checkpoint.export_dtype == ExportType::bf16 ? PrecisionChoice::bf16 : PrecisionChoice::fp32;
  found.hf.model = config.model;
  if (config.model.from) {
    found.from = find_model_directory(*config.model.from);
    found.hf = read_hf_config(found.from, config.model);
    require_other_directory(config.train.output_dir, found.from);
  }
  const ModelConfig& model = found.hf.model;
  require_layout(model, {config.data.sequence_length, config.train.global_batch_size, config.train.micro_batch_size},
                 layout);
  found.frozen = found.converts ? all_frozen : frozen_patterns(config.router, config.train.freeze);
  const char* held = found.converts ? "weights" : "weights, gradients and moments";
  const LoraConfig* lora = pointer_to(config.lora);
  require_computable(model, device);
  const Room room = room_on(device, config.ranks_sharing_memory);
  const auto require_state = [&](std::uint64_t bytes) {
    std::string advice;
    if (room.ranks > 1)
      advice = fmt::format(", fewer than {} ranks on it, or larger parallel.ep and parallel.tp", room.ranks);
    else if (device == Device::cuda)
      advice = ", or more ranks, each with a GPU, and larger parallel.ep and parallel.tp";
    require_memory(model, room, bytes, held, advice);
  };
  require_state(least_training_state_bytes(model, layout, lora || !found.frozen.empty(),
                                           config.train.type()));  // before a name is made
  found.whole =
      std::make_unique<ParameterSet>(declare_parameters(model, Mesh::single(), found.frozen, DType::f32, lora));
  if (!found.converts) check_frozen(*found.whole, found.frozen);
  const std::uint64_t state = training_state_bytes(model, layout, found.frozen, config.train.type(), lora);
  require_state(state);
  if (lora) found.adapters = describe_adapters(config, found);
  if (const MicroBatchShape micro_batch = micro_batch_of(config.train, config.data, config.router);
      config.train.steps > 0)
    require_memory(
        model, room, state + estimated_activation_bytes(model, micro_batch, layout, lora),
        "weights, gradients, moments and the activations of a micro-batch",
        fmt::format(", or {}{}", how_to_lower(micro_batch), what_fits(model, micro_batch, layout, lora, state, room)));
  return found;
}

std::shared_ptr<const Corpus> open_data(const TrainerConfig& config, const FoundModel& model, bool verified,
                                        const Corpus* earlier) {
  const DataConfig& data = config.data;
  auto corpus = open_corpus(data,
                            {.vocab_size = model.hf.model.vocab_size,
                             .model_directory = model.from,
                             .verified = verified,
                             .epochs = config.train.epochs.has_value()},
                            earlier);
  if (!corpus->train.empty() && data.sequence_length > model.hf.model.max_position_embeddings)
    throw std::runtime_error(
        fmt::format("data.sequence_length: found {}, expected at most the model's max_position_embeddings ({})",
                    data.sequence_length, model.hf.model.max_position_embeddings));
  return corpus;
}

// What the data makes of train.epochs, told where the run is: schedules go by steps.
void count_epochs(TrainerConfig& config, const Corpus& corpus, std::vector<std::string>& notes) {
  TrainConfig& train = config.train;
  if (!train.epochs) return;
  const std::int64_t sequences = sequences_of(corpus.train), warmup = config.schedule.warmup_steps;
  train.steps = steps_of_epochs(*train.epochs, sequences, train.global_batch_size);
  notes.push_back(fmt::format("train.epochs {} of the {} sequences of data.train: {} steps of {}", *train.epochs,
                              sequences, train.steps, train.global_batch_size));
  if (warmup > train.steps)
    notes.push_back(
        fmt::format("warning: schedule.warmup_steps is {} of these {} steps: the learning rate does not reach "
                    "optimizer.learning_rate",
                    warmup, train.steps));
  config.resolved_yaml += "# " + notes.front() + "\n";
}

// Why there is no balance loss where nobody asked for none (configs/yaml_reader.cpp).
void tell_balance(const TrainerConfig& config, std::vector<std::string>& notes) {
  const RouterConfig& router = config.router;
  if (!routers_are_trained(router, config.lora) && router.aux_loss_coef == 0 && router.aux_loss_coef_by_layer.empty() &&
      config.train.steps > 0)
    notes.emplace_back(
        "no router is trained: router.aux_loss_coef is 0, for a balance loss would train the layers below to please the routers as they "
        "are; balance is measured all the same");
}

RunParts build(TrainerConfig config, const Mesh& mesh, std::unique_ptr<Backend> backend, FoundModel found,
               std::shared_ptr<const Corpus> corpus) {
  HfConfig& hf = found.hf;
  std::vector<std::string> notes;
  count_epochs(config, *corpus, notes);
  tell_balance(config, notes);
  if (!corpus->train.empty() && found.from.empty()) {
    const ShardSetInfo& info = corpus->train.front().dataset->info();
    hf.bos = info.bos;
    hf.eos.assign(info.eos < 0 ? 0 : 1, info.eos);
  }
  if (!found.converts || !hf.router_aux_loss_coef)  // a conversion says what it found: it trains by none
    hf.router_aux_loss_coef = hf_coefficient(hf.model, config.router);
  // Now and not when it saves: the directory of model.from may be an earlier run's, which is moved aside before that.
  std::vector<TokenizerFile> carried;
  if (mesh.is_root()) carried = carried_files(corpus->train, found.from);
  std::unique_ptr<RunDirectory> directory;
  if (mesh.is_root() && !config.train.output_dir.empty())
    directory = std::make_unique<RunDirectory>(config.train.output_dir);
  TrainingParts training(std::move(backend), hf.model, config, mesh, found.frozen);
  hf.weights = config.checkpoint.export_dtype == ExportType::fp32   ? DType::f32
               : config.checkpoint.export_dtype == ExportType::bf16 ? DType::bf16
                                                                    : training.model->type();
  return {.config = std::move(config),
          .mesh = mesh,
          .hf = std::move(hf),
          .from = std::move(found.from),
          .frozen = std::move(found.frozen),
          .whole = std::move(found.whole),
          .adapters = std::move(found.adapters),
          .corpus = std::move(corpus),
          .carried_files = std::move(carried),
          .stream = {},
          .directory = std::move(directory),
          .checkpoint = {},
          .left_behind = 0,
          .state = {},
          .converts = found.converts,
          .notes = std::move(notes),
          .training = std::move(training),
          .signals = nullptr};
}

// Ranks on different nodes may see different files under the same name: all would train, on nothing that anybody meant.
void require_same_inputs(RunParts& parts) {
  Communicator& world = parts.mesh.group(Axis::world);
  const auto compare = [&](const char* what, const std::string& own) {
    const std::string roots = broadcast_text(world, own, 0, "assemble.inputs");
    together(world, "assemble.inputs", [&] {
      if (own != roots)
        throw std::runtime_error(fmt::format("{} not what rank 0 sees\n  here:   {}\n  rank 0: {}", what, own, roots));
    });
  };
  std::string data, weights, holder;
  together(world, "assemble.describe", [&] {
    const TrainerConfig& config = parts.config;
    parts.stream = describe_stream(parts.corpus->train, static_cast<std::uint64_t>(config.train.seed),
                                   config.data.shuffle, config.train.global_batch_size);
    data = fmt::format("{}; evaluation: {}", parts.stream, describe_stream(parts.corpus->eval, 0, false, 0));
    if (parts.adapters)
      weights = parts.adapters->fingerprint;
    else if (!parts.from.empty())
      weights = fingerprint_model_directory(parts.from);
  });
  compare("data.train or data.eval is", data);
  compare("the directory of model.from is", weights);
  together(world, "assemble.lock", [&] {
    if (!parts.config.train.output_dir.empty()) holder = read_run_lock(parts.paths().root);
  });
  compare("train.output_dir must be one directory that all ranks see: its lock is", holder);
}

std::optional<fs::path> find_checkpoint(const RunParts& parts) {
  const std::string& choice = parts.config.checkpoint.resume;
  if (choice == "never") return std::nullopt;
  if (choice == "auto") return parts.directory ? latest_checkpoint(parts.paths().checkpoints()) : std::nullopt;
  return find_checkpoint_directory(choice);
}

// Where the run begins: a checkpoint of its own, the weights of model.from, or fresh ones. The root decides and checks.
void choose_beginning(RunParts& parts) {
  Communicator& world = parts.mesh.group(Axis::world);
  std::string chosen;
  together(world, "assemble.choose", [&] {
    if (!parts.is_root()) return;
    if (parts.directory) remove_unfinished(parts.paths().checkpoints());
    if (const auto checkpoint = find_checkpoint(parts)) {
      verify_checkpoint(*checkpoint);
      if (parts.adapters) {
        check_same_adapters(*checkpoint, *parts.adapters, parts.hf.model);
      } else {
        refuse_adapters(*checkpoint);
        check_same_model(*checkpoint, parts.hf.model);
        require_tokenizer_of(*checkpoint / "model", *parts.corpus);
      }
      parts.left_behind = check_same_trained(*checkpoint, *parts.whole);
      chosen = checkpoint->string();
    }
    if (!parts.from.empty() && (chosen.empty() || parts.adapters)) verify_model_directory(parts.from);
  });
  parts.checkpoint = broadcast_text(world, chosen, 0, "assemble.choose");
}

// With that of the checkpoint, which load_checkpoint() has set, or of model.from; else at zero, where the run updates one.
void begin_selection_bias(RunParts& parts) {
  SelectionBias& bias = *parts.training.selection_bias;
  const bool from_checkpoint = !parts.checkpoint.empty() && !parts.adapters,
             updated = parts.config.router.bias_update_rate > 0;
  if (!from_checkpoint && !parts.from.empty())
    if (const auto found = load_selection_bias(parts.from, parts.hf.model); !found.empty()) bias.set(found);
  const char* holder = from_checkpoint ? "the checkpoint" : "model.from";
  const bool forced = parts.config.router.forced_routing.type != ForcedRoutingType::none;
  if (!bias.empty() && !updated && !forced)
    parts.notes.push_back(fmt::format(
        "{} has a selection bias: experts are chosen by it as it stands, router.bias_update_rate being 0", holder));
  if (!bias.empty() || !updated) return;
  bias.begin_at_zero();
  if (from_checkpoint || !parts.from.empty())
    parts.notes.push_back(
        fmt::format("{} has no selection bias: it begins at 0 here (router.bias_update_rate)", holder));
}

// From the checkpoint's state on, or from the configured coefficients.
void begin_controller(RunParts& parts) {
  std::optional<MaxVioController>& controller = parts.training.step->controller();
  if (controller && parts.state.controller)
    controller->restore(*parts.state.controller);
  else if (controller && !parts.checkpoint.empty())
    parts.notes.emplace_back(
        "the checkpoint steered to no MaxVio: from router.aux_loss_coef on it is steered here "
        "(router.target_max_vio)");
  else if (parts.state.controller)
    parts.notes.emplace_back(
        "the checkpoint steered router.aux_loss_coef to a MaxVio: that is left behind, without "
        "router.target_max_vio the coefficient is the configured one");
  parts.state.controller.reset();
  if (controller) parts.state.controller = controller->state();
}

// What config.json says beside the shape is the checkpoint's, wherever its run took it from. A benchmark's weights stay marked as
// such, whatever comes after.
void keep_what_was_said(RunParts& parts) {
  if (!parts.checkpoint.empty() && !parts.adapters) {
    const HfConfig before = read_hf_config(parts.checkpoint / "model");
    parts.hf.kept = before.kept;
    parts.hf.forced_routing = before.forced_routing;
    if (!before.forced_routing.empty())
      parts.notes.push_back(fmt::format(
          "warning: the checkpoint is of a benchmark, in which routing was forced ({}): its experts were trained on tokens that its "
          "routers did not choose",
          before.forced_routing));
  }
  const bool trains = parts.state.step < parts.config.train.steps;
  if (const std::string forced = describe(parts.config.router.forced_routing); !forced.empty() && trains) {
    std::string& all = parts.hf.forced_routing;
    if (all.find(forced) == std::string::npos) all += (all.empty() ? "" : "; ") + forced;
    parts.notes.push_back(fmt::format(
        "warning: routing is forced ({}), for a benchmark: experts train on tokens that their routers do not choose, and every output "
        "says so (router.forced_routing)",
        forced));
  }
}

// Those of lora.from, or drawn.
void begin_adapters(RunParts& parts, const std::function<void()>& draw) {
  TrainingParts& training = parts.training;
  const LoraConfig& lora = parts.adapters->lora;
  if (!lora.from) return draw();
  const fs::path directory = find_adapters_to_go_on_from(lora, parts.hf.model);
  if (parts.is_root()) verify_adapter_directory(directory);
  if (const std::string warning = parts.from.empty() ? "" : warning_of_another_base(directory, parts.from);
      !warning.empty())
    parts.notes.push_back("warning: " + warning);
  load_adapter(directory, read_peft_config(directory, parts.hf.model), parts.hf.model, *training.backend,
               training.model->parameters(), training.optimizer->keeps_masters());
  parts.notes.push_back(fmt::format("adapters from {}", directory.string()));
}

// A resumed run's adapters go on beside the weights that they were trained beside.
void check_same_base(RunParts& parts) {
  if (!parts.adapters) return;
  const std::string& here = parts.adapters->fingerprint;
  if (!parts.checkpoint.empty() && parts.state.base != here)
    throw std::runtime_error(fmt::format(
        "{}: its adapters were trained beside other weights than those of model.from ({}): give the ones that the run began from",
        parts.checkpoint.string(), parts.from.empty() ? "none is given" : parts.from.string()));
  parts.state.base = here;
}

void load_beginning(RunParts& parts) {
  TrainingParts& training = parts.training;
  ParameterSet& parameters = training.model->parameters();
  const bool resumed = !parts.checkpoint.empty(), adapters = parts.adapters.has_value();
  const auto initialize = [&](bool adapters_alone) {
    parameters.initialize(*training.backend, static_cast<std::uint64_t>(parts.config.train.seed),
                          training.optimizer->keeps_masters(), adapters_alone);
  };
  if (parts.from.empty()) {
    if (!resumed || adapters) initialize(false);
  } else if (!resumed || adapters) {
    load_weights(parts.from, *training.backend, parts.hf.model, parameters, parts.hf.tied_head,
                 training.optimizer->keeps_masters());
  }
  if (resumed)
    parts.state = load_checkpoint(parts.checkpoint, parts.checkpoint_content());
  else if (adapters)
    begin_adapters(parts, [&] { initialize(true); });
  check_same_base(parts);
  begin_selection_bias(parts);
  begin_controller(parts);
  keep_what_was_said(parts);
}

}  // namespace

TrainingParts::TrainingParts(std::unique_ptr<Backend> given, const ModelConfig& shape, const TrainerConfig& config,
                             const Mesh& mesh, const std::vector<std::string>& frozen)
    : backend(std::move(given)),
      persistent(std::make_unique<Arena>(*backend)),
      model(std::make_unique<Mixtral>(shape, mesh, frozen, config.router.routing(),
                                      type_of(config.train.precision, backend->device()), pointer_to(config.lora))),
      selection_bias(std::make_unique<SelectionBias>(*backend, *persistent, *model)) {
  try {
    model->allocate(*backend, *persistent, config.data.sequence_length, true);
    optimizer = std::make_unique<AdamW>(*backend, *persistent, model->parameters(), mesh, config.optimizer);
  } catch (const OutOfMemory& error) {
    throw std::runtime_error(
        fmt::format("weights, gradients and moments do not fit in memory ({}): choose a smaller model, "
                    "or more ranks and larger parallel.ep and parallel.tp",
                    error.what()));
  }
  step = std::make_unique<TrainingStep>(*backend, mesh, *model, *optimizer, config.router,
                                        config.train.micro_batch_size, config.train.recompute,
                                        std::make_unique<CrossEntropy>(config.train.label_smoothing));
  step->add_embedding_noise(config.train.neftune_alpha);
  step->drop_in_adapters(pointer_to(config.lora));
  step->use_selection_bias(*selection_bias);
}

RunParts assemble(TrainerConfig config, const Mesh& mesh, std::unique_ptr<Backend> backend,
                  const std::shared_ptr<const Corpus>& earlier) {
  auto signals = std::make_unique<StopSignals>();
  reset_peak_resident_bytes();
  if (backend->device() == Device::cuda) restart_cuda_peak();
  const LongWork work(mesh.session(), "starting the run");  // hashes of data and checkpoints, weights to read
  Communicator& world = mesh.group(Axis::world);
  FoundModel found;
  together(world, "assemble.check", [&] { found = check(config, mesh.layout(), backend->device()); });
  // The first rank of each node hashes the shards; the others take its word.
  const bool first_of_node = !mesh.session() || mesh.session()->local_rank() == 0;
  std::shared_ptr<const Corpus> corpus;
  together(world, "assemble.hash", [&] {
    if (first_of_node) corpus = open_data(config, found, false, earlier.get());
  });
  std::optional<RunParts> parts;
  together(world, "assemble.build", [&] {
    if (!first_of_node) corpus = open_data(config, found, true, earlier.get());
    parts.emplace(build(std::move(config), mesh, std::move(backend), std::move(found), std::move(corpus)));
  });
  parts->signals = std::move(signals);
  require_same_inputs(*parts);
  choose_beginning(*parts);
  together(world, "assemble.files", [&] {  // before a step is made that could not be saved
    if (!parts->config.train.output_dir.empty()) require_few_files(parts->checkpoint_content());
  });
  // All have read before the root writes: an earlier run's weights may lie where its results are moved from.
  together(world, "assemble.load", [&] { load_beginning(*parts); });
  // Before anything of an earlier run is touched: a step that does not fit would fail after that.
  if (parts->state.step < parts->config.train.steps) try {
      rehearse(*parts->training.step, micro_batch_of(parts->config.train, parts->config.data, parts->config.router),
               mesh);
    } catch (const std::exception& error) {  // of this rank alone, as no other failure here is
      mesh.end_job_of_one(error);
      throw;
    }
  return std::move(*parts);
}

}  // namespace smoe
