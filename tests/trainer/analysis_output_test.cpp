// What an analysis leaves: the JSON, its documentation, the table, the texts of tokens, and the directory.
#include <gtest/gtest.h>

#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/text/byte_tokenizer.h"
#include "tests/data/file_size_limit.h"
#include "tests/trainer/training_fixture.h"
#include "trainer/analysis/analysis.h"
#include "trainer/analysis/analysis_directory.h"
#include "trainer/analysis/analysis_json.h"
#include "trainer/analysis/analysis_page.h"
#include "trainer/analysis/analysis_table.h"

namespace smoe {
namespace {

namespace fs = std::filesystem;

class AnalysisOutput : public TrainingTest {
 protected:
  void SetUp() override {
    TrainerConfig c = config("run");
    c.train.steps = 2;
    ASSERT_EQ(train(c), 0);
    model_.emplace(find_model_directory(root() / "run"), mesh(), 64, make_cpu_backend(2));
  }

  Analysis analysis(std::vector<std::string> names = {"a", "b"}) {
    std::vector<DataSource> wanted;
    for (const auto& name : names) wanted.push_back({.path = (root() / name).string()});
    const OpenedSources opened = open_usable_sources(wanted, 16, true, {.vocab_size = 61, .model_directory = {}});
    AnalysisOptions options;
    options.tokens = 96;
    options.permutation.permutations = 20;
    options.output_tokens = 8;
    options.top_tokens.least_occurrences = 2;
    return analyse(*model_, "a <model>", opened.sources, options);
  }
  const TokenTexts texts_{nullptr};

