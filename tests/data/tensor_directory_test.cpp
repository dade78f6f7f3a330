#include "data/files/tensor_directory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <functional>
#include <numeric>

#include "data/files/json.h"
#include "tests/support/message_of.h"
#include "tests/support/scratch_dir.h"

namespace smoe {
namespace {

using test::expect_refused;
using test::ScratchDir;
using test::slurp;
using test::spill;
namespace fs = std::filesystem;

const std::vector<TensorSpec> kSpecs{{"embed", TensorType::f32, {8, 4}},
                                     {"layers.0.w", TensorType::bf16, {4, 4}},
                                     {"layers.1.w", TensorType::bf16, {4, 4}},
                                     {"norm", TensorType::f32, {4}}};

std::vector<float> values_of(const TensorSpec& spec) {
  std::vector<float> values(tensor_bytes(spec, "") / bytes_of(spec.type));
  std::iota(values.begin(), values.end(), static_cast<float>(spec.name.size()));
  return values;
}

void write_directory(const fs::path& directory, std::uint64_t max_shard_bytes = kDefaultMaxShardBytes) {
  auto writer = TensorDirectoryWriter::create(directory, kSpecs, max_shard_bytes);
  for (const TensorSpec& spec : kSpecs) writer.write_f32(spec.name, 0, values_of(spec));
  writer.finish();
}

void expect_directory_reads_back(const fs::path& path) {
  const TensorDirectory directory(path);
  EXPECT_EQ(directory.names().size(), kSpecs.size());
  for (const TensorSpec& spec : kSpecs) {
    ASSERT_TRUE(directory.contains(spec.name));
    EXPECT_EQ(static_cast<const TensorSpec&>(directory.info(spec.name)), spec);
    std::vector<float> got(values_of(spec).size());
    directory.read_f32(spec.name, got.data(), 0, static_cast<std::int64_t>(got.size()));
    EXPECT_EQ(got, values_of(spec));
    EXPECT_EQ(directory.raw(spec.name).size(), tensor_bytes(spec, ""));
  }
  EXPECT_FALSE(directory.contains("absent"));
}

// A directory of three shards, for the tests that damage it.
class ShardedTensorDirectoryBadInput : public ::testing::Test {
 protected:
  void SetUp() override { write_directory(scratch.path(), 64); }
  void expect_refusal(std::initializer_list<std::string_view> pieces) {
    expect_refused([&] { TensorDirectory directory(scratch.path()); }, pieces);
  }
  void rewrite_index(const std::string& tensor, const Json& file) {
    Json index = read_json_file(scratch / kWeightsIndexFile);
    if (file.is_null())
      index["weight_map"].erase(tensor);
    else
      index["weight_map"][tensor] = file;
    write_json_file(scratch / kWeightsIndexFile, index);
  }
  ScratchDir scratch;
};

TEST(TensorDirectory, OneFileWithoutAnIndex) {
  ScratchDir scratch;
  write_directory(scratch.path());
  EXPECT_EQ(scratch.entries(), 1u);
  expect_directory_reads_back(scratch.path());
  EXPECT_EQ(TensorDirectory(scratch.path()).files(), std::vector<fs::path>{scratch / "model.safetensors"});
}

TEST(TensorDirectory, SplitsOverFilesUnderAnIndex) {
  ScratchDir scratch;
  write_directory(scratch.path(), 64);  // embed passes the limit alone; two of 32 bytes fill it; norm begins the third
  for (const char* name :
       {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"})
    EXPECT_TRUE(fs::exists(scratch / name)) << name;
  EXPECT_EQ(scratch.entries(), 4u);
  EXPECT_EQ(read_json_file(scratch / kWeightsIndexFile), parse_json(R"({"metadata": {"total_size": 208}, "weight_map": {
              "embed": "model-00001-of-00003.safetensors", "layers.0.w": "model-00002-of-00003.safetensors",
              "layers.1.w": "model-00002-of-00003.safetensors", "norm": "model-00003-of-00003.safetensors"}})",
                                                                    "expected"));
  expect_directory_reads_back(scratch.path());
}

TEST(TensorDirectory, SlicesOfManyGiveTheFilesOfOne) {
  ScratchDir one, many;
  write_directory(one.path(), 64);
  TensorDirectoryWriter::lay_out(many.path(), kSpecs, 64);
  for (int rank = 0; rank < 2; ++rank) {
    auto writer = TensorDirectoryWriter::open_for_slices(many.path(), kSpecs, 64);
    for (const TensorSpec& spec : kSpecs) {
      const auto values = values_of(spec);
      const std::size_t half = values.size() / 2;
      writer.write_f32(spec.name, static_cast<std::int64_t>(rank * half), std::span(values).subspan(rank * half, half));
    }
    writer.finish();
  }
  TensorDirectoryWriter::write_index(many.path(), kSpecs, 64);
  ASSERT_EQ(many.entries(), one.entries());
  for (const fs::directory_entry& entry : fs::directory_iterator(one.path()))
    EXPECT_EQ(slurp(entry.path()), slurp(many / entry.path().filename().string())) << entry.path();
}

TEST(TensorDirectory, UnfinishedWritingLeavesNothing) {
  ScratchDir scratch;
  { auto writer = TensorDirectoryWriter::create(scratch.path(), kSpecs, 64); }
  EXPECT_EQ(scratch.entries(), 0u);
  EXPECT_THROW(TensorDirectoryWriter::create(scratch.path(), {kSpecs[0], kSpecs[1], kSpecs[0]}, 64), std::logic_error);
  EXPECT_EQ(scratch.entries(), 0u);
}

// How many files this process may have open.
class FewOpenFiles {
 public:
  explicit FewOpenFiles(rlim_t most) {
    ::getrlimit(RLIMIT_NOFILE, &old_);
    const rlimit few{most, old_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewOpenFiles() { ::setrlimit(RLIMIT_NOFILE, &old_); }

 private:
  rlimit old_{};
};

TEST(TensorDirectory, MoreFilesThanMayBeOpenAreRefusedBeforeTheFirst) {
  const FewOpenFiles few(64);
  std::vector<TensorSpec> specs;
  for (int i = 0; i < 49; ++i) specs.push_back({"w" + std::to_string(i), TensorType::f32, {2}});
  ScratchDir scratch;
  const auto create = [&] { return TensorDirectoryWriter::create(scratch.path(), specs, 4); };
  const std::initializer_list<std::string_view> message = {"files of at most 4 bytes would be 49, expected at most 48",
                                                           "64 open (ulimit -n)", "Let files be larger"};
  expect_refused([&] { create(); }, message);
  expect_refused([&] { TensorDirectoryWriter::lay_out(scratch.path(), specs, 4); }, message);
  EXPECT_EQ(scratch.entries(), 0u);
  TensorDirectoryWriter::create(scratch.path(), specs, 16);  // two in a file
  specs.pop_back();
  create();
}

TEST(TensorDirectory, FollowsTheSymlinksOfAModelCache) {
  ScratchDir scratch;
  fs::create_directory(scratch / "blobs");
  fs::create_directory(scratch / "snapshot");
  write_directory(scratch / "blobs", 64);
  for (const fs::directory_entry& entry : fs::directory_iterator(scratch / "blobs"))
    fs::create_symlink(fs::path("../blobs") / entry.path().filename(), scratch / "snapshot" / entry.path().filename());
  expect_directory_reads_back(scratch / "snapshot");
}

// Older software saved what everybody computes anew; tools that drop it, or add it, leave the index as it was.
TEST_F(ShardedTensorDirectoryBadInput, ComputedBuffersMayBeInTheIndexOrInTheFilesAlone) {
  rewrite_index("model.layers.0.self_attn.rotary_emb.inv_freq", "model-00002-of-00003.safetensors");
  expect_directory_reads_back(scratch.path());
  EXPECT_FALSE(TensorDirectory(scratch.path()).contains("model.layers.0.self_attn.rotary_emb.inv_freq"));

  ScratchDir other;
  auto specs = kSpecs;
  specs.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", TensorType::f32, {2}});
  auto writer = TensorDirectoryWriter::create(other.path(), specs, 64);
  for (const TensorSpec& spec : specs) writer.write_f32(spec.name, 0, values_of(spec));
  writer.finish();
  Json index = read_json_file(other / kWeightsIndexFile);
  index["weight_map"].erase(specs.back().name);
  write_json_file(other / kWeightsIndexFile, index);
  EXPECT_EQ(TensorDirectory(other.path()).names().size(), specs.size());
}

TEST_F(ShardedTensorDirectoryBadInput, OtherNamesLikeABufferAreStillMissed) {
  rewrite_index("model.layers.0.self_attn.inv_freq", "model-00002-of-00003.safetensors");
  expect_refusal({"lacks \"model.layers.0.self_attn.inv_freq\""});
}

TEST_F(ShardedTensorDirectoryBadInput, TensorsAreFoundByFile) {
  EXPECT_EQ(TensorDirectory(scratch.path()).file_of("layers.1.w"),
            (scratch / "model-00002-of-00003.safetensors").string());
}

TEST_F(ShardedTensorDirectoryBadInput, IndexThatLeadsOutOfTheDirectory) {
  expect_directory_reads_back(scratch.path());
  for (const char* file :
       {"../model-00001-of-00003.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "", "model.bin"}) {
    SCOPED_TRACE(file);
    rewrite_index("norm", file);
    expect_refusal({kWeightsIndexFile, "\"norm\"", "plain name"});
  }
  rewrite_index("norm", std::string("a\0.safetensors", 14));
  expect_refusal({"\\u0000", "plain name"});
  rewrite_index("norm", 7);
  expect_refusal({"\"norm\"", "found 7, expected a string"});
}

TEST_F(ShardedTensorDirectoryBadInput, MissingShardFilesAreListed) {
  fs::remove(scratch / "model-00002-of-00003.safetensors");
  fs::remove(scratch / "model-00003-of-00003.safetensors");
  expect_refusal({"2 of 3 files", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"});
}

TEST_F(ShardedTensorDirectoryBadInput, ShardThatIsAFifo) {
  fs::remove(scratch / "model-00002-of-00003.safetensors");
  ASSERT_EQ(::mkfifo((scratch / "model-00002-of-00003.safetensors").c_str(), 0600), 0);
  expect_refusal({"model-00002-of-00003.safetensors", "a FIFO"});
}

TEST_F(ShardedTensorDirectoryBadInput, TruncatedShard) {
  fs::resize_file(scratch / "model-00002-of-00003.safetensors",
                  fs::file_size(scratch / "model-00002-of-00003.safetensors") - 1);
  expect_refusal({"model-00002-of-00003.safetensors", "cut short"});
}

TEST_F(ShardedTensorDirectoryBadInput, IndexAndFilesThatDisagreeAreListedBothWays) {
  rewrite_index("norm", nullptr);
  rewrite_index("ghost", "model-00002-of-00003.safetensors");
  rewrite_index("layers.0.w", nullptr);
  expect_refusal({"model-00002-of-00003.safetensors and model.safetensors.index.json disagree", "lacks \"ghost\"",
                  "does not place there \"layers.0.w\""});
}

TEST_F(ShardedTensorDirectoryBadInput, DamagedIndex) {
  const std::string good = slurp(scratch / kWeightsIndexFile);
  spill(scratch / kWeightsIndexFile, good.substr(0, good.size() / 2));
  expect_refusal({kWeightsIndexFile, "not valid JSON"});
  spill(scratch / kWeightsIndexFile, R"({"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}})");
  expect_refusal({"\"a\" appears twice"});
  spill(scratch / kWeightsIndexFile, R"({"metadata": {}})");
  expect_refusal({"\"weight_map\" is missing"});
  spill(scratch / kWeightsIndexFile, R"({"weight_map": {}})");
  expect_refusal({"lists no tensors"});
}

TEST_F(ShardedTensorDirectoryBadInput, SingleFileAndIndexTogether) {
  fs::copy(scratch / "model-00001-of-00003.safetensors", scratch / kSingleWeightsFile);
  expect_refusal({"both model.safetensors and model.safetensors.index.json", "remove"});
}

// kSpecs in files of `in_file` tensors each.
void write_mistral_files(const fs::path& directory, std::size_t in_file,
                         const std::function<std::string(std::size_t)>& name_of) {
  for (std::size_t first = 0; first < kSpecs.size(); first += in_file) {
    const std::vector<TensorSpec> some(kSpecs.begin() + static_cast<std::ptrdiff_t>(first),
                                       kSpecs.begin() + static_cast<std::ptrdiff_t>(first + in_file));
    auto writer = SafetensorsWriter::create(directory / name_of(first / in_file), some);
    for (const TensorSpec& spec : some) writer.write_f32(spec.name, 0, values_of(spec));
    writer.finish();
  }
}

TEST(TensorDirectory, MistralsFilesWholeOrNumberedOrUnderTheirIndex) {
  const auto numbered = [](std::size_t i) { return "consolidated.0" + std::to_string(i) + ".safetensors"; };
  ScratchDir whole, many, indexed;
  write_mistral_files(whole.path(), 4, [](std::size_t) { return std::string(kMistralWeightsFile); });
  expect_directory_reads_back(whole.path());
  write_mistral_files(many.path(), 2, numbered);
  expect_directory_reads_back(many.path());
  EXPECT_EQ(TensorDirectory(many.path()).files().size(), 2u);
  write_mistral_files(indexed.path(), 2, [&](std::size_t i) { return "part-" + std::to_string(i) + ".safetensors"; });
  Json map = Json::object();
  for (std::size_t i = 0; i < kSpecs.size(); ++i)
    map[kSpecs[i].name] = "part-" + std::to_string(i / 2) + ".safetensors";
  write_json_file(indexed / kMistralIndexFile, Json{{"weight_map", map}});
  expect_directory_reads_back(indexed.path());
  fs::remove(indexed / "part-1.safetensors");
  expect_refused([&] { TensorDirectory directory(indexed.path()); }, {kMistralIndexFile, "part-1.safetensors"});
}

TEST(TensorDirectory, HuggingFacesFilesAreReadWhereBothAreThere) {
  ScratchDir scratch;
  write_directory(scratch.path());
  spill(scratch / kMistralWeightsFile, "not even safetensors");
  expect_directory_reads_back(scratch.path());
}

TEST(TensorDirectoryBadInput, ATensorInTwoFiles) {
  ScratchDir scratch;
  write_mistral_files(scratch.path(), 4, [](std::size_t) { return std::string("consolidated.00.safetensors"); });
  write_mistral_files(scratch.path(), 4, [](std::size_t) { return std::string("consolidated.01.safetensors"); });
  expect_refused([&] { TensorDirectory directory(scratch.path()); },
                 {"consolidated.00.safetensors and ", "consolidated.01.safetensors both hold \"embed\""});
}

TEST(TensorDirectoryBadInput, PicklesAreRefusedWithAWayOut) {
  ScratchDir scratch;
  expect_refused([&] { TensorDirectory directory(scratch.path()); }, {"holds neither"});
  spill(scratch / "config.json", "{}");
  spill(scratch / "pytorch_model.bin", "\x80\x02");
  expect_refused([&] { TensorDirectory directory(scratch.path()); },
                 {"pytorch_model.bin", "pickle", "safe_serialization"});
  fs::create_symlink("blob", scratch / "model.safetensors");
  expect_refused([&] { TensorDirectory directory(scratch.path()); },
                 {"\"model.safetensors\" is a link to a file that is not there", "fetch"});
  fs::remove(scratch / "model.safetensors");
  spill(scratch / "weights.safetensors", "");
  expect_refused([&] { TensorDirectory directory(scratch.path()); }, {"weights.safetensors", "naming"});
  expect_refused([&] { TensorDirectory directory(scratch / "absent"); }, {"absent is not a directory"});
  expect_refused([&] { TensorDirectory directory(scratch / "config.json"); }, {"is not a directory"});
}

}  // namespace
}  // namespace smoe
