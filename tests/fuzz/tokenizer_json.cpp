// A tokenizer.json that stands alone: load, encode in every way that we do, decode every id.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/utf8.h"
#include "data/text/tokenizer.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {
namespace {

void check_parts(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids;
  if (!reads([&] { ids = tokenizer.encode(text); })) return;  // a pattern may take more steps than is sane
  if (text.empty()) return;
  for (const std::int32_t id : ids) require(id >= 0 && id < tokenizer.vocab_size(), "an id is of the vocabulary");
  for (const std::size_t from : {std::size_t{1}, text.size() / 2}) {
    const std::size_t cut = tokenizer.next_cut(text, from);
    require(cut > 0 && cut >= from && cut <= text.size(), "a text is cut where it was asked, or behind");
    std::vector<std::int32_t> parts;
    tokenizer.encode_part(text.substr(0, cut), true, parts);
    if (cut < text.size()) tokenizer.encode_part(text.substr(cut), false, parts);
    require(parts == ids, "parts encode to the ids of the whole");
  }
  require(is_valid_utf8(tokenizer.decode(ids)), "decoded text is UTF-8");
}

}  // namespace

bool run_tokenizer_json(std::string_view input) {
  const std::string_view text = take_part(input);
  const auto file = folder("tokenizer_json") / "tokenizer.json";
  put(file, input);
  return reads([&] {
    const auto tokenizer = load_tokenizer(file.parent_path().string());
    check_parts(*tokenizer, text);
    check_parts(*tokenizer, " a");
    check_parts(*tokenizer, "ab cd  ef\n\xE2\x96\x81\x01\xff ab<x>12 don't  e\xCC\x81");
    const auto few = static_cast<std::int32_t>(std::min<std::int64_t>(tokenizer->vocab_size(), 4096));
    for (std::int32_t id = 0; id < few; ++id)
      require(is_valid_utf8(tokenizer->decode(std::vector{id})), "decoded text is UTF-8");
  });
}

}  // namespace smoe::fuzz
