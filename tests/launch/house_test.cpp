// The checks of house_checks.h: that this tree is clean, and that each check can fail.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <ostream>

#include "tests/launch/house_checks.h"
#include "tests/support/scratch_dir.h"

namespace smoe::house {
namespace {

namespace fs = std::filesystem;

const fs::path source_root = SMOE_SOURCE_DIR;

std::string joined(const Violations& violations) {
  std::string text;
  for (const std::string& violation : violations) text += "\n  " + violation;
  return text;
}

TEST(IncludeDirection, ThisTreeIsClean) {
  const Violations found = check_include_direction(source_root);
  EXPECT_TRUE(found.empty()) << joined(found);
}

TEST(IncludeDirection, SeesTheSources) {
  int sources = 0;
  for (const fs::path& path : project_files(source_root)) sources += path.extension() == ".cpp";
  EXPECT_GT(sources, 20) << "the check looked at too few files to mean anything";
}

struct Arrow {
  const char* file;
  const char* include;
  bool allowed;
};

// The name of the case in ctest's list: "model_router_cpp_includes_optim_adamw_h".
void PrintTo(const Arrow& arrow, std::ostream* out) {
  std::string name = std::string(arrow.file) + "_includes_" + arrow.include;
  std::erase_if(name, [](char c) { return c == '"' || c == '<' || c == '>'; });
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  *out << name;
}

class IncludeArrow : public testing::TestWithParam<Arrow> {};

TEST_P(IncludeArrow, IsJudged) {
  const Arrow& arrow = GetParam();
  const test::ScratchDir tree;
  tree.write(arrow.file, std::string("// A file.\n#include ") + arrow.include + "\n");
  const Violations found = check_include_direction(tree.path());
  if (arrow.allowed) {
    EXPECT_TRUE(found.empty()) << joined(found);
  } else {
    ASSERT_EQ(found.size(), 1u) << arrow.file << " includes " << arrow.include << " and nothing was said";
    EXPECT_EQ(found[0].find(std::string(arrow.file) + ":2: "), 0u) << found[0];
  }
}

INSTANTIATE_TEST_SUITE_P(
    IncludeDirection, IncludeArrow,
    testing::Values(
        // arrows that run back up
        Arrow{"kernels/gemm.h", "\"parallel/mesh.h\"", false},
        Arrow{"kernels/cpu/gemm.cpp", "\"model/router.h\"", false},
        Arrow{"parallel/mesh.cpp", "\"model/router.h\"", false},
        Arrow{"model/router.h", "\"trainer/trainer.h\"", false},
        Arrow{"trainer/trainer.cpp", "\"launch/commands.h\"", false},
        Arrow{"data/shards/sampler.h", "\"kernels/tensor.h\"", false},
        Arrow{"data/shards/sampler.h", "\"configs/run_config.h\"", false},
        // siblings
        Arrow{"model/router.cpp", "\"optim/adamw.h\"", false}, Arrow{"optim/adamw.cpp", "\"model/router.h\"", false},
        Arrow{"model/hf_names.cpp", "\"data/files/safetensors.h\"", false},
        Arrow{"trainer/trainer.cpp", "\"configs/run_config.h\"", false},
        Arrow{"configs/reader.cpp", "\"trainer/trainer.h\"", false},
        // rooms of one folder
        Arrow{"data/files/json.cpp", "\"data/text/tokenizer.h\"", false},
        Arrow{"data/text/tokenizer.h", "\"data/shards/manifest.h\"", false},
        Arrow{"data/shards/loader.cpp", "\"data/import/prepare.h\"", false},
        Arrow{"parallel/comm/watchdog.cpp", "\"parallel/mesh.h\"", false},
        Arrow{"trainer/checkpoint/weights.cpp", "\"trainer/record/metrics.h\"", false},
        Arrow{"trainer/checkpoint/weights.cpp", "\"trainer/trainer.h\"", false},
        Arrow{"trainer/record/report.cpp", "\"trainer/training_step.h\"", false},
        Arrow{"kernels/timed_backend.cpp", "\"kernels/cpu/parallel.h\"", false},
        Arrow{"launch/main.cpp", "\"kernels/cpu/cpu_backend.h\"", false},
        Arrow{"kernels/cuda/router.cu", "\"kernels/cpu/cpu_backend.h\"", false},
        Arrow{"kernels/make_backend.cpp", "\"kernels/cuda/cuda_backend.h\"", false},
        // ways around
        Arrow{"kernels/gemm.h", "\"../parallel/mesh.h\"", false},
        Arrow{"launch/main.cpp", "\"tests/reference/mixtral.h\"", false},
        // libraries outside their folder
        Arrow{"model/experts.cpp", "<mpi.h>", false}, Arrow{"parallel/mesh.cpp", "<cblas.h>", false},
        Arrow{"trainer/record/metrics.cpp", "<nlohmann/json.hpp>", false},
        Arrow{"trainer/loader.cpp", "<hdf5.h>", false}, Arrow{"data/import/npy.cpp", "<hdf5.h>", false},
        Arrow{"data/text/tokenizer.cpp", "<nlohmann/json.hpp>", false}, Arrow{"parallel/mesh.cpp", "<mpi.h>", false},
        Arrow{"launch/generate.cpp", "<sentencepiece_processor.h>", false},
        Arrow{"trainer/machine.cpp", "<cuda_runtime.h>", false}, Arrow{"kernels/arena.cpp", "<cublasLt.h>", false},
        Arrow{"launch/main.cpp", "<yaml-cpp/yaml.h>", false}, Arrow{"configs/reader.cpp", "<CLI/CLI.hpp>", false},
        Arrow{"kernels/tensor.cpp", "<fmt/core.h>", false}, Arrow{"model/router.cpp", "<gtest/gtest.h>", false},
        Arrow{"data/import/text_window.cpp", "<zlib.h>", false}, Arrow{"launch/main.cpp", "<zstd.h>", false},
        Arrow{"data/shards/hdf5_ids.cpp", "<parquet/arrow/reader.h>", false},
        // what is allowed
        Arrow{"data/files/decompress.cpp", "<zlib.h>", true}, Arrow{"data/import/parquet.cpp", "<arrow/api.h>", true},
        Arrow{"kernels/cpu/gemm.cpp", "<cblas.h>", true}, Arrow{"kernels/cuda/matrix.cu", "<cublasLt.h>", true},
        Arrow{"kernels/cuda/sdpa.cpp", "<cudnn_frontend.h>", true},
        Arrow{"kernels/cuda/device.h", "<cuda_bf16.h>", true},
        Arrow{"kernels/cuda/numbers.h", "\"kernels/bf16.h\"", true},
        Arrow{"parallel/token_dispatcher.h", "\"kernels/tensor.h\"", true},
        Arrow{"model/router.cpp", "\"parallel/parameter.h\"", true},
        Arrow{"optim/adamw.cpp", "\"kernels/backend.h\"", true},
        Arrow{"configs/run_config.h", "\"model/model_config.h\"", true},
        Arrow{"trainer/checkpoint/checkpoint.cpp", "\"data/files/safetensors.h\"", true},
        Arrow{"launch/main.cpp", "\"configs/run_config.h\"", true},
        Arrow{"data/shards/hdf5_file.cpp", "<hdf5.h>", true},
        Arrow{"data/import/prepare.cpp", "\"data/shards/token_shard_writer.h\"", true},
        Arrow{"parallel/mesh.h", "\"parallel/comm/communicator.h\"", true},
        Arrow{"parallel/comm/mpi_session.cpp", "<mpi.h>", true},
        Arrow{"trainer/record/report.cpp", "\"trainer/checkpoint/checkpoint.h\"", true},
        Arrow{"trainer/trainer.cpp", "\"trainer/checkpoint/weights.h\"", true},
        Arrow{"kernels/cpu/gemm.cpp", "\"kernels/backend.h\"", true},
        Arrow{"model/mixtral.cpp", "\"parallel/comm/communicator.h\"", true},
        Arrow{"trainer/record/progress.cpp", "<fmt/format.h>", true},
        Arrow{"tests/model/router_test.cpp", "\"trainer/trainer.h\"", true}));

TEST(IncludeDirection, NewFolderWantsAPlace) {
  const test::ScratchDir tree;
  tree.write("extras/new.cpp", "#include \"kernels/tensor.h\"\n");
  const Violations found = check_include_direction(tree.path());
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0], "extras/new.cpp:1: the folder 'extras' has no place among the arrows");
}

