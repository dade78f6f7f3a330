// How much an expert says of a token's domain, and of the token itself: mutual information in bits, layer by layer.
//
// Estimates from counts are too high, the more so the more cells a table has: with as many token ids as a text has, independent
// experts would seem to carry information too. So each stands beside its mean over permutations, which is that excess, and
// `corrected` is without it. Permutations are drawn from the seed; layers and both ways to count see the same ones.
//   I(domain; expert): the domains of sequences are permuted, not those of tokens, since tokens of one sequence are alike.
//   I(token; expert): the choices of all tokens are permuted among positions, those of a token staying together. Neighbours are
//   not independent, so this p is too small where repetition is high; of the bits themselves that matters little.
// p is (1 + permutations whose information is not below the observed) / (1 + permutations): Phipson and Smyth, 2010. The smallest
// that can be is 1 / (1 + permutations).
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/analysis/assignments.h"

namespace smoe {

// Bits; not a number where there was no permutation, or of `of_entropy` where the entropy is 0.
struct Information {
  double bits = 0;        // of the counts as they are
  double permuted = 0;    // mean over the permutations
  double corrected = 0;   // bits - permuted
  double entropy = 0;     // of the expert: what there is to say
  double of_entropy = 0;  // corrected / entropy
  double p = 0;

  bool operator==(const Information&) const = default;
};

struct LayerInformation {
  Information first_choice;  // of a token's first expert
  Information assignments;   // of an expert drawn from a token's K

  bool operator==(const LayerInformation&) const = default;
};

struct PermutationOptions {
  std::uint64_t seed = 1;
  std::int64_t permutations = 200;
};

// [L]. Domains count by their tokens. Of fewer than two domains: empty, there is nothing to tell apart.
std::vector<LayerInformation> domain_information(const Assignments& table, const PermutationOptions& options);
// [L], over all domains together.
std::vector<LayerInformation> token_information(const Assignments& table, const PermutationOptions& options);

}  // namespace smoe
