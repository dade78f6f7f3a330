// Cases whose routing is forced, by weights that no layer's output disturbs and, where ids decide, by the tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "tests/ranks/equivalence_basic.h"
#include "trainer/equivalence.h"

namespace smoe {

inline bool is_gate(const Parameter& p) { return p.name.find(".gate.weight") != std::string::npos; }
// Of a layer, into the residual stream; of an adapter B does.
inline bool writes_residual(const Parameter& p) {
  if (p.name.find(".lora_A.") != std::string::npos) return false;
  return p.name.find(".o_proj.") != std::string::npos || p.name.find(".w2.") != std::string::npos;
}

// Every token gets a large first component, which survives the layers; gates that read it prefer or avoid an expert.
inline EquivalenceCase with_preferences(std::map<std::int64_t, float> preference_of_expert) {
  EquivalenceCase c = basic();
  c.adjust = [preference_of_expert](const Parameter& p, std::span<float> values) {
    const std::int64_t width = p.slice.rank() == 2 ? p.slice[1] : 1;
    const auto at = [&](std::int64_t row, std::int64_t column) -> float& {
      return values[static_cast<std::size_t>(row * width + column)];
    };
    if (p.name == "model.embed_tokens.weight")
      for (std::int64_t r = 0; r < p.slice[0]; ++r) at(r, 0) = 2.0f;
    if (writes_residual(p) && p.first[0] == 0)  // no layer changes it
      for (std::int64_t column = 0; column < width; ++column) at(0, column) = 0.0f;
    if (is_gate(p))
      for (const auto& [expert, preference] : preference_of_expert) at(expert, 0) = preference;
  };
  return c;
}

// Each token's id decides which expert is its best and which its second. The first components of a token, one an expert,
// survive the layers; two of them are large, and each gate reads its own, and little else.
inline std::int64_t best_of(std::int64_t id, std::int64_t experts) { return id % experts; }
inline std::int64_t second_of(std::int64_t id, std::int64_t experts) {
  return (best_of(id, experts) + 1 + id / experts % (experts - 1)) % experts;
}
// The least id of them, below experts * (experts - 1).
inline std::int64_t id_that_chooses(std::int64_t best, std::int64_t second, std::int64_t experts) {
  return best + experts * ((second - best - 1 + experts) % experts);
}
// gate: what a gate weighs its component with.
inline void route_by_id(EquivalenceCase& c, float gate = 2.0f) {
  c.adjust = [experts = c.model.num_local_experts, gate](const Parameter& p, std::span<float> values) {
    const std::int64_t width = p.slice.rank() == 2 ? p.slice[1] : 1;
    const auto at = [&](std::int64_t row, std::int64_t column) -> float& {
      return values[static_cast<std::size_t>(row * width + column)];
    };
    if (p.name == "model.embed_tokens.weight")
      for (std::int64_t r = 0; r < p.slice[0]; ++r) {
        const std::int64_t id = p.first[0] + r, best = best_of(id, experts), second = second_of(id, experts);
        for (std::int64_t e = 0; e < experts; ++e) at(r, e) = e == best ? 1.5f : e == second ? 1.0f : 0.0f;
      }
    for (std::int64_t row = 0; writes_residual(p) && row < std::min(p.slice[0], experts - p.first[0]); ++row)
      for (std::int64_t column = 0; column < width; ++column) at(row, column) = 0.0f;
    if (is_gate(p))
      for (std::int64_t e = 0; e < experts; ++e)
        for (std::int64_t column = 0; column < width; ++column)
          at(e, column) = column >= experts ? 0.05f * at(e, column) : e == column ? gate : 0.0f;
  };
}

// In bf16, where rounding would decide between experts that score nearly alike.
inline EquivalenceCase in_bf16() {
  EquivalenceCase c = basic();
  c.type = DType::bf16;
  route_by_id(c);
  return c;
}

// Every token's best and second expert as asked for. What is changed of the case's shape afterwards is not seen.
using BestAndSecond = std::pair<std::int64_t, std::int64_t>;
inline void choose(EquivalenceCase& c,
                   std::function<BestAndSecond(std::int64_t step, std::int64_t sequence, std::int64_t token)> choice) {
  route_by_id(c);
  c.arrange = [choice, length = c.sequence_length, experts = c.model.num_local_experts](
                  std::int64_t step, std::span<std::int32_t> ids, std::span<std::int32_t>) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto place = static_cast<std::int64_t>(i);
      const auto [best, second] = choice(step, place / length, place % length);
      ids[i] = static_cast<std::int32_t>(id_that_chooses(best, second, experts));
    }
  };
}

// Gates that read nothing: every logit is 0. What such a gate is after a step is the update alone, of which Adam would make
// rounding where a gradient is small: an epsilon of the size of gradients makes it proportional to them.
inline void choose_by_nothing(EquivalenceCase& c) {
  c.optimizer.epsilon = 1e-2;
  c.adjust = [](const Parameter& p, std::span<float> values) {
    if (is_gate(p)) std::fill(values.begin(), values.end(), 0.0f);
  };
}

}  // namespace smoe
