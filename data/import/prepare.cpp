#include "data/import/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <vector>

#include "data/import/bad_documents.h"
#include "data/import/document_batches.h"
#include "data/files/files.h"
#include "data/import/npy.h"
#include "data/files/thread_pool.h"
#include "data/text/tokenizer.h"
#include "data/text/tokenizer_files.h"

namespace smoe {
namespace fs = std::filesystem;

namespace {

void check_vocabulary_is_given(const PrepareOptions& options, const CorpusFiles& corpus) {
  if (!options.tokenizer.empty() && options.vocab_size != 0)
    throw std::runtime_error("both a tokenizer and a vocabulary size are given; the tokenizer says the size itself");
  if (!options.tokenizer.empty()) return;
  if (options.examples) throw std::runtime_error("examples need --tokenizer: a chat template is made of its ids");
  for (const CorpusFile& file : corpus.files)
    if (!carries_ids(file.format))
      throw std::runtime_error(
          fmt::format("{} is read as {} and needs --tokenizer (a tokenizer.model, a directory with "
                      "one, or 'bytes')",
                      file.path.string(), name_of(file.format)));
  if (options.vocab_size < 1)
    throw std::runtime_error("files of ids need --tokenizer or --vocab-size: ids are checked against it");
}

// An option that says how a format is read, where no file is of that format, is a slip.
void check_options_have_a_use(const PrepareOptions& options, const CorpusFiles& corpus) {
  const auto has = [&](auto&& is_meant) {
    return std::any_of(corpus.files.begin(), corpus.files.end(),
                       [&](const CorpusFile& file) { return is_meant(file.format); });
  };
  if (!options.dataset.empty() && !has([](CorpusFormat f) { return f == CorpusFormat::hdf5; }))
    throw std::runtime_error("--dataset names a dataset of HDF5 files, and none of the inputs is one");
  const bool splits = options.document_end >= 0 || options.document_begin >= 0;
  if (splits && !has([](CorpusFormat f) { return carries_ids(f) && f != CorpusFormat::megatron; }))
    throw std::runtime_error(
        "--document-end and --document-begin cut files of ids into documents, and none of the inputs is one");
}

ShardSetInfo describe(const PrepareOptions& options, const Tokenizer* tokenizer) {
  ShardSetInfo info;
  info.source = options.source.empty() ? describe_inputs(options.inputs) : options.source;
  info.vocab_size = options.vocab_size;
  info.tokenizer_name = "none";
  if (tokenizer) {
    info.tokenizer_sha256 = tokenizer->sha256();
    info.tokenizer_name = tokenizer->name();
    info.vocab_size = tokenizer->vocab_size();
    info.bos = tokenizer->bos();
    info.eos = tokenizer->eos();
  }
  return info;
}

// The tokenizer's files beside the shards. They are taken back unless the shards are finished.
class TokenizerCopy {
 public:
  TokenizerCopy(const fs::path& directory, const Tokenizer* tokenizer) {
    if (!tokenizer || tokenizer->files().empty()) return;
    // What lies there already must be the same, whole set: a tokenizer_config.json alone can make it another tokenizer.
    std::vector<const TokenizerFile*> missing;
    for (const std::string_view name : tokenizer_file_names) {
      const auto& files = tokenizer->files();
      const auto file =
          std::find_if(files.begin(), files.end(), [&](const TokenizerFile& f) { return f.name == name; });
      const fs::path path = directory / name;
      std::error_code ignored;
      if (fs::exists(path, ignored)) {
        if (file == files.end() || fs::file_size(path, ignored) != file->bytes.size() ||
            read_file(path, file->bytes.size()) != file->bytes)
          throw std::runtime_error(fmt::format("{} is of another tokenizer; choose another --out", path.string()));
      } else if (file != files.end()) {
        missing.push_back(&*file);
      }
    }
    try {
      for (const TokenizerFile* file : missing) {
        write_file_atomically(directory / file->name, file->bytes);
        written_.push_back(directory / file->name);
      }
    } catch (...) {
      remove();
      throw;
    }
  }
  ~TokenizerCopy() { remove(); }
  TokenizerCopy(const TokenizerCopy&) = delete;
  TokenizerCopy& operator=(const TokenizerCopy&) = delete;
  void keep() { written_.clear(); }

