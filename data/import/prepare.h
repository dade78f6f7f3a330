// Files of text or ids to a directory of token shards (token_shard.h) and a manifest.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/import/corpus_files.h"
#include "data/import/example_documents.h"
#include "data/shards/token_shard_writer.h"

namespace smoe {

struct PrepareProgress {
  std::uint64_t bytes_done = 0,
                bytes_total = 0;  // of the input files, as they are; total: 0 where a pipe is among them
  std::int64_t tokens = 0, documents = 0;
  double seconds = 0;
};

class Tokenizer;
struct PrepareSummary;

struct PrepareOptions {
  std::vector<std::string> inputs;  // see list_corpus_files()
  std::string out_directory;        // made if missing; one that holds shards already is refused
  CorpusFormat format = CorpusFormat::automatic;
  std::string tokenizer;            // see load_tokenizer(); may be empty where all inputs carry ids
  std::int64_t vocab_size = 0;      // in place of a tokenizer; 0: none
  std::string text_field = "text";  // of JSON and Parquet; a path into nested objects is written a.b
  std::string dataset;              // of HDF5; empty: the files are token shards
  // Ids of one dim are one document, unless one of them is said to end a document or to begin one; -1: none is.
  std::int64_t document_end = -1, document_begin = -1;
  std::int64_t skip_bad = 0;  // at most so many objects (lines, rows) that are no document are left out
  std::string source;         // what the manifest says of the origin; empty: the inputs' names
  std::int64_t shard_tokens = default_shard_tokens;
  bool append_eos = true;  // to each text; documents that carry ids are stored as they are
  int threads = 1;         // that tokenise; at least 1
  // Called on the calling thread: about once a MiB of input; for each of the first ten bad documents. Where there are more, all
  // are in skipped.txt beside the shards.
  std::function<void(const PrepareProgress&)> on_progress;
  std::function<void(const std::string&)> on_bad;
  // Given: the inputs are examples for supervised fine-tuning, not texts. on_example is called for the first of them, as
  // they will be stored; before_writing when all are read and counted and nothing is at its place yet.
  std::optional<ExampleSettings> examples = {};
  std::function<void(const Tokenizer&, std::span<const std::int32_t> ids, std::span<const std::uint8_t> is_target)>
      on_example = {};
  std::function<void(const PrepareSummary&)> before_writing = {};
};

struct PrepareSummary : PrepareProgress {
  std::int64_t shards = 0, files = 0;
  std::int64_t empty_documents = 0, bad_documents = 0;  // left out
  std::int64_t skipped_hidden = 0;
  std::string bad_list;  // the file that names all bad documents, where there are more than were told; else empty
  std::vector<CorpusFile> inputs;       // what each file was taken for
  std::vector<PassedOver> passed_over;  // what directories held besides
  std::int64_t foreign_bytes = 0;       // zero bytes and bytes of no UTF-8 character in files that are text by --format
  std::int64_t spelled_controls = 0;    // "<s>" and "</s>" in texts, which a SentencePiece tokenizer spells out
  ExampleCounts examples;
  std::vector<std::string> warnings;  // of what is stored as it is and can hardly be meant
};

// A text becomes its ids and eos; no bos is put in front. One text file is one document, as is one object of JSON, one
// row of a 2-D .npy or a whole 1-D one. Text that is no UTF-8 or has zero bytes is refused, unless the format is given as
// text. What is written does not depend on the number of threads.
// The tokenizer's files are laid beside the shards, so that a checkpoint trained on them can carry them.
//
// Whenever this throws (std::runtime_error: input, ids outside the vocabulary, output, disk), nothing stays behind.
PrepareSummary prepare(const PrepareOptions& options);

}  // namespace smoe
