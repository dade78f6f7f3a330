// A few parameters of every kind of split, as the model declares them, of sizes that divide badly: what the tests of flat
// buffers, shards and their reduction share.
#pragma once

#include <cstdint>
#include <string>

#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace smoe::test {

// Experts 0 to 7 divide over ep, the 16 rows and columns of the split matrices over tp.
inline void declare_parameters(ParameterSet& set, const Mesh& mesh) {
  const std::int64_t t = mesh.size(Axis::tp), tp = mesh.rank(Axis::tp), experts = 8 / mesh.size(Axis::ep);
  const auto by_rows = [&](const std::string& name, std::int64_t columns, bool follows = false) {
    set.add({.name = name, .shape = {16, columns}, .first = {16 / t * tp, 0}, .slice = {16 / t, columns},
             .replicas = Replicas::tensor_parallel, .follows_previous = follows});
  };
  by_rows("embedding", 37);
  for (const std::string layer : {"0.", "1."}) {
    set.add({.name = layer + "norm", .shape = {13}, .decays = false});
    by_rows(layer + "q", 7);
    by_rows(layer + "k", 7, true);
    set.add({.name = layer + "o", .shape = {5, 16}, .first = {0, 16 / t * tp}, .slice = {5, 16 / t}, .replicas = Replicas::tensor_parallel});
    set.add({.name = layer + "gate", .shape = {8, 11}});
    for (std::int64_t e = 0; e < experts; ++e)
      set.add({.name = layer + "expert." + std::to_string(mesh.rank(Axis::ep) * experts + e), .shape = {3, 17}, .replicas = Replicas::expert,
               .follows_previous = e > 0});
  }
  set.add({.name = "head", .shape = {9, 31}});
}

// Whose ranks share this buffer.
inline Axis group_of(const FlatBuffer& flat) { return axis_of(flat.replicas); }

}  // namespace smoe::test
