// What is read from a model for a routing analysis: its choices, and how alike its experts are.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/philox.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/shards.h"
#include "tests/support/tiny_run.h"
#include "trainer/analysis/assignments.h"
#include "trainer/analysis/information.h"
#include "trainer/analysis/overlap.h"
#include "trainer/analysis/shares.h"
#include "trainer/sample_columns.h"

namespace smoe {
namespace {

using test::mentions;
using test::message_of;

// A model whose weights a test writes, and sources whose tokens it knows.
class AnalysedModel : public testing::Test {
 protected:
  AnalysedModel()
      : backend_(make_cpu_backend(1)), persistent_(*backend_), activations_(*backend_), scratch_(*backend_) {}

  Mixtral& make_model(const ModelConfig& config, DType type = DType::f32, std::optional<LoraConfig> adapters = {}) {
    lora_ = std::move(adapters);
    model_.emplace(config, mesh_, std::vector<std::string>{}, RoutingOptions{}, type, lora());
    model_->allocate(*backend_, persistent_, config.max_position_embeddings, false);
    model_->parameters().initialize(*backend_, 1);
    return *model_;
  }
  Mixtral& model() { return *model_; }
  const LoraConfig* lora() const { return pointer_to(lora_); }
  Backend& backend() { return *backend_; }
  Context context() { return {*backend_, mesh_, activations_, scratch_}; }
  float* weights(const std::string& name) { return model_->parameters().find(name)->value.f32(); }
  void fill(const std::string& name, const std::function<float(std::int64_t row, std::int64_t column)>& number) {
    const Tensor& value = model_->parameters().find(name)->value;
    const std::int64_t columns = value.rank() == 2 ? value.dim(1) : 1;
    for (std::int64_t i = 0; i < value.elements(); ++i) value.f32()[i] = number(i / columns, i % columns);
  }
  static std::string expert(int layer, int expert, const char* matrix) {
    return "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + std::to_string(expert) + "." +
           matrix + ".weight";
  }

  // Shards of these documents as a source of sequences of `length`.
  Source source(const std::string& name, const std::vector<std::vector<std::int32_t>>& documents, std::int64_t length,
                Tail tail = Tail::drop) {
    test::write_corpus(scratch_dir_ / name, {documents, {}},
                       {.tokenizer_sha256 = {}, .tokenizer_name = "none", .vocab_size = 61, .source = name});
    return {name, std::make_shared<const Dataset>((scratch_dir_ / name).string(), length, true, DatasetChecks{}, tail),
            1.0};
  }
  // Token ids below the tiny model's vocabulary, of documents of these lengths.
  static std::vector<std::vector<std::int32_t>> documents(std::initializer_list<std::size_t> lengths,
                                                          std::uint64_t seed) {
    std::vector<std::vector<std::int32_t>> all;
    for (const std::size_t length : lengths) {
      auto& ids = all.emplace_back();
      for (std::size_t i = 0; i < length; ++i)
        ids.push_back(static_cast<std::int32_t>(philox(seed, i, all.size())[0] % 61));
    }
    return all;
  }