 private:
  void remove() {
    std::error_code ignored;
    for (const fs::path& path : written_) fs::remove(path, ignored);
    written_.clear();
  }

  std::vector<fs::path> written_;
};

// Joins runs into documents, none of which is held as a whole.
class DocumentSink {
 public:
  explicit DocumentSink(ShardWriter& writer) : writer_(&writer) {}

  void add(const TokenRun& run) {
    const std::span<const std::int32_t> all(run.ids);
    std::size_t begin = 0;
    for (const std::size_t end : run.document_ends) {
      const auto ids = all.subspan(begin, end - begin);
      if (!run.is_target.empty()) {  // an example, which is never in two runs
        writer_->add_document(ids, std::span(run.is_target).subspan(begin, ids.size()));
      } else if (!begun_) {
        writer_->add_document(ids);
      } else {
        writer_->append(ids);
        writer_->end_document();
        begun_ = false;
      }
      begin = end;
    }
    if (begin == all.size()) return;
    writer_->append(all.subspan(begin));
    begun_ = true;
  }

 private:
  ShardWriter* writer_;
  bool begun_ = false;  // a document that the next run goes on with
};

// Gives the first examples to whoever wants to see them.
class ExampleViewer {
 public:
  ExampleViewer(const PrepareOptions& options, const Tokenizer* tokenizer)
      : show_(options.on_example), tokenizer_(tokenizer), left_(options.examples ? options.examples->shown : 0) {}

  void show(const TokenRun& run) {
    std::size_t begin = 0;
    for (std::size_t i = 0; i < run.document_ends.size() && left_ > 0 && show_; ++i, --left_) {
      const std::size_t end = run.document_ends[i];
      show_(*tokenizer_, std::span(run.ids).subspan(begin, end - begin),
            std::span(run.is_target).subspan(begin, end - begin));
      begin = end;
    }
  }

