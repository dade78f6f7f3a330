// Routings that break software: for each, a case whose tokens are routed so, in every layer and step, and the check that they
// are. What else the case has, its balancer, its K, its accumulation, is the caller's, and is settled before.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <map>
#include <ostream>
#include <span>
#include <vector>

#include "data/shards/batch.h"
#include "parallel/layout.h"
#include "parallel/mesh.h"
#include "tests/ranks/routed_cases.h"
#include "tests/ranks/test_session.h"

namespace smoe {

// The layout with the most ep, and one that cuts sequences over tp as well.
inline std::vector<Layout> few_layouts() {
  const int ranks = test_session().size();
  if (ranks == 1) return {{}};
  if (ranks == 2) return {{.ranks = 2, .ep = 2}, {.ranks = 2, .tp = 2, .ep = 2}};
  if (ranks % 3 == 0) return {{.ranks = ranks, .tp = 3, .ep = ranks}};
  return {{.ranks = ranks, .ep = ranks}, {.ranks = ranks, .tp = 2, .ep = ranks / 2}};
}
// A mesh is made once: its communicators are dear.
inline const Mesh& mesh_of(const Layout& layout) {
  static std::map<std::array<int, 2>, Mesh> meshes;
  const std::array<int, 2> key{layout.tp, layout.ep};
  const auto known = meshes.find(key);
  if (known != meshes.end()) return known->second;
  return meshes.emplace(key, Mesh::over(test_session(), layout, {.kind = device_of(DeviceChoice::automatic)}))
      .first->second;
}

// As little as divides over the ranks of the job: 8 experts and heads, or 6 where the ranks are a multiple of 3.
inline EquivalenceCase small() {
  EquivalenceCase c = basic();
  const std::int64_t parts = test_session().size() % 3 == 0 ? 6 : 8;
  c.model.num_attention_heads = c.model.num_key_value_heads = c.model.num_local_experts = parts;
  c.model.hidden_size = 32;
  c.model.intermediate_size = 24;
  c.at_once = parts == 6 ? 12 : 8;
  c.steps = 2;
  return c;
}

inline std::int64_t hot_expert_of(const EquivalenceCase& c) { return c.model.num_local_experts - 3; }
// Another one than the best: each in turn.
inline std::int64_t other_than(std::int64_t best, std::int64_t turn, std::int64_t experts) {
  return (best + 1 + turn % (experts - 1)) % experts;
}

// Every expert gets as much as any other, of each sequence.
inline void route_evenly(EquivalenceCase& c) {
  choose(c, [E = c.model.num_local_experts](std::int64_t, std::int64_t s, std::int64_t t) {
    return BestAndSecond{(s + t) % E, (s + t + 1) % E};
  });
}
// Every token's best expert is the same one.
inline void route_to_hot_expert(EquivalenceCase& c) {
  choose(c, [E = c.model.num_local_experts, hot = hot_expert_of(c)](std::int64_t, std::int64_t s, std::int64_t t) {
    return BestAndSecond{hot, other_than(hot, s + t, E)};
  });
}
// Experts 2 and 3 get half each, of 8 experts over 2 or 4 ranks those of one rank.
inline void route_to_hot_rank(EquivalenceCase& c) {
  const bool both = c.model.num_experts_per_tok > 1;
  choose(c, [both, E = c.model.num_local_experts](std::int64_t, std::int64_t s, std::int64_t t) {
    const std::int64_t best = t % 2 == 0 ? 2 : 3;
    return BestAndSecond{best, both ? 5 - best : other_than(best, s + t, E)};
  });
}
// Step 2: the micro-batches have one hot expert each. Step 3: the sequences do. In step 1 tokens are as drawn, which is calm.
inline void route_in_bursts(EquivalenceCase& c) {
  c.steps = 3;
  if (c.accumulation == 1) c.accumulation = 2;
  choose(c, [E = c.model.num_local_experts, at_once = c.at_once](std::int64_t step, std::int64_t s, std::int64_t t) {
    const std::int64_t group = step == 2 ? s / at_once : s, hot = group % 2 == 0 ? 1 : E - 2;
    return BestAndSecond{hot, other_than(hot, s + t, E)};
  });
  c.arrange = [burst = c.arrange](std::int64_t step, std::span<std::int32_t> ids, std::span<std::int32_t> targets) {
    if (step > 1) burst(step, ids, targets);
  };
}
// The upper half of the experts gets nothing, and the later half of each micro-batch's sequences has no target.
inline void route_past_ranks(EquivalenceCase& c) {
  choose(c, [half = c.model.num_local_experts / 2](std::int64_t, std::int64_t s, std::int64_t t) {
    return BestAndSecond{(s + t) % half, (s + t + 1) % half};
  });
  c.arrange = [choose = c.arrange, length = c.sequence_length, at_once = c.at_once](
                  std::int64_t step, std::span<std::int32_t> ids, std::span<std::int32_t> targets) {
    choose(step, ids, targets);
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (static_cast<std::int64_t>(i) / length % at_once >= at_once / 2) targets[i] = masked_target;
  };
}
// One step: what decides after it is the rounding of gates that had the same gradient.
inline void route_by_ties(EquivalenceCase& c) {
  choose_by_nothing(c);
  c.steps = 1;
}
// The last expert but one, then the second, by the selection bias alone.
inline void route_by_bias(EquivalenceCase& c) {
  choose_by_nothing(c);
  const std::int64_t E = c.model.num_local_experts;
  c.selection_bias.assign(static_cast<std::size_t>(c.model.num_hidden_layers * E), 0.0f);
  for (std::int64_t l = 0; l < c.model.num_hidden_layers; ++l) {
    c.selection_bias[static_cast<std::size_t>(l * E + E - 2)] = 0.5f;
    c.selection_bias[static_cast<std::size_t>(l * E + 1)] = 0.4f;
  }
}

struct Adversary {
  const char* name;
  void (*force)(EquivalenceCase& c);
  // That a layer's load [E] in that step is what the name says.
  void (*check)(const EquivalenceCase& c, std::int64_t step, const std::vector<double>& load);
};
inline void PrintTo(const Adversary& a, std::ostream* out) { *out << a.name; }

inline void expect_share(const std::vector<double>& load, std::int64_t expert, double share) {
  EXPECT_NEAR(load.at(static_cast<std::size_t>(expert)), share, 1e-12) << "of expert " << expert;
}
// Each expert its share of the K assignments of every token, the best ones first.
inline void expect_all_on(const EquivalenceCase& c, const std::vector<double>& load,
                          std::vector<std::int64_t> experts) {
  experts.resize(static_cast<std::size_t>(c.model.num_experts_per_tok));
  for (const std::int64_t e : experts) expect_share(load, e, 1.0 / static_cast<double>(experts.size()));
}

inline std::vector<Adversary> adversaries() {
  return {
      {"hot_expert", route_to_hot_expert,
       [](const EquivalenceCase& c, std::int64_t, const std::vector<double>& load) {
         expect_share(load, hot_expert_of(c), 1.0 / static_cast<double>(c.model.num_experts_per_tok));
       }},
      {"hot_rank", route_to_hot_rank,
       [](const EquivalenceCase&, std::int64_t, const std::vector<double>& load) {
         for (const std::int64_t e : {2, 3}) expect_share(load, e, 0.5);
       }},
      {"burst", route_in_bursts,
       [](const EquivalenceCase& c, std::int64_t step, const std::vector<double>& load) {
         const std::int64_t E = c.model.num_local_experts;
         if (step == 1)
           for (const double share : load) EXPECT_LT(share, 2.0 / static_cast<double>(E));
         else
           for (const std::int64_t hot :
                {std::int64_t{1}, E - 2})  // the best of half the tokens, and second of some others
             EXPECT_GE(load[static_cast<std::size_t>(hot)], 0.5 / static_cast<double>(c.model.num_experts_per_tok));
       }},
      {"zero_token_rank", route_past_ranks,
       [](const EquivalenceCase& c, std::int64_t, const std::vector<double>& load) {
         const std::int64_t E = c.model.num_local_experts;
         for (std::int64_t e = 0; e < E; ++e) expect_share(load, e, e < E / 2 ? 2.0 / static_cast<double>(E) : 0.0);
       }},
      {"all_logits_equal", route_by_ties,
       [](const EquivalenceCase& c, std::int64_t, const std::vector<double>& load) {
         expect_all_on(c, load, {0, 1});
       }},
      {"all_bias", route_by_bias,
       [](const EquivalenceCase& c, std::int64_t, const std::vector<double>& load) {
         expect_all_on(c, load, {c.model.num_local_experts - 2, 1});
       }},
  };
}

}  // namespace smoe
