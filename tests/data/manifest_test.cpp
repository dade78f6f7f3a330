#include <gtest/gtest.h>

#include <functional>

#include "data/files/json.h"
#include "data/shards/manifest.h"
#include "data/files/sha256.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using test::expect_refused;
using test::ScratchDir;

Manifest example() {
  return {{sha256_hex("t"), "a \"quoted\" näme", 32000, 1, 2, "Debian's own texts\n"},
          {{"shard-00000.h5", 100, 3, sha256_hex("a")}, {"shard-00001.h5", 7, 1, sha256_hex("b")}}};
}

TEST(Manifest, ReadsBackWhatWasWritten) {
  const ScratchDir scratch;
  write_manifest(scratch.path(), example());
  const Manifest found = read_manifest(scratch.path());
  EXPECT_EQ(found.info, example().info);
  EXPECT_EQ(found.shards, example().shards);
  EXPECT_EQ(found.tokens(), 107);
  EXPECT_EQ(found.documents(), 4);
}

TEST(Manifest, HasTheDocumentedKeys) {
  const ScratchDir scratch;
  write_manifest(scratch.path(), example());
  const Json json = read_json_file(scratch / "manifest.json");
  EXPECT_EQ(json.at("format"), "smoe-token-shards");
  EXPECT_EQ(json.at("format_version"), 1);
  EXPECT_EQ(json.at("tokenizer_sha256"), sha256_hex("t"));
  EXPECT_EQ(json.at("vocab_size"), 32000);
  EXPECT_EQ(json.at("tokens"), 107);
  EXPECT_EQ(json.at("documents"), 4);
  EXPECT_EQ(json.at("shards").at(1).at("file"), "shard-00001.h5");
  EXPECT_EQ(json.at("shards").at(1).at("sha256"), sha256_hex("b"));
}

TEST(Manifest, TokenizerMayBeAbsent) {
  const ScratchDir scratch;
  Manifest manifest = example();
  manifest.info = {"", "", 500, -1, -1, ""};
  write_manifest(scratch.path(), manifest);
  EXPECT_EQ(read_manifest(scratch.path()).info, manifest.info);
}

// Each case changes one thing in a manifest that was right; the message must name the file and the pieces.
struct BadManifest {
  const char* name;
  std::function<void(Json&)> change;
  std::vector<std::string> pieces;
};

class ManifestBadInput : public testing::TestWithParam<BadManifest> {};

TEST_P(ManifestBadInput, IsRefused) {
  const ScratchDir scratch;
  write_manifest(scratch.path(), example());
  Json json = read_json_file(scratch / "manifest.json");
  GetParam().change(json);
  write_json_file(scratch / "manifest.json", json);
  expect_refused([&] { read_manifest(scratch.path()); }, {"manifest.json"});
  for (const std::string& piece : GetParam().pieces) expect_refused([&] { read_manifest(scratch.path()); }, {piece});
}

BadManifest file_named(const char* name, const std::string& file) {
  return {name, [file](Json& json) { json["shards"][1]["file"] = file; }, {"shards[1]", "file"}};
}

