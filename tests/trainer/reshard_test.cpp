// Weights and moments written by the ranks of one layout and read by those of another: every ordered pair of the layouts
// of 1, 2, 4 and 8 ranks, bit for bit, in one process.
#include <gtest/gtest.h>

#include <bit>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "data/files/sha256.h"
#include "data/files/tensor_directory.h"
#include "kernels/philox.h"
#include "model/freeze.h"
#include "model/mixtral.h"
#include "optim/adamw.h"
#include "tests/support/scratch_dir.h"
#include "trainer/machine.h"
#include "trainer/checkpoint/weights.h"

namespace smoe {
namespace {

using test::ScratchDir;

ModelConfig small_model() {
  ModelConfig c;
  c.vocab_size = 37;  // divides over no tp
  c.hidden_size = 24;
  c.intermediate_size = 20;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 8;
  c.num_key_value_heads = 8;
  c.head_dim = 2;
  c.num_local_experts = 8;
  return c;
}

std::vector<Layout> all_layouts() {
  std::vector<Layout> all;
  for (const int ranks : {1, 2, 4, 8})
    for (const Layout& layout : layouts_of(ranks)) all.push_back(layout);
  return all;
}

// A number that tells what it is: parameter, global index, and which of weight and moments.
float number(const Parameter& p, std::int64_t global_index, int kind) {
  const std::uint64_t bits = key_of(static_cast<std::uint64_t>(global_index * 3 + kind), p.name.data(), p.name.size());
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits >> 40) | 0x3f000000u);
}

// By hand, and not as the code under test does it.
std::int64_t place_in_whole(const Parameter& p, std::int64_t in_slice) {
  if (p.shape.rank() == 1) return p.first[0] + in_slice;
  const std::int64_t row = in_slice / p.slice[1], column = in_slice - row * p.slice[1];
  return (p.first[0] + row) * p.shape[1] + (p.first[1] + column);
}

// One rank's model and optimizer, as a checkpoint sees them.
class Holder {
 public:
  Holder(const Layout& layout, int rank, std::int64_t bucket_elements, const std::vector<std::string>& frozen)
      : mesh_(Mesh::placed(layout, rank)), model_(small_model(), mesh_, frozen) {
    model_.allocate(backend(), arena_, 8, true);
    optimizer_.emplace(backend(), arena_, model_.parameters(), mesh_, OptimizerConfig{}, bucket_elements);
  }
  static Backend& backend() {
    static const auto one = make_cpu_backend(1);
    return *one;
  }
  ParameterSet& parameters() { return model_.parameters(); }
  const Shards& shards() const { return optimizer_->shards(); }
  const Arena& arena() const { return arena_; }

  // Weights, first and second moments.
  PartsOf parts(int kind) {
    if (kind == 0) return master_parts(shards());
    return shard_parts(shards(), [this, kind](std::size_t flat) {
      return kind == 1 ? optimizer_->first_moments(flat) : optimizer_->second_moments(flat);
    });
  }
  void fill() {
    for (int kind = 0; kind < 3; ++kind)
      for (const Parameter& p : parameters())
        for (const SlicePart& part : parts(kind)(p))
          for (std::int64_t i = 0; i < part.numbers.elements(); ++i)
            part.numbers.f32()[i] = number(p, place_in_whole(p, part.first + i), kind);
  }
  // How many numbers are not what they should be, and how many there are.
  std::pair<std::int64_t, std::int64_t> wrong() {
    std::int64_t wrong = 0, seen = 0;
    for (const Parameter& p : parameters())
      for (std::int64_t i = 0; i < p.value.elements(); ++i, ++seen)
        wrong += p.value.f32()[i] != number(p, place_in_whole(p, i), 0);
    for (int kind = 1; kind < 3; ++kind)
      for (const Parameter& p : parameters())
        for (const SlicePart& part : parts(kind)(p))
          for (std::int64_t i = 0; i < part.numbers.elements(); ++i, ++seen)
            wrong += part.numbers.f32()[i] != number(p, place_in_whole(p, part.first + i), kind);
    return {wrong, seen};
  }

 private:
  Mesh mesh_;
  Arena arena_{backend()};
  Mixtral model_;
  std::optional<AdamW> optimizer_;
};

std::vector<std::unique_ptr<Holder>> ranks_of(const Layout& layout, std::int64_t bucket_elements = 640,
                                              const std::vector<std::string>& frozen = {}) {
  std::vector<std::unique_ptr<Holder>> ranks;
  for (int r = 0; r < layout.ranks; ++r) ranks.push_back(std::make_unique<Holder>(layout, r, bucket_elements, frozen));
  return ranks;
}

const std::array<std::string, 3> prefixes = {"", "exp_avg.", "exp_avg_sq."};

