// The coefficient of a balance loss in everybody's unit. All of them weigh B = E sum_i f_i P_i of a layer (balance_loss.h), which
// scores 1 where the layer is balanced, or something in proportion to it; they differ in what the layers are taken together by.
// For L layers of K experts per token, the loss that a coefficient c adds is
//   smoe         c sum_l B_l
//   megatron     c sum_l B_l              --moe-aux-loss-coeff of Megatron-LM: each layer adds its own, none is divided by L
//   megablocks   c / L sum_l B_l          moe_loss_weight of MegaBlocks, and of OLMo-core as it divides by the layers
//   deepspeed    c sum_l B_l              l_aux of DeepSpeed's top-k gate, summed by the caller. Its top-2 gate is another loss, which
//                                         takes f from the first choice alone
//   hf           c K E sum_i mean_l(f_li) mean_l(P_li)     router_aux_loss_coef of transformers: the layers are pooled first, so
//                                         that it is K, and c K / L sum_l B_l, only where they balance alike
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace smoe {

enum class BalanceUnit : std::uint8_t { smoe, megatron, megablocks, deepspeed, hf };

inline constexpr std::array<std::pair<BalanceUnit, std::string_view>, 5> balance_units{
    {{BalanceUnit::smoe, "smoe"},
     {BalanceUnit::megatron, "megatron"},
     {BalanceUnit::megablocks, "megablocks"},
     {BalanceUnit::deepspeed, "deepspeed"},
     {BalanceUnit::hf, "hf"}}};

struct LayerCount {
  std::int64_t layers;             // L, those that have experts
  std::int64_t experts_per_token;  // K
};

// The coefficient of `to` that adds the same loss as `coefficient` of `from`.
double converted(double coefficient, BalanceUnit from, BalanceUnit to, const LayerCount& of);

// "0.01 here is megatron 0.01, megablocks 0.32, deepspeed 0.01, hf 0.16": of 32 layers, top 2. In the units of the others.
std::string in_every_unit(double coefficient, BalanceUnit from, const LayerCount& of);

}  // namespace smoe
