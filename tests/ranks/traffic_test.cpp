// Bytes that a rank sends in one training step, by collective, against the formulas (per rank, e = 4 bytes an element):
//   ZeRO-1        gradients (d - 1) / d * P * e, weights as much; d replicas of P parameters, buffer by buffer
//   TP with SP    two gathers and two sums a layer and micro-batch, each (t - 1) / t * b * s * h * e
//   EP            4 * k * T * h * e * (n - 1) / n a layer and micro-batch where routing is uniform
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "optim/adamw.h"
#include "parallel/token_dispatcher.h"
#include "tests/ranks/test_session.h"
#include "tests/reference/dispatch.h"
#include "tests/support/late_copies.h"
#include "trainer/training_step.h"

namespace smoe {
namespace {

struct Sent {
  Layout layout;
  std::vector<Traffic::Line> lines;
  std::int64_t gradients = 0;  // by the formula
  std::int64_t of(std::string_view label) const {
    for (const auto& line : lines)
      if (line.label == label) return line.bytes;
    return 0;
  }
};

constexpr std::int64_t layers = 2, hidden = 48, length = 24, at_once = 8, accumulation = 2;

Sent one_step(const Mesh& mesh) {
  ModelConfig model;
  model.vocab_size = 67;
  model.hidden_size = hidden;
  model.intermediate_size = 40;
  model.num_hidden_layers = layers;
  model.num_attention_heads = model.num_key_value_heads = 8;
  model.head_dim = 4;
  const auto backend = make_cpu_backend(1);
  Arena persistent(*backend);
  Mixtral mixtral(model, mesh);
  mixtral.allocate(*backend, persistent, length, true);
  mixtral.parameters().initialize(*backend, 1);
  AdamW optimizer(*backend, persistent, mixtral.parameters(), mesh, {}, 4096);
  const std::int64_t micro = at_once / mesh.size(Axis::dp), sequences = micro * accumulation;
  TrainingStep step(*backend, mesh, mixtral, optimizer, {}, micro, Recompute::none);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(sequences * length));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>((i * 31 + 7 * static_cast<std::size_t>(mesh.rank(Axis::dp))) % 67);
  mesh.traffic().reset();
  step.apply(step.compute_gradients({sequences, length, ids, ids, {}}), 1, 1e-3);

