// A training step of one layer, every op of it on the GPU and, from the same numbers, on the CPU (kernels/check_backend.h): at the
// widths of Mixtral 8x7B, where a tensor has 2^29 entries and more, and an index that is too narrow shows.
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda_device.h"
#include "kernels/host_view.h"
#include "parallel/mesh.h"
#include "tests/gpu/figure.h"
#include "trainer/training_step.h"

namespace smoe {
namespace {

ModelConfig one_layer(std::int64_t hidden, std::int64_t intermediate, std::int64_t heads, std::int64_t kv_heads) {
  ModelConfig model;
  model.vocab_size = 512, model.hidden_size = hidden, model.intermediate_size = intermediate;
  model.num_hidden_layers = 1, model.num_attention_heads = heads, model.num_key_value_heads = kv_heads;
  model.num_local_experts = 8, model.num_experts_per_tok = 2;
  return model;
}

// In no time, where billions of normal numbers would take minutes: uniform ones of the width that weights have.
void fill_weights(Backend& backend, ParameterSet& parameters, const ShowNumbers& masters) {
  std::vector<float> staging;
  std::uint64_t state = 1;
  for (Parameter& p : parameters) {
    const HostView host(backend, p.value, staging);
    const bool is_norm = p.slice.rank() == 1;
    for (float& value : host.numbers()) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      const float uniform = static_cast<float>(static_cast<std::uint32_t>(state >> 33)) * 0x1.0p-30f - 1;  // [-1, 1)
      value = is_norm ? 1 + 0.1f * uniform : 0.03f * uniform;
    }
    masters(p, host.numbers());
    host.store();
  }
}

void take_a_step(const ModelConfig& config, std::int64_t tokens) {
  const std::unique_ptr<Backend> both = make_backend(DeviceChoice::check, 0);
  Arena persistent(*both);
  const Mesh mesh = Mesh::single();
  Mixtral model(config, mesh, {}, {}, DType::bf16);
  model.allocate(*both, persistent, tokens, true);
  AdamW optimizer(*both, persistent, model.parameters(), mesh, {});
  fill_weights(*both, model.parameters(), optimizer.keeps_masters());
  RouterConfig router;
  router.z_loss_coef = 0.01;
  TrainingStep step(*both, mesh, model, optimizer, router, 1, Recompute::none);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens)), targets(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(i * i * 7 % 509);
    targets[i] = static_cast<std::int32_t>((i + 1) * (i + 1) * 7 % 509);
  }
  const StepResult result = step.compute_gradients({1, tokens, ids, targets, {}});
  step.apply(result, 1, 1e-4);
  both->synchronize();
  test::figure("hidden " + std::to_string(config.hidden_size), "{:.0f} million parameters, loss {:.4f}, no op differs",
               1e-6 * static_cast<double>(count_parameters(config).total), result.lm_loss);
}

// Bytes that Linux could give to this process; without limit where it does not say.
std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (std::uint64_t kibibytes = 0; file >> name >> kibibytes; std::getline(file, unit))
    if (name == "MemAvailable:") return kibibytes << 10;
  return std::numeric_limits<std::uint64_t>::max();
}

TEST(WholeStep, IsTheCpusOpByOp) { take_a_step(one_layer(64, 96, 4, 2), 24); }

TEST(WholeStep, IsTheCpusAtTheWidthsOfMixtral8x7B) {
  constexpr std::uint64_t wanted = std::uint64_t{40} << 30;
  if (cuda_memory().free < wanted)
    GTEST_SKIP() << "found " << (cuda_memory().free >> 30) << " GiB free on the GPU, it wants 40";
  if (available_memory() < wanted)  // the copies of what AdamW is given are most of it
    GTEST_SKIP() << "found " << (available_memory() >> 30) << " GiB of the host's memory free, it wants 40";
  take_a_step(one_layer(4096, 14336, 32, 8), 256);
}

}  // namespace
}  // namespace smoe
