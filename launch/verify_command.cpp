// smoe verify CONFIG.yaml [key=value ...], under mpirun: a small copy of the configuration's model at every layout of
// the ranks it is given, against one rank.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "configs/field_text.h"
#include "configs/yaml_printer.h"
#include "configs/yaml_reader.h"
#include "kernels/backend.h"
#include "kernels/check_backend.h"
#include "launch/commands.h"
#include "model/forced_routing.h"
#include "trainer/equivalence.h"
#include "trainer/layout_check.h"
#include "trainer/same_device.h"

namespace smoe {
namespace {

struct VerifyArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::int64_t steps = 3;
};

// The same heads, experts and rules, at a size that a step of every layout takes no time. What the numbers of a user's
// run depend on stays: how many heads, key-value heads, experts, top-k, scopes, coefficients, clipping, recomputation.
EquivalenceCase shrink(const RunConfig& config, int ranks, std::int64_t steps) {
  EquivalenceCase c;
  c.model = config.model;
  c.model.from.reset();
  c.model.head_dim = std::min<std::int64_t>(config.model.head_size(), 8);
  c.model.hidden_size = std::min<std::int64_t>(config.model.hidden_size, 64);
  c.model.intermediate_size = std::min<std::int64_t>(config.model.intermediate_size, 80);
  c.model.num_hidden_layers = std::min<std::int64_t>(config.model.num_hidden_layers, 2);
  c.model.vocab_size = std::min<std::int64_t>(config.model.vocab_size, 211);  // divides over no number of ranks
  c.model.initializer_range = 0.15;  // a small model's, for its routing to matter
  if (config.model.sliding_window) c.model.sliding_window = std::min<std::int64_t>(*config.model.sliding_window, 11);
  c.router = config.router;
  c.routing = config.router.routing();
  if (c.router.aux_loss_scope == AuxLossScope::rank) c.router.aux_loss_scope = AuxLossScope::micro_batch;
  c.optimizer = config.optimizer;
  c.optimizer.learning_rate = std::min(config.optimizer.learning_rate, 1e-3);
  c.optimizer.epsilon =
      std::max(config.optimizer.epsilon, 1e-5);  // updates that are nothing but rounding do not decide
  const std::int64_t divisible = std::lcm<std::int64_t>(ranks, 8);  // by every tp
  c.sequence_length = divisible * std::max<std::int64_t>(1, 24 / divisible);
  c.at_once = 2 * ranks;
  c.accumulation = config.train.global_batch_size > config.train.micro_batch_size ? 2 : 1;
  c.steps = steps;
  c.seed = static_cast<std::uint64_t>(config.train.seed);
  c.documents = config.data.document_masking;
  c.padded = config.data.packing == Packing::best_fit;
  c.masked = 0.2;
  c.masked_unevenly = true;
  c.recompute = config.train.recompute;
  c.label_smoothing = config.train.label_smoothing;
  c.neftune_alpha = config.train.neftune_alpha;
  c.freeze = config.train.freeze;
  c.lora = config.lora;
  if (c.lora) {
    // Of rank 1 or 2 a gradient's entries are all made of one sum or two, in which rounding may be all that is left.
    c.lora->r = std::clamp<std::int64_t>(c.lora->r, 4, 8);
    // An adapter's numbers are a tenth of a weight's, and so are the updates that they may tell from rounding.
    c.optimizer.epsilon = std::max(c.optimizer.epsilon, 1e-4);
    if (!c.lora->layers.empty()) c.lora->layers = {0, c.model.num_hidden_layers - 1};
  }
  return c;
}

void print_heading(const RunConfig& config, const EquivalenceCase& what, int ranks) {
  fmt::print(
      "{} steps of a small copy ({} layers of width {}, {} heads, {} key-value heads, {} experts, top {}; {} scope) on {} rank(s)\n"
      "against one rank. Largest deviations: losses and norm of their value, gradients and weights of the tensor's largest entry.\n",
      what.steps, what.model.num_hidden_layers, what.model.hidden_size, what.model.num_attention_heads,
      what.model.num_key_value_heads, what.model.num_local_experts, what.model.num_experts_per_tok,
      yaml_text(what.router.aux_loss_scope), ranks);
  if (config.router.aux_loss_scope != what.router.aux_loss_scope)
    fmt::print("router.aux_loss_scope {} depends on the layout by its definition: {} stands in for it.\n",
               yaml_text(config.router.aux_loss_scope), yaml_text(what.router.aux_loss_scope));
  if (config.router.capacity_factor)
    fmt::print(
        "router.capacity_factor counts in each piece of a sequence that parallel.tp cuts: such layouts drop others, and are left out.\n");
  if (const std::string forced = describe(config.router.forced_routing); !forced.empty())
    fmt::print("Routing is forced ({}): what the routers choose is not tried.\n", forced);
  if (config.train.device == DeviceChoice::check) fmt::print("{}\n", check_notice);
  fmt::print("\n{:<24} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}       {}\n", "layout", "lm loss", "balance", "z loss",
             "norm", "gradient", "weight", "worst gradient");
}

std::string row(const std::string& title, const Deviations& d, bool fits) {
  return fmt::format("{:<24} {:>9.1e} {:>9.1e} {:>9.1e} {:>9.1e} {:>9.1e} {:>9.1e}  {}  {}\n", title, d.lm_loss.value,
                     d.aux_loss.value, d.z_loss.value, d.grad_norm.value, d.gradient.value, d.weight.value,
                     fits ? "ok " : "BAD", d.gradient.tensor);
}

void verify(const VerifyArguments& arguments, Job& job) {
  RunConfig config;
  job.agree("launch.configuration",
            [&] { config = resolve_model(read_config(arguments.config, arguments.overrides)); });
  job.require_same_everywhere(fmt::format("verify {}\n{}", arguments.steps, print_yaml(config)));
  job.set_timeout(config.parallel.timeout);
  job.claim_device(config.train.device);
  if (config.train.device == DeviceChoice::automatic)
    require_same_device(job.world(), device_of(config.train.device), cuda_missing());
  std::unique_ptr<Backend> backend;
  job.agree("launch.device", [&] { backend = make_backend(config.train.device, 1); });
  // The second has one sequence at a time, which the ranks of a tp group then share.
  const EquivalenceCase whole = shrink(config, job.ranks(), arguments.steps);
  EquivalenceCase split = whole;
  split.at_once = 1;
  const CaseRun whole_on_one = run_case(whole, Mesh::single(), *backend),
                split_on_one = run_case(split, Mesh::single(), *backend);
  if (job.is_root()) print_heading(config, whole, job.ranks());

  std::vector<std::string> bad;
  int checked = 0;
  for (const Layout& layout : layouts_of(job.ranks())) {
    const BatchShape batch{whole.sequence_length, whole.at_once, 1};
    if (const auto problems = layout_problems(whole.model, batch, layout); !problems.empty()) {
      if (job.is_root()) fmt::print("{:<24} does not fit the model: {}\n", layout.to_string(), problems.front());
      continue;
    }
    const Mesh mesh = job.mesh_of(layout, {backend->device(), config.parallel.transport});
    const auto hold = [&](const std::string& title, const EquivalenceCase& what, const CaseRun& one_rank) {
      const Deviations d = compare(run_case(what, mesh, *backend), one_rank, mesh);
      const auto found = violations(d);
      for (const std::string& violation : found) bad.push_back(title + ": " + violation);
      if (job.is_root()) fmt::print("{}", row(title, d, found.empty()));
    };
    hold(layout.to_string(), whole, whole_on_one);
    const bool by_sequence = whole.routing.capacity_factor > 0;  // a capacity is: cut, a sequence is several
    if (layout.dp() == 1 && layout.tp > 1 && !by_sequence) hold(layout.to_string() + " split", split, split_on_one);
    ++checked;
  }
  const Tolerances allowed;
  if (job.is_root())
    fmt::print("{:<24} {:>9.0e} {:>9.0e} {:>9.0e} {:>9.0e} {:>9.0e} {:>9.0e}\n\n", "allowed", allowed.loss,
               allowed.loss, allowed.loss, allowed.grad_norm, allowed.gradient, allowed.weight);
  job.agree("verify.result", [&] {
    if (!bad.empty())
      throw std::runtime_error(
          fmt::format("layouts that do not compute what one rank does:\n  {}", fmt::join(bad, "\n  ")));
  });
  if (!job.is_root()) return;
  if (job.ranks() == 1)
    fmt::print(
        "one rank was held against itself; to see other layouts, start it over ranks: mpirun -n 4 smoe verify {}\n",
        arguments.config);
  else
    fmt::print("{} layout(s) of {} ranks compute what one rank does\n", checked, job.ranks());
}

}  // namespace

void add_verify_command(CommandLine& line, Job& job) {
  const auto arguments = std::make_shared<VerifyArguments>();
  const Command command =
      line.command("verify", "holds every layout of the ranks it is given (mpirun -n N) against one rank");
  command.path("CONFIG", arguments->config, "YAML file; its data is not read").required();
  command.option("key=value", arguments->overrides, "overrides, as in router.aux_loss_scope=sequence");
  command.option("--steps", arguments->steps, "training steps to compare").range(1, 1000).show_default();
  command.runs([arguments, &job] { verify(*arguments, job); });
}

}  // namespace smoe