  Sent sent{mesh.layout(), mesh.traffic().lines()};
  for (const FlatBuffer& flat : mixtral.parameters().flat_buffers()) {
    const std::int64_t d = mesh.size(replica_axis(flat.split));
    sent.gradients += flat.values.elements() / d * (d - 1) * 4;
  }
  return sent;
}

TEST(StepTraffic, EqualsTheFormulasOnEveryLayout) {
  for (const Layout& layout : layouts_of(test_session().size())) {
    SCOPED_TRACE(layout.to_string());
    const Mesh mesh = Mesh::over(test_session(), layout);
    const Sent sent = one_step(mesh);
    EXPECT_EQ(sent.of("gradients.reduce_scatter"), sent.gradients);
    EXPECT_EQ(sent.of("weights.all_gather"), sent.gradients);

    const std::int64_t t = layout.tp, tokens = at_once / layout.dp() * length;
    const std::int64_t once = accumulation * tokens / t * (t - 1) * hidden * 4;
    for (const char* label :
         {"attention.gather", "attention.sum", "attention.gather_gradient", "attention.sum_gradient"})
      EXPECT_EQ(sent.of(label), layers * once) << label;
    for (const char* label : {"embedding.sum", "embedding.gather_gradient", "head.gather", "head.sum_gradient"})
      EXPECT_EQ(sent.of(label), once) << label;
    EXPECT_EQ(sent.of("head.statistics"), accumulation * 3 * tokens * (t - 1) * 4);

    // Rows and their weights leave together, come back the same way, and gradients go both ways again.
    const std::int64_t dispatched = sent.of("moe.dispatch"), combined = sent.of("moe.combine");
    EXPECT_EQ(dispatched, sent.of("moe.combine_backward"));
    EXPECT_EQ(combined, sent.of("moe.dispatch_backward"));
    EXPECT_EQ(dispatched, hidden * sent.of("moe.weights"));
    EXPECT_EQ(combined, hidden * sent.of("moe.weights_backward"));
    EXPECT_EQ(dispatched > 0, layout.ep > 1);
    std::array<double, 2> all{static_cast<double>(dispatched), static_cast<double>(combined)};
    mesh.group(Axis::ep).all_reduce(std::span<double>(all), Reduce::sum, "test.rows");
    EXPECT_EQ(all[0], all[1]) << "what arrives at an expert goes back from it";

    // Whatever else is sent is host numbers: counts, sums and flags.
    std::int64_t unknown = 0;
    for (const auto& line : sent.lines) {
      const bool tensor = line.label.starts_with("attention.") || line.label.starts_with("embedding.") ||
                          line.label.starts_with("head.") || line.label.starts_with("gradients.") ||
                          line.label.starts_with("weights.");
      const bool rows = line.label.starts_with("moe.");
      const bool numbers =
          line.label.starts_with("balance.") || line.label.starts_with("step.") || line.label.starts_with("optim.");
      if (!tensor && !rows && !numbers) unknown += line.bytes;
    }
    EXPECT_EQ(unknown, 0);
  }
}

// Tokens that choose all experts equally often send (n - 1) / n of their rows away.
TEST(StepTraffic, UniformRoutingSendsWhatTheLiteratureSays) {
  for (const Layout& layout : layouts_of(test_session().size())) {
    SCOPED_TRACE(layout.to_string());
    const Mesh mesh = Mesh::over(test_session(), layout);
    const auto backend = make_cpu_backend(1);
    Arena keep(*backend), scratch(*backend);
    constexpr std::int64_t tokens = 32, k = 2, experts = 8;
    TokenDispatcher dispatcher(mesh, experts, k);
    const Tensor x = keep.take({tokens, hidden}), chosen = keep.take(DType::i32, {tokens, k}),
                 weights = keep.take({tokens, k});
    backend->fill(x, 1.0f);
    backend->fill(weights, 0.5f);
    for (std::int64_t i = 0; i < tokens * k; ++i) chosen.i32()[i] = static_cast<std::int32_t>(i % experts);
    mesh.traffic().reset();
    Dispatched dispatched;
    const Tensor rows = dispatcher.dispatch(*backend, keep, scratch, x, chosen, weights, dispatched);
    const Tensor y = keep.take({tokens, hidden}), drows = keep.take(rows.shape()), dweights = keep.take({tokens, k});
    dispatcher.combine(*backend, scratch, rows, dispatched, {}, y);
    dispatcher.combine_backward(*backend, scratch, y, dispatched, drows);
    dispatcher.dispatch_backward(*backend, scratch, drows, dispatched.row_weights, dispatched, y, dweights);
    std::int64_t sent = 0;
    for (const char* label : {"moe.dispatch", "moe.combine", "moe.combine_backward", "moe.dispatch_backward"})
      sent += mesh.traffic().bytes(label);
    const std::int64_t n = layout.ep;
    EXPECT_EQ(sent, 4 * k * tokens * hidden * 4 / n * (n - 1));
  }
}

// Rows go out, are weighed by their experts, and come back to their tokens, whoever the tokens choose; what an expert has no
// room for stays away in both directions.
TEST(Dispatch, RowsComeBackToTheirTokensForAnyRouting) {
  constexpr std::int64_t tokens = 12, k = 2, experts = 8;
  for (const Layout& layout : layouts_of(test_session().size())) {
    const Mesh mesh = Mesh::over(test_session(), layout);
    // Its offsets are late: who reads them without having waited sends rows anywhere.
    const auto backend = std::make_unique<test::LateCopies>(make_cpu_backend(1));
    TokenDispatcher dispatcher(mesh, experts, k);
    for (int routing = 0; routing < 8; ++routing) {
      const Capacity capacity = routing < 4 ? Capacity{} : Capacity{2, 6};
      SCOPED_TRACE(layout.to_string() + " routing " + std::to_string(routing));
      Arena keep(*backend), scratch(*backend);
      const Tensor x = keep.take({tokens, 3}), chosen = keep.take(DType::i32, {tokens, k}),
                   weights = keep.take({tokens, k});
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t d = 0; d < 3; ++d)
          x.f32()[t * 3 + d] = static_cast<float>(1000 * test_session().rank() + 10 * t + d);
        // Spread; all on the first experts; all on the last ones; nothing from odd ranks but to one expert.
        const std::int64_t first = routing % 4 == 0            ? (5 * t + test_session().rank()) % experts
                                   : routing % 4 == 1          ? 0
                                   : routing % 4 == 2          ? 6
                                   : test_session().rank() % 2 ? 3
                                                               : t % 7;
        chosen.i32()[t * k] = static_cast<std::int32_t>(first);
        chosen.i32()[t * k + 1] = static_cast<std::int32_t>((first + 1) % experts);
        weights.f32()[t * k] = 0.25f, weights.f32()[t * k + 1] = 0.75f;
      }
      const reference::Matrix<std::int32_t> kept = reference::within_capacity(
          {tokens, k, {chosen.i32(), chosen.i32() + tokens * k}}, {capacity.rows, capacity.group});
      Dispatched saved;
      const Tensor rows = dispatcher.dispatch(*backend, keep, scratch, x, chosen, weights, saved, capacity);
      ASSERT_EQ(saved.rows.host[static_cast<std::size_t>(dispatcher.local_experts())], rows.dim(0));
      // Weighted by the expert that holds them, and by which expert it is: the sum shows that each row was where it belongs.
      for (std::int64_t e = 0; e < dispatcher.local_experts(); ++e)
        for (std::int64_t r = saved.rows.host[static_cast<std::size_t>(e)];
             r < saved.rows.host[static_cast<std::size_t>(e) + 1]; ++r)
          for (std::int64_t d = 0; d < 3; ++d)
            rows.f32()[r * 3 + d] *= saved.row_weights.f32()[r] * static_cast<float>(dispatcher.first_expert() + e + 1);
      const Tensor y = keep.take({tokens, 3}), dweights = keep.take({tokens, k}), dx = keep.take({tokens, 3}),
                   drows = keep.take(rows.shape());
      dispatcher.combine(*backend, scratch, rows, saved, {}, y);
      dispatcher.combine_backward(*backend, scratch, x, saved, drows);
      dispatcher.dispatch_backward(*backend, scratch, drows, saved.row_weights, saved, dx, dweights);
      for (std::int64_t t = 0; t < tokens; ++t) {
        float factor = 0, rows_of_token = 0;
        for (std::int64_t j = 0; j < k; ++j) {
          const bool is_kept = kept(t, j) >= 0;
          if (is_kept) factor += weights.f32()[t * k + j] * static_cast<float>(kept(t, j) + 1);
          rows_of_token += is_kept;
          ASSERT_EQ(dweights.f32()[t * k + j], is_kept ? weights.f32()[t * k + j] : 0.0f);
        }
        for (std::int64_t d = 0; d < 3; ++d) {
          const float x_of = x.f32()[t * 3 + d];
          ASSERT_NEAR(y.f32()[t * 3 + d], x_of * factor, 1e-5f * std::abs(x_of * factor) + 1e-6f);
          ASSERT_EQ(dx.f32()[t * 3 + d], rows_of_token * x_of);
        }
      }
    }
  }
}

}  // namespace
}  // namespace smoe
