// SentencePieceTokenizer whole: load, encode in every way that we do, decode every id. The library's own encoding of
// the same text is the measure: cutting texts into words must not show.
#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "data/text/sentencepiece_tokenizer.h"
#include "data/files/utf8.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {
namespace {

void check_encoding(const SentencePieceTokenizer& tokenizer, const sentencepiece::SentencePieceProcessor& library,
                    std::string_view text) {
  std::vector<std::int32_t> ids, expected;
  if (!reads([&] { ids = tokenizer.encode(text); })) return;
  require(library.Encode(text, &expected).ok(), "what we encode the library encodes");
  if (text.empty()) return;
  require(ids == expected, "ids are the library's");
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

bool run_tokenizer(std::string_view input) {
  const std::string_view text = take_part(input);
  const auto file = folder("tokenizer") / "tokenizer.model";
  put(file, input);
  return reads([&] {
    const SentencePieceTokenizer tokenizer(file);
    sentencepiece::SentencePieceProcessor library;
    require(library.LoadFromSerializedProto(input).ok(), "what we read the library reads");
    require(tokenizer.vocab_size() == library.GetPieceSize(), "the vocabulary is the library's");
    check_encoding(tokenizer, library, text);
    check_encoding(tokenizer, library, " a");
    check_encoding(tokenizer, library, "a  b\n\xE2\x96\x81\x01\xff ab");
    std::vector<std::int32_t> all;
    for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      all.push_back(id);
      require(is_valid_utf8(tokenizer.decode(std::vector{id})), "decoded text is UTF-8");
    }
    require(is_valid_utf8(tokenizer.decode(all)), "decoded text is UTF-8");
  });
}

}  // namespace smoe::fuzz
