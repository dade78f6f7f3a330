// docs/scaling.md against the functions that a run asks: parameters, arithmetic, memory and bytes sent of every row.
// Its times are quotients of these; tests/bench/scaling_tables.py prints the whole and holds the document to it.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "model/mixtral.h"
#include "model/model_config.h"
#include "model/recompute.h"
#include "parallel/layout.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "trainer/activation_memory.h"
#include "trainer/layout_check.h"
#include "trainer/machine.h"

namespace smoe {
namespace {

using Cells = std::vector<std::string>;

Cells cells_of(const std::string& line) {
  Cells cells;
  for (std::size_t begin = line.find('|'), end; (end = line.find('|', begin + 1)) != std::string::npos; begin = end) {
    const std::size_t first = line.find_first_not_of(' ', begin + 1), last = line.find_last_not_of(' ', end - 1);
    cells.push_back(first < end ? line.substr(first, last - first + 1) : std::string());
  }
  return cells;
}

// The rows of the one table whose head has this cell.
std::vector<Cells> rows_below(const std::string& head) {
  std::ifstream in(SMOE_SOURCE_DIR "/docs/scaling.md");
  std::vector<Cells> rows;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (line.find("| " + head + " |") != std::string::npos) {
      EXPECT_TRUE(rows.empty()) << "two tables have " << head;
      inside = true;
    } else if (!line.starts_with('|')) {
      inside = false;
    } else if (inside && !line.starts_with("|---")) {
      rows.push_back(cells_of(line));
    }
  }
  return rows;
}

ModelConfig model_of(const std::string& name) {
  ModelConfig model;
  model.vocab_size = 32000, model.num_key_value_heads = 8, model.num_local_experts = 8, model.num_experts_per_tok = 2;
  if (name == "8x7B") {
    model.hidden_size = 4096, model.intermediate_size = 14336, model.num_hidden_layers = 32;
    model.num_attention_heads = 32;
  } else {
    EXPECT_EQ(name, "8x22B");
    model.hidden_size = 6144, model.intermediate_size = 16384, model.num_hidden_layers = 56;
    model.num_attention_heads = 48;
  }
  return model;
}

std::int64_t length_of(const std::string& text) { return std::stoll(text) * 1024; }  // "4k"

std::string with_commas(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (auto end = static_cast<std::ptrdiff_t>(digits.size()) - 3; end > 0; end -= 3)
    digits.insert(static_cast<std::size_t>(end), ",");
  return digits;
}

std::string fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

// | model | sequence | GPUs | dp x tp | edp x ep | ...
struct ScalingRow {
  explicit ScalingRow(const Cells& row) : model(model_of(row[0])), length(length_of(row[1])) {
    int dp = 0, edp = 0;
    layout.ranks = std::stoi(row[2]);
    EXPECT_EQ(std::sscanf(row[3].c_str(), "%d x %d", &dp, &layout.tp), 2) << row[3];
    EXPECT_EQ(std::sscanf(row[4].c_str(), "%d x %d", &edp, &layout.ep), 2) << row[4];
    EXPECT_EQ(dp, layout.dp());
    EXPECT_EQ(edp, layout.edp());
  }
  std::string activations(Recompute recompute) const {
    return fixed(static_cast<double>(
                     estimated_activation_bytes(model, {1, length, recompute, DType::bf16, Device::cuda}, layout)) /
                     0x1p30,
                 1);
  }

