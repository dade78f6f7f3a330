// Whole documents in sequences: which share one (best_fit.h), and what a data set makes of that.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "data/shards/best_fit.h"
#include "data/shards/dataset.h"
#include "data/shards/loader.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/shards.h"

namespace smoe {
namespace {

using Lengths = std::vector<std::uint32_t>;
using Packing2 = std::vector<std::vector<std::uint32_t>>;

Packing2 listed(const PackedSequences& packed) {
  Packing2 sequences;
  for (std::int64_t s = 0; s < packed.size(); ++s)
    sequences.emplace_back(packed.documents(s).begin(), packed.documents(s).end());
  return sequences;
}

// Best-fit decreasing as it is told, one sequence after another looked at.
Packing2 packed_plainly(const Lengths& lengths, std::uint32_t capacity) {
  std::vector<std::uint32_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0u);
  std::erase_if(order, [&](std::uint32_t d) { return lengths[d] == 0; });
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return lengths[a] > lengths[b]; });
  struct Open {
    std::vector<std::uint32_t> documents;
    std::uint32_t room;
    std::size_t since;  // it has this room
  };
  std::vector<Open> open;
  std::size_t turn = 0;
  for (const std::uint32_t d : order) {
    Open* best = nullptr;
    for (Open& o : open)
      if (o.room >= lengths[d] && (!best || o.room < best->room || (o.room == best->room && o.since > best->since)))
        best = &o;
    if (!best) best = &open.emplace_back(Open{{}, capacity, 0});
    best->documents.push_back(d);
    best->room -= lengths[d];
    best->since = ++turn;
  }
  Packing2 sequences;
  for (Open& o : open) {
    std::sort(o.documents.begin(), o.documents.end());
    sequences.push_back(std::move(o.documents));
  }
  std::sort(sequences.begin(), sequences.end());
  return sequences;
}

TEST(BestFit, IsBestFitDecreasing) {
  std::mt19937 random(3);
  for (const std::uint32_t capacity : {1u, 2u, 7u, 63u, 64u, 65u, 300u, 5000u}) {
    for (int trial = 0; trial < 6; ++trial) {
      Lengths lengths(trial * 70);
      for (auto& length : lengths) length = random() % (trial % 2 ? capacity + 1 : std::min(capacity, 9u) + 1);
      EXPECT_EQ(listed(pack_best_fit(lengths, capacity)), packed_plainly(lengths, capacity)) << capacity;
    }
  }
}

TEST(BestFit, OrdersSequencesByTheirFirstDocumentsAndDocumentsAsTheyCame) {
  // 9 goes first, then 8, 7, 3 (with 7), 2 (with 8), 1 (with 9).
  EXPECT_EQ(listed(pack_best_fit(Lengths{3, 9, 2, 8, 7, 1}, 10)), (Packing2{{0, 4}, {1, 5}, {2, 3}}));
  // Into the least room, not the first found: 4 fits 6 and 5 alike, and takes what 6 leaves.
  EXPECT_EQ(listed(pack_best_fit(Lengths{5, 6, 4}, 10)), (Packing2{{0}, {1, 2}}));
  EXPECT_EQ(listed(pack_best_fit(Lengths{0, 4, 0}, 4)), (Packing2{{1}}));
  EXPECT_EQ(pack_best_fit({}, 4).size(), 0);
}

TEST(BestFit, ALongSequenceHasATreeOfSeveralLevels) {
  const std::int64_t capacity = (1 << 24) - 1;
  EXPECT_EQ(listed(pack_best_fit(Lengths{1u << 23, 5000, (1u << 24) - 1, 1, 1u << 22}, capacity)),
            (Packing2{{0, 1, 3, 4}, {2}}));
}

