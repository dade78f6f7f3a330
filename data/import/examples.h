// Supervised examples as people keep them, one JSON object each:
//
//   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}    TRL, OpenAI
//   {"prompt": "...", "completion": "..."}, or each a list of such messages                        TRL, OpenAI's older
//   {"instruction": "...", "input": "...", "output": "..."}, "history": [["...", "..."]] at will   alpaca, LLaMA-Factory
//   {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}        sharegpt
//
// The first of these that an object has is taken, in this order. Beside any of them "system" or "system_prompt" is the system
// message; what other keys it has is passed over.
#pragma once

#include <string>
#include <vector>

#include "data/files/json.h"
#include "data/text/chat/chat_template.h"

namespace smoe {

enum class ExampleSchema { messages, prompt_completion, sharegpt, alpaca };
const char* name_of(ExampleSchema schema);

struct Example {
  ExampleSchema schema = ExampleSchema::messages;
  std::vector<ChatMessage> messages;
};

// `where` opens every message: file:line:column. Of roles, sharegpt's human, gpt, chatgpt, bing and bard are user and
// assistant; in what order they may stand is the template's to say. A content is a string, or a list of parts
// {"type": "text", "text": "..."}, which are joined. An assistant's message of weight 0, or of train false, is no target;
// nor is any that stands in a prompt.
// Throws std::runtime_error: none of the schemas; two system messages; tools, images and preferences, which are not trained on here; a value
// of another type; a content that is empty but for white space where the assistant speaks, or missing.
Example read_example(const Json& object, const std::string& where);

}  // namespace smoe
