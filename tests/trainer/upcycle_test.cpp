// Upcycling: what of the parent is kept bit for bit, where the new model begins as its parent, and what is drawn.
#include "trainer/convert/upcycle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <ostream>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "parallel/initial_values.h"
#include "tests/support/deviation.h"
#include "tests/support/scratch_dir.h"
#include "tests/trainer/dense_fixture.h"
#include "trainer/checkpoint/hf_config.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;
using test::bytes_of_tensor;
using test::DenseDirectory;
using test::numbers_of;
using test::ScratchDir;
using test::slurp;

const std::vector<std::int32_t> some_ids{1, 5, 60, 7, 7, 3, 22, 41, 12, 0, 33};

class UpcycleTest : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const DenseDirectory& dense = {}) const {
    fs::remove_all(scratch / name);
    dense.write(scratch / name);
    return scratch / name;
  }
  UpcycleOptions options(const std::vector<std::string>& parents = {"parent"}) const {
    UpcycleOptions o;
    for (const std::string& parent : parents) o.dense.push_back(scratch / parent);
    o.out = scratch / ("out-" + std::to_string(made_++));
    o.experts = 4;
    return o;
  }
  static std::string expert(std::int64_t layer, std::int64_t e, int matrix) {
    return "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + std::to_string(e) + ".w" +
           std::to_string(matrix) + ".weight";
  }
  static std::string router(std::int64_t layer) {
    return "model.layers." + std::to_string(layer) + ".block_sparse_moe.gate.weight";
  }
  // The parent's output, by a Mixtral that is it: one expert, which every token has.
  std::vector<float> parents_logits() const {
    UpcycleOptions one = options();
    one.experts = one.top_k = 1;
    upcycle(one);
    return test::logits_of_directory(one.out, some_ids);
  }
  double deviation_from_parent(const UpcycleOptions& o) const {
    upcycle(o);
    return test::deviation(test::logits_of_directory(o.out, some_ids), parents_logits());
  }

  ScratchDir scratch;

 private:
  mutable int made_ = 0;
};

const std::vector<std::pair<int, std::string>> projections{{1, "gate_proj"}, {2, "down_proj"}, {3, "up_proj"}};

struct Stored {
  std::string name;
  DenseDirectory dense;
  friend void PrintTo(const Stored& stored, std::ostream* out) { *out << stored.name; }
};
class UpcycleCopies : public UpcycleTest, public ::testing::WithParamInterface<Stored> {};

TEST_P(UpcycleCopies, KeepTheParentsBits) {
  const DenseDirectory& dense = GetParam().dense;
  write("parent", dense);
  UpcycleOptions o = options();
  o.max_shard_bytes = 10000;  // several files, of which some hold one tensor
  upcycle(o);
  const TensorDirectory parent(scratch / "parent"), made(o.out);
  EXPECT_GT(made.files().size(), 3u);
  std::set<std::string> expected;
  for (const auto& [name, shape] : test::dense_tensors(dense.shape)) {
    const std::string source = parent.contains(name) ? name : "model.embed_tokens.weight";
    if (name.find(".mlp.") != std::string::npos) continue;
    expected.insert(name);
    ASSERT_TRUE(made.contains(name)) << name;
    EXPECT_EQ(made.info(name).type, dense.weights) << name;
    EXPECT_EQ(made.info(name).shape, shape) << name;
    EXPECT_EQ(bytes_of_tensor(made, name), bytes_of_tensor(parent, source)) << name;
  }
  for (std::int64_t l = 0; l < dense.shape.layers; ++l) {
    for (std::int64_t e = 0; e < 4; ++e)
      for (const auto& [matrix, projection] : projections) {
        const std::string source = "model.layers." + std::to_string(l) + ".mlp." + projection + ".weight";
        expected.insert(expert(l, e, matrix));
        ASSERT_TRUE(made.contains(expert(l, e, matrix)));
        EXPECT_EQ(bytes_of_tensor(made, expert(l, e, matrix)), bytes_of_tensor(parent, source)) << source;
        EXPECT_EQ(made.info(expert(l, e, matrix)).shape, parent.info(source).shape);
      }
    expected.insert(router(l));
    EXPECT_EQ(made.info(router(l)).type, dense.weights);
  }
  EXPECT_EQ(std::set<std::string>(made.names().begin(), made.names().end()), expected);
}

