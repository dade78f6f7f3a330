// smoe generate --chat: an answer to a message, or a conversation.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/files/printable.h"
#include "data/text/chat/chat_template.h"
#include "launch/generate/chat_terminal.h"
#include "launch/commands.h"
#include "launch/generate/conversation.h"
#include "launch/generate/generate.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/inference.h"

namespace smoe {

void generate_chat(const GenerateArguments& arguments) {
  const auto directory = find_model_directory(arguments.model);
  const auto config = read_hf_config(directory);
  const auto tokenizer = tokenizer_for(arguments, directory, config);
  const ChatTemplate chat(arguments.chat, *tokenizer);
  if (!arguments.system.empty() && !chat.takes_system())
    throw UsageError(fmt::format("--system: {} has no place for a system message; put its text into the message itself",
                                 chat.name()));
  // One message has the room that it asks for, as a text has; a conversation all that there is.
  std::vector<ChatMessage> first;
  if (!arguments.system.empty()) first.push_back({"system", arguments.system});
  first.push_back({"user", arguments.prompt});
  const std::int64_t positions =
      arguments.interactive ? config.model.max_position_embeddings
                            : static_cast<std::int64_t>(chat.prompt(first).size()) + arguments.options.max_tokens;
  const Mesh mesh = Mesh::single();
  InferenceModel model(directory, mesh, positions, backend_of(arguments.device, arguments.threads), config,
                       precision_named(arguments.precision), adapter_of(arguments.adapter));
  GenerateOptions options = arguments.options;
  options.stops = read_stop_ids(directory, config);
  options.vocabulary = tokenizer->vocab_size();
  Conversation conversation(model, *tokenizer, chat, std::move(options), positions, arguments.system);
  if (arguments.interactive) return converse(conversation);
  const bool on_terminal = isatty(STDOUT_FILENO) == 1;
  const Conversation::Answer answer = conversation.ask(arguments.prompt, [&](std::string_view piece) {
    fmt::print("{}", on_terminal ? printable(piece) : std::string(piece));
    return std::fflush(stdout) == 0;
  });
  fmt::print("\n");
  std::fflush(stdout);
  if (answer.end == Conversation::End::nothing)
    fmt::print(stderr, "smoe: the model ended its answer before the first word\n");
  else
    tell_end(conversation, answer);
}

}  // namespace smoe
