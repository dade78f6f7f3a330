// What stands beside the weights in a checkpoint's model/: tokenizer, chat template, generation settings.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "data/import/prepare.h"
#include "data/files/sha256.h"
#include "data/text/tokenizer.h"
#include "tests/data/tokenizer_fixtures.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/corpus.h"
#include "trainer/checkpoint/hf_config.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;
using test::slurp;
using test::spill;

// Nothing of it is how this trainer would have written it.
const std::map<std::string, std::string> foreign_files = {
    {"tokenizer_config.json",
     "{\"tokenizer_class\": \"LlamaTokenizer\",   \"legacy\": true, \"eos_token\": \"<|im_end|>\",\n"
     "\"added_tokens_decoder\": {\"600\": {\"content\": \"<|im_end|>\", \"special\": true}}, \"model_max_length\": 1000000000000000019884624838656}"},
    {"special_tokens_map.json", "{\"eos_token\": \"<|im_end|>\"}"},
    {"added_tokens.json", "{\"<|im_end|>\": 600}\n\n"},
    {"chat_template.jinja", "{% for m in messages %}{{ m }}{% endfor %}"},
    {"chat_template.json", "{\"chat_template\": \"x\"}"},
    {"tokenizer.json",
     "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 600, \"content\": \"<|im_end|>\", \"special\": true}]}"},
    {"generation_config.json", "{\"eos_token_id\": [600, 2],\r\n \"temperature\": 0.7, \"max_length\": 99}"},
};

class ModelFiles : public TrainingTest {
 protected:
  ModelFiles() {
    fs::create_directory(chat());
    spill(chat() / "tokenizer.model", slurp(test::small_model_file()));
    for (const auto& [name, content] : foreign_files)
      if (name != "generation_config.json") spill(chat() / name, content);
    spill(root() / "text.txt", test::made_up_text(2, 60));
  }

  fs::path chat() const { return root() / "chat"; }  // a tokenizer that came from elsewhere
  void prepare_with(const std::string& tokenizer) const {
    PrepareOptions options;
    options.inputs = {(root() / "text.txt").string()};
    options.out_directory = (root() / "data").string();
    options.tokenizer = tokenizer;
    options.threads = 1;
    prepare(options);
  }

  void prepare_ready_made_ids() const {
    std::string ids;  // one row of 2000, as NumPy writes it
    for (int i = 0; i < 2000; ++i) ids += {static_cast<char>(i * 7 % 251), '\0', '\0', '\0'};
    std::string header = "{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2000), }";
    header.resize(117, ' ');
    spill(root() / "ids.npy", std::string("\x93NUMPY\x01\x00\x76\x00", 10) + header + "\n" + ids);
    PrepareOptions options;
    options.inputs = {(root() / "ids.npy").string()};
    options.out_directory = (root() / "data").string();
    options.vocab_size = 256;
    options.threads = 1;
    prepare(options);
  }

  // One step of a model that has more rows than the tokenizer has ids.
  TrainerConfig one_step(const std::string& output, const fs::path& from = {}) const {
    TrainerConfig c = config(output);
    c.model.vocab_size = 640;
    if (!from.empty()) {
      c.model = ModelConfig{};
      c.model.from = from.string();
    }
    c.data.train = {{.path = (root() / "data").string()}};
    c.data.eval.clear();
    c.train.steps = 1;
    return c;
  }
  fs::path model_of_run(const std::string& output, int step = 1) const { return checkpoint(output, step) / "model"; }

  void expect_foreign_tokenizer(const fs::path& directory) const {
    for (const auto& [name, content] : foreign_files) {
      if (name == "generation_config.json") continue;
      EXPECT_EQ(slurp(directory / name), content) << name;
    }
    EXPECT_EQ(slurp(directory / "tokenizer.model"), slurp(test::small_model_file()));
  }
  void expect_foreign_files(const fs::path& directory) const {
    expect_foreign_tokenizer(directory);
    EXPECT_EQ(slurp(directory / "generation_config.json"), foreign_files.at("generation_config.json"));
  }
};

TEST_F(ModelFiles, WhatAModelCameWithIsKeptByteForByteFromRunToRun) {
  prepare_with(chat().string());
  ASSERT_EQ(train(one_step("first")), 0);
  expect_foreign_tokenizer(model_of_run("first"));  // the shards had it
  EXPECT_EQ(read_hf_config(model_of_run("first")).eos, std::vector<std::int32_t>{600});

  const fs::path source = root() / "source";
  fs::copy(model_of_run("first"), source);
  spill(source / "generation_config.json", foreign_files.at("generation_config.json"));
  ASSERT_EQ(train(one_step("second", source)), 0);
  expect_foreign_files(model_of_run("second"));
  EXPECT_EQ(read_stop_ids(model_of_run("second"), read_hf_config(model_of_run("second"))),
            (std::vector<std::int32_t>{600, 2}));
  ASSERT_EQ(train(one_step("third", model_of_run("second"))), 0);
  expect_foreign_files(model_of_run("third"));

  // From a checkpoint of the very run that is moved aside to make room.
  TrainerConfig again = one_step("third", root() / "third");
  again.checkpoint.resume = "never";
  ASSERT_EQ(train(again), 0);
  expect_foreign_files(model_of_run("third"));
  // And where the run goes on from its own checkpoint.
  TrainerConfig longer = one_step("third", source);
  longer.train.steps = 2;
  ASSERT_EQ(train(longer), 0);
  expect_foreign_files(model_of_run("third", 2));
}

