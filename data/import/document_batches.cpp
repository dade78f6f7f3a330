#include "data/import/document_batches.h"

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "data/import/bad_documents.h"
#include "data/import/document_readers.h"
#include "data/import/import_jsonl.h"
#include "data/import/parquet.h"
#include "data/import/text_field.h"

namespace smoe {

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

void add_document(const BatchSettings& settings, std::string_view text, TokenRun& run) {
  if (text.empty()) {
    ++run.empty_documents;
    return;
  }
  settings.tokenizer->encode_part(text, true, run.ids);
  run.spelled_controls += count_spelled_controls(*settings.tokenizer, text);
  end_document(settings, run);
}

namespace {

class JsonDocuments final : public DocumentReader {
 public:
  JsonDocuments(const CorpusFile& file, const BatchSettings& settings)
      : settings_(settings), field_(settings.text_field), file_(open_json(file)) {}

  TokenizeJob next() override {
    JsonBatch batch;
    if (!file_->next(batch_bytes, batch)) return nullptr;
    return [batch = std::move(batch), settings = settings_, field = field_]() mutable {
      TokenRun run;
      run.bytes = batch.bytes;
      BadPart bad(settings.skip_bad);
      std::string text;
      const auto read = [&](const Json& object, const std::string& where) { text = field.of(object, where); };
      while (next_good(batch, bad, read)) add_document(settings, text, run);
      run.bad_documents = bad.messages();
      return run;
    };
  }

 private:
  BatchSettings settings_;
  TextField field_;
  std::unique_ptr<JsonInput> file_;
};

class ParquetDocuments final : public DocumentReader {
 public:
  ParquetDocuments(const CorpusFile& file, const BatchSettings& settings)
      : settings_(settings), file_(open_parquet(file, settings.text_field)) {}

  TokenizeJob next() override {
    ParquetRows rows;
    if (!file_->next(batch_bytes, rows)) return nullptr;
    return [rows = std::move(rows), settings = settings_] {
      TokenRun run;
      run.bytes = rows.bytes;
      BadPart bad(settings.skip_bad);
      for (std::size_t i = 0; i < rows.texts.size() && !bad.full(); ++i)
        if (rows.faults[i])
          bad.add(fault_of_row(rows, i));
        else
          add_document(settings, rows.texts[i], run);
      run.bad_documents = bad.messages();
      return run;
    };
  }

 private:
  BatchSettings settings_;
  std::unique_ptr<ParquetInput> file_;
};

}  // namespace

std::string fault_of_row(const ParquetRows& rows, std::size_t row) {
  return fmt::format("{}: row {}: its text {}", rows.file, rows.first_row + static_cast<std::int64_t>(row),
                     rows.faults[row]);
}

std::unique_ptr<DocumentReader> open_json_documents(const CorpusFile& file, const BatchSettings& settings) {
  return std::make_unique<JsonDocuments>(file, settings);
}

std::unique_ptr<DocumentReader> open_parquet_documents(const CorpusFile& file, const BatchSettings& settings) {
  return std::make_unique<ParquetDocuments>(file, settings);
}

std::unique_ptr<DocumentReader> open_documents(const CorpusFile& file, const BatchSettings& settings) {
  if (settings.examples) return open_example_documents(file, settings);
  switch (file.format) {
    case CorpusFormat::text: return open_text_documents(file, settings);
    case CorpusFormat::jsonl:
    case CorpusFormat::json: return open_json_documents(file, settings);
    case CorpusFormat::parquet: return open_parquet_documents(file, settings);
    case CorpusFormat::automatic: throw std::logic_error("a corpus file without a format");
    default: return open_id_documents(file, settings);
  }
}

DocumentBatches::DocumentBatches(const std::vector<CorpusFile>& files, BatchSettings settings)
    : files_(&files), settings_(std::move(settings)) {}

DocumentBatches::~DocumentBatches() = default;

TokenizeJob DocumentBatches::next() {
  for (;;) {
    if (reader_)
      if (TokenizeJob job = reader_->next()) return job;
    reader_.reset();
    if (next_file_ == files_->size()) return nullptr;
    reader_ = open_documents((*files_)[next_file_++], settings_);
  }
}

}  // namespace smoe
