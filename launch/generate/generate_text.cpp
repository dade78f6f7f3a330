// smoe generate without --chat: a text or ids that go on.
#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/text/tokenizer.h"
#include "data/text/tokenizer_json.h"
#include "launch/commands.h"
#include "launch/generate/generate.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/generate.h"
#include "trainer/inference.h"

namespace smoe {
namespace {

std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::int32_t> ids;
  if (tokenizer.bos() >= 0) ids.push_back(tokenizer.bos());
  const auto encoded = tokenizer.encode(text);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  return ids;
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_for(const GenerateArguments& arguments, const std::filesystem::path& directory,
                                         const HfConfig& config) {
  if (!arguments.tokenizer.empty()) warn_of_tokens_left_out(arguments.tokenizer);
  auto tokenizer = load_tokenizer(arguments.tokenizer.empty() ? directory.string() : arguments.tokenizer);
  if (tokenizer->vocab_size() > config.model.vocab_size)
    throw std::runtime_error(
        fmt::format("the tokenizer has {} ids, the model in {} only {}: they do not belong together",
                    tokenizer->vocab_size(), directory.string(), config.model.vocab_size));
  tell_warnings(tokenizer->warnings());
  return tokenizer;
}

void generate_text(const GenerateArguments& arguments) {
  const auto directory = find_model_directory(arguments.model);
  const auto config = read_hf_config(directory);
  std::unique_ptr<Tokenizer> tokenizer;
  std::int64_t vocabulary = 0;
  std::vector<std::int32_t> prompt;
  if (arguments.prompt_ids) {
    if (!arguments.tokenizer.empty()) warn_of_tokens_left_out(arguments.tokenizer);
    prompt = *arguments.prompt_ids;
    vocabulary = arguments.tokenizer.empty() ? vocabulary_of_directory(directory)
                                             : load_tokenizer(arguments.tokenizer)->vocab_size();
  } else {
    tokenizer = tokenizer_for(arguments, directory, config);
    vocabulary = tokenizer->vocab_size();
    prompt = encode_prompt(*tokenizer, arguments.prompt);
  }
  const Mesh mesh = Mesh::single();
  const std::int64_t positions = static_cast<std::int64_t>(prompt.size()) + arguments.options.max_tokens;
  InferenceModel model(directory, mesh, positions, backend_of(arguments.device, arguments.threads), config,
                       precision_named(arguments.precision), adapter_of(arguments.adapter));
  GenerateOptions options = arguments.options;
  options.stops = read_stop_ids(directory, config);
  if (vocabulary > 0) options.vocabulary = vocabulary;

  if (arguments.prompt_ids) {  // ids in, ids out
    const char* separator = "";
    generate(model, prompt, options, [&](std::int32_t id) {
      fmt::print("{}{}", separator, id);
      separator = ",";
      return std::fflush(stdout) == 0;
    });
    fmt::print("\n");
    return;
  }
  StreamDecoder decoder(*tokenizer);
  std::string text;
  for (std::int32_t id : prompt) text += decoder.push(id);
  fmt::print("{}", text);
  generate(model, prompt, options, [&](std::int32_t id) {
    fmt::print("{}", decoder.push(id));
    return std::fflush(stdout) == 0;
  });
  fmt::print("{}\n", decoder.finish());
}

}  // namespace smoe
