// Runs that train adapters beside weights that stay as they are: what they save, what resumes from it, and what they refuse.
#include "trainer/checkpoint/adapters.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "data/files/safetensors.h"
#include "data/files/tensor_directory.h"
#include "kernels/host_view.h"
#include "model/mixtral.h"
#include "tests/trainer/adapter_files.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/evaluate.h"
#include "trainer/inference.h"
#include "trainer/machine.h"

namespace smoe {
namespace {

class AdapterRuns : public TrainingTest {
 protected:
  AdapterRuns() {
    TrainerConfig c = config("base");
    c.train.steps = 5;
    c.data.eval.clear();
    EXPECT_EQ(train(c), 0);
  }
  TrainerConfig adapter_config(const std::string& output, std::int64_t steps) const {
    TrainerConfig c = config(output);
    c.model.from = (root() / "base").string();
    c.router = RouterConfig{};
    c.router.aux_loss_coef = 0;
    c.lora = LoraConfig{.r = 3, .alpha = 6, .dropout = 0.25};
    c.train.steps = steps;
    c.checkpoint.interval = 3;
    c.checkpoint.keep = 10;
    c.schedule.type = ScheduleType::constant;  // the same rates whatever the number of steps
    c.data.eval.clear();
    return c;
  }
  std::string hash(const std::string& output, std::int64_t step) const {
    return sha256_file(checkpoint(output, step) / adapter_folder / kAdapterFile) +
           sha256_file(checkpoint(output, step) / "optimizer" / "model.safetensors");
  }
  std::string refusal(const TrainerConfig& c) const {
    return message_of([&] { train(c); });
  }
};

// Two layers of attention's four matrices and four experts' three.
constexpr std::size_t adapted = 2 * (4 + 4 * 3);

TEST_F(AdapterRuns, SaveAdaptersAndTheirMomentsAndNoWeights) {
  ASSERT_EQ(train(adapter_config("run", 3)), 0);
  EXPECT_FALSE(std::filesystem::exists(checkpoint("run", 3) / "model"));
  const SafetensorsReader saved(checkpoint("run", 3) / adapter_folder / kAdapterFile);
  std::set<std::string> names;
  for (const TensorInfo& tensor : saved.tensors()) {
    EXPECT_EQ(tensor.type, TensorType::f32) << tensor.name;
    names.insert(tensor.name);
  }
  EXPECT_EQ(names.size(), 2 * adapted);
  const std::string path = "base_model.model.model.layers.1.block_sparse_moe.experts.3.w2";
  EXPECT_EQ(saved.info(path + ".lora_A.weight").shape, (std::vector<std::int64_t>{3, 40}));
  EXPECT_EQ(saved.info(path + ".lora_B.weight").shape, (std::vector<std::int64_t>{32, 3}));
  EXPECT_TRUE(names.contains("base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"));
  EXPECT_EQ(TensorDirectory(checkpoint("run", 3) / "optimizer").names().size(), 2 * 2 * adapted);
  EXPECT_TRUE(
      mentions(log_of("run"), {"adapters of rank 3 beside q_proj, k_proj, v_proj, o_proj, w1, w2, w3, weighed by 2"}));
  EXPECT_EQ(find_adapter_directory(root() / "run"), checkpoint("run", 3) / adapter_folder);
  EXPECT_TRUE(mentions(message_of([&] { find_model_directory(root() / "run"); }), {"holds an adapter", "--adapter"}));
  EXPECT_TRUE(mentions(message_of([&] { find_adapter_directory(root() / "base"); }), {"base: no adapter found"}));
}

TEST_F(AdapterRuns, BeginWithTheLossOfTheWeightsAloneToTheBit) {
  ASSERT_EQ(train(adapter_config("adapted", 1)), 0);
  TrainerConfig weights = adapter_config("weights", 1);
  weights.lora.reset();
  ASSERT_EQ(train(weights), 0);
  EXPECT_EQ(metrics("adapted").steps.front().lm_loss, metrics("weights").steps.front().lm_loss);
  EXPECT_LT(metrics("adapted").steps.front().grad_norm, metrics("weights").steps.front().grad_norm);
}

TEST_F(AdapterRuns, ResumedAreTheUninterruptedOneToTheBit) {
  ASSERT_EQ(train(adapter_config("whole", 6)), 0);
  ASSERT_EQ(train(adapter_config("halves", 3)), 0);
  ASSERT_EQ(train(adapter_config("halves", 6)), 0);
  EXPECT_EQ(hash("whole", 6), hash("halves", 6));
  EXPECT_NE(hash("whole", 3), hash("whole", 6));
  EXPECT_EQ(metrics("whole").steps.back().grad_norm, metrics("halves").steps.back().grad_norm);
  TrainerConfig elsewhere = adapter_config("elsewhere", 6);
  elsewhere.checkpoint.resume = checkpoint("halves", 3).string();
  ASSERT_EQ(train(elsewhere), 0);
  EXPECT_EQ(hash("whole", 6), hash("elsewhere", 6));
}

TEST_F(AdapterRuns, WeighedByTheRootOfTheirRankResumeToTheSameBitsToo) {
  const auto rooted = [&](const std::string& output, std::int64_t steps) {
    TrainerConfig c = adapter_config(output, steps);
    c.lora->rslora = true;
    return c;
  };
  ASSERT_EQ(train(rooted("whole", 6)), 0);
  ASSERT_EQ(train(rooted("halves", 3)), 0);
  ASSERT_EQ(train(rooted("halves", 6)), 0);
  EXPECT_EQ(hash("whole", 6), hash("halves", 6));
}

// An adapter of several ranks is as wide everywhere as the widest: where A and B are both zero, so are both gradients.
TEST_F(AdapterRuns, LeaveZeroWhatFillsSmallerRanksUp) {
  TrainerConfig c = adapter_config("run", 3);
  LoraConfig narrow = *c.lora;
  narrow.r = 1;
  narrow.alpha = 2;  // the scale of rank 3
  test::AdapterFixture given = test::AdapterFixture::of(c.model, narrow);
  for (const auto& [name, tensor] : test::AdapterFixture::of(c.model, *c.lora).tensors)
    if (name.find("o_proj") != std::string::npos) given.tensors[name] = tensor;
  given.config["rank_pattern"] = {{"o_proj", 3}};
  given.config["alpha_pattern"] = {{"o_proj", 6}};
  c.lora->from = given.write(root() / "given").string();
  ASSERT_EQ(train(c), 0);
  const SafetensorsReader saved(checkpoint("run", 3) / adapter_folder / kAdapterFile);
  EXPECT_EQ(saved.tensors().size(), 2 * adapted);
  for (const TensorInfo& tensor : saved.tensors()) {
    const test::StoredTensor& before = given.tensors.at(tensor.name);
    const bool is_a = tensor.name.ends_with("lora_A.weight");
    const std::int64_t rows = tensor.shape[0], columns = tensor.shape[1];
    std::vector<float> numbers(static_cast<std::size_t>(rows * columns)), kept;
    saved.read_f32(tensor.name, numbers.data(), 0, rows * columns);
    std::size_t filled = 0;
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      const float x = numbers[static_cast<std::size_t>(i)];
      if (is_a ? i / columns < before.shape[0] : i % columns < before.shape[1])
        kept.push_back(x);
      else
        filled += x != 0;
    }
    EXPECT_EQ(filled, 0u) << tensor.name;
    EXPECT_EQ(kept.size(), before.numbers.size()) << tensor.name;
    EXPECT_NE(kept, before.numbers) << tensor.name << " is not trained";
  }
}

TEST_F(AdapterRuns, StandBesideTheirWeightsWhereTheyAreEvaluated) {
  TrainerConfig c = adapter_config("run", 3);
  c.data.eval = config("x").data.eval;
  c.eval.interval = 3;
  c.eval.batches = 1000;
  ASSERT_EQ(train(c), 0);
  const auto loss_of = [&](const std::filesystem::path& adapter) {
    InferenceModel model(find_model_directory(root() / "base"), mesh(), 16, make_cpu_backend(2), std::nullopt,
                         PrecisionChoice::automatic, adapter);
    const auto corpus = open_corpus(c.data, {.vocab_size = c.model.vocab_size, .model_directory = {}});
    return evaluate(model.model(), model.fresh_context(), *corpus->eval.front().dataset,
                    {.batches = 0, .sequences = 4, .name = "x", .on_progress = {}}, 0)
        .loss;
  };
  const double adapted_loss = loss_of(find_adapter_directory(root() / "run"));
  EXPECT_NEAR(adapted_loss, metrics("run").evals.back().loss, 1e-6 * adapted_loss);
  EXPECT_LT(adapted_loss, loss_of({}));
}

TEST_F(AdapterRuns, GoOnFromOthers) {
  ASSERT_EQ(train(adapter_config("run", 3)), 0);
  TrainerConfig c = adapter_config("next", 0);
  c.lora->from = (root() / "run").string();
  ASSERT_EQ(train(c), 0);
  EXPECT_EQ(sha256_file(checkpoint("next", 0) / adapter_folder / kAdapterFile),
            sha256_file(checkpoint("run", 3) / adapter_folder / kAdapterFile));
  c = adapter_config("other", 1);
  c.lora->from = (root() / "run").string();
  c.lora->r = 4;
  EXPECT_TRUE(mentions(refusal(c), {"run/checkpoints/step-000003/adapter", "lora.r: 3 there, 4 here"}));
  EXPECT_FALSE(std::filesystem::exists(root() / "other" / "checkpoints"));
}

TEST_F(AdapterRuns, AreWarnedOfBesideAnotherBase) {
  ASSERT_EQ(train(adapter_config("run", 3)), 0);
  const auto adapter = find_adapter_directory(root() / "run"), base = find_model_directory(root() / "base");
  EXPECT_EQ(warning_of_another_base(adapter, base), "");
  TrainerConfig c = config("other-base");
  c.train.steps = 1;
  c.train.seed = 7;
  ASSERT_EQ(train(c), 0);
  const auto other = find_model_directory(root() / "other-base");
  EXPECT_TRUE(mentions(warning_of_another_base(adapter, other),
                       {adapter.string() + ": was trained beside other files than those of " + other.string(),
                        "those of \"" + base.string() + "\""}));
  c = adapter_config("next", 1);
  c.model.from = other.string();
  c.lora->from = (root() / "run").string();
  ASSERT_EQ(train(c), 0);
  EXPECT_TRUE(mentions(log_of("next"), {"warning: ", "was trained beside other files"}));
  // What PEFT writes is a path, which may mean nothing here.
  const auto copy = root() / "copy";
  std::filesystem::copy(adapter, copy);
  EXPECT_EQ(warning_of_another_base(copy, base), "");
  EXPECT_TRUE(mentions(warning_of_another_base(copy, other), {"was trained beside other files"}));
  Json settings = read_json_file(copy / kAdapterConfigFile);
  for (const std::string& name :
       {std::string("mistralai/Mixtral-8x7B-v0.1"), root().string(), std::string(5000, 'x')}) {
    settings["base_model_name_or_path"] = name;
    write_json_file(copy / kAdapterConfigFile, settings);
    EXPECT_EQ(warning_of_another_base(copy, other), "") << name;
  }
}

TEST_F(AdapterRuns, DamagedOnesAreNotUsed) {
  ASSERT_EQ(train(adapter_config("run", 3)), 0);
  const auto adapter = find_adapter_directory(root() / "run");
  EXPECT_NO_THROW(verify_adapter_directory(adapter));
  {
    std::fstream file(adapter / kAdapterFile, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-2, std::ios::end);
    file.put('\x3f');
  }
  const auto use = [&] {
    InferenceModel(find_model_directory(root() / "base"), mesh(), 16, make_cpu_backend(1), std::nullopt,
                   PrecisionChoice::automatic, adapter);
  };
  EXPECT_TRUE(mentions(message_of(use), {kAdapterFile, "corrupt: its SHA-256 is"}));
  TrainerConfig c = adapter_config("next", 1);
  c.lora->from = (root() / "run").string();
  EXPECT_TRUE(mentions(refusal(c), {"corrupt: its SHA-256 is"}));
}

TEST_F(AdapterRuns, ResumeAsTheyBegan) {
  ASSERT_EQ(train(adapter_config("run", 3)), 0);
  const std::string before = hash("run", 3);
  TrainerConfig c = adapter_config("run", 6);
  c.lora->target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "w1", "w3"};
  EXPECT_TRUE(
      mentions(refusal(c), {"step-000003: its adapters are others", "w2 of layer 0 has an adapter there alone"}));
  c = adapter_config("run", 6);
  c.lora->alpha = 7;
  EXPECT_TRUE(mentions(refusal(c), {"lora.alpha: the product is weighed by 2 there, by 2.33333 here"}));
  c = adapter_config("run", 6);
  c.lora.reset();
  EXPECT_TRUE(mentions(refusal(c), {"step-000003: holds adapters, and this run trains a model's weights"}));
  TrainerConfig other_base = config("other-base");
  other_base.train.steps = 1;
  other_base.train.seed = 7;
  ASSERT_EQ(train(other_base), 0);
  c = adapter_config("run", 6);
  c.model.from = (root() / "other-base").string();
  EXPECT_TRUE(mentions(refusal(c), {"its adapters were trained beside other weights", "other-base"}));
  EXPECT_EQ(hash("run", 3), before);
  c = adapter_config("base", 10);
  c.model.from = (root() / "other-base").string();
  EXPECT_TRUE(mentions(refusal(c), {"holds a model's weights, and this run trains adapters"}));
}

