// What `smoe bench` measures and says: a tiny step profiled for real, and sentences from made-up numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "data/files/json.h"
#include "kernels/philox.h"
#include "kernels/timed_backend.h"
#include "model/mixtral.h"
#include "optim/adamw.h"
#include "trainer/step_profile_text.h"
#include "trainer/training_step.h"

namespace smoe {
namespace {

ModelConfig tiny_model() {
  ModelConfig model;
  model.vocab_size = 61;
  model.hidden_size = 32;
  model.intermediate_size = 40;
  model.num_hidden_layers = 2;
  model.num_attention_heads = 4;
  model.num_key_value_heads = 2;
  model.num_local_experts = 4;
  return model;
}

// ---- the clock changes nothing ----

struct Bits {
  std::vector<double> losses;
  std::vector<float> weights;
  bool operator==(const Bits&) const = default;
};

// Three steps of two micro-batches on one thread.
Bits train_on(Backend& backend) {
  const Mesh mesh = Mesh::single();
  const ModelConfig config = tiny_model();
  Arena persistent(backend);
  Mixtral model(config, mesh);
  model.allocate(backend, persistent, 16, true);
  model.parameters().initialize(backend, 1);
  AdamW optimizer(backend, persistent, model.parameters(), mesh, {});
  TrainingStep step(backend, mesh, model, optimizer, {}, 2, Recompute::none);
  std::vector<std::int32_t> ids(4 * 16), targets(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(philox(1, i)[0] % 61);
    targets[i] = static_cast<std::int32_t>(philox(2, i)[0] % 61);
  }
  Bits bits;
  for (std::int64_t n = 1; n <= 3; ++n) {
    const StepResult result = step.compute_gradients({4, 16, ids, targets, {}});
    bits.losses.insert(bits.losses.end(), {result.lm_loss, result.aux_loss, result.grad_norm});
    step.apply(result, n, 1e-2);
  }
  for (const Parameter& p : model.parameters())
    bits.weights.insert(bits.weights.end(), p.value.f32(), p.value.f32() + p.value.elements());
  return bits;
}

TEST(TimedBackend, TrainsToTheSameBits) {
  const auto cpu = make_cpu_backend(1), other = make_cpu_backend(1);
  TimedBackend timed(*other);
  EXPECT_EQ(train_on(*cpu), train_on(timed));
  EXPECT_GT(timed.times().size(), 20u);
}

// ---- a profile ----

TEST(StepProfile, OfAdaptersUpdatesThemAlone) {
  StepProfileCase what{.model = tiny_model(), .sequence_length = 16, .micro_batch_size = 2, .steps = 1, .threads = 1};
  EXPECT_EQ(profile_step(what).trained_parameters, count_parameters(what.model).total);
  what.lora = LoraConfig{.r = 3, .target_modules = {"o_proj", "w2"}};
  const StepProfile profile = profile_step(what);
  EXPECT_EQ(profile.parameters, count_parameters(what.model).total);
  EXPECT_EQ(profile.trained_parameters, 2 * 3 * ((32 + 32) + 4 * (32 + 40)));
  EXPECT_DOUBLE_EQ(profile.model_flops, training_flops_per_token(what.model, 16, true) * 32);
  double adamw_elements = 0;
  for (const OpTime& op : profile.ops)
    if (op.op == "adamw") adamw_elements += op.work.flops / 14;
  EXPECT_EQ(adamw_elements, static_cast<double>(profile.trained_parameters));
  const Json json = parse_json(to_json_line(profile), "bench");
  EXPECT_EQ(json["trained_parameters"], profile.trained_parameters);
  EXPECT_NE(describe(profile).find(" trained; random weights"), std::string::npos);
}

TEST(StepProfile, IsOfTheConfigurationsOptimizerStep) {
  StepProfileCase what{.model = tiny_model(),
                       .sequence_length = 16,
                       .micro_batch_size = 2,
                       .micro_batches = 3,
                       .steps = 1,
                       .generated = 4,
                       .threads = 1};
  std::vector<std::int64_t> seen;
  what.on_progress = [&](std::int64_t done, std::int64_t total) {
    EXPECT_EQ(total, 3);
    seen.push_back(done);
  };
  const StepProfile profile = profile_step(what);
  EXPECT_EQ(seen, (std::vector<std::int64_t>{1, 2, 3}));
  EXPECT_EQ(profile.tokens(), 3 * 2 * 16);
  EXPECT_EQ(profile.parameters, count_parameters(what.model).total);
  EXPECT_EQ(profile.device.threads, 1);
  EXPECT_DOUBLE_EQ(profile.model_flops, 3 * forward_flops_per_token(what.model, 16) * 96);
  EXPECT_GT(profile.ceilings.core_flops, 0);
  EXPECT_GT(profile.ceilings.product_flops, 0);
  EXPECT_GT(profile.ceilings.memory_bytes, 0);
  EXPECT_GT(profile.peak_memory_bytes, 0u);
  EXPECT_GT(profile.cpu_share, 0);
  EXPECT_EQ(profile.generation.tokens, 4);
  EXPECT_EQ(profile.generation.past, 12);
  EXPECT_GT(profile.generation.seconds, 0);
  EXPECT_EQ(profile.generation.bytes, 4.0 * static_cast<double>(profile.active_parameters - 60 * 32));

  double seconds = profile.outside_seconds, adamw_elements = 0;
  for (const OpTime& op : profile.ops) {
    seconds += op.seconds;
    if (op.op == "adamw") adamw_elements += op.work.flops / 14;
    if (op.op == "embedding_forward") {
      EXPECT_EQ(op.calls, 3);  // one a micro-batch
    }
    if (op.op == "attention_backward") {
      EXPECT_EQ(op.shape, "B2 S16 H4 G2 C8");
      EXPECT_EQ(op.calls, 3 * 2);  // one a layer
      EXPECT_EQ(op.work, 6 * op_work::attention_backward(2, 16, 4, 2, 8, 0));
    }
  }
  EXPECT_NEAR(seconds, profile.step_seconds(), 1e-9);
  EXPECT_EQ(adamw_elements, static_cast<double>(profile.parameters));  // once a step, whatever the accumulation
  EXPECT_TRUE(std::is_sorted(profile.ops.begin(), profile.ops.end(),
                             [](const OpTime& a, const OpTime& b) { return a.seconds > b.seconds; }));
}

// ---- sentences ----

// A machine of 100 GF/s and 10 GB/s, and a step of one second.
class Judged : public ::testing::Test {
 protected:
  Judged() {
    profile.device = {
        .name = "a CPU", .threads = 2, .product_kernel = "a library", .peak_flops = 100e9, .peak_form = "AVX2"};
    profile.ceilings = {100e9, 80e9, 10e9};
    profile.micro_batch_size = 4;
    profile.sequence_length = 512;
    profile.micro_batches = 1;
    profile.model_flops = 60e9;
    profile.micro_batch_seconds = 1;
  }
  void product(double seconds, double share, std::int64_t rows = 512) {
    profile.ops.push_back(
        {"gemm", "nt m" + std::to_string(rows) + " n8 k8", rows, 10, seconds, {share * 100e9 * seconds, 1}});
  }
  void moved(const char* op, double seconds, double share, std::int64_t calls = 10) {
    profile.ops.push_back({op, "n1", 0, calls, seconds, {1, share * 10e9 * seconds}});
  }
  void outside(double seconds) { profile.outside_seconds = seconds; }
  void expect(Limit limit, std::initializer_list<const char*> pieces) const {
    const Verdict verdict = judge(profile);
    EXPECT_EQ(name_of(verdict.limit), name_of(limit));
    for (const char* piece : pieces)
      EXPECT_NE(verdict.sentence.find(piece), std::string::npos) << piece << " is not in: " << verdict.sentence;
  }