  ModelConfig model;
  std::int64_t length;
  Layout layout;
};

TEST(ScalingDocument, ModelsAreCountedAsARunCountsThem) {
  const std::vector<Cells> rows = rows_below("GFLOP a token");
  ASSERT_EQ(rows.size(), 3u);
  for (const Cells& row : rows) {
    ASSERT_EQ(row.size(), 6u);
    const ModelConfig model = model_of(row[0]);
    const ParameterCounts counts = count_parameters(model);
    EXPECT_EQ(row[1], with_commas(counts.total));
    EXPECT_EQ(row[2], with_commas(counts.active));
    EXPECT_EQ(row[4], fixed(3e-9 * forward_flops_per_token(model, length_of(row[3])), 1));
  }
}

TEST(ScalingDocument, LayoutsFitAndTakeTheMemoryThatARunDeclares) {
  const std::vector<Cells> rows = rows_below("state, GiB");
  ASSERT_GE(rows.size(), 20u);
  for (const Cells& row : rows) {
    ASSERT_EQ(row.size(), 12u);
    const ScalingRow place(row);
    SCOPED_TRACE(row[0] + " " + row[1] + " " + std::to_string(place.layout.ranks) + " " + place.layout.to_string());
    const BatchShape batch{place.length, (std::int64_t{1} << 20) / place.length, 1};
    EXPECT_TRUE(layout_problems(place.model, batch, place.layout).empty());
    const auto state = static_cast<double>(training_state_bytes(place.model, place.layout, {}, DType::bf16));
    EXPECT_EQ(row[5], fixed(state / 0x1p30, 1));
    EXPECT_EQ(row[6], place.activations(Recompute::none));
    EXPECT_EQ(row[7], place.activations(Recompute::layer));
  }
}

// What traffic_test.cpp counts, with f32 gradients and everything else in bf16 but for numbers: one of each row that
// leaves, and three of each token at the head.
TEST(ScalingDocument, BytesSentAreThoseThatRanksCount) {
  const std::vector<Cells> rows = rows_below("gradients, GB");
  ASSERT_GE(rows.size(), 20u);
  for (const Cells& row : rows) {
    ASSERT_EQ(row.size(), 16u);
    const ScalingRow place(row);
    SCOPED_TRACE(row[0] + " " + row[1] + " " + std::to_string(place.layout.ranks) + " " + place.layout.to_string());
    const Mesh mesh = Mesh::placed(place.layout, 0);
    ParameterSet parameters = declare_parameters(place.model, mesh, {}, DType::bf16);
    parameters.lay_out(mesh);
    std::int64_t gradients = 0, weights = 0;
    for (const FlatBuffer& flat : parameters.flat_buffers()) {
      const std::int64_t d = mesh.size(replica_axis(flat.split)), sent = flat.elements / d * (d - 1);
      gradients += 4 * sent, weights += static_cast<std::int64_t>(bytes_of(flat.type)) * sent;
    }
    const auto in_gb = [](std::int64_t bytes) { return fixed(1e-9 * static_cast<double>(bytes), 2); };
    EXPECT_EQ(row[6], in_gb(gradients));
    EXPECT_EQ(row[7], in_gb(weights));

    const std::int64_t micro_batches = (std::int64_t{1} << 20) / place.length / place.layout.dp();
    EXPECT_EQ(row[5], std::to_string(micro_batches));
    const std::int64_t t = place.layout.tp, n = place.layout.ep, layers = place.model.num_hidden_layers,
                       hidden = place.model.hidden_size, once = place.length / t * (t - 1) * hidden * 2,
                       statistics = 3 * place.length * (t - 1) * 4,
                       leaving = place.model.num_experts_per_tok * place.length / t / n * (n - 1);
    // Of a layer that is computed again, forward's half of the exchanges comes twice.
    EXPECT_EQ(row[8], in_gb(micro_batches * ((4 * layers + 4) * once + statistics)));
    EXPECT_EQ(row[9], in_gb(micro_batches * layers * leaving * (4 * hidden * 2 + 2 * 4)));
    EXPECT_EQ(row[10], in_gb(micro_batches * ((6 * layers + 4) * once + statistics)));
    EXPECT_EQ(row[11], in_gb(micro_batches * layers * leaving * (6 * hidden * 2 + 3 * 4)));
  }
}

}  // namespace
}  // namespace smoe