TEST_F(AdapterRuns, NeedNoGradientsOrMomentsOfWeights) {
  ModelConfig model = test::tiny_model();
  model.hidden_size = 64, model.intermediate_size = 512, model.vocab_size = 4096;
  const LoraConfig lora{.r = 2};
  const Layout one;
  const std::uint64_t all = training_state_bytes(model, one),
                      adapters = training_state_bytes(model, one, {}, DType::f32, &lora),
                      weights = 4 * static_cast<std::uint64_t>(count_parameters(model).total);
  EXPECT_GE(all, 4 * weights);
  EXPECT_GE(adapters, weights);
  EXPECT_LT(adapters, weights + weights / 4);
}

TEST_F(AdapterRuns, RefuseWhatMatchesNothing) {
  TrainerConfig c = adapter_config("run", 3);
  c.lora->target_modules = {"q_proj", "up_proj"};
  EXPECT_TRUE(mentions(refusal(c), {"lora.target_modules: found up_proj, which matches nothing", "are w1, w2 and w3"}));
  c.lora = LoraConfig{.layers = {1, 2}};
  EXPECT_TRUE(mentions(refusal(c), {"lora.layers: expected [first, last], in 0 .. 1"}));
  c.lora = LoraConfig{.dropout = 0.5};
  c.train.global_batch_size = c.train.micro_batch_size = 1 << 29;
  EXPECT_TRUE(mentions(refusal(c), {"lora.dropout: a step has"}));
  EXPECT_FALSE(std::filesystem::exists(root() / "run"));
}

}  // namespace
}  // namespace smoe