TEST(BestFit, FillsSequencesWithLengthsOfAUsualCorpus) {
  std::mt19937 random(5);
  std::lognormal_distribution<double> draw(5.5, 1.0);
  Lengths lengths(100000);
  for (auto& length : lengths) length = static_cast<std::uint32_t>(std::clamp(draw(random), 1.0, 4096.0));
  const PackedSequences packed = pack_best_fit(lengths, 4096);
  const double used = std::accumulate(lengths.begin(), lengths.end(), 0.0);
  EXPECT_GT(used / (4096.0 * static_cast<double>(packed.size())), 0.999);
}

TEST(BestFit, RefusesWhatFitsNoSequence) { EXPECT_THROW(pack_best_fit(Lengths{3, 5}, 4), std::logic_error); }

// ---- data sets ----

Dataset packed_set(const std::string& directory, std::int64_t length) {
  return Dataset(directory, length, true, {}, Tail::drop, nullptr, Packing::best_fit);
}

struct Columns {
  std::vector<std::int32_t> inputs, targets, document_start;
};
Columns columns_of(const Dataset& dataset, std::int64_t sample) {
  const auto length = static_cast<std::size_t>(dataset.sequence_length());
  Columns columns{std::vector<std::int32_t>(length), std::vector<std::int32_t>(length),
                  std::vector<std::int32_t>(length)};
  dataset.read(sample, columns.inputs, columns.targets, columns.document_start);
  return columns;
}

// A document as a sample should hold it: inputs and targets, one after the other.
using ExampleIds = std::vector<std::int32_t>;
ExampleIds example_of(const std::vector<std::int32_t>& ids, const std::vector<std::uint8_t>& mask) {
  ExampleIds example(ids.begin(), ids.end() - 1);
  for (std::size_t t = 1; t < ids.size(); ++t) example.push_back(mask.empty() || mask[t] ? ids[t] : masked_target);
  return example;
}

TEST(PackedDataset, HoldsEveryDocumentThatHasATargetOnceAndWhole) {
  for (const std::int64_t length : {12, 40, 64}) {
    for (const bool masked : {false, true}) {
      const test::ScratchDir scratch;
      const test::Corpus corpus = test::random_corpus(7, 90, 13, 300, masked);
      test::write_corpus(scratch / "set", corpus, test::corpus_info(), 100);  // several shards
      const Dataset dataset = packed_set(scratch / "set", length);
      std::map<ExampleIds, int> expected, found;
      std::int64_t short_ones = 0, without = 0, positions = 0;
      for (std::size_t d = 0; d < corpus.documents.size(); ++d) {
        const auto& ids = corpus.documents[d];
        const auto mask = masked ? corpus.masks[d] : std::vector<std::uint8_t>();
        if (ids.size() < 2) {
          ++short_ones;
        } else if (!mask.empty() && std::count(mask.begin() + 1, mask.end(), 0) + 1 == std::ssize(mask)) {
          ++without;
        } else {
          ++expected[example_of(ids, mask)];
          positions += std::ssize(ids) - 1;
        }
      }
      std::int64_t used = 0;
      for (std::int64_t s = 0; s < dataset.samples(); ++s) {
        const Columns c = columns_of(dataset, s);
        std::size_t at = 0;
        while (at < c.inputs.size() && c.inputs[at] >= 0) {
          std::size_t end = at;
          while (end < c.inputs.size() && c.inputs[end] >= 0 && c.document_start[end] == static_cast<std::int32_t>(at))
            ++end;
          ASSERT_GT(end, at) << "a document does not start where it begins";
          ExampleIds example(c.inputs.begin() + at, c.inputs.begin() + end);
          example.insert(example.end(), c.targets.begin() + at, c.targets.begin() + end);
          ++found[example];
          at = end;
        }
        EXPECT_EQ(static_cast<std::int64_t>(at), dataset.used(s));
        EXPECT_GT(at, 0u);
        used += static_cast<std::int64_t>(at);
        for (; at < c.inputs.size(); ++at) {
          EXPECT_EQ(c.inputs[at], padding_id);
          EXPECT_EQ(c.targets[at], masked_target);
          EXPECT_EQ(c.document_start[at], static_cast<std::int32_t>(at));
        }
      }
      EXPECT_EQ(found, expected) << length;
      const PackedFacts facts = dataset.packed();
      EXPECT_EQ(facts.documents, std::ssize(corpus.documents) - short_ones - without);
      EXPECT_EQ(facts.positions, positions);
      EXPECT_EQ(used, positions);
      EXPECT_EQ(facts.without_target, without);
      EXPECT_EQ(facts.too_short, short_ones);
      EXPECT_EQ(dataset.tail(), 0);
    }
  }
}

