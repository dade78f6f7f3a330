#include "data/import/train_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_trainer.h>

#include <chrono>
#include <exception>
#include <stdexcept>
#include <unordered_map>

#include "data/files/files.h"
#include "data/files/sha256.h"
#include "data/import/text_lines.h"

namespace smoe {
namespace fs = std::filesystem;

namespace {

// splitmix64's finaliser: a line is taken or left by where it stands alone.
std::uint64_t scramble(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// The library pulls its training text through this. An exception must not cross it: it is kept for the caller.
class SampledLines final : public sentencepiece::SentenceIterator {
 public:
  SampledLines(TextLines lines, double share) : lines_(std::move(lines)), share_(share) { Next(); }

  bool done() const override { return done_; }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    try {
      while (const auto line = lines_.next())
        if (static_cast<double>(scramble(place_++)) * 0x1p-64 < share_) {
          line_ = *line;
          ++taken_;
          bytes_ += line_.size();
          return;
        }
    } catch (...) {
      error_ = std::current_exception();
    }
    done_ = true;
  }

  std::exception_ptr error() const { return error_; }
  std::int64_t taken() const { return taken_; }
  std::uint64_t bytes() const { return bytes_; }
  std::int64_t invalid() const { return lines_.invalid_lines(); }

 private:
  TextLines lines_;
  double share_;
  std::string line_;
  std::uint64_t place_ = 0, bytes_ = 0;
  std::int64_t taken_ = 0;
  bool done_ = false;
  std::exception_ptr error_;
};

// Read off the trainer_spec inside Mixtral's tokenizer.model. The thread count is fixed because the model records it.
std::unordered_map<std::string, std::string> mixtral_settings(std::int64_t vocab_size) {
  return {{"model_type", "bpe"},
          {"vocab_size", std::to_string(vocab_size)},
          {"character_coverage", "0.99995"},
          {"byte_fallback", "true"},
          {"split_digits", "true"},
          {"split_by_unicode_script", "true"},
          {"split_by_whitespace", "true"},
          {"split_by_number", "true"},
          {"allow_whitespace_only_pieces", "true"},
          {"max_sentencepiece_length", "16"},
          {"max_sentence_length", std::to_string(TextLines::longest_line + 1)},
          {"normalization_rule_name", "identity"},
          {"add_dummy_prefix", "true"},
          {"remove_extra_whitespaces", "false"},
          {"unk_id", "0"},
          {"bos_id", "1"},
          {"eos_id", "2"},
          {"pad_id", "-1"},
          {"num_threads", "4"},
          {"minloglevel", "2"}};
}

// The library puts its source line and condition, "trainer.cc(12) [a < b] ", in front of what it has to say.
std::string reason_of(const sentencepiece::util::Status& status) {
  const std::string message = status.message();
  const std::size_t bracket = message.rfind("] ");
  return bracket == std::string::npos || bracket + 2 == message.size() ? message : message.substr(bracket + 2);
}

void check(const TrainTokenizerOptions& options, const CorpusFiles& corpus, const fs::path& target) {
  constexpr std::int64_t least = 260, most = 1 << 20;
  if (options.vocab_size < least || options.vocab_size > most)
    throw std::runtime_error(
        fmt::format("a vocabulary of {} cannot be trained: it must be in [{}, {}] (3 special "
                    "tokens and 256 bytes come first)",
                    options.vocab_size, least, most));
  for (const CorpusFile& file : corpus.files)
    if (carries_ids(file.format))
      throw std::runtime_error(fmt::format("{} holds token ids ({}); a tokenizer is trained on text or JSONL",
                                           file.path.string(), name_of(file.format)));
  std::error_code ignored;
  if (fs::symlink_status(target, ignored).type() != fs::file_type::not_found && !ignored)
    throw std::runtime_error(fmt::format("{} exists; remove it or choose another --out", target.string()));
}

// Makes a directory if it is missing, and takes that away again if nothing was put into it.
class OutputDirectory {
 public:
  explicit OutputDirectory(fs::path path) : path_(std::move(path)) {
    std::error_code ignored;
    made_ = !fs::exists(path_, ignored);
    make_directories(path_);
  }
  ~OutputDirectory() {
    std::error_code ignored;
    if (made_) fs::remove(path_, ignored);  // fails, as it should, where something is in it
  }
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

 private:
  fs::path path_;
  bool made_ = false;
};

}  // namespace

TrainTokenizerSummary train_tokenizer(const TrainTokenizerOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const CorpusFiles corpus = list_corpus_files(options.inputs, options.format);
  const fs::path target = fs::path(options.out_directory) / "tokenizer.model";
  check(options, corpus, target);
  const OutputDirectory directory(options.out_directory);
  AtomicFile file(target);  // before the long work, so that a directory that cannot be written shows now

  TrainTokenizerSummary summary;
  summary.corpus_bytes = corpus.bytes();
  const double share = summary.corpus_bytes <= options.sample_bytes
                           ? 2.0
                           : static_cast<double>(options.sample_bytes) / static_cast<double>(summary.corpus_bytes);
  SampledLines lines(TextLines(corpus.files, options.text_field), share);
  if (lines.error()) std::rethrow_exception(lines.error());
  if (lines.done())
    throw std::runtime_error(
        fmt::format("{} hold no text to learn a vocabulary from", fmt::join(options.inputs, ", ")));

  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(mixtral_settings(options.vocab_size), &lines, &model);
  if (lines.error()) std::rethrow_exception(lines.error());
  if (!status.ok())
    throw std::runtime_error(
        fmt::format("SentencePiece could not train a vocabulary of {} on {} bytes of text: {}; "
                    "give more text, or another size",
                    options.vocab_size, lines.bytes(), reason_of(status)));
  file.write(model);
  file.commit();

  summary.file = target;
  summary.sha256 = sha256_hex(model);
  summary.sampled_bytes = lines.bytes();
  summary.lines = lines.taken();
  summary.skipped_lines = lines.invalid();
  summary.inputs = corpus.files;
  summary.passed_over = corpus.passed_over;
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

}  // namespace smoe
