#include "data/import/corpus_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "data/files/files.h"
#include "data/files/json.h"
#include "data/import/file_kind.h"
#include "data/import/format_of_file.h"
#include "data/import/import_megatron.h"
#include "data/import/path_pattern.h"

namespace smoe {
namespace fs = std::filesystem;

namespace {

struct FormatName {
  CorpusFormat format;
  const char* name;
  bool ids;
};
constexpr std::array<FormatName, 10> format_names{{{CorpusFormat::automatic, "auto", false},
                                                   {CorpusFormat::text, "text", false},
                                                   {CorpusFormat::jsonl, "jsonl", false},
                                                   {CorpusFormat::json, "json", false},
                                                   {CorpusFormat::parquet, "parquet", false},
                                                   {CorpusFormat::npy, "npy", true},
                                                   {CorpusFormat::megatron, "megatron", true},
                                                   {CorpusFormat::hdf5, "hdf5", true},
                                                   {CorpusFormat::u16, "u16", true},
                                                   {CorpusFormat::u32, "u32", true}}};

CorpusFile megatron_file(const fs::path& given) {
  const fs::path index = megatron_half(given, ".idx");
  return {index, CorpusFormat::megatron, File::open_to_read(megatron_half(given, ".bin")).size()};
}

CorpusFile looked_at(FileHead& file, CorpusFormat format) {
  std::uint64_t bytes = file.size;
  if (file.pipe)
    bytes = 0;
  else if (file.compression != Compression::none)
    bytes = File::open_to_read(file.path).size();
  return {file.path, format, bytes, file.compression, std::move(file.pipe)};
}

CorpusFile one_file(const fs::path& path, CorpusFormat format) {
  if (format == CorpusFormat::megatron) {
    if (path == fs::path(standard_input))
      throw std::runtime_error("standard input cannot be a Megatron dataset, which is two files: name them");
    return megatron_file(path);
  }
  FileHead file = look_at(path);
  const Verdict verdict = format_of(file, format);
  if (verdict.kind) throw std::runtime_error(refusal(path, *verdict.kind));
  if (verdict.format == CorpusFormat::megatron) return megatron_file(path);
  return looked_at(file, verdict.format);
}

void pass_over(CorpusFiles& corpus, const std::string& kind, const fs::path& path) {
  const auto same = std::find_if(corpus.passed_over.begin(), corpus.passed_over.end(),
                                 [&](const PassedOver& other) { return other.kind == kind; });
  if (same == corpus.passed_over.end())
    corpus.passed_over.push_back({kind, 1, path});
  else
    ++same->files;
}

// What stands among files and is none. A pipe that nobody named is not opened, which would wait for its writer.
const char* kind_of_no_file(const fs::path& path) {
  std::error_code none;
  if (fs::is_directory(path, none)) return "a link to a directory, which is not followed";
  if (!fs::exists(path, none)) return "a link to nothing";
  return "a pipe, a socket or a device";
}

std::vector<fs::path> files_below(const fs::path& directory, CorpusFiles& corpus) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename().native().starts_with('.')) {
      ++corpus.skipped_hidden;
      entry.disable_recursion_pending();
      continue;
    }
    std::error_code none;
    if (entry->is_regular_file(none))
      paths.push_back(entry->path());
    else if (!entry->is_directory(none) || entry->is_symlink(none))
      pass_over(corpus, kind_of_no_file(entry->path()), entry->path());
  }
  if (error)
    throw std::runtime_error(fmt::format("cannot read the directory {}: {}", directory.string(), error.message()));
  std::sort(paths.begin(), paths.end());
  return paths;
}

void add_directory(const fs::path& directory, CorpusFormat format, CorpusFiles& corpus) {
  std::vector<std::string> refused;
  std::size_t refused_files = 0;
  for (const fs::path& path : files_below(directory, corpus)) {
    const std::string extension = lower_extension(path);
    if (format == CorpusFormat::megatron) {
      if (extension == ".idx" && has_both_halves(path)) corpus.files.push_back(megatron_file(path));
      continue;
    }
    FileHead file = look_at(path);
    Verdict verdict = format_of(file, format);
    if (format == CorpusFormat::text) verdict.kind = binary_kind(file);
    if (!verdict.kind) {
      if (verdict.format != CorpusFormat::megatron)
        corpus.files.push_back(looked_at(file, verdict.format));
      else if (extension == ".idx")  // which stands for both
        corpus.files.push_back(megatron_file(path));
    } else if (!verdict.kind->holds_documents || format == CorpusFormat::text) {
      pass_over(corpus, verdict.kind->name, path);
    } else if (++refused_files <= 3) {
      refused.push_back(refusal(path, *verdict.kind));
    }
  }
  if (refused_files == 0) return;
  throw std::runtime_error(fmt::format("{}{}", fmt::join(refused, "\n"),
                                       refused_files > refused.size()
                                           ? fmt::format("\nand {} more files of {} cannot be read as they are",
                                                         refused_files - refused.size(), directory.string())
                                           : ""));
}

