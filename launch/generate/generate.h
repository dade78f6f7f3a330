// What `smoe generate` was asked for, and the two ways in which it is done.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/text/tokenizer.h"
#include "trainer/generate.h"

namespace smoe {

struct GenerateArguments {
  std::string model, adapter, prompt, tokenizer;
  std::optional<std::vector<std::int32_t>> prompt_ids;
  GenerateOptions options;
  std::int64_t threads = 0;
  std::string device = "auto", precision = "auto";
  std::string chat, system;  // a template's name, empty: none; and a system message
  bool interactive = false;
};

// The tokenizer that was named, or the model's own. Throws std::runtime_error where it has more ids than the model.
std::unique_ptr<Tokenizer> tokenizer_for(const GenerateArguments& arguments, const std::filesystem::path& directory,
                                         const HfConfig& config);

// A prompt goes on, as text or as ids, on standard output.
void generate_text(const GenerateArguments& arguments);
// A message is answered, or with `interactive` each line of standard input.
void generate_chat(const GenerateArguments& arguments);

}  // namespace smoe