INSTANTIATE_TEST_SUITE_P(
    , ManifestBadInput,
    testing::Values(
        BadManifest{"other_format", [](Json& j) { j["format"] = "parquet"; }, {"'format'", "parquet"}},
        BadManifest{"later_version", [](Json& j) { j["format_version"] = 2; }, {"'format_version' is 2", "expected 1"}},
        BadManifest{"version_as_text", [](Json& j) { j["format_version"] = "1"; }, {"format_version"}},
        BadManifest{"no_shards_key", [](Json& j) { j.erase("shards"); }, {"shards"}},
        BadManifest{"no_shards", [](Json& j) { j["shards"] = Json::array(); }, {"at least one shard"}},
        BadManifest{"shards_as_object", [](Json& j) { j["shards"] = Json::object(); }, {"shards"}},
        BadManifest{"shard_as_text", [](Json& j) { j["shards"][0] = "shard-00000.h5"; }, {"shards[0]"}},
        BadManifest{"unknown_key", [](Json& j) { j["tokeniser"] = 1; }, {"tokeniser"}},
        BadManifest{"unknown_shard_key", [](Json& j) { j["shards"][0]["url"] = "x"; }, {"shards[0]", "url"}},
        BadManifest{"no_vocabulary", [](Json& j) { j.erase("vocab_size"); }, {"vocab_size"}},
        BadManifest{"vocabulary_zero", [](Json& j) { j["vocab_size"] = 0; }, {"vocab_size"}},
        BadManifest{"vocabulary_fraction", [](Json& j) { j["vocab_size"] = 32000.5; }, {"vocab_size"}},
        BadManifest{"bos_outside", [](Json& j) { j["bos"] = 32000; }, {"bos", "32000"}},
        BadManifest{"eos_below", [](Json& j) { j["eos"] = -2; }, {"eos", "-2"}},
        BadManifest{"tokenizer_hash_short", [](Json& j) { j["tokenizer_sha256"] = "12ab"; }, {"tokenizer_sha256"}},
        BadManifest{"tokens_not_the_sum", [](Json& j) { j["tokens"] = 108; }, {"'tokens' is 108", "107"}},
        BadManifest{"documents_not_the_sum", [](Json& j) { j["documents"] = 5; }, {"'documents' is 5", "4"}},
        BadManifest{"negative_tokens", [](Json& j) { j["shards"][0]["tokens"] = -1; }, {"shards[0]", "tokens"}},
        BadManifest{"empty_shard", [](Json& j) { j["shards"][0]["tokens"] = 0; }, {"shards[0]", "tokens"}},
        BadManifest{"huge_tokens", [](Json& j) { j["shards"][0]["tokens"] = std::int64_t{1} << 60; }, {"shards[0]"}},
        BadManifest{"no_hash", [](Json& j) { j["shards"][0].erase("sha256"); }, {"shards[0]", "sha256"}},
        BadManifest{"upper_case_hash", [](Json& j) { j["shards"][0]["sha256"] = std::string(64, 'A'); }, {"sha256"}},
        file_named("path_above", "../shard-00001.h5"), file_named("absolute_path", "/etc/passwd"),
        file_named("path_below", "sub/shard-00001.h5"), file_named("no_name", ""), file_named("parent", ".."),
        file_named("hidden", ".shard-00001.h5"), file_named("nul_inside", std::string("shard\0.h5", 9)),
        file_named("twice", "shard-00000.h5")),
    [](const auto& info) { return info.param.name; });

TEST(ManifestFileBadInput, NoManifest) {
  const ScratchDir scratch;
  expect_refused([&] { read_manifest(scratch.path()); }, {scratch.path().string(), "manifest.json", "smoe prepare"});
  expect_refused([&] { read_manifest(scratch / "nowhere"); }, {"nowhere", "smoe prepare"});
}

TEST(ManifestFileBadInput, NotJson) {
  const ScratchDir scratch;
  write_manifest(scratch.path(), example());
  const std::string whole = test::slurp(scratch / "manifest.json");
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, whole.size() / 2, whole.size() - 2}) {
    test::spill(scratch / "manifest.json", std::string_view(whole).substr(0, size));
    expect_refused([&] { read_manifest(scratch.path()); }, {"manifest.json"});
  }
}

TEST(ManifestFileBadInput, DuplicateKey) {
  const ScratchDir scratch;
  write_manifest(scratch.path(), example());
  std::string text = test::slurp(scratch / "manifest.json");
  text.insert(text.find("\"vocab_size\""), "\"vocab_size\": 5, ");
  test::spill(scratch / "manifest.json", text);
  expect_refused([&] { read_manifest(scratch.path()); }, {"manifest.json", "vocab_size"});
}

}  // namespace
}  // namespace smoe