// Weights, and moments of what is trained.
std::vector<TensorSpec> all_specs(const std::vector<std::string>& frozen = {}) {
  const ParameterSet whole = declare_parameters(small_model(), Mesh::single(), frozen);
  std::vector<TensorSpec> specs;
  for (const std::string& prefix : prefixes)
    for (const TensorSpec& spec : tensor_specs(whole, prefix, prefix.empty() ? Members::all : Members::trained))
      specs.push_back(spec);
  return specs;
}

TEST(Reshard, EveryOrderedPairOfLayoutsRoundTripsToTheBit) {
  const ScratchDir scratch;
  const auto specs = all_specs();
  std::map<std::string, std::filesystem::path> files_by_hash;
  std::vector<std::filesystem::path> written;
  for (const Layout& layout : all_layouts()) {
    const auto directory = scratch.path() / std::to_string(written.size());
    std::filesystem::create_directory(directory);
    TensorDirectoryWriter::lay_out(directory, specs);
    std::int64_t elements = 0;
    for (const auto& rank : ranks_of(layout)) {
      rank->fill();
      auto writer = TensorDirectoryWriter::open_for_slices(directory, specs);
      for (int kind = 0; kind < 3; ++kind)
        elements += write_parts(writer, Holder::backend(), rank->parameters(), rank->parts(kind),
                                prefixes[static_cast<std::size_t>(kind)]);
      writer.finish();
    }
    EXPECT_EQ(elements, 3 * count_parameters(small_model()).total)
        << layout.to_string() << ": each number is written by one rank";
    files_by_hash.emplace(sha256_file(directory / "model.safetensors"), directory);
    written.push_back(directory);
  }
  EXPECT_EQ(files_by_hash.size(), 1u) << "the file does not depend on who wrote it";

  int pairs = 0;
  for (const Layout& reader : all_layouts()) {
    auto ranks = ranks_of(reader, 1 << 20);  // other buckets than the writers', for whom nothing may depend on them
    for (const auto& [hash, directory] : files_by_hash) {  // one is read for all that are the same
      const TensorDirectory files(directory);
      for (const auto& rank : ranks) {
        for (const FlatBuffer& flat : rank->parameters().flat_buffers()) Holder::backend().fill(flat.values, -1.0f);
        read_parts(files, Holder::backend(), rank->parameters(), [](const Parameter& p) {
          return std::vector<SlicePart>{{0, p.value.reshape({p.value.elements()})}};
        });
        for (int kind = 1; kind < 3; ++kind)
          read_parts(files, Holder::backend(), rank->parameters(), rank->parts(kind),
                     prefixes[static_cast<std::size_t>(kind)]);
        const auto [wrong, seen] = rank->wrong();
        ASSERT_EQ(wrong, 0) << "written as " << directory << ", read as " << reader.to_string();
        ASSERT_GT(seen, 0);
      }
    }
    pairs += static_cast<int>(written.size());
  }
  EXPECT_EQ(pairs, 30 * 30);  // the 20 layouts with tp * ep <= ranks among them: 400 pairs
}

TEST(Reshard, WhatIsFrozenIsWrittenOnceAndHasNoMoments) {
  const ScratchDir scratch;
  const std::vector<std::string> frozen = {"*.experts.*", "*.gate.weight", "model.embed_tokens.weight"};
  const auto specs = all_specs(frozen);
  const ParameterSet whole = declare_parameters(small_model(), Mesh::single(), frozen);
  std::set<std::string> hashes;
  for (const Layout& layout : all_layouts()) {
    const auto directory = scratch.path() / std::to_string(hashes.size());
    std::filesystem::create_directories(directory);
    TensorDirectoryWriter::lay_out(directory, specs);
    std::array<std::int64_t, 3> elements{};
    for (const auto& rank : ranks_of(layout, 640, frozen)) {
      rank->fill();
      auto writer = TensorDirectoryWriter::open_for_slices(directory, specs);
      for (std::size_t kind = 0; kind < 3; ++kind)
        elements[kind] += write_parts(writer, Holder::backend(), rank->parameters(),
                                      rank->parts(static_cast<int>(kind)), prefixes[kind]);
      writer.finish();
    }
    EXPECT_EQ(elements[0], count_parameters(small_model()).total) << layout.to_string();
    EXPECT_EQ(elements[1], count_trained(whole)) << layout.to_string();
    EXPECT_EQ(elements[2], count_trained(whole)) << layout.to_string();
    hashes.insert(sha256_file(directory / "model.safetensors"));
    std::filesystem::remove_all(directory);
  }
  EXPECT_EQ(hashes.size(), 1u) << "the file does not depend on who wrote it";
}

