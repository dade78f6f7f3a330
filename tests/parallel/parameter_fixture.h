// A few parameters of every kind of split, trained and frozen, as the model declares them, of sizes that divide badly: what
// the tests of flat buffers, shards and their reduction share.
#pragma once

#include <cstdint>
#include <string>

#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "parallel/split.h"

namespace smoe::test {

// Experts 0 to 7 divide over ep, the 16 rows and columns of the split matrices over tp. In the first layer the experts are
// frozen, in the second the router and the output projection.
inline void declare_parameters(ParameterSet& set, const Mesh& mesh) {
  const std::int64_t t = mesh.size(Axis::tp), tp = mesh.rank(Axis::tp), experts = 8 / mesh.size(Axis::ep);
  const auto by_rows = [&](const std::string& name, std::int64_t columns, bool follows = false) {
    set.add({.name = name,
             .shape = {16, columns},
             .first = {16 / t * tp, 0},
             .slice = {16 / t, columns},
             .split = Split::tp,
             .follows_previous = follows});
  };
  by_rows("embedding", 37);
  for (const bool second : {false, true}) {
    const std::string layer = second ? "1." : "0.";
    set.add({.name = layer + "norm", .shape = {13}, .decays = false});
    by_rows(layer + "q", 7);
    by_rows(layer + "k", 7, true);
    set.add({.name = layer + "o",
             .shape = {5, 16},
             .first = {0, 16 / t * tp},
             .slice = {5, 16 / t},
             .split = Split::tp,
             .trainable = !second});
    set.add({.name = layer + "gate", .shape = {8, 11}, .trainable = !second});
    for (std::int64_t e = 0; e < experts; ++e)
      set.add({.name = layer + "expert." + std::to_string(mesh.rank(Axis::ep) * experts + e),
               .shape = {3, 17},
               .split = Split::ep,
               .trainable = second,
               .follows_previous = e > 0});
  }
  set.add({.name = "head", .shape = {9, 31}});
}

}  // namespace smoe::test
