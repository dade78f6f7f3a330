// The readers of what people hand to smoe, each as a function of arbitrary bytes. A reader may read or refuse (throw
// std::runtime_error); anything else is a finding: another exception, a crash, a hang, memory without bound, or a
// property that does not hold. libFuzzer calls the functions (fuzzer.cpp), and so does an ordinary test (replay_test.cpp).
#pragma once

#include <span>
#include <string_view>

namespace smoe::fuzz {

struct Target {
  const char* name;  // also of its folders under seeds/ and found/, and, as fuzz_NAME, of its program
  bool (*run)(std::string_view input);  // whether it was read
};

std::span<const Target> targets();

// Inputs are the file itself, but where the comment tells of parts; "a NUL b" is b behind a and one zero byte.
bool run_tokenizer(std::string_view input);       // u16 length, a text of that length, then a tokenizer.model
bool run_tokenizer_json(std::string_view input);  // u16 length, a text of that length, then a tokenizer.json
bool run_safetensors(
    std::string_view input);              // 'S' model.safetensors; or 'I', u16 length, the index, then its one file
bool run_config(std::string_view input);  // YAML; or overrides, one a line, NUL YAML
bool run_json(std::string_view input);
bool run_npy(std::string_view input);
bool run_megatron(std::string_view input);  // u16 length, NAME.idx, then NAME.bin
bool run_lines(std::string_view input);     // a letter for the file's name, one for --format, then a file of a corpus
bool run_packed(std::string_view input);    // gzip or zstd
bool run_manifest(std::string_view input);
bool run_hf_config(std::string_view input);  // config.json; or config.json NUL generation_config.json
bool run_adapter(std::string_view input);    // adapter_config.json NUL adapter_model.safetensors
bool run_mistral_params(std::string_view input);
bool run_metrics(std::string_view input);

}  // namespace smoe::fuzz