std::vector<Stored> stored_in_many_ways() {
  std::vector<Stored> all;
  for (const TensorType type : {TensorType::f32, TensorType::bf16, TensorType::f16, TensorType::f64})
    for (const bool tied : {false, true}) {
      DenseDirectory dense{.type = tied ? "llama" : "mistral", .weights = type, .with_head = !tied};
      dense.config["tie_word_embeddings"] = tied;
      if (type == TensorType::bf16) dense.max_shard_bytes = 5000;
      all.push_back({std::string(name_of(type)) + (tied ? "_tied" : "_untied"), dense});
    }
  return all;
}
INSTANTIATE_TEST_SUITE_P(Types, UpcycleCopies, ::testing::ValuesIn(stored_in_many_ways()),
                         [](const auto& info) { return info.param.name; });

TEST_F(UpcycleTest, RoutersAreDrawnAsInitialWeightsAre) {
  write("parent");
  UpcycleOptions o = options();
  o.router_std = 0.03;
  o.seed = 7;
  upcycle(o);
  const TensorDirectory made(o.out);
  for (const std::int64_t layer : {0, 1}) {
    Parameter p{.name = router(layer), .shape = {4, 32}, .slice = {4, 32}};
    p.initial_std = 0.03f;
    std::vector<float> expected(4 * 32);
    fill_initial_values(7, p, expected.data());
    EXPECT_EQ(numbers_of(made, router(layer)), expected);
  }
}

TEST_F(UpcycleTest, BeginsAsItsParentWhateverTopKIs) {
  for (const char* type : {"llama", "mistral"}) {
    DenseDirectory dense{.type = type};
    if (dense.type == "mistral") dense.config["sliding_window"] = 4;
    write("parent", dense);
    for (const std::int64_t k : {1, 2, 3, 4}) {
      UpcycleOptions o = options();
      o.top_k = k;
      EXPECT_LE(deviation_from_parent(o), 2e-6) << type << " top-" << k;
    }
    UpcycleOptions drawn = options();
    drawn.drop = 0.1;
    EXPECT_GT(deviation_from_parent(drawn), 1e-3) << "the measure sees nothing";
  }
}

TEST_F(UpcycleTest, ATiedHeadIsTheParentsEmbedding) {
  DenseDirectory dense{.with_head = false};
  dense.config["tie_word_embeddings"] = true;
  write("parent", dense);
  EXPECT_LE(deviation_from_parent(options()), 2e-6);
  EXPECT_FALSE(read_hf_config(scratch / "out-0").tied_head);
}

// Where copies are cut, a token that chooses whole ones has the parent's output.
TEST_F(UpcycleTest, CutCopiesBeginAsTheirParentWhereWholeOnesAreChosen) {
  for (const TensorType type : {TensorType::f32, TensorType::bf16}) {
    write("parent", {.weights = type});
    for (const auto& [granularity, top_k] :
         std::vector<std::pair<int, int>>{{2, 2}, {2, 4}, {2, 12}, {3, 3}, {4, 4}, {4, 8}, {6, 6}, {12, 12}}) {
      UpcycleOptions o = options();
      o.experts = 12;
      o.granularity = granularity;
      o.top_k = top_k;
      const bool rounds = type == TensorType::bf16 && granularity % 3 == 0;  // 3 x has no place in 8 bits
      const double found = deviation_from_parent(o);
      EXPECT_LE(found, rounds ? 2e-2 : 2e-6) << granularity << ' ' << top_k;
      o = {o.dense, scratch / ("cube-root-" + o.out.filename().string()), o.experts, o.top_k, o.granularity};
      o.scale = SplitScale::cube_root;
      EXPECT_GT(deviation_from_parent(o), 3e-2) << "silu would be homogeneous";
    }
  }
}

