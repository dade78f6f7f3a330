#include "data/import/document_batches.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "data/import/import_jsonl.h"
#include "data/import/import_megatron.h"
#include "data/import/npy.h"
#include "data/files/utf8.h"

namespace smoe {

namespace {

constexpr std::size_t batch_bytes = 1 << 20;
constexpr std::int64_t batch_tokens = 1 << 19;

// bos and eos are never read from a text. Where they are spelled out there, whoever rendered the text may have meant them.
std::int64_t count_spelled_controls(const Tokenizer& tokenizer, std::string_view text) {
  if (tokenizer.name() != "sentencepiece") return 0;
  std::int64_t count = 0;
  for (std::size_t at = text.find('<'); at != text.npos; at = text.find('<', at + 1))
    count += text.substr(at).starts_with("<s>") || text.substr(at).starts_with("</s>");
  return count;
}

void end_document(const BatchSettings& settings, TokenRun& run) {
  if (settings.append_eos) run.ids.push_back(settings.tokenizer->eos());
  run.document_ends.push_back(run.ids.size());
}

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

// How many bytes of [begin, end) a text cannot have. Throws at the first unless they are allowed.
std::int64_t check_text(std::string_view text, std::size_t begin, std::size_t end, const std::string& path,
                        bool allowed) {
  std::int64_t count = 0;
  for (std::size_t at = first_character(text, begin);; ++at) {
    const std::size_t found = find_foreign(text, at, end);
    if (found >= end) return count;
    if (!allowed) {
      const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(found), '\n');
      const auto byte = static_cast<unsigned>(static_cast<unsigned char>(text[found]));
      throw std::runtime_error(fmt::format(
          "{}:{}: byte {} of the text is 0x{:02X}, {}. Is it another encoding (iconv -f ISO-8859-1 -t UTF-8 makes UTF-8 of "
          "Latin-1) or no text? --format text takes it as it is, and counts such bytes",
          path, line, found, byte, byte == 0 ? "and text has no zero bytes" : "which is no UTF-8"));
    }
    ++count;
  }
}

void check_id(std::int64_t id, std::int64_t vocab_size, const std::string& path, std::int64_t place) {
  if (id < 0 || id >= vocab_size)
    throw std::runtime_error(fmt::format("{}: element {} is {}, outside the vocabulary of {} (ids 0 to {})", path,
                                         place, id, vocab_size, vocab_size - 1));
}

// Ids [first, first + count) of a file whose read() yields i64, checked.
template <class IdFile>
void append_ids(const IdFile& file, const std::string& path, std::int64_t first, std::int64_t count,
                std::int64_t vocab_size, std::vector<std::int32_t>& ids) {
  std::vector<std::int64_t> wide(static_cast<std::size_t>(count));
  file.read(first, count, wide.data());
  ids.reserve(ids.size() + wide.size());
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t id = wide[static_cast<std::size_t>(i)];
    check_id(id, vocab_size, path, first + i);
    ids.push_back(static_cast<std::int32_t>(id));
  }
}

}  // namespace

// One open file; next() is null when it is used up.
class DocumentBatches::Reader {
 public:
  virtual ~Reader() = default;
  virtual TokenizeJob next() = 0;
};

// The whole file is one document, cut into parts that encode independently. A byte order mark is no part of it.
class DocumentBatches::TextReader final : public Reader {
 public:
  TextReader(const CorpusFile& file, const BatchSettings& settings)
      : settings_(settings),
        path_(file.path.string()),
        file_(std::make_shared<MappedFile>(file.path)),
        text_(without_byte_order_mark(text_of(*file_))),
        mark_bytes_(file_->bytes().size() - text_.size()) {}

  TokenizeJob next() override {
    if (begin_ == text_.size()) {
      if (!std::exchange(empty_, false)) return nullptr;
      return [bytes = mark_bytes_] {
        TokenRun run;
        run.bytes = bytes;
        run.empty_documents = 1;
        return run;
      };
    }
    empty_ = false;
    const std::string_view rest = text_.substr(begin_);
    const std::size_t begin = begin_;
    begin_ += rest.size() <= batch_bytes ? rest.size() : settings_.tokenizer->next_cut(rest, batch_bytes);
    return [file = file_, settings = settings_, path = path_, text = text_, begin, end = begin_,
            mark_bytes = std::exchange(mark_bytes_, 0)] {
      const std::string_view part = text.substr(begin, end - begin);
      TokenRun run;
      run.foreign_bytes = check_text(text, begin, end, path, settings.any_bytes);
      run.ids.reserve(part.size() / 3);
      settings.tokenizer->encode_part(part, begin == 0, run.ids);
      run.spelled_controls += count_spelled_controls(*settings.tokenizer, part);
      if (end == text.size()) end_document(settings, run);
      run.bytes = part.size() + mark_bytes;
      return run;
    };
  }

 private:
  BatchSettings settings_;
  std::string path_;
  std::shared_ptr<const MappedFile> file_;
  std::string_view text_;
  std::size_t begin_ = 0;  // of the next part
  std::uint64_t mark_bytes_;
  bool empty_ = true;
};

namespace {

bool take_some(JsonlFile& file, JsonlLines& some) { return file.next_lines(batch_bytes, some); }
bool take_some(JsonFile& file, JsonObjects& some) { return file.next_objects(batch_bytes, some); }

}  // namespace

