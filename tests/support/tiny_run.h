// The tiny run that tests train: two sources of made-up documents and one held out, a model of two layers, a few steps of
// a fraction of a second. A test changes what it is about.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/philox.h"
#include "tests/support/shards.h"
#include "trainer/trainer.h"

namespace smoe::test {

// Sums of two earlier ids, with some noise: something that a model can learn.
inline void write_tiny_corpus(const std::filesystem::path& directory, const std::string& source, std::uint64_t seed,
                              int documents, std::int64_t vocabulary = 61,
                              const std::string& tokenizer = "tokenizer-a") {
  Corpus corpus;
  for (int d = 0; d < documents; ++d) {
    const auto draw = [&](std::uint64_t i) {
      return philox(key_of(seed, source.data(), source.size()), i, static_cast<std::uint64_t>(d))[0];
    };
    std::vector<std::int32_t> ids{static_cast<std::int32_t>(draw(0) % 58 + 3),
                                  static_cast<std::int32_t>(draw(1) % 58 + 3)};
    const std::size_t length = 20 + draw(2) % 40;
    while (ids.size() < length) {
      const auto n = ids.size();
      const bool noise = draw(n + 2) % 8 == 0;
      ids.push_back(noise ? static_cast<std::int32_t>(draw(n + 1000) % 58 + 3) : (ids[n - 1] + ids[n - 2]) % 58 + 3);
    }
    ids.push_back(2);
    corpus.documents.push_back(ids);
  }
  write_corpus(directory, corpus,
               {.tokenizer_sha256 = sha256_hex(tokenizer),
                .tokenizer_name = "made up",
                .vocab_size = vocabulary,
                .bos = 1,
                .eos = 2,
                .source = source});
}

// The sources of tiny_config(root, ...).
inline void write_tiny_sources(const std::filesystem::path& root) {
  write_tiny_corpus(root / "a", "alpha", 1, 12);
  write_tiny_corpus(root / "b", "beta", 2, 7);
  write_tiny_corpus(root / "held-out", "alpha", 3, 4);
}

inline ModelConfig tiny_model() {
  ModelConfig m;
  m.vocab_size = 61;
  m.hidden_size = 32;
  m.intermediate_size = 40;
  m.num_hidden_layers = 2;
  m.num_attention_heads = 4;
  m.num_key_value_heads = 2;
  m.num_local_experts = 4;
  m.max_position_embeddings = 64;
  return m;
}

// 20 steps of 8 x 16 tokens: several epochs of both sources.
inline TrainerConfig tiny_config(const std::filesystem::path& root, const std::string& output) {
  TrainerConfig c;
  c.model = tiny_model();
  c.router.z_loss_coef = 0.001;
  c.data.train = {{.path = (root / "a").string(), .weight = 2.0}, {.path = (root / "b").string(), .weight = 1.0}};
  c.data.eval = {{.path = (root / "held-out").string()}};
  c.data.sequence_length = 16;
  c.optimizer.learning_rate = 1e-2;
  c.schedule.warmup_steps = 4;
  c.train.steps = 20;
  c.train.global_batch_size = 8;
  c.train.micro_batch_size = 4;
  c.train.output_dir = (root / output).string();
  c.checkpoint.interval = 10;
  c.eval.interval = 10;
  c.eval.batches = 2;
  c.log.interval = 1;
  c.log.tensorboard = false;
  c.resolved_yaml = "train: {}\n";
  return c;
}

// One document that counts round and round, but for the steps from `odd` to `last_odd`, each of `tokens` ids, which are
// noise: read in order, a loss that falls and then stands out.
inline void write_corpus_with_a_spike(const std::filesystem::path& directory, int steps, int tokens, int odd,
                                      int last_odd) {
  ShardWriter writer(directory.string(),
                     {.tokenizer_sha256 = "", .tokenizer_name = "none", .vocab_size = 61, .source = "spike"});
  std::vector<std::int32_t> ids;
  for (int i = 0; i <= steps * tokens; ++i) {
    const int step = 1 + i / tokens;
    const bool noise = odd <= step && step <= last_odd;
    ids.push_back(noise ? static_cast<std::int32_t>(3 + philox(7, static_cast<std::uint64_t>(i), 0)[0] % 58)
                        : 3 + i % 5);
  }
  writer.add_document(ids);
  writer.finish();
}

}  // namespace smoe::test
