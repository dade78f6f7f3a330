// An example of supervised fine-tuning as a person reads it: its ids as text, what is a target told apart from what is read.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "data/text/tokenizer.h"

namespace smoe {

struct TargetMarks {
  std::string begin, end;
};
// Green where the stream is a terminal and NO_COLOR (https://no-color.org) is not set, else «».
TargetMarks target_marks_of(std::FILE* stream);

// Valid UTF-8; newlines stay, other control characters are escaped. Control ids are <bos>, <eos>, or as they are written.
// is_target: one an id.
std::string example_text(const Tokenizer& tokenizer, std::span<const std::int32_t> ids,
                         std::span<const std::uint8_t> is_target, const TargetMarks& marks);

}  // namespace smoe