  StepProfile profile;
};

TEST_F(Judged, Arithmetic) {
  product(0.78, 0.91);
  moved("swiglu_forward", 0.2, 0.9);
  outside(0.02);
  expect(Limit::arithmetic,
         {"78% of the step is matrix products and attention at 91% of the cores' rate", "bound by arithmetic"});
}
TEST_F(Judged, ProductsThatAreSlow) {
  product(0.9, 0.45);
  outside(0.1);
  expect(Limit::slow_products, {"90% of the step", "at 45% of the cores' rate, where 60% can be expected",
                                "2048^3 reaches 80%, so the shapes"});
  profile.ceilings.product_flops = 50e9;
  expect(Limit::slow_products, {"2048^3 reaches 50% only, so the kernels (a library)"});
  profile.cpu_share = 0.5;
  expect(Limit::slow_products, {"the threads ran 50% of the time only"});
}
TEST_F(Judged, MemoryOfTheOptimizer) {
  product(0.55, 0.9);
  moved("adamw", 0.35, 0.96);
  moved("add", 0.06, 0.96);
  outside(0.04);
  expect(Limit::memory,
         {"41% of the step moves memory at 96% of its rate, 35% the optimizer's", "train.global_batch_size"});
}
TEST_F(Judged, MemoryOfActivations) {
  product(0.5, 0.9);
  moved("swiglu_forward", 0.45, 0.8);
  outside(0.05);
  expect(Limit::memory, {"45% of the step moves memory at 80% of its rate, most of it activations", "wider layers"});
}
TEST_F(Judged, MemoryThatIsNotTheLimit) {
  product(0.5, 0.9);
  moved("adamw", 0.45, 0.2);
  outside(0.05);
  expect(Limit::memory, {"45% of the step moves memory, but at 20% of its rate, where 50% can be expected"});
}
TEST_F(Judged, ProductsOfFewRows) {
  product(0.4, 0.2, 8);
  product(0.55, 0.9);
  outside(0.05);
  expect(Limit::small_work, {"40% of the step is small work", "at 20% of what bounds them", "gemm nt m8 n8 k8"});
}
TEST_F(Judged, FewRowsAtAGoodRateAreNoFault) {
  product(0.4, 0.8, 8);
  product(0.55, 0.9);
  outside(0.05);
  expect(Limit::arithmetic, {"95% of the step"});
}
TEST_F(Judged, CallsTooShortForTheThreads) {
  product(0.6, 0.9);
  moved("add", 0.3, 0.1, 30'000);  // 10 us each
  outside(0.1);
  expect(Limit::small_work, {"30% of the step is small work", "add n1"});
}
TEST_F(Judged, TimeBetweenTheOps) {
  product(0.6, 0.9);
  outside(0.4);
  expect(Limit::outside, {"40% of the step passes between the ops"});
}
TEST_F(Judged, NoOneThing) {
  product(0.45, 0.8);
  moved("adamw", 0.3, 0.9);
  moved("add", 0.1, 0.1, 30'000);
  outside(0.15);
  expect(Limit::mixed, {"No one thing", "45%", "30% moves memory", "10% is small work", "15% passes between"});
}
TEST_F(Judged, SharesAddUpToOne) {
  product(0.4, 0.8);
  product(0.1, 0.1, 4);
  moved("adamw", 0.3, 0.9);
  outside(0.2);
  const TimeShares shares = time_shares(profile);
  EXPECT_DOUBLE_EQ(shares.matrix + shares.memory + shares.small + shares.outside, 1);
  EXPECT_DOUBLE_EQ(shares.update, 0.3);
}

TEST_F(Judged, TextHasARowAnOpAndWhatIsLeft) {
  product(0.7, 0.9);
  moved("adamw", 0.2, 0.5);
  moved("fill", 0.0001, 0.5);
  outside(0.0999);
  profile.generation = {.tokens = 32, .past = 480, .seconds = 0.01, .bytes = 9e7};
  const std::string text = describe(profile);
  for (const char* piece :
       {"a CPU, 2 thread(s), products by a library",
        "cores 100.0 GF/s (AVX2 multiply-adds), a product of 2048^3 80.0 GF/s (80%), memory 10.0 GB/s",
        "2048 tokens: 1 micro-batch(es) of 4 x 512",
        "2048.0 tokens/s, 60.0 GF/s: 60% of the cores (mfu), 75% of the product", "90.0 GF/s  matrix",
        "5.0 GB/s  memory", "1 other(s)", "in no op", "bound by arithmetic",
        "100.0 tokens/s; 90.0 MB of active weights a token at 9.0 GB/s, 90% of the memory's rate, which bounds it"})
    EXPECT_NE(text.find(piece), std::string::npos) << piece << " is not in:\n" << text;
}

// A GPU has no cores to speak of: everything is held against its bf16 product.
class JudgedOnAGpu : public Judged {
 protected:
  JudgedOnAGpu() {
    profile.device = {.name = "a GPU",
                      .threads = 1,
                      .product_kernel = "cuBLASLt",
                      .peak_flops = 100e9,
                      .peak_form = "bf16 product 8192^3",
                      .kind = Device::cuda};
    profile.type = DType::bf16;
    profile.ceilings = {100e9, 100e9, 10e9};
    profile.peak_memory_bytes = 3u << 20;
    profile.peak_device_memory_bytes = 7u << 20;
    profile.queued_seconds = 0.8;  // where the ops take a second, one by one
  }
  void expect_no_cpu(const std::string& text) const {
    for (const char* word : {"the cores", "GF/s (", "thread", "multiply-add", "CPU", "2048^3"})
      EXPECT_EQ(text.find(word), std::string::npos) << word << " is in:\n" << text;
  }
};

TEST_F(JudgedOnAGpu, TextSpeaksOfTheProductAndOfBothMemories) {
  product(0.7, 0.9);
  moved("adamw", 0.2, 0.5);
  outside(0.1);
  profile.generation = {.tokens = 32, .past = 480, .seconds = 0.1, .bytes = 9e7};
  const std::string text = describe(profile);
  for (const char* piece :
       {"a GPU, products by cuBLASLt, computing in bf16", "bf16 product 8192^3 0.1 TF/s, memory 10.0 GB/s",
        "queued up, as in training, the step takes 800.0 ms", "0.1 TF/s: 75.0% of that product (mfu)",
        "7 MiB of the GPU at the peak, 3 of the host", "90% of the bf16 product's rate"})
    EXPECT_NE(text.find(piece), std::string::npos) << piece << " is not in:\n" << text;
  expect_no_cpu(text);
}

TEST_F(JudgedOnAGpu, EveryVerdictSpeaksOfIt) {
  const auto alone = [&](const std::function<void()>& ops, Limit limit, const char* piece) {
    profile.ops.clear();
    ops();
    expect(limit, {piece});
    expect_no_cpu(judge(profile).sentence);
  };
  alone([&] { outside(0.4), product(0.6, 0.9); }, Limit::outside, "each is waited for here");
  outside(0.05);
  alone([&] { product(0.4, 0.2, 8), product(0.55, 0.9); }, Limit::small_work, "calls too short for the GPU");
  alone([&] { product(0.5, 0.9), moved("add", 0.45, 0.2); }, Limit::memory, "too short to fill it");
  alone([&] { product(0.95, 0.3); }, Limit::slow_products, "the shapes of this model");
  profile.type = DType::f32;
  alone([&] { product(0.95, 0.3); }, Limit::slow_products, "train.precision: bf16");
  alone([&] { product(0.45, 0.8), moved("adamw", 0.3, 0.9), moved("add", 0.2, 0.1, 30'000); }, Limit::mixed,
        "80% of the bf16 product's rate");
}

TEST_F(JudgedOnAGpu, JsonHasItsPeakAndThePrecision) {
  product(0.7, 0.9);
  outside(0.3);
  const Json object = parse_json(to_json_line(profile), "bench");
  EXPECT_EQ(object.at("peak_device_memory_bytes"), 7 << 20);
  EXPECT_EQ(object.at("precision"), "bf16");
  EXPECT_DOUBLE_EQ(object.at("step_seconds"), 1);
  EXPECT_DOUBLE_EQ(object.at("queued_step_seconds"), 0.8);
  EXPECT_DOUBLE_EQ(object.at("tokens_per_sec"), 2048 / 0.8);
  EXPECT_EQ(object.at("core_form"), "bf16 product 8192^3");
}

TEST_F(Judged, ForcedRoutingIsSaid) {
  outside(1);
  EXPECT_EQ(describe(profile).find("forced"), std::string::npos);
  EXPECT_FALSE(parse_json(to_json_line(profile), "bench").contains("forced_routing"));
  profile.forced_routing = "uniform";
  EXPECT_NE(describe(profile).find("forced: uniform"), std::string::npos);
  EXPECT_EQ(parse_json(to_json_line(profile), "bench").at("forced_routing"), "uniform");
}
TEST_F(Judged, JsonIsOneLineWithTheSameNumbers) {
  product(0.7, 0.9);
  outside(0.3);
  const std::string line = to_json_line(profile);
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  const Json object = parse_json(line, "bench");
  EXPECT_EQ(object.at("tokens"), 2048);
  EXPECT_DOUBLE_EQ(object.at("mfu"), 0.6);
  EXPECT_DOUBLE_EQ(object.at("share_of_product"), 0.75);
  EXPECT_EQ(object.at("limit"), "outside");
  EXPECT_TRUE(object.at("generation").is_null());
  const Json& op = object.at("ops").at(0);
  EXPECT_EQ(op.at("bound"), "matrix");
  EXPECT_DOUBLE_EQ(op.at("share_of_bound"), 0.9);
  EXPECT_DOUBLE_EQ(op.at("share_of_step"), 0.7);
}

}  // namespace
}  // namespace smoe
