// smoe generate --model DIR [--prompt TEXT | --prompt-ids 1,2,3] [--max-tokens N] [--greedy | --temperature t --top-p p --seed s]
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "data/files/json.h"
#include "data/text/tokenizer.h"
#include "data/text/tokenizer_json.h"
#include "launch/commands.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/generate.h"
#include "trainer/inference.h"

namespace smoe {
namespace {

struct GenerateArguments {
  std::string model, prompt, tokenizer, chat;
  std::vector<std::string> prompt_ids_text;  // "1,2,3", or in several arguments
  std::optional<std::vector<std::int32_t>> prompt_ids;
  GenerateOptions options;
  std::int64_t threads = 0;
  std::string device = "auto", precision = "auto";
};

std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::int32_t> ids;
  if (tokenizer.bos() >= 0) ids.push_back(tokenizer.bos());
  const auto encoded = tokenizer.encode(text);
  ids.insert(ids.end(), encoded.begin(), encoded.end());
  return ids;
}

// Ids separated by commas; blanks around them are passed over.
std::vector<std::int32_t> parse_prompt_ids(const std::vector<std::string>& arguments) {
  const std::string text = fmt::format("{}", fmt::join(arguments, " "));
  std::vector<std::int32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto skip_blanks = [&] {
    while (at != end && (*at == ' ' || *at == '\t')) ++at;
  };
  for (;;) {
    std::int32_t id = -1;
    skip_blanks();
    const auto [after, error] = std::from_chars(at, end, id);
    const bool parsed = error == std::errc() && id >= 0;
    if (parsed) at = after;
    skip_blanks();
    const bool next = parsed && at != end && *at != ',';  // the text goes on without a comma
    if (!parsed || next)
      throw UsageError(
          fmt::format("--prompt-ids: found {} where {} should be, expected ids separated by commas, such as "
                      "--prompt-ids 1,733,16289; for a text from nothing leave the option away",
                      at == end ? "nothing" : quote_for_message(std::string(at, end)),
                      next ? fmt::format("a comma behind id {}", ids.size()) : fmt::format("id {}", ids.size())));
    ids.push_back(id);
    if (at == end) return ids;
    ++at;  // the comma
  }
}

// How many ids mean something, for a prompt of ids: those of the tokenizer that was named, or of the model's; 0: all,
// where it has none. Of a tokenizer.json of a kind that is not read the ids are counted.
std::int64_t vocabulary_of_ids(const std::string& named, const std::filesystem::path& directory) {
  if (!named.empty()) return load_tokenizer(named)->vocab_size();
  if (std::filesystem::exists(directory / "tokenizer.model")) return load_tokenizer(directory.string())->vocab_size();
  const std::filesystem::path listed = directory / "tokenizer.json";
  return std::filesystem::exists(listed) ? vocab_size_of_tokenizer_json(listed) : 0;
}

void generate_text(const GenerateArguments& arguments) {
  const auto directory = find_model_directory(arguments.model);
  const auto config = read_hf_config(directory);
  if (!arguments.tokenizer.empty()) warn_of_tokens_left_out(arguments.tokenizer);
  std::unique_ptr<Tokenizer> tokenizer;
  std::int64_t vocabulary = 0;
  std::vector<std::int32_t> prompt;
  if (arguments.prompt_ids) {
    prompt = *arguments.prompt_ids;
    vocabulary = vocabulary_of_ids(arguments.tokenizer, directory);
  } else {
    tokenizer = load_tokenizer(arguments.tokenizer.empty() ? directory.string() : arguments.tokenizer);
    if (tokenizer->vocab_size() > config.model.vocab_size)
      throw std::runtime_error(
          fmt::format("the tokenizer has {} ids, the model in {} only {}: they do not belong together",
                      tokenizer->vocab_size(), directory.string(), config.model.vocab_size));
    vocabulary = tokenizer->vocab_size();
    prompt = encode_prompt(*tokenizer, arguments.prompt);
  }
  const Mesh mesh = Mesh::single();
  const std::int64_t positions = static_cast<std::int64_t>(prompt.size()) + arguments.options.max_tokens;
  InferenceModel model(directory, mesh, positions, backend_of(arguments.device, arguments.threads), config,
                       precision_named(arguments.precision));
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

}  // namespace

void add_generate_command(CommandLine& line) {
  const auto arguments = std::make_shared<GenerateArguments>();
  GenerateOptions& options = arguments->options;
  const Command command = line.command("generate", "continues a text, streamed from a key-value cache");
  command.path("--model", arguments->model, "Hugging Face directory, checkpoint, or run directory").required();
  const Option text = command.option("--prompt", arguments->prompt, "text to continue; bos is put in front");
  const Option ids = command
                         .option("--prompt-ids", arguments->prompt_ids_text,
                                 "ids to continue, as they are, with commas between; ids are printed")
                         .excludes(text);
  command.path("--tokenizer", arguments->tokenizer,
               "tokenizer.model or .json, a directory (with the tokens it adds), or 'bytes'; default: the model's own. "
               "No id beyond it is drawn");
  command.option("--max-tokens", options.max_tokens, "tokens to add").show_default().range(0, 1 << 24);
  const Option temperature = command.option("--temperature", options.temperature, "divides the logits")
                                 .show_default()
                                 .real_range(0.0, std::numeric_limits<double>::max());
  const Option top_p =
      command.option("--top-p", options.top_p, "draw from the most probable tokens that reach this mass")
          .show_default()
          .real_range(0.0, 1.0);
  const Option seed = command.option("--seed", options.seed, "of the draws").show_default();
  command.flag("--greedy", options.greedy, "always the most probable token")
      .excludes(temperature)
      .excludes(top_p)
      .excludes(seed);
  command.option("--threads", arguments->threads, threads_help).show_default().range(0, 4096);
  command.option("--device", arguments->device, device_help).show_default().one_of({"auto", "cpu", "cuda", "check"});
  command.option("--precision", arguments->precision, precision_help).show_default().one_of({"auto", "fp32", "bf16"});
  command.option("--chat", arguments->chat, "not available yet");
  command.runs([arguments, ids] {
    if (ids.given()) arguments->prompt_ids = parse_prompt_ids(arguments->prompt_ids_text);
    if (!arguments->chat.empty()) throw UsageError("--chat is not available yet; give the whole text with --prompt");
    // Ranges let NaN pass: it is neither below nor above.
    if (std::isnan(arguments->options.temperature) || std::isnan(arguments->options.top_p))
      throw UsageError("--temperature and --top-p want numbers, found nan");
    generate_text(*arguments);
  });
}

}  // namespace smoe