TEST_F(ModelFiles, ShardsOfTheBareTokenizerAreNotTrainedOnByAModelWithAddedTokens) {
  prepare_with(chat().string());
  ASSERT_EQ(train(one_step("first")), 0);
  fs::remove_all(root() / "data");
  prepare_with(test::small_model_file());
  EXPECT_TRUE(
      mentions(message_of([&] { train(one_step("second", model_of_run("first"))); }), {"data", "another tokenizer"}));
  TrainerConfig longer = one_step("first");
  longer.train.steps = 2;
  EXPECT_TRUE(mentions(message_of([&] { train(longer); }), {"another tokenizer", "--tokenizer"}));
}

TEST_F(ModelFiles, ALoneTokenizerModelGetsTheConfigurationThatTransformersNeeds) {
  prepare_with(test::small_model_file());
  ASSERT_EQ(train(one_step("first")), 0);
  const std::string expected =
      "{\n  \"tokenizer_class\": \"LlamaTokenizer\",\n  \"add_bos_token\": true,\n  \"add_eos_token\": false,\n  \"legacy\": true,\n"
      "  \"unk_token\": \"<unk>\",\n  \"bos_token\": \"<s>\",\n  \"eos_token\": \"</s>\"\n}\n";
  EXPECT_EQ(slurp(model_of_run("first") / "tokenizer_config.json"), expected);
  // It adds nothing: the checkpoint's tokenizer is the shards' one, and a run may start from it.
  EXPECT_EQ(tokenizer_identity(model_of_run("first")).sha256, sha256_file(test::small_model_file()));
  ASSERT_EQ(train(one_step("second", model_of_run("first"))), 0);
  EXPECT_EQ(slurp(model_of_run("second") / "tokenizer_config.json"), expected);
  EXPECT_FALSE(fs::exists(model_of_run("second") / "tokenizer.json"));
}

// `source`: the first run's model with a tokenizer.json in place of its tokenizer.model.
TEST_F(ModelFiles, AModelWhoseTokenizerIsNotReadIsNotTrainedOnAnothersShards) {
  prepare_with("bytes");
  ASSERT_EQ(train(one_step("first")), 0);
  const fs::path source = root() / "source";
  fs::copy(model_of_run("first"), source);
  spill(source / "tokenizer.json", "{\"version\": \"1.0\"}");
  EXPECT_TRUE(mentions(message_of([&] { train(one_step("second", source)); }),
                       {"data", "another tokenizer", "tokenizer.json", "not read", "--tokenizer", "--vocab-size"}));
  EXPECT_TRUE(mentions(
      message_of([&] {
        require_tokenizer_of(
            source,
            *open_corpus({.train = {{.path = (root() / "data").string()}}, .eval = {}, .sequence_length = 16}, {}));
      }),
      {"another tokenizer", "tokenizer.json", "not read"}));
  const auto opened =
      open_usable_sources({{.path = (root() / "data").string()}}, 16, false, {.model_directory = source});
  ASSERT_EQ(opened.refused.size(), 1u);
  EXPECT_TRUE(mentions(opened.refused[0].reason, {"another tokenizer", "tokenizer.json"}));
}

TEST_F(ModelFiles, ADirectoryWithoutATokenizerModelKeepsItsFilesOverReadyMadeIds) {
  prepare_with("bytes");
  ASSERT_EQ(train(one_step("first")), 0);
  const fs::path source = root() / "source";
  fs::copy(model_of_run("first"), source);
  const std::map<std::string, std::string> files = {
      {"tokenizer.json", "{\"version\": \"1.0\"}"}, {"vocab.json", "{\"a\": 0 }"}, {"merges.txt", "#version: 0.2\n"}};
  for (const auto& [name, content] : files) spill(source / name, content);
  fs::remove_all(root() / "data");
  prepare_ready_made_ids();
  ASSERT_EQ(train(one_step("second", source)), 0);
  for (const auto& [name, content] : files) EXPECT_EQ(slurp(model_of_run("second") / name), content) << name;
  EXPECT_FALSE(fs::exists(model_of_run("second") / "tokenizer.model"));
  TrainerConfig longer = one_step("second", source);  // and from its own checkpoint
  longer.train.steps = 2;
  EXPECT_EQ(train(longer), 0);
}

TEST_F(ModelFiles, AModelWithoutATokenizerGetsTheShardsOneBesideItsChatTemplate) {
  prepare_with(chat().string());
  ASSERT_EQ(train(one_step("first")), 0);
  const fs::path source = root() / "source";
  fs::create_directory(source);
  for (const char* name : {"config.json", "model.safetensors"}) fs::copy(model_of_run("first") / name, source / name);
  spill(source / "chat_template.jinja", "its own");
  spill(source / "special_tokens_map.json", "{\"eos_token\": \"</s>\"}");
  ASSERT_EQ(train(one_step("second", source)), 0);
  const fs::path made = model_of_run("second");
  EXPECT_EQ(slurp(made / "chat_template.jinja"), "its own");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"})
    EXPECT_EQ(slurp(made / name), foreign_files.at(name)) << name;
  EXPECT_EQ(slurp(made / "tokenizer.model"), slurp(test::small_model_file()));
}

}  // namespace
}  // namespace smoe
