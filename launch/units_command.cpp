// smoe units COEF --from NAME --layers L --top-k K [--json]: a balance coefficient in everybody's unit.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "launch/commands.h"
#include "model/balance_units.h"

namespace smoe {
namespace {

struct UnitsArguments {
  double coefficient = 0;
  std::string from;
  std::int64_t layers = 0, top_k = 0;
  bool json = false;
};

constexpr const char* meaning(BalanceUnit unit) {
  switch (unit) {
    case BalanceUnit::smoe: return "router.aux_loss_coef: of each layer's B, which is 1 where it is balanced";
    case BalanceUnit::megatron: return "Megatron-LM, --moe-aux-loss-coeff: the same of each layer";
    case BalanceUnit::megablocks: return "MegaBlocks and OLMo-core: of the mean over the layers";
    case BalanceUnit::deepspeed: return "DeepSpeed's top-k gate, its layers added up (its top-2 gate is another loss)";
    case BalanceUnit::hf:
      return "transformers, router_aux_loss_coef: of the layers pooled; equal where they balance alike";
  }
  return "";
}

BalanceUnit unit_named(const std::string& wanted) {
  return std::find_if(balance_units.begin(), balance_units.end(), [&](const auto& u) { return u.second == wanted; })
      ->first;
}

void tell_units(const UnitsArguments& arguments) {
  if (!std::isfinite(arguments.coefficient) || arguments.coefficient < 0)
    throw UsageError(fmt::format("COEF: found {}, expected a number of 0 or more", arguments.coefficient));
  const LayerCount of{arguments.layers, arguments.top_k};
  const BalanceUnit from = unit_named(arguments.from);
  OrderedJson object;
  for (const auto& [unit, name] : balance_units) {
    const double value = converted(arguments.coefficient, from, unit, of);
    object[std::string(name)] = value;
    if (!arguments.json) fmt::print("{:<12}{:<14.6g}{}\n", name, value, meaning(unit));
  }
  if (arguments.json) fmt::print("{}\n", object.dump());
}

}  // namespace

void add_units_command(CommandLine& line) {
  const auto arguments = std::make_shared<UnitsArguments>();
  const Command command = line.command("units", "a coefficient of the balance loss in everybody's unit");
  command.option("COEF", arguments->coefficient, "the coefficient").required();
  std::vector<std::string> names;
  for (const auto& [unit, name] : balance_units) names.emplace_back(name);
  command.option("--from", arguments->from, "whose it is").required().one_of(names);
  command.option("--layers", arguments->layers, "layers with experts").required().range(1, 1'000'000);
  command.option("--top-k", arguments->top_k, "experts per token").required().range(1, 1'000'000);
  command.flag("--json", arguments->json, "one JSON object on stdout, a number for each of these names");
  command.runs([arguments] { tell_units(*arguments); });
}

}  // namespace smoe