TEST_F(UpcycleTest, CutCopiesHoldTheirPartsUnderOneRouterRow) {
  write("parent");
  const TensorDirectory parent(scratch / "parent");
  for (const SplitScale scale : {SplitScale::exact, SplitScale::cube_root}) {
    UpcycleOptions o = options();
    o.experts = 8;
    o.granularity = 4;
    o.top_k = 4;
    o.scale = scale;
    upcycle(o);
    const TensorDirectory made(o.out);
    const float root = static_cast<float>(std::cbrt(4.0));
    EXPECT_EQ(read_hf_config(o.out).model.intermediate_size, 6);
    const auto routers = numbers_of(made, router(1));
    Parameter rows{.name = router(1), .shape = {2, 32}, .slice = {2, 32}};
    rows.initial_std = 0.02f;
    std::vector<float> drawn(2 * 32);
    fill_initial_values(1, rows, drawn.data());
    for (int e = 0; e < 8; ++e) {
      EXPECT_TRUE(std::equal(routers.begin() + e * 32, routers.begin() + (e + 1) * 32, drawn.begin() + e / 4 * 32));
      for (const auto& [matrix, projection] : projections) {
        const auto found = numbers_of(made, expert(1, e, matrix));
        const auto whole = numbers_of(parent, "model.layers.1.mlp." + projection + ".weight");
        const float factor = scale == SplitScale::cube_root ? root : matrix == 1 ? 1.0f : 2.0f;
        ASSERT_EQ(found.size(), 6u * 32);
        for (int dim = 0; dim < 6; ++dim)
          for (int d = 0; d < 32; ++d) {
            const int part = 6 * (e % 4) + dim;
            const float of_parent = matrix == 2 ? whole[static_cast<std::size_t>(d * 24 + part)]
                                                : whole[static_cast<std::size_t>(part * 32 + d)];
            EXPECT_EQ(found[static_cast<std::size_t>(matrix == 2 ? d * 6 + dim : dim * 32 + d)], factor * of_parent);
          }
      }
    }
  }
}

// ---- what is drawn anew ----

// The intermediate dims of a matrix in which it differs from the parent's, and whether all numbers of each differ.
std::vector<std::int64_t> changed_dims(const std::vector<float>& found, const std::vector<float>& parent, bool columns,
                                       std::int64_t dims) {
  const auto others = static_cast<std::int64_t>(found.size()) / dims;
  std::vector<std::int64_t> changed;
  for (std::int64_t f = 0; f < dims; ++f) {
    std::int64_t differing = 0;
    for (std::int64_t d = 0; d < others; ++d) {
      const auto at = static_cast<std::size_t>(columns ? d * dims + f : f * others + d);
      differing += found[at] != parent[at];
    }
    EXPECT_TRUE(differing == 0 || differing >= others - 1) << differing << " of " << others;
    if (differing > 0) changed.push_back(f);
  }
  return changed;
}

TEST_F(UpcycleTest, DropDrawsTheSameDimsOfAllThreeMatricesAndOthersOfEachExpert) {
  write("parent");
  const TensorDirectory parent(scratch / "parent");
  UpcycleOptions o = options();
  o.drop = 0.4;  // of 24: 9.6
  upcycle(o);
  const TensorDirectory made(o.out);
  std::set<std::vector<std::int64_t>> choices;
  for (const std::int64_t layer : {0, 1})
    for (std::int64_t e = 0; e < 4; ++e) {
      std::vector<std::vector<std::int64_t>> changed;
      for (const auto& [matrix, projection] : projections)
        changed.push_back(
            changed_dims(numbers_of(made, expert(layer, e, matrix)),
                         numbers_of(parent, "model.layers." + std::to_string(layer) + ".mlp." + projection + ".weight"),
                         matrix == 2, 24));
      EXPECT_EQ(changed[0].size(), 10u);
      EXPECT_EQ(changed[0], changed[1]);
      EXPECT_EQ(changed[0], changed[2]);
      choices.insert(changed[0]);
    }
  EXPECT_EQ(choices.size(), 8u) << "experts share a choice";
  EXPECT_EQ(bytes_of_tensor(made, "model.layers.0.self_attn.q_proj.weight"),
            bytes_of_tensor(parent, "model.layers.0.self_attn.q_proj.weight"));
}

TEST_F(UpcycleTest, DropIsAFunctionOfTheSeedAndOfNothingElse) {
  write("parent");
  UpcycleOptions first = options(), again = options(), other = options(), cut = options();
  first.drop = again.drop = other.drop = 0.5;
  again.top_k = 1;
  other.seed = 2;
  for (const UpcycleOptions& o : {first, again, other}) upcycle(o);
  const TensorDirectory a(first.out), b(again.out), c(other.out);
  EXPECT_EQ(bytes_of_tensor(a, expert(1, 3, 2)), bytes_of_tensor(b, expert(1, 3, 2)));
  EXPECT_NE(bytes_of_tensor(a, expert(1, 3, 2)), bytes_of_tensor(c, expert(1, 3, 2)));
  EXPECT_NE(bytes_of_tensor(a, router(0)), bytes_of_tensor(c, router(0)));
}