TEST(IncludeDirection, NewRoomWantsAPlace) {
  const test::ScratchDir tree;
  tree.write("data/extras/new.cpp", "#include \"data/files/json.h\"\n");
  const Violations found = check_include_direction(tree.path());
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0], "data/extras/new.cpp:1: the room 'data/extras' has no place among the arrows");
}

// The release build joins files and precompiles headers: a missing include would show in the other builds only.
TEST(OwnIncludes, ThisTreeIsClean) {
  const Violations found = check_own_includes(source_root);
  EXPECT_TRUE(found.empty()) << joined(found);
}

TEST(OwnIncludes, AreFollowedThroughTheTree) {
  const test::ScratchDir tree;
  tree.write("kernels/precompiled.h", "#include <vector>\n#include <map>\n");
  tree.write("kernels/shape.h", "#include <vector>\n");
  tree.write("kernels/fine.cpp",
             "#include \"kernels/shape.h\"\nstd::vector<int> a;  // no std::map<int, int>\n"
             "const char* text = \"std::optional<\\\"int\";\n");
  tree.write("kernels/wrong.cpp",
             "#include \"kernels/shape.h\"\nstd::vector<int> a;\nstd::map<int, int> b, c;\nstd::map<int, int> d;\n");
  const Violations found = check_own_includes(tree.path());
  ASSERT_EQ(found.size(), 1u) << joined(found);
  EXPECT_EQ(found[0], "kernels/wrong.cpp:3: std::map< without <map>");
}

