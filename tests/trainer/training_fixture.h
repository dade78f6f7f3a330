// A tiny run (tests/support/tiny_run.h) in a directory of its own, and what it wrote.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "data/files/files.h"
#include "data/files/sha256.h"
#include "parallel/mesh.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"
#include "tests/support/tiny_run.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/record/metrics.h"
#include "trainer/trainer.h"

namespace smoe {

using test::mentions;
using test::message_of;
using test::ScratchDir;
using test::tiny_config;
using test::write_corpus_with_a_spike;
using test::write_tiny_corpus;

class TrainingTest : public ::testing::Test {
 protected:
  TrainingTest() { test::write_tiny_sources(root()); }

  std::filesystem::path root() const { return scratch_.path(); }

  TrainerConfig config(const std::string& output) const { return tiny_config(root(), output); }
  const Mesh& mesh() const { return mesh_; }
  Trainer make_trainer(const TrainerConfig& c) const { return Trainer(assemble(c, mesh_, make_cpu_backend(2))); }
  RunSummary run(const TrainerConfig& c) const { return make_trainer(c).run(); }
  // 0, or preempted_status.
  int train(const TrainerConfig& c) const { return run(c).end == RunEnd::stopped ? preempted_status : 0; }

  std::filesystem::path checkpoint(const std::string& output, std::int64_t step) const {
    return root() / output / "checkpoints" / checkpoint_name(step);
  }
  // Of the weights and of both moments: equal hashes are equal bits.
  std::string state_hash(const std::string& output, std::int64_t step) const {
    return sha256_file(checkpoint(output, step) / "model" / "model.safetensors") +
           sha256_file(checkpoint(output, step) / "optimizer" / "model.safetensors");
  }
  std::string log_of(const std::string& output) const { return read_file(root() / output / "train.log", 1 << 20); }
  MetricsLog metrics(const std::string& output) const { return read_metrics(root() / output / "metrics.jsonl"); }

  // What a run leaves, but for its clock: every number of a step and the SHA-256 of every checkpoint's file, by name.
  std::map<std::string, std::string> results(const std::string& output) const {
    std::map<std::string, std::string> found;
    const MetricsLog log = metrics(output);
    for (const StepMetrics& row : log.steps) {
      StepMetrics kept;
      kept.step = row.step;
      kept.lm_loss = row.lm_loss;
      kept.aux_loss = row.aux_loss;
      kept.z_loss = row.z_loss;
      kept.grad_norm = row.grad_norm;
      kept.expert_load = row.expert_load;
      found["step " + std::to_string(row.step)] = to_json_line(kept);
    }
    for (const EvalMetrics& row : log.evals)
      found["eval " + row.source + " " + std::to_string(row.step)] = to_json_line(std::span(&row, 1));
    const std::filesystem::path checkpoints = root() / output / "checkpoints";
    for (const auto& entry : std::filesystem::recursive_directory_iterator(checkpoints))
      if (entry.is_regular_file())
        found[std::filesystem::relative(entry.path(), checkpoints).string()] = sha256_file(entry.path());
    return found;
  }

 private:
  ScratchDir scratch_;
  Mesh mesh_ = Mesh::single();
};

}  // namespace smoe