// JSON Lines, or an array of objects: Input gives Some of its documents at a time.
template <class Input, class Some>
class DocumentBatches::ObjectReader final : public Reader {
 public:
  ObjectReader(const CorpusFile& file, const BatchSettings& settings) : settings_(settings), file_(file.path) {}

  TokenizeJob next() override {
    Some some;
    if (!take_some(file_, some)) return nullptr;
    return [some, settings = settings_]() mutable {
      TokenRun run;
      run.bytes = some.bytes;
      run.ids.reserve(some.bytes / 3);
      for (std::string document; some.next_document(settings.text_field, document);) {
        if (document.empty()) {
          ++run.empty_documents;
          continue;
        }
        settings.tokenizer->encode_part(document, true, run.ids);
        run.spelled_controls += count_spelled_controls(*settings.tokenizer, document);
        end_document(settings, run);
      }
      return run;
    };
  }

 private:
  BatchSettings settings_;
  Input file_;
};

// One dim: one document. Two: one a row.
class DocumentBatches::NpyReader final : public Reader {
 public:
  NpyReader(const CorpusFile& file, const BatchSettings& settings)
      : vocab_size_(settings.vocab_size), file_(std::make_shared<NpyFile>(file.path)), bytes_(file.bytes) {
    document_tokens_ = file_->shape().back();
    documents_ = file_->shape().size() == 2 ? file_->shape().front() : 1;
  }

  TokenizeJob next() override {
    if (file_->size() == 0) {
      if (!std::exchange(empty_, false)) return nullptr;
      return [documents = documents_] {
        TokenRun run;
        run.empty_documents = documents;
        return run;
      };
    }
    if (first_ == file_->size()) return nullptr;
    const std::int64_t first = first_, count = std::min(batch_tokens, file_->size() - first);
    first_ += count;
    const std::uint64_t bytes_before = std::exchange(bytes_given_, share_of(first_));
    return [file = file_, vocab_size = vocab_size_, first, count, each = document_tokens_,
            bytes = bytes_given_ - bytes_before] {
      TokenRun run;
      run.bytes = bytes;
      append_ids(*file, file->path(), first, count, vocab_size, run.ids);
      for (std::int64_t end = (first / each + 1) * each; end <= first + count; end += each)
        run.document_ends.push_back(static_cast<std::size_t>(end - first));
      return run;
    };
  }

 private:
  std::uint64_t share_of(std::int64_t tokens) const {
    return static_cast<std::uint64_t>(static_cast<double>(bytes_) * static_cast<double>(tokens) /
                                      static_cast<double>(file_->size()));
  }

  std::int64_t vocab_size_;
  std::shared_ptr<const NpyFile> file_;
  std::uint64_t bytes_, bytes_given_ = 0;
  std::int64_t documents_ = 0, document_tokens_ = 0, first_ = 0;
  bool empty_ = true;
};

class DocumentBatches::MegatronReader final : public Reader {
 public:
  MegatronReader(const CorpusFile& file, const BatchSettings& settings)
      : vocab_size_(settings.vocab_size), file_(std::make_shared<MegatronFile>(file.path)) {}

  TokenizeJob next() override {
    const std::int64_t first = document_;
    while (
        document_ < file_->documents() &&
        (document_ == first || file_->document_offset(document_ + 1) - file_->document_offset(first) <= batch_tokens))
      ++document_;
    if (document_ == first) return nullptr;
    return [file = file_, vocab_size = vocab_size_, first, last = document_] {
      TokenRun run;
      const std::int64_t begin = file->document_offset(first), end = file->document_offset(last);
      run.bytes = static_cast<std::uint64_t>(end - begin) * file->bytes_per_token();
      append_ids(*file, file->data_path(), begin, end - begin, vocab_size, run.ids);
      for (std::int64_t i = first; i < last; ++i) {
        if (file->document_offset(i + 1) == file->document_offset(i))
          ++run.empty_documents;
        else
          run.document_ends.push_back(static_cast<std::size_t>(file->document_offset(i + 1) - begin));
      }
      return run;
    };
  }

 private:
  std::int64_t vocab_size_;
  std::shared_ptr<const MegatronFile> file_;
  std::int64_t document_ = 0;
};

DocumentBatches::DocumentBatches(const std::vector<CorpusFile>& files, BatchSettings settings)
    : files_(&files), settings_(std::move(settings)) {}

DocumentBatches::~DocumentBatches() = default;

std::unique_ptr<DocumentBatches::Reader> DocumentBatches::open(const CorpusFile& file) const {
  switch (file.format) {
    case CorpusFormat::text: return std::make_unique<TextReader>(file, settings_);
    case CorpusFormat::jsonl: return std::make_unique<ObjectReader<JsonlFile, JsonlLines>>(file, settings_);
    case CorpusFormat::json: return std::make_unique<ObjectReader<JsonFile, JsonObjects>>(file, settings_);
    case CorpusFormat::npy: return std::make_unique<NpyReader>(file, settings_);
    case CorpusFormat::megatron: return std::make_unique<MegatronReader>(file, settings_);
    case CorpusFormat::automatic: break;
  }
  throw std::logic_error("a corpus file without a format");
}

TokenizeJob DocumentBatches::next() {
  for (;;) {
    if (reader_)
      if (TokenizeJob job = reader_->next()) return job;
    reader_.reset();
    if (next_file_ == files_->size()) return nullptr;
    reader_ = open((*files_)[next_file_++]);
  }
}

}  // namespace smoe
