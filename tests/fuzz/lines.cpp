// A file as smoe prepare takes it: what kind it is, its documents as ids, and its lines for a vocabulary.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "data/text/byte_tokenizer.h"
#include "data/import/corpus_files.h"
#include "data/import/document_batches.h"
#include "data/import/text_lines.h"
#include "data/files/utf8.h"
#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"

namespace smoe::fuzz {
namespace {

constexpr std::array names = {"a.txt", "b.jsonl", "c.json", "d.npy", "e.bin", "f", "g.NDJSON", "h.csv", "i.h5"};
constexpr std::array formats = {CorpusFormat::automatic, CorpusFormat::text, CorpusFormat::jsonl, CorpusFormat::npy,
                                CorpusFormat::megatron,  CorpusFormat::u16,  CorpusFormat::u32};

template <class Choices>
auto choose(const Choices& choices, char letter) {
  return choices[static_cast<unsigned char>(letter - 'a') % choices.size()];
}

void read_documents(const std::vector<CorpusFile>& files) {
  const ByteTokenizer tokenizer;
  const std::int64_t vocab_size = tokenizer.vocab_size();
  DocumentBatches batches(
      files,
      {.tokenizer = &tokenizer, .vocab_size = vocab_size, .text_field = "text", .append_eos = true, .skip_bad = 2});
  while (const TokenizeJob job = batches.next()) {
    const TokenRun run = job();
    for (const std::int32_t id : run.ids) require(id >= 0 && id < vocab_size, "an id is of the vocabulary");
    std::size_t end = 0;
    for (const std::size_t next : run.document_ends) {
      require(next > end && next <= run.ids.size(), "documents follow one another and hold something");
      end = next;
    }
  }
}

void read_lines(const std::vector<CorpusFile>& files) {
  if (carries_ids(files.front().format)) return;
  TextLines lines(files, "text");
  while (const auto line = lines.next()) {
    require(!line->empty() && line->size() <= TextLines::longest_line, "a line has something, and not too much");
    require(is_valid_utf8(*line), "a line is UTF-8");
  }
}

}  // namespace

bool run_lines(std::string_view input) {
  if (input.size() < 2) return false;
  const std::string name = choose(names, input[0]);
  const CorpusFormat format = choose(formats, input[1]);
  const auto path = folder("lines") / name;
  put(path, input.substr(2));
  CorpusFiles corpus;
  if (!reads([&] { corpus = list_corpus_files({path.string()}, format); })) return false;
  require(!corpus.files.empty(), "a corpus has files");
  const bool read = reads([&] { read_documents(corpus.files); });
  return reads([&] { read_lines(corpus.files); }) && read;
}

}  // namespace smoe::fuzz
