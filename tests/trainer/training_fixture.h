// A tiny run: two sources of made-up documents, a two-layer model, a few steps of a fraction of a second.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "data/files/files.h"
#include "data/files/sha256.h"
#include "data/shards/token_shard_writer.h"
#include "kernels/philox.h"
#include "tests/trainer/scratch_dir.h"
#include "trainer/trainer.h"

namespace smoe {

// Sums of two earlier ids, with some noise: something that a model can learn.
inline void write_tiny_corpus(const std::filesystem::path& directory, const std::string& source, std::uint64_t seed, int documents,
                              std::int64_t vocabulary = 61, const std::string& tokenizer = "tokenizer-a") {
  ShardWriter writer(directory.string(), {.tokenizer_sha256 = sha256_hex(tokenizer), .tokenizer_name = "made up", .vocab_size = vocabulary,
                                          .bos = 1, .eos = 2, .source = source});
  for (int d = 0; d < documents; ++d) {
    const auto draw = [&](std::uint64_t i) { return philox(key_of(seed, source.data(), source.size()), i, static_cast<std::uint64_t>(d))[0]; };
    std::vector<std::int32_t> ids{static_cast<std::int32_t>(draw(0) % 58 + 3), static_cast<std::int32_t>(draw(1) % 58 + 3)};
    const std::size_t length = 20 + draw(2) % 40;
    while (ids.size() < length) {
      const auto n = ids.size();
      const bool noise = draw(n + 2) % 8 == 0;
      ids.push_back(noise ? static_cast<std::int32_t>(draw(n + 1000) % 58 + 3) : (ids[n - 1] + ids[n - 2]) % 58 + 3);
    }
    ids.push_back(2);
    writer.add_document(ids);
  }
  writer.finish();
}

// One document that counts round and round, but for the steps from `odd` to `last_odd`, each of `tokens` ids, which are
// noise: read in order, a loss that falls and then stands out.
inline void write_corpus_with_a_spike(const std::filesystem::path& directory, int steps, int tokens, int odd, int last_odd) {
  ShardWriter writer(directory.string(), {.tokenizer_sha256 = "", .tokenizer_name = "none", .vocab_size = 61, .source = "spike"});
  std::vector<std::int32_t> ids;
  for (int i = 0; i <= steps * tokens; ++i) {
    const int step = 1 + i / tokens;
    const bool noise = odd <= step && step <= last_odd;
    ids.push_back(noise ? static_cast<std::int32_t>(3 + philox(7, static_cast<std::uint64_t>(i), 0)[0] % 58) : 3 + i % 5);
  }
  writer.add_document(ids);
  writer.finish();
}

class TrainingTest : public ::testing::Test {
 protected:
  TrainingTest() {
    write_tiny_corpus(root() / "a", "alpha", 1, 12);
    write_tiny_corpus(root() / "b", "beta", 2, 7);
    write_tiny_corpus(root() / "held-out", "alpha", 3, 4);
  }

  std::filesystem::path root() const { return scratch_.path(); }

  // 20 steps of 8 x 16 tokens: several epochs of both sources.
  TrainerConfig config(const std::string& output) const {
    TrainerConfig c;
    c.model.vocab_size = 61;
    c.model.hidden_size = 32;
    c.model.intermediate_size = 40;
    c.model.num_hidden_layers = 2;
    c.model.num_attention_heads = 4;
    c.model.num_key_value_heads = 2;
    c.model.num_local_experts = 4;
    c.model.max_position_embeddings = 64;
    c.router.z_loss_coef = 0.001;
    c.data.train = {{.path = (root() / "a").string(), .weight = 2.0}, {.path = (root() / "b").string(), .weight = 1.0}};
    c.data.eval = {{.path = (root() / "held-out").string()}};
    c.data.sequence_length = 16;
    c.optimizer.learning_rate = 1e-2;
    c.schedule.warmup_steps = 4;
    c.train.steps = 20;
    c.train.global_batch_size = 8;
    c.train.micro_batch_size = 4;
    c.train.output_dir = (root() / output).string();
    c.checkpoint.interval = 10;
    c.eval.interval = 10;
    c.eval.batches = 2;
    c.log.interval = 1;
    c.log.tensorboard = false;
    c.resolved_yaml = "train: {}\n";
    return c;
  }
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
  MetricsLog metrics(const std::string& output) const { return read_metrics(root() / output / "metrics.jsonl"); }

  // The message of the std::runtime_error that `work` must throw.
  template <class Work>
  static std::string error_of(Work&& work) {
    try {
      work();
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return {};
  }

 private:
  ScratchDir scratch_;
  Mesh mesh_ = Mesh::single();
};

inline bool mentions(const std::string& text, std::initializer_list<const char*> pieces) {
  for (const char* piece : pieces)
    if (text.find(piece) == std::string::npos) {
      ADD_FAILURE() << "'" << piece << "' is not in: " << text;
      return false;
    }
  return true;
}

}  // namespace smoe