TEST_F(UpcycleTest, WhatIsDrawnHasTheMomentsOfWhatItReplaces) {
  // Each dim of the parent is about a mean of its own: the moments of those chosen are not those of the whole matrix.
  DenseDirectory dense{.shape = {.hidden = 64, .intermediate = 400, .layers = 1, .head_dim = 16}};
  write("parent", dense);
  std::map<std::string, std::vector<float>> whole;
  {
    const TensorDirectory parent(scratch / "parent");
    std::vector<TensorSpec> specs;
    for (const std::string& name : parent.names()) {
      specs.push_back({name, TensorType::f32, parent.info(name).shape});
      whole[name] = numbers_of(parent, name);
      const bool columns = name.ends_with("down_proj.weight");
      if (name.find(".mlp.") != std::string::npos)
        for (std::size_t i = 0; i < whole[name].size(); ++i)
          whole[name][i] += 0.002f * static_cast<float>(columns ? i % 400 : i / 64);
    }
    fs::remove(scratch / "parent" / "model.safetensors");
    auto writer = TensorDirectoryWriter::create(scratch / "parent", specs);
    for (const TensorSpec& spec : specs) writer.write_f32(spec.name, 0, whole[spec.name]);
    writer.finish();
  }
  UpcycleOptions o = options();
  o.drop = 0.25;
  upcycle(o);
  const TensorDirectory made(o.out);
  for (std::int64_t e = 0; e < 4; ++e)
    for (const auto& [matrix, projection] : projections) {
      const auto found = numbers_of(made, expert(0, e, matrix));
      const auto& parent = whole["model.layers.0.mlp." + projection + ".weight"];
      double sum[2] = {}, squares[2] = {};  // of what was drawn, of what it replaces
      double n = 0;
      for (std::size_t i = 0; i < found.size(); ++i) {
        if (found[i] == parent[i]) continue;
        ++n;
        for (const auto& [which, x] : {std::pair{0, found[i]}, {1, parent[i]}})
          sum[which] += x, squares[which] += x * x;
      }
      ASSERT_NEAR(n, 100 * 64, 5);
      const auto std_of = [&](int which) { return std::sqrt(squares[which] / n - sum[which] * sum[which] / n / n); };
      // Four standard errors of 6400 draws, and something for the few that are the parent's by chance.
      EXPECT_NEAR(sum[0] / n, sum[1] / n, 4 * std_of(1) / std::sqrt(n)) << e << ' ' << projection;
      EXPECT_NEAR(std_of(0), std_of(1), 4 * std_of(1) / std::sqrt(2 * n)) << e << ' ' << projection;
    }
}

TEST_F(UpcycleTest, DropOfCutCopiesAndOfAllDims) {
  write("parent");
  const TensorDirectory parent(scratch / "parent");
  UpcycleOptions o = options();
  o.granularity = 2;
  o.drop = 0.5;
  upcycle(o);
  const TensorDirectory cut(o.out);
  const auto whole = numbers_of(parent, "model.layers.0.mlp.gate_proj.weight");
  for (int e = 0; e < 4; ++e)
    EXPECT_EQ(changed_dims(numbers_of(cut, expert(0, e, 1)),
                           {whole.begin() + e % 2 * 12 * 32, whole.begin() + (e % 2 + 1) * 12 * 32}, false, 12)
                  .size(),
              6u);
  UpcycleOptions all = options();
  all.drop = 1;
  upcycle(all);
  EXPECT_EQ(changed_dims(numbers_of(TensorDirectory(all.out), expert(0, 0, 1)), whole, false, 24).size(), 24u);
}

// ---- several parents ----

