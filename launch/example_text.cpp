#include "launch/example_text.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "data/files/printable.h"

namespace smoe {

TargetMarks target_marks_of(std::FILE* stream) {
  const char* const plain = std::getenv("NO_COLOR");
  if (isatty(fileno(stream)) != 1 || (plain && *plain)) return {"«", "»"};
  return {"\x1b[32m", "\x1b[0m"};
}

std::string example_text(const Tokenizer& tokenizer, std::span<const std::int32_t> ids,
                         std::span<const std::uint8_t> is_target, const TargetMarks& marks) {
  std::string text, bytes;
  const auto flush = [&] {
    text += printable(bytes);
    bytes.clear();
  };
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const bool target = is_target[i] != 0, before = i > 0 && is_target[i - 1] != 0;
    if (target != before) {
      flush();
      text += target ? marks.begin : marks.end;
    }
    if (!tokenizer.is_control(ids[i])) {
      tokenizer.append_bytes(ids[i], false, bytes);
      continue;
    }
    flush();
    if (ids[i] == tokenizer.bos())
      text += "<bos>";
    else if (ids[i] == tokenizer.eos())
      text += "<eos>";
    else
      text += printable(tokenizer.token_text(ids[i]));
  }
  flush();
  if (!is_target.empty() && is_target.back() != 0) text += marks.end;
  return text;
}

}  // namespace smoe
