#include "data/corpus_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "data/files.h"
#include "data/import_megatron.h"
#include "data/json.h"

namespace smoe {
namespace fs = std::filesystem;

namespace {

struct FormatName {
  CorpusFormat format;
  const char* name;
};
constexpr std::array<FormatName, 5> format_names{{{CorpusFormat::automatic, "auto"},
                                                  {CorpusFormat::text, "text"},
                                                  {CorpusFormat::jsonl, "jsonl"},
                                                  {CorpusFormat::npy, "npy"},
                                                  {CorpusFormat::megatron, "megatron"}}};

std::string first_bytes(const File& file, std::uint64_t most) {
  std::string bytes(std::min(file.size(), most), '\0');
  file.pread_all(bytes.data(), bytes.size(), 0);
  return bytes;
}

fs::path with_extension(fs::path path, const char* extension) {
  const fs::path given = path.extension();
  return given == ".idx" || given == ".bin" ? path.replace_extension(extension) : path += extension;
}

CorpusFile megatron_file(const fs::path& given) {
  const fs::path index = with_extension(given, ".idx");
  return {index, CorpusFormat::megatron, File::open_to_read(with_extension(given, ".bin")).size()};
}

bool is_megatron_pair(const fs::path& given) {
  std::error_code ignored;
  const fs::path index = with_extension(given, ".idx");
  return fs::is_regular_file(index, ignored) && fs::exists(with_extension(given, ".bin"), ignored) &&
         first_bytes(File::open_to_read(index), megatron_magic.size()) == megatron_magic;
}

CorpusFormat detect(const fs::path& path, const File& file) {
  const fs::path extension = path.extension();
  if (extension == ".jsonl" || extension == ".ndjson") return CorpusFormat::jsonl;
  if (extension == ".npy" || first_bytes(file, 6) == "\x93NUMPY") return CorpusFormat::npy;
  if ((extension == ".bin" || extension == ".idx") && is_megatron_pair(path)) return CorpusFormat::megatron;
  return CorpusFormat::text;
}

CorpusFile one_file(const fs::path& path, CorpusFormat format) {
  if (format == CorpusFormat::megatron) return megatron_file(path);
  const File file = File::open_to_read(path);
  if (format == CorpusFormat::automatic) format = detect(path, file);
  if (format == CorpusFormat::megatron) return megatron_file(path);
  return {path, format, file.size()};
}

void add_directory(const fs::path& directory, CorpusFormat format, CorpusFiles& corpus) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename().native().starts_with('.')) {
      ++corpus.skipped_hidden;
      entry.disable_recursion_pending();
      continue;
    }
    std::error_code broken_link;
    if (entry->is_regular_file(broken_link)) paths.push_back(entry->path());
  }
  if (error) throw std::runtime_error(fmt::format("cannot read the directory {}: {}", directory.string(), error.message()));
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) {
    CorpusFile file{path, format, 0};
    if (format == CorpusFormat::megatron || format == CorpusFormat::automatic) {
      const bool pair = is_megatron_pair(path);
      if (pair && path.extension() == ".bin") continue;  // its .idx stands for both
      if (!pair && format == CorpusFormat::megatron) continue;
    }
    file = one_file(path, format);
    if (!carries_ids(file.format) &&
        first_bytes(File::open_to_read(path), 64 << 10).find('\0') != std::string::npos) {
      ++corpus.skipped_binary;
      continue;
    }
    corpus.files.push_back(std::move(file));
  }
}

}  // namespace

CorpusFormat corpus_format_of(std::string_view name) {
  for (const FormatName& known : format_names)
    if (name == known.name) return known.format;
  throw std::runtime_error(fmt::format("the format {} is not known; formats are auto, text, jsonl, npy and megatron",
                                       quote_for_message(name)));
}

const char* name_of(CorpusFormat format) {
  for (const FormatName& known : format_names)
    if (format == known.format) return known.name;
  throw std::logic_error("no such corpus format");
}

std::uint64_t CorpusFiles::bytes() const {
  return std::accumulate(files.begin(), files.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const CorpusFile& file) { return sum + file.bytes; });
}

CorpusFiles list_corpus_files(const std::vector<std::string>& inputs, CorpusFormat format) {
  if (inputs.empty()) throw std::runtime_error("no input was named; give files or directories");
  CorpusFiles corpus;
  for (const std::string& input : inputs) {
    const fs::path path(input);
    std::error_code ignored;
    if (fs::is_directory(path, ignored))
      add_directory(path, format, corpus);
    else if (format == CorpusFormat::automatic && !fs::exists(path, ignored) && is_megatron_pair(path))
      corpus.files.push_back(megatron_file(path));
    else
      corpus.files.push_back(one_file(path, format));
  }
  if (corpus.files.empty())
    throw std::runtime_error(fmt::format("{} holds no file to read ({} hidden and {} binary ones were passed over)",
                                         fmt::join(inputs, ", "), corpus.skipped_hidden, corpus.skipped_binary));
  return corpus;
}

std::string describe_inputs(const std::vector<std::string>& inputs) {
  fs::path first = fs::path(inputs.at(0)).lexically_normal();
  if (!first.has_filename()) first = first.parent_path();
  std::string name = first.stem().string();
  if (inputs.size() > 1) name += fmt::format(" and {} more", inputs.size() - 1);
  return name;
}

}  // namespace smoe