 private:
  const decltype(PrepareOptions::on_example)& show_;
  const Tokenizer* tokenizer_;
  std::int64_t left_;
};

std::string display_names(const std::vector<std::string>& inputs) {
  std::string names;
  for (const std::string& input : inputs) names += (names.empty() ? "" : ", ") + display_name(input);
  return names;
}

// Ids in a column: each row is a document, so a document is one id, with nothing in it to predict. Whether there are such.
bool warn_of_columns(const CorpusFiles& corpus, PrepareSummary& summary) {
  std::string first;
  std::int64_t columns = 0;
  for (const CorpusFile& file : corpus.files) {
    if (file.format != CorpusFormat::npy) continue;
    const NpyFile array(file.path);
    if (array.shape().size() != 2 || array.shape()[1] != 1 || array.shape()[0] < 2) continue;
    if (columns++ == 0)
      first =
          fmt::format("{} has the shape ({}, 1): each row is a document, of one id", array.path(), array.shape()[0]);
  }
  if (columns == 0) return false;
  summary.warnings.push_back(first +
                             (columns > 1 ? fmt::format(", and {} more files are such columns", columns - 1) : "") +
                             "; ids of one document are a 1-D array: numpy.save(f, a.ravel())");
  return true;
}

// nanoGPT and llm.c lay all documents of a corpus into one file, which is one document unless its ends are told.
void warn_of_files_of_one_document(const PrepareOptions& options, const CorpusFiles& corpus, PrepareSummary& summary) {
  constexpr std::uint64_t hardly_one = 4 << 20;  // bytes
  if (options.document_end >= 0 || options.document_begin >= 0) return;
  const auto large = std::find_if(corpus.files.begin(), corpus.files.end(), [](const CorpusFile& file) {
    return (file.format == CorpusFormat::u16 || file.format == CorpusFormat::u32) && file.bytes > hardly_one;
  });
  if (large != corpus.files.end())
    summary.warnings.push_back(fmt::format(
        "{} is stored as one document; where it holds many, name the id that ends each: --document-end 50256 is "
        "that of nanoGPT's and of GPT-2's tokens, --document-begin 50256 that of llm.c's",
        large->name()));
}

// Encodes on many threads and stores in order. A few jobs more than threads are in flight, which bounds the memory.
void run_jobs(DocumentBatches& batches, int threads, const std::function<void(TokenRun)>& store) {
  std::deque<std::future<TokenRun>> in_flight;
  ThreadPool pool(threads);  // after the futures: it ends first, and with it every job
  for (bool more = true; more || !in_flight.empty();) {
    while (more && in_flight.size() < static_cast<std::size_t>(threads) * 2 + 2) {
      TokenizeJob job = batches.next();
      more = job != nullptr;
      if (more) in_flight.push_back(pool.submit(std::move(job)));
    }
    if (in_flight.empty()) break;
    TokenRun run = in_flight.front().get();
    in_flight.pop_front();
    store(std::move(run));
  }
}

}  // namespace

PrepareSummary prepare(const PrepareOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const CorpusFiles corpus = list_corpus_files(options.inputs, options.format);
  check_vocabulary_is_given(options, corpus);
  check_options_have_a_use(options, corpus);
  const std::unique_ptr<Tokenizer> tokenizer = options.tokenizer.empty() ? nullptr : load_tokenizer(options.tokenizer);
  const bool has_text = std::any_of(corpus.files.begin(), corpus.files.end(),
                                    [](const CorpusFile& file) { return !carries_ids(file.format); });
  if (options.examples)
    ChatTemplate(options.examples->chat, *tokenizer);  // refuses what does not go with this tokenizer
  else if (has_text && options.append_eos && tokenizer->eos() < 0)
    throw std::runtime_error(
        fmt::format("{} has no end-of-document token; choose --append-eos false", options.tokenizer));

  ShardWriter writer(options.out_directory, describe(options, tokenizer.get()), options.shard_tokens);
  DocumentSink sink(writer);
  DocumentBatches batches(
      corpus.files, {tokenizer.get(), tokenizer ? tokenizer->vocab_size() : options.vocab_size, options.text_field,
                     options.append_eos, options.format == CorpusFormat::text, options.skip_bad, options.dataset,
                     options.document_end, options.document_begin, options.examples ? &*options.examples : nullptr});
  ExampleViewer viewer(options, tokenizer.get());
  BadDocuments bad(options.skip_bad, options.on_bad, options.out_directory);
  PrepareSummary summary;
  summary.bytes_total = corpus.bytes();
  summary.files = static_cast<std::int64_t>(corpus.files.size());
  summary.skipped_hidden = corpus.skipped_hidden;
  summary.passed_over = corpus.passed_over;
  summary.inputs = corpus.files;
  if (tokenizer) summary.warnings = tokenizer->warnings();
  const bool has_columns = warn_of_columns(corpus, summary);
  warn_of_files_of_one_document(options, corpus, summary);
  run_jobs(batches, std::max(1, options.threads), [&](const TokenRun& run) {
    for (const std::string& message : run.bad_documents) bad.add(message);
    sink.add(run);
    viewer.show(run);
    summary.examples.add(run.example_counts);
    summary.bad_documents = bad.count();
    summary.bytes_done += run.bytes;
    summary.empty_documents += run.empty_documents;
    summary.foreign_bytes += run.foreign_bytes;
    summary.spelled_controls += run.spelled_controls;
    summary.tokens = writer.tokens();
    summary.documents = writer.documents();
    summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (options.on_progress) options.on_progress(summary);
  });

  if (summary.tokens == 0 && options.examples)
    throw std::runtime_error(fmt::format(
        "no example to store: {} held none that is trained ({} without a target, {} too long, {} bad documents)",
        display_names(options.inputs), summary.examples.without_target, summary.examples.too_long,
        summary.bad_documents));
  if (summary.tokens == 0)
    throw std::runtime_error(
        fmt::format("no document to store: {} ({} bytes) held neither text nor ids ({} empty "
                    "and {} bad documents and {} hidden files were passed over{})",
                    display_names(options.inputs), summary.bytes_done, summary.empty_documents, summary.bad_documents,
                    summary.skipped_hidden, corpus.passed_over.empty() ? "" : "; " + corpus.describe_passed_over()));
  if (options.before_writing) options.before_writing(summary);
  TokenizerCopy copy(options.out_directory, tokenizer.get());
  const ShardSetSummary written = writer.finish();
  copy.keep();
  summary.bad_list = bad.commit_list().string();
  summary.tokens = written.tokens;
  summary.documents = written.documents;
  summary.shards = written.shards;
  if (summary.tokens == summary.documents && !has_columns)  // which says the same of one file
    summary.warnings.push_back(
        fmt::format("all {} documents are of one token: with data.document_masking there is nothing to "
                    "predict in them",
                    summary.documents));
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

}  // namespace smoe
