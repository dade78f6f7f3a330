// A file of text: one document, cut into parts that encode independently.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "data/files/utf8.h"
#include "data/import/document_readers.h"
#include "data/import/text_window.h"

namespace smoe {

namespace {

// Where, at or after `from`, the next zero byte or byte of no character is; text.size() where there is none before `to`.
// A character that begins before `to` may end behind it: `from` becomes the place after it.
std::size_t find_foreign(std::string_view text, std::size_t& from, std::size_t to) {
  while (from < to) {
    if (from + 8 <= to) {  // eight characters of ASCII at a time
      std::uint64_t eight = 0;
      std::memcpy(&eight, text.data() + from, sizeof eight);
      const bool has_zero = ((eight - 0x0101010101010101u) & ~eight & 0x8080808080808080u) != 0;
      if ((eight & 0x8080808080808080u) == 0 && !has_zero) {
        from += 8;
        continue;
      }
    }
    const int bytes = read_utf8(text.substr(from, 4)).bytes;
    if (bytes == 0 || text[from] == '\0') return from;
    from += static_cast<std::size_t>(bytes);
  }
  return text.size();
}

// Where the characters of a part begin: a character that the part before it has begun belongs to that one.
std::size_t first_character(std::string_view text, std::size_t begin) {
  for (std::size_t back = 1; back <= 3 && back <= begin; ++back) {
    const int bytes = read_utf8(text.substr(begin - back, 4)).bytes;
    if (bytes > static_cast<int>(back)) return begin - back + static_cast<std::size_t>(bytes);
    if (!is_utf8_trail(text[begin - back])) break;
  }
  return begin;
}

// Of a part, where it lies: in memory among what stands around it, and in the file.
struct PartPlace {
  std::string_view around;
  std::size_t begin = 0, end = 0;  // in `around`
  std::uint64_t offset = 0;        // of its first byte, in the text
  std::int64_t line = 1;           // of that
};

// How many bytes of a part a text cannot have. Throws at the first unless they are allowed.
std::int64_t check_text(const PartPlace& part, const std::string& path, bool allowed) {
  std::int64_t count = 0;
  for (std::size_t at = first_character(part.around, part.begin);; ++at) {
    const std::size_t found = find_foreign(part.around, at, part.end);
    if (found >= part.end) return count;
    if (!allowed) {
      const std::string_view before = part.around.substr(part.begin, found - part.begin);
      const auto line = part.line + std::count(before.begin(), before.end(), '\n');
      const auto byte = static_cast<unsigned>(static_cast<unsigned char>(part.around[found]));
      throw std::runtime_error(fmt::format(
          "{}:{}: byte {} of the text is 0x{:02X}, {}. Is it another encoding (iconv -f ISO-8859-1 -t UTF-8 makes UTF-8 of "
          "Latin-1) or no text? --format text takes it as it is, and counts such bytes",
          path, line, part.offset + before.size(), byte,
          byte == 0 ? "and text has no zero bytes" : "which is no UTF-8"));
    }
    ++count;
  }
}

// A byte order mark is no part of the document.
class TextDocument final : public DocumentReader {
 public:
  TextDocument(const CorpusFile& file, const BatchSettings& settings) : settings_(settings), window_(file) {}

  TokenizeJob next() override {
    const std::size_t bytes = next_part();
    const std::uint64_t file_bytes = window_.take_file_bytes();
    if (bytes == 0) {
      if (ended_) return nullptr;
      ended_ = true;
      return [file_bytes, empty = empty_, settings = settings_] {
        TokenRun run;
        run.bytes = file_bytes;
        if (empty)
          run.empty_documents = 1;
        else
          end_document(settings, run);
        return run;
      };
    }
    const bool last = window_.whole() && window_.text().empty();
    ended_ = ended_ || last;
    return [memory = memory_, settings = settings_, path = window_.name(), place = place_, file_bytes, last,
            opens = std::exchange(empty_, false)] {
      const std::string_view part = place.around.substr(place.begin, place.end - place.begin);
      TokenRun run;
      run.bytes = file_bytes;
      run.foreign_bytes = check_text(place, path, settings.any_bytes);
      run.ids.reserve(part.size() / 3);
      settings.tokenizer->encode_part(part, opens, run.ids);
      run.spelled_controls += count_spelled_controls(*settings.tokenizer, part);
      if (last) end_document(settings, run);
      return run;
    };
  }

 private:
  // Takes the next part, into place_ and memory_; its bytes, 0 at the end.
  std::size_t next_part() {
    std::size_t bytes = bytes_of_part();
    if (bytes == 0) return 0;
    const std::string_view text = window_.text(), behind = window_.behind();
    place_ = {{behind.data(), behind.size() + text.size()}, behind.size(), behind.size() + bytes, offset_, line_};
    memory_ = window_.memory();
    offset_ += bytes;
    line_ += std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bytes), '\n');
    window_.take(bytes);
    return bytes;
  }

  // Where a text may be cut depends on what follows, up to the length of an added token: where the text goes on behind what is
  // in memory, a cut counts only if so much, not all of it blank, is there.
  std::size_t bytes_of_part() {
    constexpr std::size_t foresight = 64 << 10;
    for (;;) {
      const std::string_view text = window_.text();
      if (window_.whole())
        return text.size() <= batch_bytes ? text.size() : settings_.tokenizer->next_cut(text, batch_bytes);
      if (text.size() > batch_bytes + foresight) {
        const std::size_t cut = settings_.tokenizer->next_cut(text, batch_bytes);
        if (cut + foresight <= text.size() && text.find_first_not_of(" \t\r\n", cut) != text.npos) return cut;
      }
      window_.grow();
    }
  }

  BatchSettings settings_;
  TextWindow window_;
  std::shared_ptr<const void> memory_;
  PartPlace place_;
  std::uint64_t offset_ = 0;
  std::int64_t line_ = 1;
  bool empty_ = true, ended_ = false;
};

}  // namespace

std::unique_ptr<DocumentReader> open_text_documents(const CorpusFile& file, const BatchSettings& settings) {
  return std::make_unique<TextDocument>(file, settings);
}

}  // namespace smoe
