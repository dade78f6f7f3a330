// A tiny run (tests/support/tiny_run.h) in a directory of its own, and what it wrote.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
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

using test::message_of;
using test::mentions;
using test::ScratchDir;
using test::tiny_config;
using test::write_tiny_corpus;

class TrainingTest : public ::testing::Test {
 protected:
  TrainingTest() { test::write_tiny_sources(root()); }

  std::filesystem::path root() const { return scratch_.path(); }

  TrainerConfig config(const std::string& output) const { return tiny_config(root(), output); }
  const Mesh& mesh() const { return mesh_; }
  int train(const TrainerConfig& c) const { return Trainer(c, mesh_, 2).run(); }

  std::filesystem::path checkpoint(const std::string& output, std::int64_t step) const {
    return root() / output / "checkpoints" / checkpoint_name(step);
  }
  // Of the weights and of both moments: equal hashes are equal bits.
  std::string state_hash(const std::string& output, std::int64_t step) const {
    return sha256_file(checkpoint(output, step) / "model" / "model.safetensors") +
           sha256_file(checkpoint(output, step) / "optimizer" / "model.safetensors");
  }
  MetricsLog metrics(const std::string& output) const { return read_metrics(root() / output / "metrics.jsonl"); }

 private:
  ScratchDir scratch_;
  Mesh mesh_ = Mesh::single();
};

}  // namespace smoe
