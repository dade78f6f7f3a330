#include "data/import/train_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_trainer.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

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

// A share of the lines that leaves about `most_bytes` of the files. How long these are, unpacked or behind a pipe, shows at
// their end alone; but the share only falls as they are read, and a line once too many stays so.
class Sample {
 public:
  Sample(TextLines& lines, std::uint64_t most_bytes) : most_bytes_(most_bytes) {
    for (std::uint64_t place = 0; const auto line = lines.next(); ++place) {
      const std::uint64_t hash = scramble(place);
      if (!is_in(hash, lines.bytes())) continue;
      lines_.push_back({hash, std::string(*line)});
      bytes_ += line->size();
      if (bytes_ > 2 * most_bytes_) prune(lines.bytes());
    }
    prune(lines.bytes());
  }

  const std::string& line(std::size_t i) const { return lines_[i].text; }
  std::size_t size() const { return lines_.size(); }
  std::uint64_t bytes() const { return bytes_; }

 private:
  struct Line {
    std::uint64_t hash;
    std::string text;
  };

  bool is_in(std::uint64_t hash, std::uint64_t file_bytes) const {
    const double share =
        file_bytes <= most_bytes_ ? 2.0 : static_cast<double>(most_bytes_) / static_cast<double>(file_bytes);
    return static_cast<double>(hash) * 0x1p-64 < share;
  }
  void prune(std::uint64_t file_bytes) {
    std::erase_if(lines_, [&](const Line& line) {
      if (is_in(line.hash, file_bytes)) return false;
      bytes_ -= line.text.size();
      return true;
    });
  }

  std::uint64_t most_bytes_, bytes_ = 0;
  std::vector<Line> lines_;
};

// What the library pulls its training text through.
class SampleIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit SampleIterator(const Sample& sample) : sample_(&sample) {}

  bool done() const override { return next_ == sample_->size(); }
  const std::string& value() const override { return sample_->line(next_); }
  sentencepiece::util::Status status() const override { return {}; }
  void Next() override { ++next_; }

 private:
  const Sample* sample_;
  std::size_t next_ = 0;
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
      throw std::runtime_error(fmt::format("{} holds token ids ({}); a tokenizer is trained on texts",
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
  BadDocuments bad(options.skip_bad, options.on_bad, options.out_directory);
  TextLines lines(corpus.files, options.text_field, &bad);
  const Sample sample(lines, options.sample_bytes);
  if (sample.size() == 0)
    throw std::runtime_error(
        fmt::format("{} hold no text to learn a vocabulary from", fmt::join(options.inputs, ", ")));

  std::string model;
  SampleIterator text(sample);
  const auto status = sentencepiece::SentencePieceTrainer::Train(mixtral_settings(options.vocab_size), &text, &model);
  if (!status.ok())
    throw std::runtime_error(
        fmt::format("SentencePiece could not train a vocabulary of {} on {} bytes of text: {}; "
                    "give more text, or another size",
                    options.vocab_size, sample.bytes(), reason_of(status)));
  file.write(model);
  file.commit();

  summary.bad_list = bad.commit_list().string();
  summary.file = target;
  summary.sha256 = sha256_hex(model);
  summary.corpus_bytes = lines.bytes();
  summary.sampled_bytes = sample.bytes();
  summary.lines = static_cast<std::int64_t>(sample.size());
  summary.skipped_lines = lines.invalid_lines();
  summary.bad_documents = bad.count();
  summary.inputs = corpus.files;
  summary.passed_over = corpus.passed_over;
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

}  // namespace smoe