 private:
  std::optional<InferenceModel> model_;
};

// Every key of the object, wherever it is.
void add_keys(const OrderedJson& json, std::set<std::string>& keys) {
  if (json.is_object())
    for (const auto& [key, value] : json.items()) keys.insert(key), add_keys(value, keys);
  if (json.is_array())
    for (const auto& value : json) add_keys(value, keys);
}

TEST_F(AnalysisOutput, JsonHasEveryNumberAndReadsBack) {
  const Analysis found = analysis();
  const OrderedJson json = analysis_json(found, texts_);
  const OrderedJson read = OrderedJson::parse(dump_json(json));
  EXPECT_EQ(read, json);
  EXPECT_TRUE(dump_json(json).starts_with("{\"format\":\"smoe-routing-analysis\",\"format_version\":1,"));
  EXPECT_EQ(read["model"], "a <model>");
  EXPECT_EQ(read["sources"][1]["name"], "beta");
  EXPECT_EQ(read["sources"][0]["tokens"], 96);
  EXPECT_EQ(read["sources"][0]["sequences"], 6);
  EXPECT_EQ(read["shares"][1][0]["choices"][1].get<std::vector<double>>(), found.statistics.shares[1][0].choices[1]);
  EXPECT_EQ(read["repetition"]["sources"][0][1]["top_k"]["rate"].get<double>(),
            found.statistics.repetition[0][1].top_k.rate);
  EXPECT_EQ(read["repetition"]["uniform"]["top_k"].get<double>(), uniform_top_k(4, 2));
  EXPECT_EQ(read["information"]["domain"][1]["assignments"]["bits"].get<double>(),
            found.statistics.domain[1].assignments.bits);
  EXPECT_EQ(read["information"]["token"].size(), 2u);
  EXPECT_EQ(read["overlap"]["layers"][1]["outputs"]["cosines"][2][3].get<double>(), found.overlap[1].outputs[11]);
  EXPECT_EQ(read["overlap"]["layers"][0]["w1"]["mean"].get<double>(), mean_over_pairs(found.overlap[0].w1, 4));
  EXPECT_EQ(read["overlap"]["output_tokens"], 8);
  EXPECT_EQ(read["cache"]["least"], 2);
  EXPECT_EQ(read["cache"]["even"].get<std::vector<double>>(), (std::vector<double>{0.5, 0.75, 1}));
  EXPECT_EQ(read["cache"]["sources"][1][0]["lru"].get<std::vector<double>>(), found.statistics.cache[1][0].lru);
  EXPECT_EQ(read["top_tokens"]["layers"][1].size(), 4u);
  EXPECT_EQ(read["excerpts"][0]["first_choice"].size(), 2u);
  EXPECT_EQ(read["excerpts"][0]["texts"][0], "<" + std::to_string(found.statistics.excerpts[0].ids[0]) + ">");
}

TEST_F(AnalysisOutput, IsTheSameAgain) {
  EXPECT_EQ(dump_json(analysis_json(analysis(), texts_)), dump_json(analysis_json(analysis(), texts_)));
}

TEST_F(AnalysisOutput, EveryKeyIsDocumented) {
  Analysis found = analysis();
  found.forced_routing = "round_robin";
  std::set<std::string> keys;
  add_keys(analysis_json(found, texts_), keys);
  EXPECT_GT(keys.size(), 40u);
  const std::string documented = read_file(fs::path(SMOE_SOURCE_DIR) / "docs" / "analysis.md", 1 << 20);
  for (const std::string& key : keys)
    EXPECT_NE(documented.find("`" + key + "`"), std::string::npos) << "docs/analysis.md does not explain " << key;
}

TEST_F(AnalysisOutput, OfOneDomainHasNoInformationOnDomains) {
  const Analysis found = analysis({"a"});
  EXPECT_TRUE(analysis_json(found, texts_)["information"]["domain"].empty());
  EXPECT_TRUE(mentions(analysis_table(found), {"alpha", "layer 0", "layer 1", "not there of one source", "even"}));
}

TEST_F(AnalysisOutput, TableHasTheRatesOfTheShownLayers) {
  Analysis found = analysis();
  found.statistics.repetition[1][1].first_choice = {0.4375, 0.01, 0.251};
  found.statistics.repetition[1][1].top_k = {0.875, 0.01, 0.5};
  const std::string table = analysis_table(found);
  EXPECT_TRUE(mentions(table, {"43.8 (25.1)", "87.5 (50.0)", "25.0", "83.3", "beta", "layer 0: I(domain"}));
}

TEST(ShownLayers, AreFirstMiddleAndLast) {
  using Layers = std::vector<std::size_t>;
  EXPECT_EQ(shown_layers(32), (Layers{0, 15, 31}));
  EXPECT_EQ(shown_layers(4), (Layers{0, 1, 3}));
  EXPECT_EQ(shown_layers(2), (Layers{0, 1}));
  EXPECT_EQ(shown_layers(1), (Layers{0}));
}

// ---- texts ----

TEST(AnalysisTexts, AreOnOneLineAndWholeCharacters) {
  const TokenTexts bytes(std::make_unique<ByteTokenizer>());
  EXPECT_EQ(bytes.kind(), "bytes");
  EXPECT_EQ(bytes.of(3 + 'a'), "a");
  EXPECT_EQ(bytes.of(3 + ' '), " ");
  EXPECT_EQ(bytes.of(3 + '\n'), "\\n");
  EXPECT_EQ(bytes.of(3 + '\t'), "\\t");
  EXPECT_EQ(bytes.of(3 + 0x1b), "\\x1b");
  EXPECT_EQ(bytes.of(3 + 0xe2), "\\xe2") << "a byte of a character is none by itself";
  EXPECT_EQ(bytes.of(0), "<unk>");
  EXPECT_EQ(bytes.of(1), "<bos>");
  EXPECT_EQ(bytes.of(2), "<eos>");
  EXPECT_EQ(bytes.of(259), "<259>");
  EXPECT_EQ(bytes.of(-1), "<-1>");
  const TokenTexts none(nullptr);
  EXPECT_EQ(none.kind(), "");
  EXPECT_EQ(none.of(5), "<5>");
}

TEST(AnalysisTexts, AreThoseOfATokenizerJsonToo) {
  const ScratchDir directory;
  Json vocab = Json::object();
  for (char c = 'a'; c <= 'z'; ++c) vocab[std::string(1, c)] = c - 'a';
  write_json_file(directory / "tokenizer.json",
                  Json{{"added_tokens", {{{"id", 26}, {"content", "<|im_end|>"}, {"special", true}}}},
                       {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
                       {"decoder", {{"type", "ByteLevel"}}},
                       {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}});
  const TokenTexts texts = texts_of({}, directory.path());
  EXPECT_EQ(texts.of(2), "c");
  EXPECT_EQ(texts.of(26), "<|im_end|>");
  test::spill(directory / "tokenizer.json", R"({"model": {"type": "WordPiece", "vocab": {}}})");
  EXPECT_EQ(texts_of({}, directory.path()).of(2), "<2>") << "of a kind that is not read";
}

// ---- the directory ----

const std::string begins = "{\"format\":\"smoe-routing-analysis\",\"format_version\":7}\n";

TEST(AnalysisDirectory, IsNewEmptyOrThatOfAFormerAnalysis) {
  const test::ScratchDir dir;
  require_analysis_directory(dir / "new/below");
  EXPECT_FALSE(fs::exists(dir / "new")) << "a look changes nothing";
  write_analysis(dir / "new/below", begins, "a page");
  EXPECT_EQ(test::slurp(dir / "new/below/analysis.html"), "a page");
  dir.write("new/below/.analysis.json.tmp-0123456789abcdef", "half");
  write_analysis(dir / "new/below", begins, "another");
  EXPECT_EQ(test::slurp(dir / "new/below/analysis.html"), "another");
  fs::remove(dir / "new/below/analysis.html");  // a writer killed between the two
  write_analysis(dir / "new/below", begins, "a third");
  fs::create_directory(dir / "empty");
  write_analysis(dir / "empty", begins, "a page");
  EXPECT_EQ(test::slurp(dir / "empty/analysis.json"), begins);
}

TEST(AnalysisDirectory, APageIsNeverBesideOtherNumbers) {
  const test::ScratchDir dir;
  write_analysis(dir / "out", begins, "a page");
  {
    const test::FileSizeLimit full(4096);
    EXPECT_FALSE(message_of([&] { write_analysis(dir / "out", begins + std::string(8192, ' '), "another"); }).empty());
  }
  EXPECT_EQ(test::slurp(dir / "out/analysis.json"), begins);
  EXPECT_FALSE(fs::exists(dir / "out/analysis.html"));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir / "out"), {}), 1);
}