void add_input(const fs::path& path, CorpusFormat format, CorpusFiles& corpus) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    add_directory(path, format, corpus);
  else if (format == CorpusFormat::automatic && !fs::exists(path, ignored) && has_both_halves(path))
    corpus.files.push_back(megatron_file(path));
  else
    corpus.files.push_back(one_file(path, format));
}

void add_matches(const std::string& pattern, CorpusFormat format, CorpusFiles& corpus) {
  const std::vector<fs::path> found = expand_pattern(pattern);
  if (found.empty()) throw std::runtime_error(fmt::format("\"{}\" matches no file", pattern));
  for (const fs::path& path : found) {
    std::error_code none;
    if (fs::is_regular_file(path, none) || fs::is_directory(path, none))
      add_input(path, format, corpus);
    else
      pass_over(corpus, kind_of_no_file(path), path);
  }
}

// Before any is opened, which waits for what comes through it.
void check_pipes_are_named_once(const std::vector<std::string>& inputs) {
  for (const std::string& input : inputs) {
    std::error_code ignored;
    if (std::count(inputs.begin(), inputs.end(), input) > 1 && (input == standard_input || fs::is_fifo(input, ignored)))
      throw std::runtime_error(fmt::format("{} is named twice: what comes through a pipe can be read once", input));
  }
}

// A pair that a shell's pattern names by both halves is one dataset. Any other file twice is a slip, which would weigh its
// documents double.
void keep_each_once(CorpusFiles& corpus) {
  std::set<fs::path> seen;
  std::vector<CorpusFile> once;
  for (CorpusFile& file : corpus.files) {
    if (file.pipe) {  // which has no name that stays
      once.push_back(std::move(file));
      continue;
    }
    const bool is_new = seen.insert(fs::weakly_canonical(file.path)).second;
    if (!is_new && file.format != CorpusFormat::megatron)
      throw std::runtime_error(
          fmt::format("{} is named twice, itself or by a directory above it: once is enough", file.path.string()));
    if (is_new) once.push_back(std::move(file));
  }
  corpus.files = std::move(once);
}

}  // namespace

CorpusFormat corpus_format_of(std::string_view name) {
  for (const FormatName& known : format_names)
    if (name == known.name) return known.format;
  throw std::runtime_error(fmt::format("the format {} is not known; formats are {}", quote_for_message(name),
                                       fmt::join(corpus_format_names(), ", ")));
}

std::vector<std::string> corpus_format_names() {
  std::vector<std::string> names;
  for (const FormatName& known : format_names) names.emplace_back(known.name);
  return names;
}

const char* name_of(CorpusFormat format) {
  for (const FormatName& known : format_names)
    if (format == known.format) return known.name;
  throw std::logic_error("no such corpus format");
}

bool carries_ids(CorpusFormat format) {
  return std::any_of(format_names.begin(), format_names.end(),
                     [&](const FormatName& known) { return known.format == format && known.ids; });
}

std::shared_ptr<ByteStream> CorpusFile::open_stream() const {
  if (pipe) return pipe;
  return decompress(open_byte_stream(path), compression, name());
}

std::uint64_t CorpusFiles::bytes() const {
  if (std::any_of(files.begin(), files.end(), [](const CorpusFile& file) { return file.pipe != nullptr; })) return 0;
  return std::accumulate(files.begin(), files.end(), std::uint64_t{0},
                         [](std::uint64_t sum, const CorpusFile& file) { return sum + file.bytes; });
}

std::string CorpusFiles::describe_passed_over() const {
  std::string text;
  for (const PassedOver& kind : passed_over)
    text +=
        fmt::format("{}{} file{} passed over as {} ({}{})", text.empty() ? "" : ", ", kind.files,
                    kind.files == 1 ? "" : "s", kind.kind, kind.files == 1 ? "" : "the first is ", kind.first.string());
  return text;
}

CorpusFiles list_corpus_files(const std::vector<std::string>& inputs, CorpusFormat format) {
  if (inputs.empty()) throw std::runtime_error("no input was named; give files or directories");
  check_pipes_are_named_once(inputs);
  CorpusFiles corpus;
  for (const std::string& input : inputs) {
    std::error_code ignored;
    if (is_pattern(input) && !fs::exists(input, ignored))
      add_matches(input, format, corpus);
    else
      add_input(input, format, corpus);
  }
  keep_each_once(corpus);
  if (corpus.files.empty())
    throw std::runtime_error(fmt::format("{} holds no file to read ({} hidden ones were passed over{})",
                                         fmt::join(inputs, ", "), corpus.skipped_hidden,
                                         corpus.passed_over.empty() ? "" : "; " + corpus.describe_passed_over()));
  return corpus;
}

std::string describe_inputs(const std::vector<std::string>& inputs) {
  fs::path first = fs::path(inputs.at(0)).lexically_normal();
  if (!first.has_filename()) first = first.parent_path();
  if (const std::string extension = lower_extension(first); extension == ".gz" || extension == ".zst")
    first.replace_extension();
  std::string name = first == fs::path(standard_input) ? display_name(first) : first.stem().string();
  if (inputs.size() > 1) name += fmt::format(" and {} more", inputs.size() - 1);
  return name;
}

}  // namespace smoe