 private:
  test::ScratchDir scratch_dir_;
  Mesh mesh_ = Mesh::single();
  std::unique_ptr<Backend> backend_;
  Arena persistent_, activations_, scratch_;
  std::optional<LoraConfig> lora_;
  std::optional<Mixtral> model_;
};

TEST_F(AnalysedModel, TokensAndTheirNeighboursAreThoseOfTheStream) {
  make_model(test::tiny_model());
  const auto first = documents({5, 1, 18, 40}, 1), second = documents({70}, 2);
  const Source a = source("a", first, 16), b = source("b", second, 16);
  Assignments table = empty_assignments(model().config(), 16);
  std::vector<std::string> told;
  const auto tell = [&](std::int64_t done, std::int64_t all) {
    told.push_back(std::to_string(done) + "/" + std::to_string(all));
  };
  collect_assignments(model(), context(), a, {.tokens = 1000, .at_once = 2, .on_progress = tell}, table);
  collect_assignments(model(), context(), b, {.tokens = 40, .at_once = 2, .on_progress = tell}, table);
  EXPECT_EQ(told, (std::vector<std::string>{"2/3", "3/3", "2/2"}));
  EXPECT_EQ(table.sources,
            (std::vector<AnalysedSource>{{"a", a.dataset->directory(), 0, 48}, {"b", b.dataset->directory(), 48, 32}}));
  std::vector<std::int32_t> stream;
  for (const auto& document : first) stream.insert(stream.end(), document.begin(), document.end());
  stream.resize(48);
  stream.insert(stream.end(), second[0].begin(), second[0].begin() + 32);
  EXPECT_EQ(table.ids, stream);
  EXPECT_EQ(table.sequences(), 5u);
  for (std::size_t t = 0; t < table.tokens(); ++t) {
    const bool opens = t % 16 == 0 || (t < 48 && (t == 5 || t == 6 || t == 24));
    EXPECT_EQ(table.follows[t], !opens) << t;
  }
}

// Choices, best first, are those of the router's logits, however many sequences are computed at once.
TEST_F(AnalysedModel, ChoicesAreThoseOfTheRouterBestFirst) {
  make_model(test::tiny_model());
  const Source a = source("a", documents({30, 60}, 3), 16);
  std::vector<Assignments> tables;
  for (const std::int64_t at_once : {1, 3}) {
    tables.push_back(empty_assignments(model().config(), 16));
    collect_assignments(model(), context(), a, {.tokens = 80, .at_once = at_once}, tables.back());
  }
  EXPECT_EQ(tables[0].choices, tables[1].choices);
  const Assignments& table = tables[0];
  ASSERT_EQ(table.layers(), 2u);
  SampleColumns columns;
  for (std::int64_t s = 0; s < 5; ++s) {
    columns.read(*a.dataset, s, 1, 16);
    Context now = context();
    now.activations.rewind({});
    const TokenBatch batch =
        make_token_batch(backend(), now.activations, 1, 16, columns.ids, columns.targets, columns.document_start);
    Mixtral::Saved saved;
    model().forward(now, batch, Keep::all, saved);
    for (std::size_t l = 0; l < 2; ++l)
      for (std::size_t t = 0; t < 16; ++t) {
        const float* logits = saved.layers[l].router.logits.f32() + 4 * t;
        std::vector<ExpertId> order{0, 1, 2, 3};
        std::stable_sort(order.begin(), order.end(), [&](ExpertId x, ExpertId y) { return logits[x] > logits[y]; });
        const auto chosen = table.chosen(l, static_cast<std::size_t>(s) * 16 + t);
        EXPECT_EQ((std::vector<ExpertId>{chosen.begin(), chosen.end()}), (std::vector<ExpertId>{order[0], order[1]}));
      }
  }
}

// A router that knows the token alone: token t goes to expert t mod E, and second to the next. Attention and experts add
// nothing to the residual, so every layer sees the same.
TEST_F(AnalysedModel, APlantedRouterIsFoundExactly) {
  const ModelConfig config = test::tiny_model();
  make_model(config);
  fill("model.embed_tokens.weight", [](std::int64_t id, std::int64_t d) { return d == id % 4 ? 3.0f : 0.0f; });
  for (int l = 0; l < 2; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    fill(layer + "self_attn.o_proj.weight", [](std::int64_t, std::int64_t) { return 0.0f; });
    for (int e = 0; e < 4; ++e) fill(expert(l, e, "w2"), [](std::int64_t, std::int64_t) { return 0.0f; });
    fill(layer + "block_sparse_moe.gate.weight", [](std::int64_t e, std::int64_t d) {
      return d == e ? 2.0f : d < 4 && d == (e + 3) % 4 ? 1.0f : 0.0f;
    });
  }
  Assignments table = empty_assignments(config, 16);
  for (const char* name : {"a", "b"})
    collect_assignments(model(), context(), source(name, documents({300, 33}, 1 + name[0]), 16), {.tokens = 320},
                        table);
  for (std::size_t l = 0; l < 2; ++l)
    for (std::size_t t = 0; t < table.tokens(); ++t) {
      EXPECT_EQ(table.chosen(l, t)[0], table.ids[t] % 4);
      EXPECT_EQ(table.chosen(l, t)[1], (table.ids[t] + 1) % 4);
    }
  for (const LayerInformation& layer : token_information(table, {})) {
    EXPECT_NEAR(layer.first_choice.bits, layer.first_choice.entropy, 1e-12);
    // Of two experts that are equally likely one bit is left, when the token is known.
    EXPECT_NEAR(layer.assignments.bits, layer.assignments.entropy - 1, 1e-12);
    EXPECT_DOUBLE_EQ(layer.first_choice.p, 1.0 / 201);
  }
  double with_3 = 0;
  for (std::size_t t = 0; t < 320; ++t) with_3 += table.ids[t] % 4 == 3;
  EXPECT_EQ(shares_of(table, table.sources[0], 1).choices[0][3], with_3 / 320);
}

TEST_F(AnalysedModel, WithoutAChoiceOrASequenceIsRefused) {
  ModelConfig config = test::tiny_model();
  config.num_local_experts = config.num_experts_per_tok = 1;
  EXPECT_TRUE(mentions(message_of([&] { empty_assignments(config, 16); }), {"one expert", "num_local_experts"}));
  config.num_local_experts = 70000;
  EXPECT_TRUE(mentions(message_of([&] { empty_assignments(config, 16); }), {"70000", "65535"}));
  const Source enough = source("enough", documents({17}, 1), 16, Tail::keep),
               short_of = source("short", documents({16}, 1), 16, Tail::keep);
  EXPECT_EQ(sequences_to_collect(*enough.dataset, 5), 1) << "no less than one";
  EXPECT_TRUE(mentions(message_of([&] { sequences_to_collect(*short_of.dataset, 100); }),
                       {"short", "16 tokens", "needs 17", "--seq to at most 15"}));
}

// ---- overlap ----

double cosine_of(const std::vector<double>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  return ab / std::sqrt(aa * bb);
}

TEST_F(AnalysedModel, WeightsAreComparedMatrixByMatrix) {
  make_model(test::tiny_model());
  const auto of = [&](int layer, int e, std::initializer_list<const char*> names) {
    std::vector<double> all;
    for (const char* name : names) {
      const Tensor& value = model().parameters().find(expert(layer, e, name))->value;
      all.insert(all.end(), value.f32(), value.f32() + value.elements());
    }
    return all;
  };
  std::copy_n(weights(expert(1, 0, "w3")), 40 * 32, weights(expert(1, 2, "w3")));
  fill(expert(1, 3, "w2"),
       [&](std::int64_t row, std::int64_t column) { return -2 * weights(expert(1, 1, "w2"))[row * 40 + column]; });
  fill(expert(0, 1, "w1"), [](std::int64_t, std::int64_t) { return 0.0f; });
  const auto found = weight_overlap(model(), context(), lora());
  ASSERT_EQ(found.size(), 2u);
  for (int l = 0; l < 2; ++l)
    for (int e = 0; e < 4; ++e)
      for (int f = 0; f < 4; ++f) {
        const auto at = static_cast<std::size_t>(4 * e + f);
        const ExpertOverlap& layer = found[static_cast<std::size_t>(l)];
        if (l == 1 || (e != 1 && f != 1))
          EXPECT_NEAR(layer.w1[at], cosine_of(of(l, e, {"w1"}), of(l, f, {"w1"})), 1e-12);
        else
          EXPECT_TRUE(std::isnan(layer.w1[at])) << "of zeros there is no direction";
        EXPECT_NEAR(layer.w2[at], cosine_of(of(l, e, {"w2"}), of(l, f, {"w2"})), 1e-12);
        EXPECT_NEAR(layer.w3[at], cosine_of(of(l, e, {"w3"}), of(l, f, {"w3"})), 1e-12);
        EXPECT_NEAR(layer.weights[at], cosine_of(of(l, e, {"w1", "w2", "w3"}), of(l, f, {"w1", "w2", "w3"})), 1e-12);
      }
  EXPECT_NEAR(found[1].w3[2], 1, 1e-12);
  EXPECT_NEAR(found[1].w2[4 + 3], -1, 1e-12);
}

TEST(MeanOverPairs, LeavesOutTheDiagonalAndWhatIsNotANumber) {
  EXPECT_DOUBLE_EQ(mean_over_pairs({1, 0.5, 0.1, 0.5, 1, 0.3, 0.1, 0.3, 1}, 3), 0.3);
  EXPECT_DOUBLE_EQ(mean_over_pairs({1, NAN, 0.1, NAN, NAN, 0.3, 0.1, 0.3, 1}, 3), 0.2);
  EXPECT_TRUE(std::isnan(mean_over_pairs({1, NAN, NAN, 1}, 2)));
}

// What an expert makes of x [D], by the formula.
std::vector<double> output_of(const float* w1, const float* w2, const float* w3, const float* x, int hidden,
                              int inner) {
  std::vector<double> y(static_cast<std::size_t>(hidden));
  for (int i = 0; i < inner; ++i) {
    double gate = 0, up = 0;
    for (int d = 0; d < hidden; ++d) {
      gate += static_cast<double>(w1[i * hidden + d]) * static_cast<double>(x[d]);
      up += static_cast<double>(w3[i * hidden + d]) * static_cast<double>(x[d]);
    }
    const double a = gate / (1 + std::exp(-gate)) * up;
    for (int d = 0; d < hidden; ++d) y[static_cast<std::size_t>(d)] += static_cast<double>(w2[d * inner + i]) * a;
  }
  return y;
}

TEST_F(AnalysedModel, OutputsAreComparedOnTheLayersOwnInputs) {
  ModelConfig config = test::tiny_model();
  config.initializer_range = 0.3;
  make_model(config);
  // Expert 1 of layer 1 is expert 0 with its hidden units in another order; expert 2 of layer 0 is expert 3.
  for (int i = 0; i < 40; ++i)
    for (int d = 0; d < 32; ++d) {
      weights(expert(1, 1, "w1"))[i * 32 + d] = weights(expert(1, 0, "w1"))[(39 - i) * 32 + d];
      weights(expert(1, 1, "w3"))[i * 32 + d] = weights(expert(1, 0, "w3"))[(39 - i) * 32 + d];
      weights(expert(1, 1, "w2"))[d * 40 + i] = weights(expert(1, 0, "w2"))[d * 40 + 39 - i];
    }
  for (const char* name : {"w1", "w2", "w3"})
    std::copy_n(weights(expert(0, 3, name)), 32 * 40, weights(expert(0, 2, name)));
  const std::vector<Source> sources{source("a", documents({50}, 5), 16), source("b", documents({9, 30}, 6), 16)};
  auto found = weight_overlap(model(), context(), lora());
  EXPECT_EQ(add_output_overlap(model(), context(), lora(), sources, 7, found), 8u);
  EXPECT_NEAR(found[1].outputs[1], 1, 1e-6);
  EXPECT_LT(std::abs(found[1].weights[1]), 0.2) << "which the weights do not show";
  EXPECT_NEAR(found[0].outputs[4 * 2 + 3], 1, 1e-6);

  // Four places of 16: 2, 6, 10 and 14.
  std::vector<std::vector<double>> sums(2, std::vector<double>(16));
  SampleColumns columns;
  for (const Source& one : sources) {
    columns.read(*one.dataset, 0, 1, 16);
    Context now = context();
    now.activations.rewind({});
    const TokenBatch batch =
        make_token_batch(backend(), now.activations, 1, 16, columns.ids, columns.targets, columns.document_start);
    Mixtral::Saved saved;
    model().forward(now, batch, Keep::all, saved);
    for (int l = 0; l < 2; ++l)
      for (const int place : {2, 6, 10, 14}) {
        std::vector<std::vector<double>> outputs;
        for (int e = 0; e < 4; ++e)
          outputs.push_back(output_of(weights(expert(l, e, "w1")), weights(expert(l, e, "w2")),
                                      weights(expert(l, e, "w3")),
                                      saved.layers[static_cast<std::size_t>(l)].router.x.f32() + 32 * place, 32, 40));
        for (std::size_t e = 0; e < 4; ++e)
          for (std::size_t f = 0; f < 4; ++f)
            sums[static_cast<std::size_t>(l)][4 * e + f] += cosine_of(outputs[e], outputs[f]) / 8;
      }
  }
  for (std::size_t l = 0; l < 2; ++l)
    for (std::size_t at = 0; at < 16; ++at) EXPECT_NEAR(found[l].outputs[at], sums[l][at], 1e-5) << l << ", " << at;
}

TEST_F(AnalysedModel, DamagedWeightsAreRefused) {
  make_model(test::tiny_model());
  weights(expert(1, 2, "w3"))[5] = NAN;
  auto found = weight_overlap(model(), context(), lora());
  const std::vector<Source> sources{source("a", documents({50}, 5), 16)};
  EXPECT_TRUE(mentions(message_of([&] { add_output_overlap(model(), context(), lora(), sources, 8, found); }),
                       {"layer 1", "not finite", "damaged"}));
}

// The weights of an expert are those that its tokens meet: W + scale B A.
TEST_F(AnalysedModel, AdaptersArePartOfWhatIsCompared) {
  ModelConfig config = test::tiny_model();
  config.initializer_range = 0.3f;
  make_model(config, DType::f32, LoraConfig{.r = 3, .alpha = 6, .target_modules = {"q_proj", "w1", "w2"}});
  std::uint64_t drawn = 0;
  for (Parameter& p : model().parameters())
    if (p.adapter)
      for (std::int64_t i = 0; i < p.value.elements(); ++i)
        p.value.f32()[i] = static_cast<float>(philox(9, drawn++, 0)[0]) * 0x1p-32f - 0.5f;
  const std::vector<Source> sources{source("a", documents({50}, 5), 16)};
  auto found = weight_overlap(model(), context(), lora());
  EXPECT_EQ(add_output_overlap(model(), context(), lora(), sources, 8, found), 8u);

  std::map<std::string, std::vector<float>> folded;
  for (Parameter& p : model().parameters()) {
    if (p.adapter) continue;
    auto& w = folded[p.name];
    w.assign(p.value.f32(), p.value.f32() + p.value.elements());
    const std::string path = p.name.substr(0, p.name.rfind('.'));
    const Parameter* const a = model().parameters().find(path + ".lora_A.weight");
    if (!a) continue;
    const float* const b = model().parameters().find(path + ".lora_B.weight")->value.f32();
    const std::int64_t columns = p.value.dim(1);
    for (std::int64_t i = 0; i < p.value.elements(); ++i)
      for (std::int64_t r = 0; r < 3; ++r)
        w[static_cast<std::size_t>(i)] += 2 * b[i / columns * 3 + r] * a->value.f32()[r * columns + i % columns];
  }
  make_model(config);
  const auto bare = weight_overlap(model(), context(), nullptr);
  for (const auto& [name, numbers] : folded) std::copy(numbers.begin(), numbers.end(), weights(name));
  auto expected = weight_overlap(model(), context(), nullptr);
  add_output_overlap(model(), context(), nullptr, sources, 8, expected);
  double changed = 0;
  for (std::size_t l = 0; l < 2; ++l)
    for (std::size_t at = 0; at < 16; ++at) {
      EXPECT_NEAR(found[l].w1[at], expected[l].w1[at], 1e-6);
      EXPECT_NEAR(found[l].w2[at], expected[l].w2[at], 1e-6);
      EXPECT_NEAR(found[l].w3[at], expected[l].w3[at], 1e-6);
      EXPECT_NEAR(found[l].weights[at], expected[l].weights[at], 1e-6);
      EXPECT_NEAR(found[l].outputs[at], expected[l].outputs[at], 1e-5);
      changed = std::max(changed, std::abs(expected[l].weights[at] - bare[l].weights[at]));
    }
  EXPECT_GT(changed, 0.01);
}

TEST_F(AnalysedModel, MayBeBf16) {
  make_model(test::tiny_model(), DType::bf16);
  const std::vector<Source> sources{source("a", documents({50}, 5), 16)};
  Assignments table = empty_assignments(model().config(), 16);
  collect_assignments(model(), context(), sources[0], {.tokens = 48}, table);
  EXPECT_EQ(table.tokens(), 48u);
  auto found = weight_overlap(model(), context(), lora());
  EXPECT_EQ(add_output_overlap(model(), context(), lora(), sources, 8, found), 8u);
  EXPECT_TRUE(std::isfinite(mean_over_pairs(found[1].outputs, 4)));
  EXPECT_LT(std::abs(mean_over_pairs(found[1].weights, 4)), 0.1);
}

}  // namespace
}  // namespace smoe