TEST(AnalysisDirectory, OfSomethingElseIsRefusedAndLeftAlone) {
  const test::ScratchDir dir;
  const auto refuses = [&](const std::string& name, std::initializer_list<std::string_view> pieces) {
    EXPECT_TRUE(mentions(message_of([&] { require_analysis_directory(dir / name); }), pieces));
    EXPECT_TRUE(mentions(message_of([&] { write_analysis(dir / name, begins, "page"); }), pieces));
  };
  dir.write("run/metrics.jsonl", "{}");
  dir.write("run/analysis.json", begins);
  refuses("run", {"metrics.jsonl", "former analysis"});
  dir.write("many/b", "");
  dir.write("many/a", "");
  refuses("many", {"holds a and 1 more"});
  dir.write("foreign/analysis.json", "{\"format\":\"something else\"}");
  refuses("foreign", {"holds analysis.json"});
  dir.write("page/analysis.html", "a page of mine");
  refuses("page", {"holds analysis.html"});
  dir.write("file", "");
  refuses("file", {"file", "not a directory"});
  refuses("file/below", {"file", "not a directory"});
  EXPECT_EQ(test::slurp(dir / "foreign/analysis.json"), "{\"format\":\"something else\"}");
  EXPECT_EQ(test::slurp(dir / "page/analysis.html"), "a page of mine");
  EXPECT_FALSE(fs::exists(dir / "run/analysis.html"));
}

}  // namespace
}  // namespace smoe
