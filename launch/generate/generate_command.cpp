// smoe generate --model DIR [--prompt TEXT | --prompt-ids 1,2,3] [--max-tokens N] [--greedy | --temperature t --top-p p --seed s]
//               [--chat TEMPLATE [--system TEXT] [--interactive]]
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "data/files/json.h"
#include "data/text/chat/chat_template.h"
#include "launch/commands.h"
#include "launch/generate/generate.h"
#include "trainer/generate.h"

namespace smoe {
namespace {

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

}  // namespace

void add_generate_command(CommandLine& line) {
  const auto arguments = std::make_shared<GenerateArguments>();
  const auto prompt_ids_text = std::make_shared<std::vector<std::string>>();  // "1,2,3", or in several arguments
  GenerateOptions& options = arguments->options;
  const Command command = line.command("generate", "continues a text, streamed from a key-value cache");
  command.path("--model", arguments->model, "Hugging Face directory, checkpoint, or run directory").required();
  command.path("--adapter", arguments->adapter, adapter_help);
  const Option text = command.option("--prompt", arguments->prompt, "text to continue; bos is put in front");
  const Option ids = command
                         .option("--prompt-ids", *prompt_ids_text,
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
  const auto templates = ChatTemplate::names();
  const Option chat =
      command
          .option("--chat", arguments->chat,
                  "the prompt is a user's message, put as this template has it, and its answer is printed")
          .one_of({templates.begin(), templates.end()})
          .excludes(ids);
  const Option system = command.option("--system", arguments->system, "what the conversation begins with; with --chat");
  const Option interactive =
      command
          .flag("--interactive", arguments->interactive, "a conversation, of which each line is a message; with --chat")
          .excludes(text);
  command.runs([=] {
    if (ids.given()) arguments->prompt_ids = parse_prompt_ids(*prompt_ids_text);
    if (!chat.given() && (system.given() || interactive.given()))
      throw UsageError(fmt::format("{} wants --chat TEMPLATE, one of {}", system.given() ? "--system" : "--interactive",
                                   fmt::join(ChatTemplate::names(), ", ")));
    if (chat.given() && !text.given() && !interactive.given())
      throw UsageError("--chat wants a message: --prompt TEXT, or --interactive for one a line");
    // Ranges let NaN pass: it is neither below nor above.
    if (std::isnan(arguments->options.temperature) || std::isnan(arguments->options.top_p))
      throw UsageError("--temperature and --top-p want numbers, found nan");
    if (chat.given())
      generate_chat(*arguments);
    else
      generate_text(*arguments);
  });
}

}  // namespace smoe
