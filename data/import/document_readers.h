// One open file of a corpus as jobs, by its format; of document_batches.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "data/import/corpus_files.h"
#include "data/import/document_batches.h"

namespace smoe {

// Of input that a job gets: enough to be worth its while.
inline constexpr std::size_t batch_bytes = 1 << 20;
inline constexpr std::int64_t batch_tokens = 1 << 19;

class DocumentReader {
 public:
  virtual ~DocumentReader() = default;
  virtual TokenizeJob next() = 0;  // null where the file is used up
};

std::unique_ptr<DocumentReader> open_documents(const CorpusFile& file, const BatchSettings& settings);
// By formats: a text is one document; an object of JSON, a row of Parquet; a row of ids, or all ids of one dim.
std::unique_ptr<DocumentReader> open_text_documents(const CorpusFile& file, const BatchSettings& settings);
std::unique_ptr<DocumentReader> open_json_documents(const CorpusFile& file, const BatchSettings& settings);
std::unique_ptr<DocumentReader> open_parquet_documents(const CorpusFile& file, const BatchSettings& settings);
std::unique_ptr<DocumentReader> open_id_documents(const CorpusFile& file, const BatchSettings& settings);

// Encodes one text as a document of a run, or counts it as an empty one.
void add_document(const BatchSettings& settings, std::string_view text, TokenRun& run);
// Ends the document whose ids stand last in the run.
void end_document(const BatchSettings& settings, TokenRun& run);
// "<s>" and "</s>" in a text: bos and eos are never read from one, though whoever rendered it may have meant them.
std::int64_t count_spelled_controls(const Tokenizer& tokenizer, std::string_view text);

}  // namespace smoe