// ZeRO-1: weights and gradients whole, moments and the masters of bf16 weights divided by the number of ranks that hold
// replicas.
class ReshardMemory : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, ReshardMemory, testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return name_of(info.param); });

TEST_P(ReshardMemory, OfARankIsWhatIsDeclared) {
  const DType type = GetParam();
  ModelConfig model = small_model();
  for (const Layout& layout : all_layouts())
    for (int r = 0; r < layout.ranks; ++r) {
      const Mesh mesh = Mesh::placed(layout, r);
      Arena arena(Holder::backend());
      ModelConfig larger = model;
      larger.hidden_size = 256, larger.intermediate_size = 512, larger.vocab_size = 4096, larger.head_dim = 32;
      Mixtral whole(larger, mesh, {}, {}, type);
      whole.allocate(Holder::backend(), arena, 8, true);
      const AdamW optimizer(Holder::backend(), arena, whole.parameters(), mesh, {});
      const auto expected = static_cast<double>(training_state_bytes(larger, layout, {}, type));
      EXPECT_NEAR(static_cast<double>(arena.high_water_bytes()), expected, 0.002 * expected + 16384)
          << layout.to_string() << " rank " << r;
      const auto least = static_cast<double>(least_training_state_bytes(larger, layout, false, type));
      EXPECT_LE(least, expected) << layout.to_string();
      EXPECT_GE(least, 0.98 * expected) << layout.to_string();
      EXPECT_LE(static_cast<double>(least_training_state_bytes(larger, layout, true, type)), 0.5 * least)
          << layout.to_string();
    }
}

// What is declared is what is taken: each block of the arena is rounded up, and the rope's table lies beside them.
TEST_P(ReshardMemory, OfWhatIsFrozenIsItsValueAndNoMore) {
  const DType type = GetParam();
  const std::int64_t positions = 8, blocks = 30;
  const ModelConfig model = small_model();
  for (const std::vector<std::string>& frozen : std::vector<std::vector<std::string>>{
           {}, {"*.gate.weight"}, {"*.experts.*"}, {"model.*"}, {"*norm*", "*.self_attn.*", "lm_head.weight"}})
    for (const Layout& layout : all_layouts()) {
      SCOPED_TRACE(layout.to_string() + " " + (frozen.empty() ? "" : frozen.front()));
      const Mesh mesh = Mesh::placed(layout, layout.ranks - 1);
      Arena arena(Holder::backend());
      Mixtral taken(model, mesh, frozen, {}, type);
      taken.allocate(Holder::backend(), arena, positions, true);
      const AdamW optimizer(Holder::backend(), arena, taken.parameters(), mesh, {});
      const std::int64_t declared = static_cast<std::int64_t>(training_state_bytes(model, layout, frozen, type)) +
                                    4 * positions * model.head_size();
      EXPECT_GE(static_cast<std::int64_t>(arena.high_water_bytes()), declared);
      EXPECT_LT(static_cast<std::int64_t>(arena.high_water_bytes()), declared + 256 * blocks);

      // By the elements: 4 bytes each, 4 + 8 / d more where it is trained; of bf16 2, and 4 + 12 / d. And padding to lines of
      // what all ranks of a group own.
      const double value = static_cast<double>(bytes_of(type)), owned = type == DType::bf16 ? 12 : 8;
      double by_hand = 0, padding = 0;
      for (const Parameter& p : taken.parameters()) {
        const double d = mesh.size(replica_axis(p.split));
        by_hand += static_cast<double>(p.slice.elements()) * (value + (p.trainable ? 4 + owned / d : 0));
        padding += 16 * 16;
      }
      padding += 16 * 16 * 6 * layout.ranks;
      EXPECT_GE(static_cast<double>(declared), by_hand);
      EXPECT_LT(static_cast<double>(declared),
                by_hand + padding + static_cast<double>(4 * positions * model.head_size()));
    }
}

TEST(Reshard, APlacedMeshHasNobodyToTalkTo) {
  const Mesh mesh = Mesh::placed({.ranks = 8, .tp = 2, .ep = 4}, 5);
  EXPECT_EQ(mesh.rank(Axis::dp), 2);
  EXPECT_EQ(mesh.rank(Axis::tp), 1);
  EXPECT_EQ(mesh.rank(Axis::edp), 1);
  EXPECT_EQ(mesh.rank(Axis::ep), 1);
  EXPECT_THROW(mesh.group(Axis::ep).barrier("test"), std::logic_error);
  EXPECT_THROW(Mesh::placed({.ranks = 8, .tp = 3}, 0), std::logic_error);
  EXPECT_THROW(Mesh::placed({.ranks = 8}, 8), std::logic_error);
}

}  // namespace
}  // namespace smoe
