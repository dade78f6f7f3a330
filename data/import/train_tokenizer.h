// Trains a SentencePiece vocabulary in the settings of Mixtral's own: byte pair encoding with byte fallback, digits
// split, text left as it is (identity normaliser, a space put in front), runs of spaces kept as pieces, and
// unk 0, bos 1, eos 2, bytes 3 to 258.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/import/corpus_files.h"

namespace smoe {

struct TrainTokenizerOptions {
  std::vector<std::string> inputs;  // as PrepareOptions has them, of texts
  CorpusFormat format = CorpusFormat::automatic;
  std::string text_field = "text";
  std::int64_t vocab_size = 0;  // in [260, 2^20]
  std::string out_directory;    // made if missing; receives tokenizer.model
  std::int64_t skip_bad = 0;    // as PrepareOptions has them
  std::function<void(const std::string&)> on_bad = {};
  // Where the files hold more than this, a share of their lines, chosen by a hash of where they stand, is learned from.
  std::uint64_t sample_bytes = 16 << 20;
};

struct TrainTokenizerSummary {
  std::filesystem::path file;
  std::string sha256;
  std::uint64_t corpus_bytes = 0;       // of the files, unpacked
  std::uint64_t sampled_bytes = 0;      // of text learned from
  std::int64_t lines = 0;               // learned from
  std::int64_t skipped_lines = 0;       // not UTF-8
  std::int64_t bad_documents = 0;       // left out
  std::string bad_list;                 // as PrepareSummary has it
  std::vector<CorpusFile> inputs;       // what each file was taken for
  std::vector<PassedOver> passed_over;  // what directories held besides
  double seconds = 0;
};

// The same input gives the same file, byte for byte. The file appears whole or not at all; one that is there is
// refused. Throws std::runtime_error.
TrainTokenizerSummary train_tokenizer(const TrainTokenizerOptions& options);

}  // namespace smoe
