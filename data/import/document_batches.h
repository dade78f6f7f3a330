// A corpus as a sequence of jobs of about a MiB of input, to be run on any thread and joined in order.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/import/corpus_files.h"
#include "data/import/example_documents.h"
#include "data/text/tokenizer.h"

namespace smoe {

// Ids of documents one after another. The last of them may go on in the next run, and the first may have begun before.
struct TokenRun {
  std::vector<std::int32_t> ids;
  std::vector<std::size_t> document_ends;  // as offsets into ids
  std::vector<std::uint8_t> is_target;     // of examples: one an id, 0 or 1; else empty
  std::uint64_t bytes = 0;                 // of input that it stands for
  std::int64_t empty_documents = 0;        // left out
  std::int64_t foreign_bytes = 0;          // zero, or of no UTF-8 character, and taken all the same
  std::int64_t spelled_controls = 0;       // "<s>" and "</s>" in the text: characters, not ids
  std::vector<std::string> bad_documents;  // left out: what was said of each
  ExampleCounts example_counts;
};

using TokenizeJob = std::function<TokenRun()>;

struct BatchSettings {
  const Tokenizer* tokenizer = nullptr;  // null where all files carry ids
  std::int64_t vocab_size = 0;           // bounds ids that come ready-made
  std::string text_field;
  bool append_eos = true;
  bool any_bytes = false;                     // of text: zero bytes and what is no UTF-8 are counted instead of refused
  std::int64_t skip_bad = 0;                  // so many bad documents may be left out
  std::string dataset = {};                   // of HDF5; empty: that of a token shard
  std::int64_t document_end = -1;             // of 1-D ids: the one that ends a document; -1: none does
  std::int64_t document_begin = -1;           // or the one that begins one
  const ExampleSettings* examples = nullptr;  // not null: objects are examples and no texts
};

class DocumentReader;

class DocumentBatches {
 public:
  DocumentBatches(const std::vector<CorpusFile>& files, BatchSettings settings);
  ~DocumentBatches();

  // The next job, or null at the end. Jobs hold the files that they read; the tokenizer must outlive them.
  // Errors of a file show here or in its jobs as std::runtime_error.
  TokenizeJob next();

 private:
  const std::vector<CorpusFile>* files_;
  BatchSettings settings_;
  std::size_t next_file_ = 0;
  std::unique_ptr<DocumentReader> reader_;
};

}  // namespace smoe