TEST(PackedDataset, TakesADocumentOfOneIdMoreThanASequenceAndNoneLonger) {
  const test::ScratchDir scratch;
  test::write_corpus(scratch / "set", {{{1, 2, 3, 4, 5}, {6, 7}, {8, 9, 10, 11, 12, 13}, {1, 2, 3, 4, 5, 6}}, {}},
                     test::corpus_info());
  const Dataset dataset = packed_set(scratch / "set", 5);
  EXPECT_EQ(dataset.samples(), 3);
  EXPECT_EQ(columns_of(dataset, 1).targets, (std::vector<std::int32_t>{9, 10, 11, 12, 13}));
  test::expect_refused([&] { packed_set(scratch / "set", 4); },
                       {(scratch / "set").string(), "2 of its 4 documents", "has 6 ids", "at most 5",
                        "data.sequence_length to 5", "--max-length", "--too-long"});
  // One that is left out anyway is not too long.
  test::write_corpus(scratch / "masked", {{{1, 2, 3, 4}, {1, 2}}, {{1, 0, 0, 0}, {0, 1}}}, test::corpus_info());
  EXPECT_EQ(packed_set(scratch / "masked", 1).samples(), 1);
}

TEST(PackedDataset, RefusesWhatHoldsNoTarget) {
  const test::ScratchDir scratch;
  test::write_corpus(scratch / "column", {{{1}, {2}, {3}}, {}}, test::corpus_info());
  test::expect_refused([&] { packed_set(scratch / "column", 5); }, {"no target", "3 documents is of one id"});
  test::write_corpus(scratch / "masked", {{{1, 2, 3}}, {{1, 0, 0}}}, test::corpus_info());
  test::expect_refused([&] { packed_set(scratch / "masked", 5); }, {"no target", "loss_mask"});
  EXPECT_THROW(Dataset(scratch / "masked", 5, false, {}, Tail::drop, nullptr, Packing::best_fit), std::logic_error);
}

TEST(PackedDataset, TheLoaderSaysSo) {
  const test::ScratchDir scratch;
  test::write_corpus(scratch / "set", {{{1, 2, 3}, {4, 5}, {6, 7, 8, 9}}, {}}, test::corpus_info());
  const auto packed = std::make_shared<const Dataset>(packed_set(scratch / "set", 4));
  Loader loader({packed}, Sampler({{packed->samples(), 1.0}}, 1, false, 2), 1, 0, 1, 1);
  const Batch& batch = loader.next();
  EXPECT_TRUE(batch.whole_documents);
  EXPECT_EQ(batch.ids, (std::vector<std::int32_t>{1, 2, padding_id, padding_id, 4, 6, 7, 8}));
  const auto stream = std::make_shared<const Dataset>(scratch / "set", 4, true);
  EXPECT_FALSE(Loader({stream}, Sampler({{stream->samples(), 1.0}}, 1, false, 1), 1, 0, 1, 1).next().whole_documents);
  EXPECT_THROW(
      Loader({packed, stream}, Sampler({{packed->samples(), 1.0}, {stream->samples(), 1.0}}, 1, false, 1), 1, 0, 1, 1),
      std::logic_error);
}

}  // namespace
}  // namespace smoe