TEST(TensorMemory, ThisTreeIsClean) {
  const Violations found = check_tensor_memory(source_root);
  EXPECT_TRUE(found.empty()) << joined(found);
}

TEST(TensorMemory, AnAddressIsFoundOutsideTheKernels) {
  const test::ScratchDir tree;
  for (const char* path : {"kernels/cpu/a.cpp", "parallel/comm/self_communicator.cpp", "tests/model/a.cpp"})
    tree.write(path, "float x = tensor.f32()[0];\n");
  tree.write("trainer/fine.cpp",
             "std::vector<float> v;\nuse(v.data());  // not tensor.raw()\nread_f32(\"a.f32()\", v);\n");
  tree.write("parallel/wrong.cpp", "int a;\nconst auto* p = out.rows.offsets.i32();\n");
  tree.write("trainer/wrong.h", "void* memory(const Parameter* p) { return p->value.raw(); }\n");
  const Violations found = check_tensor_memory(tree.path());
  ASSERT_EQ(found.size(), 2u) << joined(found);
  EXPECT_TRUE(found[0].starts_with("parallel/wrong.cpp:2: .i32()")) << found[0];
  EXPECT_TRUE(found[1].starts_with("trainer/wrong.h:1: .raw()")) << found[1];
}

TEST(HouseRules, FilesAreShort) {
  const Violations found = check_file_length(source_root);
  EXPECT_TRUE(found.empty()) << joined(found);
}

TEST(HouseRules, LongFileIsFound) {
  const test::ScratchDir tree;
  std::string text;
  for (int i = 0; i < 500; ++i) text += "int x;\n";
  tree.write("kernels/fits.cpp", text);
  tree.write("launch/script", "#!/bin/sh\n" + text);
  tree.write("docs/long.md", text + text);
  const Violations found = check_file_length(tree.path());
  ASSERT_EQ(found.size(), 1u) << joined(found);
  EXPECT_EQ(found[0], "launch/script:501: longer than 500 lines");
}

TEST(HouseRules, FoldersHaveReadmes) {
  const Violations found = check_readmes(source_root);
  EXPECT_TRUE(found.empty()) << joined(found);
}

TEST(HouseRules, MissingReadmeIsFound) {
  const test::ScratchDir tree;
  EXPECT_EQ(check_readmes(tree.path()).size(), 10u);
}

TEST(HouseRules, NothingNamesAMachine) {
  const Violations found = check_machine_names(source_root);
  EXPECT_TRUE(found.empty()) << joined(found);
}

TEST(HouseRules, NameOfAMachineIsFound) {
  const test::ScratchDir tree;
  tree.write("docs/a.md", std::string("See /ho") + "me/ada/notes for it.\n");
  tree.write("docs/b.md", std::string("ssh build-17.inte") + "rnal\n");
  tree.write("docs/fine.md", "https://example.org/home/page, ~/home/x and data/root/y are fine.\n");
  const Violations found = check_machine_names(tree.path());
  ASSERT_EQ(found.size(), 2u) << joined(found);
  EXPECT_EQ(found[0], "docs/a.md:1: a path of one machine");
  EXPECT_EQ(found[1], "docs/b.md:1: a host name");
}

}  // namespace
}  // namespace smoe::house
