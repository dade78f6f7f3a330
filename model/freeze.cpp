#include "model/freeze.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <utility>

namespace smoe {
namespace {

// model.layers.3.block_sparse_moe.experts.5.w1.weight -> model.layers.*.block_sparse_moe.experts.*.w1.weight: the
// pattern of all its kind. in_layer: of those in the same layer, whose number is the first in a name.
std::string kind_of(std::string_view name, bool in_layer = false) {
  std::string kind;
  bool layer_seen = !in_layer;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    const bool number =
        !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!kind.empty()) kind += '.';
    kind += number && layer_seen ? "*" : part;
    layer_seen |= number;
    begin = end + 1;
  }
  return kind;
}

void add_new(std::vector<std::string>& texts, std::string text) {
  if (std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(std::move(text));
}

std::string quoted(const std::vector<std::string>& texts, std::size_t shown = 16) {
  const std::vector<std::string> first(texts.begin(),
                                       texts.begin() + static_cast<std::ptrdiff_t>(std::min(shown, texts.size())));
  const std::size_t more = texts.size() - first.size();
  return fmt::format("'{}'{}", fmt::join(first, "', '"), more ? fmt::format(" and {} more", more) : "");
}

void require_matches(const ParameterSet& whole, const std::string& pattern) {
  if (std::any_of(whole.begin(), whole.end(), [&](const Parameter& p) { return matches_pattern(pattern, p.name); }))
    return;
  std::vector<std::string> kinds;
  for (const Parameter& p : whole) add_new(kinds, kind_of(p.name));
  throw std::runtime_error(
      fmt::format("train.freeze: '{}' matches no parameter of this model, expected patterns of names such as {}",
                  pattern, quoted(kinds)));
}

// Parameters that are read as one matrix.
using Matrix = std::vector<const Parameter*>;

bool is_split(const Matrix& matrix) {
  return std::any_of(matrix.begin(), matrix.end(),
                     [&](const Parameter* p) { return p->trainable != matrix.front()->trainable; });
}

[[noreturn]] void refuse_split(const Matrix& matrix, const std::vector<std::string>& patterns, bool every_layer) {
  std::vector<std::string> frozen, trained, guilty, missing;
  for (const Parameter* p : matrix) {
    (p->trainable ? trained : frozen).push_back(p->name);
    if (p->trainable) add_new(missing, kind_of(p->name, !every_layer));
    for (const std::string& pattern : patterns)
      if (matches_pattern(pattern, p->name)) add_new(guilty, pattern);
  }
  throw std::runtime_error(fmt::format(
      "train.freeze: {} freezes {} and not {}, which lie in one matrix and are trained or frozen as one (q_proj, k_proj and v_proj of a "
      "layer; w1 and w3 of all its experts; w2 of all its experts): add {}, or freeze none of them",
      quoted(guilty), quoted(frozen, 2), quoted(trained, 2), quoted(missing)));
}

void require_whole_matrices(const ParameterSet& whole, const std::vector<std::string>& patterns) {
  std::vector<Matrix> matrices;
  for (const Parameter& p : whole) {
    if (!p.follows_previous) matrices.emplace_back();
    matrices.back().push_back(&p);
  }
  const auto found = std::find_if(matrices.begin(), matrices.end(), is_split);
  if (found == matrices.end()) return;
  const std::string kind = kind_of(found->front()->name);
  refuse_split(*found, patterns, std::all_of(matrices.begin(), matrices.end(), [&](const Matrix& m) {
    return kind_of(m.front()->name) != kind || is_split(m);
  }));
}

}  // namespace

bool matches_pattern(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0, star = std::string_view::npos,
              resume = 0;  // the last star, and where what follows it is tried next
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

std::vector<std::string> frozen_patterns(const RouterConfig& router, const std::vector<std::string>& freeze) {
  std::vector<std::string> patterns = freeze;
  if (router.frozen) patterns.push_back("*.block_sparse_moe.gate.weight");
  return patterns;
}

void freeze(ParameterSet& parameters, const std::vector<std::string>& patterns) {
  for (Parameter& p : parameters)
    if (std::any_of(patterns.begin(), patterns.end(),
                    [&](const std::string& pattern) { return matches_pattern(pattern, p.name); }))
      p.trainable = false;
}

void check_frozen(const ParameterSet& whole, const std::vector<std::string>& patterns) {
  for (const std::string& pattern : patterns) require_matches(whole, pattern);
  require_whole_matrices(whole, patterns);
  if (count_trained(whole) == 0)
    throw std::runtime_error("train.freeze: every parameter is frozen, expected one to train");
}

std::int64_t count_trained(const ParameterSet& whole) {
  std::int64_t trained = 0;
  for (const Parameter& p : whole)
    if (p.trainable) trained += p.shape.elements();
  return trained;
}

}  // namespace smoe
