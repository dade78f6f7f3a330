// Runs that a report is made of, written as a run writes its rows.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/files/files.h"
#include "trainer/record/metrics.h"

namespace smoe::test {

inline constexpr const char* config_text =
    "model:\n"
    "  from: null\n"
    "  vocab_size: 32000\n"
    "  hidden_size: 4096\n"
    "  intermediate_size: 14336\n"
    "  num_hidden_layers: 32\n"
    "  num_attention_heads: 32\n"
    "  num_key_value_heads: 8\n"
    "  head_dim: null\n"
    "  num_local_experts: 8\n"
    "  num_experts_per_tok: 2\n"
    "  max_position_embeddings: 32768\n"
    "  rope_theta: 1000000.0\n"
    "data:\n"
    "  train:\n"
    "    - {path: data/a, weight: 1.0}\n"
    "    - {path: data/b, weight: 0.5}\n"
    "  eval: []\n"
    "train:\n"
    "  steps: 40\n"
    "lora: null\n";

// A run of 40 steps, two evaluation sources and a gradient norm that once was not finite.
inline std::filesystem::path make_run(const std::filesystem::path& path, const std::string& source = "books",
                                      double offset = 0.0) {
  make_directories(path);
  write_file_atomically(path / "config.resolved.yaml", config_text);
  MetricsWriter writer(path / "metrics.jsonl");
  for (std::int64_t step = 1; step <= 40; ++step) {
    const double t = static_cast<double>(step);
    StepMetrics row;
    row.step = step;
    row.tokens = 4096 * step;
    row.lm_loss = 3.0 + 4.0 * std::exp(-t / 10.0) + offset;
    row.aux_loss = 2.2;
    row.z_loss = 11.0;
    row.loss = row.lm_loss + 0.022;
    row.grad_norm = step == 20 ? not_measured : 1.0 / t;
    row.learning_rate = 3e-4 * t / 40.0;
    row.tokens_per_sec = 5000.0;
    row.step_seconds = 0.8;
    row.expert_load = {{0.5, 0.25, 0.125, 0.125}, {0.25, 0.25, 0.25, 0.25}};
    row.max_vio = max_violation(row.expert_load);
    row.peak_memory_bytes = 1u << 30;
    row.model_gflops = 90.0;
    writer.write(row);
    if (step % 20 == 0) {
      writer.write(std::vector<EvalMetrics>{
          {.step = step, .source = source, .loss = 3.2, .perplexity = 24.5, .tokens = 1000},
          {.step = step, .source = "web", .loss = 3.4 + offset, .perplexity = 30.0, .tokens = 1000}});
    }
  }
  return path;
}

// A run that was evaluated on that many sources.
inline std::filesystem::path make_evaluated_run(const std::filesystem::path& path, int sources) {
  make_directories(path);
  MetricsWriter writer(path / "metrics.jsonl");
  for (std::int64_t step = 1; step <= 3; ++step) {
    StepMetrics row;
    row.step = step;
    row.tokens = 100 * step;
    row.lm_loss = 5.0 - static_cast<double>(step);
    writer.write(row);
    std::vector<EvalMetrics> evals;
    for (int i = 0; i < sources; ++i)
      evals.push_back({.step = step,
                       .source = "source-" + std::to_string(i),
                       .loss = 3.0 + 0.1 * i - 0.2 * static_cast<double>(step),
                       .perplexity = 20.0,
                       .tokens = 1000});
    writer.write(evals);
  }
  return path;
}

}  // namespace smoe::test
