#include "data/import/example_documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "data/import/bad_documents.h"
#include "data/import/document_batches.h"
#include "data/import/document_readers.h"
#include "data/import/import_jsonl.h"

namespace smoe {

void ExampleCounts::add(const ExampleCounts& other) {
  examples += other.examples;
  targets += other.targets;
  truncated += other.truncated;
  too_long += other.too_long;
  without_target += other.without_target;
  longest = std::max(longest, other.longest);
  for (const auto& [schema, count] : other.schemas) schemas[schema] += count;
}

namespace {

// The ids of examples, one at a time, into a run.
class ExampleEncoder {
 public:
  ExampleEncoder(const BatchSettings& settings, TokenRun& run)
      : settings_(*settings.examples), template_(settings_.chat, *settings.tokenizer), run_(run) {}

  // Leaves the run as it was where it throws.
  void add(const Json& object, const std::string& where) {
    const Example example = read_example(object, where);
    ChatIds encoded;
    try {
      encoded = template_.encode(example.messages, settings_.loss_on);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(fmt::format("{}: {}", where, error.what()));
    }
    store(std::move(encoded), example.schema, where);
  }

 private:
  void store(ChatIds encoded, ExampleSchema schema, const std::string& where) {
    ExampleCounts& counts = run_.example_counts;
    const auto length = static_cast<std::int64_t>(encoded.ids.size());
    const bool is_too_long = settings_.max_length > 0 && length > settings_.max_length;
    if (is_too_long && settings_.too_long == TooLong::error)
      throw std::runtime_error(
          fmt::format("{}: the example has {} ids, more than the {} of --max-length: allow more, or say --too-long "
                      "truncate or skip",
                      where, length, settings_.max_length));
    counts.longest = std::max(counts.longest, length);
    ++counts.schemas[schema];
    if (is_too_long && settings_.too_long == TooLong::skip) {
      ++counts.too_long;
      return;
    }
    if (is_too_long) {
      encoded.ids.resize(static_cast<std::size_t>(settings_.max_length));
      encoded.is_target.resize(encoded.ids.size());
    }
    const auto targets = std::count(encoded.is_target.begin(), encoded.is_target.end(), 1);
    if (targets == 0) {
      ++counts.without_target;
      return;
    }
    ++counts.examples;
    counts.targets += targets;
    counts.truncated += is_too_long;
    run_.ids.insert(run_.ids.end(), encoded.ids.begin(), encoded.ids.end());
    run_.is_target.insert(run_.is_target.end(), encoded.is_target.begin(), encoded.is_target.end());
    run_.document_ends.push_back(run_.ids.size());
  }

  const ExampleSettings& settings_;
  ChatTemplate template_;
  TokenRun& run_;
};

class ExampleDocuments final : public DocumentReader {
 public:
  ExampleDocuments(const CorpusFile& file, const BatchSettings& settings)
      : settings_(settings), file_(open_json(file)) {}

  TokenizeJob next() override {
    JsonBatch batch;
    if (!file_->next(batch_bytes, batch)) return nullptr;
    return [batch = std::move(batch), settings = settings_]() mutable {
      TokenRun run;
      run.bytes = batch.bytes;
      BadPart bad(settings.skip_bad);
      ExampleEncoder encoder(settings, run);
      while (next_good(batch, bad, [&](const Json& object, const std::string& where) { encoder.add(object, where); })) {
      }
      run.bad_documents = bad.messages();
      return run;
    };
  }

 private:
  BatchSettings settings_;
  std::unique_ptr<JsonInput> file_;
};

}  // namespace

std::unique_ptr<DocumentReader> open_example_documents(const CorpusFile& file, const BatchSettings& settings) {
  if (file.format != CorpusFormat::jsonl && file.format != CorpusFormat::json) {
    const auto* const pipe = dynamic_cast<const PeekedStream*>(file.pipe.get());
    if (pipe ? pipe->head_is_all() && pipe->head().empty() : file.bytes == 0)  // which is text as well as anything
      throw std::runtime_error(fmt::format("{} holds no examples: it is empty", file.name()));
    throw std::runtime_error(
        fmt::format("{} is read as {}, expected JSON: an example is an object with messages, or prompt and completion "
                    "(docs/formats.md), one a line",
                    file.name(), name_of(file.format)));
  }
  return std::make_unique<ExampleDocuments>(file, settings);
}

}  // namespace smoe
