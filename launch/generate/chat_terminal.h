// A conversation on standard input and output, on a terminal or through pipes.
#pragma once

#include "launch/generate/conversation.h"

namespace smoe {

// Each line is a question, but for commands (/help lists them). Answers go to standard output, one after the other, each
// ended by a line's end, and everything else to standard error; prompt signs are shown on a terminal alone. Ends at /quit,
// at the end of input (Ctrl-D), or at Ctrl-C twice where a line is awaited.
void converse(Conversation& conversation);

// Why an answer ended, where a reader should know; on standard error.
void tell_end(const Conversation& conversation, const Conversation::Answer& answer);

}  // namespace smoe
