// Files that carry ids: arrays of one or two dims, and those that say where their documents are.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "data/import/document_readers.h"
#include "data/import/import_megatron.h"
#include "data/import/npy.h"
#include "data/import/raw_ids.h"
#include "data/shards/hdf5_ids.h"

namespace smoe {

namespace {

void check_id(std::int64_t id, std::int64_t vocab_size, const std::string& path, std::int64_t place) {
  if (id < 0 || id >= vocab_size)
    throw std::runtime_error(fmt::format("{}: element {} is {}, outside the vocabulary of {} (ids 0 to {})", path,
                                         place, id, vocab_size, vocab_size - 1));
}

// Ids [first, first + count) of a file whose read() yields i64, checked.
template <class IdFile>
void append_ids(const IdFile& file, const std::string& path, std::int64_t first, std::int64_t count,
                std::int64_t vocab_size, std::vector<std::int32_t>& ids) {
  std::vector<std::int64_t> wide(static_cast<std::size_t>(count));
  file.read(first, count, wide.data());
  ids.reserve(ids.size() + wide.size());
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t id = wide[static_cast<std::size_t>(i)];
    check_id(id, vocab_size, path, first + i);
    ids.push_back(static_cast<std::int32_t>(id));
  }
}

// Ids of one dim are one document, or several where one of the ids ends or begins each.
void end_at(const BatchSettings& settings, bool first_of_file, bool last_of_file, TokenRun& run) {
  if (settings.document_end >= 0 || settings.document_begin >= 0)
    for (std::size_t i = 0; i < run.ids.size(); ++i) {
      if (run.ids[i] == settings.document_end)
        run.document_ends.push_back(i + 1);
      else if (run.ids[i] == settings.document_begin && (i > 0 || !first_of_file))
        run.document_ends.push_back(i);
    }
  const bool open = run.document_ends.empty() || run.document_ends.back() < run.ids.size();
  if (last_of_file && open) run.document_ends.push_back(run.ids.size());
}

// One dim: one document, unless an id ends or begins each. Two: one a row. File: NpyFile, RawIds, Hdf5Ids.
template <class File>
class ArrayDocuments final : public DocumentReader {
 public:
  ArrayDocuments(std::shared_ptr<const File> file, std::uint64_t bytes, const BatchSettings& settings)
      : settings_(settings), file_(std::move(file)), bytes_(bytes) {
    document_tokens_ = file_->shape().back();
    documents_ = file_->shape().size() == 2 ? file_->shape().front() : 1;
  }

  TokenizeJob next() override {
    if (file_->size() == 0) {
      if (!std::exchange(empty_, false)) return nullptr;
      return [documents = documents_] {
        TokenRun run;
        run.empty_documents = documents;
        return run;
      };
    }
    if (first_ == file_->size()) return nullptr;
    const std::int64_t first = first_, count = std::min(batch_tokens, file_->size() - first);
    first_ += count;
    const std::uint64_t bytes_before = std::exchange(bytes_given_, share_of(first_));
    return [file = file_, settings = settings_, first, count, each = document_tokens_,
            bytes = bytes_given_ - bytes_before] {
      TokenRun run;
      run.bytes = bytes;
      append_ids(*file, file->path(), first, count, settings.vocab_size, run.ids);
      if (file->shape().size() == 1)
        end_at(settings, first == 0, first + count == file->size(), run);
      else
        for (std::int64_t end = (first / each + 1) * each; end <= first + count; end += each)
          run.document_ends.push_back(static_cast<std::size_t>(end - first));
      return run;
    };
  }

 private:
  std::uint64_t share_of(std::int64_t tokens) const {
    return static_cast<std::uint64_t>(static_cast<double>(bytes_) * static_cast<double>(tokens) /
                                      static_cast<double>(file_->size()));
  }

  BatchSettings settings_;
  std::shared_ptr<const File> file_;
  std::uint64_t bytes_, bytes_given_ = 0;
  std::int64_t documents_ = 0, document_tokens_ = 0, first_ = 0;
  bool empty_ = true;
};

// File: MegatronFile, Hdf5Ids with the offsets of its documents. One that is longer than a job's share goes over several.
template <class File>
class OffsetDocuments final : public DocumentReader {
 public:
  OffsetDocuments(std::shared_ptr<const File> file, std::string path, const BatchSettings& settings)
      : vocab_size_(settings.vocab_size),
        file_(std::move(file)),
        path_(std::move(path)),
        at_(file_->document_offset(0)) {}

  TokenizeJob next() override {
    if (document_ == file_->documents()) return nullptr;
    const std::int64_t first = document_, begin = at_;
    while (document_ < file_->documents() && file_->document_offset(document_ + 1) - begin <= batch_tokens) ++document_;
    at_ = document_ > first ? file_->document_offset(document_) : begin + batch_tokens;
    return [file = file_, path = path_, vocab_size = vocab_size_, first, last = document_, begin, end = at_] {
      TokenRun run;
      run.bytes = static_cast<std::uint64_t>(end - begin) * file->bytes_per_token();
      append_ids(*file, path, begin, end - begin, vocab_size, run.ids);
      for (std::int64_t i = first; i < last; ++i) {
        if (file->document_offset(i + 1) == file->document_offset(i))
          ++run.empty_documents;
        else
          run.document_ends.push_back(static_cast<std::size_t>(file->document_offset(i + 1) - begin));
      }
      return run;
    };
  }

 private:
  std::int64_t vocab_size_;
  std::shared_ptr<const File> file_;
  std::string path_;
  std::int64_t document_ = 0, at_;  // the document that is next, and its first id that is
};

template <class File>
std::unique_ptr<DocumentReader> array_documents(std::shared_ptr<const File> file, const CorpusFile& corpus_file,
                                                const BatchSettings& settings) {
  return std::make_unique<ArrayDocuments<File>>(std::move(file), corpus_file.bytes, settings);
}

std::unique_ptr<DocumentReader> hdf5_documents(const CorpusFile& corpus_file, const BatchSettings& settings) {
  auto file = std::make_shared<const Hdf5Ids>(corpus_file.path, settings.dataset);
  if (!file->has_documents()) return array_documents(std::move(file), corpus_file, settings);
  const std::string path = file->path();
  return std::make_unique<OffsetDocuments<Hdf5Ids>>(std::move(file), path, settings);
}

}  // namespace

std::unique_ptr<DocumentReader> open_id_documents(const CorpusFile& file, const BatchSettings& settings) {
  switch (file.format) {
    case CorpusFormat::npy: return array_documents(std::make_shared<const NpyFile>(file.path), file, settings);
    case CorpusFormat::u16: return array_documents(std::make_shared<const RawIds>(file.path, 2), file, settings);
    case CorpusFormat::u32: return array_documents(std::make_shared<const RawIds>(file.path, 4), file, settings);
    case CorpusFormat::hdf5: return hdf5_documents(file, settings);
    case CorpusFormat::megatron: {
      auto pair = std::make_shared<const MegatronFile>(file.path);
      const std::string path = pair->data_path();
      return std::make_unique<OffsetDocuments<MegatronFile>>(std::move(pair), path, settings);
    }
    default: throw std::logic_error("no file of ids");
  }
}

}  // namespace smoe