TEST_F(UpcycleTest, SeveralParentsDealTheirCopiesAndAverageTheRest) {
  write("a", {.seed = 1});
  write("b", {.type = "mistral", .seed = 2});
  const TensorDirectory a(scratch / "a"), b(scratch / "b");
  UpcycleOptions o = options({"a", "b"});
  o.experts = 8;
  o.granularity = 2;
  upcycle(o);
  const TensorDirectory made(o.out);
  for (int e = 0; e < 8; ++e) {
    const auto whole = numbers_of(e / 2 % 2 == 0 ? a : b, "model.layers.1.mlp.gate_proj.weight");
    EXPECT_EQ(numbers_of(made, expert(1, e, 1)),
              std::vector<float>(whole.begin() + e % 2 * 12 * 32, whole.begin() + (e % 2 + 1) * 12 * 32))
        << e;
  }
  for (const auto& [name, shape] : test::dense_tensors({})) {
    if (name.find(".mlp.") != std::string::npos) continue;
    const auto x = numbers_of(a, name), y = numbers_of(b, name);
    std::vector<float> mean(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) mean[i] = static_cast<float>((double{x[i]} + double{y[i]}) / 2);
    EXPECT_EQ(numbers_of(made, name), mean) << name;
  }
  EXPECT_EQ(read_json_file(o.out / "config.json").at("model_type"), "mixtral");

  UpcycleOptions first = options({"b", "a"});
  first.shared = SharedWeights::first;
  upcycle(first);
  EXPECT_EQ(bytes_of_tensor(TensorDirectory(first.out), "lm_head.weight"), bytes_of_tensor(b, "lm_head.weight"));
  EXPECT_EQ(bytes_of_tensor(TensorDirectory(first.out), expert(0, 3, 2)),
            bytes_of_tensor(a, "model.layers.0.mlp.down_proj.weight"));
}

TEST_F(UpcycleTest, TheSameParentTwiceIsThatParent) {
  write("parent", {.weights = TensorType::f16});
  EXPECT_LE(deviation_from_parent(options({"parent", "parent"})), 2e-6);
  const TensorDirectory made(scratch / "out-0"), parent(scratch / "parent");
  EXPECT_EQ(bytes_of_tensor(made, "model.norm.weight"), bytes_of_tensor(parent, "model.norm.weight"));
  EXPECT_EQ(read_json_file(scratch / "out-0" / "config.json").at("torch_dtype"), "float16");
}

TEST_F(UpcycleTest, MeansOfDifferentTypesAreF32AndATiedHeadIsItsParentsEmbedding) {
  DenseDirectory tied{.weights = TensorType::bf16, .with_head = false, .seed = 2};
  tied.config["tie_word_embeddings"] = true;
  write("a");
  write("b", tied);
  UpcycleOptions o = options({"a", "b"});
  upcycle(o);
  const TensorDirectory a(scratch / "a"), b(scratch / "b"), made(o.out);
  EXPECT_EQ(made.info("lm_head.weight").type, TensorType::f32);
  EXPECT_EQ(made.info(expert(0, 0, 1)).type, TensorType::f32);
  EXPECT_EQ(made.info(expert(0, 1, 1)).type, TensorType::bf16);
  const auto x = numbers_of(a, "lm_head.weight"), y = numbers_of(b, "model.embed_tokens.weight"),
             mean = numbers_of(made, "lm_head.weight");
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(mean[i], static_cast<float>((double{x[i]} + double{y[i]}) / 2));
}

TEST_F(UpcycleTest, TypesThatAreAskedFor) {
  write("parent");
  UpcycleOptions half = options(), whole = options();
  half.type = StoredType::bf16;
  upcycle(half);
  const TensorDirectory parent(scratch / "parent"), made(half.out);
  auto expected = numbers_of(parent, "model.layers.0.mlp.up_proj.weight");
  for (float& x : expected) x = f32_from_bf16(bf16_from_f32(x));
  EXPECT_EQ(numbers_of(made, expert(0, 2, 3)), expected);
  for (const std::string& name : made.names()) EXPECT_EQ(made.info(name).type, TensorType::bf16) << name;
  EXPECT_EQ(read_json_file(half.out / "config.json").at("torch_dtype"), "bfloat16");

  whole.dense = {half.out};
  write("narrow", {.weights = TensorType::bf16});
  whole.dense = {scratch / "narrow"};
  whole.type = StoredType::f32;
  upcycle(whole);
  EXPECT_EQ(numbers_of(TensorDirectory(whole.out), "model.norm.weight"),
            numbers_of(TensorDirectory(scratch / "narrow"), "model.norm.weight"));
  EXPECT_EQ(TensorDirectory(whole.out).info("model.norm.weight").type, TensorType::f32);
}

TEST_F(UpcycleTest, NothingIsLeftWhereItIsBrokenOff) {
  write("parent");
  UpcycleOptions o = options();
  int calls = 0;
  o.on_progress = [&](std::uint64_t, std::uint64_t) {
    if (++calls == 5) throw std::runtime_error("a full disk, say");
  };
  EXPECT_THROW(upcycle(o), std::runtime_error);
  EXPECT_EQ(scratch.entries(), 1u);
}

}  // namespace
}  // namespace smoe
