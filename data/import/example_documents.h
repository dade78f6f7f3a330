// Files of examples (examples.h) as documents: their ids by a chat template, and which of them are targets.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "data/import/corpus_files.h"
#include "data/import/examples.h"
#include "data/text/chat/chat_template.h"

namespace smoe {

// What becomes of an example of more ids than are allowed: its end is cut off, it is left out, or it is an error.
enum class TooLong { truncate, skip, error };

struct ExampleSettings {
  std::string chat = {};  // a name of ChatTemplate::names()
  LossOn loss_on = LossOn::completions;
  std::int64_t max_length = 0;  // ids an example; 0: any number
  TooLong too_long = TooLong::error;
  std::int64_t shown = 0;  // of the first examples, by PrepareOptions::on_example
};

struct ExampleCounts {
  std::int64_t examples = 0, targets = 0;  // of what is stored
  std::int64_t truncated = 0;              // of those examples
  std::int64_t too_long = 0;               // left out
  std::int64_t without_target = 0;         // left out: none was there, or none was left of it
  std::int64_t longest = 0;                // ids of the longest that was read, before any cut
  std::map<ExampleSchema, std::int64_t> schemas;

  void add(const ExampleCounts& other);
};

struct BatchSettings;
class DocumentReader;

// One document an example. settings.examples: must outlive the reader and its jobs. An example that does not parse, has no
// place in the template, or is too long where that is an error, is a bad document; what is said of it begins with
// FILE:line:column. Throws std::runtime_error for a file whose format is not JSON.
std::unique_ptr<DocumentReader> open_example_documents(const CorpusFile& file, const BatchSettings& settings);

}  // namespace smoe
