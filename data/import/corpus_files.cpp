#include "data/import/corpus_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>

#include "data/import/file_kind.h"
#include "data/files/files.h"
#include "data/import/import_jsonl.h"
#include "data/import/import_megatron.h"
#include "data/files/json.h"

namespace smoe {
namespace fs = std::filesystem;

namespace {

struct FormatName {
  CorpusFormat format;
  const char* name;
};
constexpr std::array<FormatName, 6> format_names{{{CorpusFormat::automatic, "auto"},
                                                  {CorpusFormat::text, "text"},
                                                  {CorpusFormat::jsonl, "jsonl"},
                                                  {CorpusFormat::json, "json"},
                                                  {CorpusFormat::npy, "npy"},
                                                  {CorpusFormat::megatron, "megatron"}}};

std::string first_bytes(const File& file, std::uint64_t most) {
  std::string bytes(std::min(file.size(), most), '\0');
  file.pread_all(bytes.data(), bytes.size(), 0);
  return bytes;
}

CorpusFile megatron_file(const fs::path& given) {
  const fs::path index = megatron_half(given, ".idx");
  return {index, CorpusFormat::megatron, File::open_to_read(megatron_half(given, ".bin")).size()};
}

bool has_both_halves(const fs::path& given) {
  std::error_code ignored;
  return fs::is_regular_file(megatron_half(given, ".idx"), ignored) &&
         fs::is_regular_file(megatron_half(given, ".bin"), ignored);
}

// Of a file that is no text and has no other kind.
std::optional<FileKind> binary_kind(const fs::path& path, std::string_view head) {
  const std::size_t zero = head.find('\0');
  if (zero == head.npos) return std::nullopt;
  const std::string extension = lower_extension(path);
  return FileKind{
      extension.empty() ? "binary" : fmt::format("binary ({})", extension),
      fmt::format("its byte {} is 0, and text is UTF-8 without zero bytes; --format text takes it as it is", zero),
      false};
}

bool is_json_object(std::string_view line) {
  try {
    const Json value = parse_json(line, "", {.allow_non_finite = true});
    return value.is_object() && !value.empty();
  } catch (const std::runtime_error&) {
    return false;
  }
}

// What a file is taken for, or the kind for which it is not taken.
struct Verdict {
  CorpusFormat format = CorpusFormat::text;
  std::optional<FileKind> kind = std::nullopt;
};

Verdict named_json_but(const fs::path& path, char first) {
  return {CorpusFormat::json, FileKind{fmt::format("named {} and begins with {}, where JSON begins with '{{' or '['",
                                                   path.extension().string(), quote_for_message(std::string(1, first))),
                                       "mend it, or name it otherwise; --format text takes it as it is", true}};
}

// "[{" and a key: no prose begins so.
bool begins_array_of_objects(std::string_view head) {
  for (const char expected : {'[', '{', '"'}) {
    const std::size_t next = head.find_first_not_of(" \t\r\n");
    if (next == head.npos || head[next] != expected) return false;
    head.remove_prefix(next + 1);
  }
  return true;
}

// JSON by its first byte; nothing where it is none. head: as much of the file as was read, all of it if `whole`.
std::optional<Verdict> json_verdict(const fs::path& path, std::string_view head, bool whole) {
  static constexpr std::array<std::string_view, 5> names{".jsonl", ".ndjson", ".jsonlines", ".jl", ".json"};
  const std::string extension = lower_extension(path);
  const bool named = std::find(names.begin(), names.end(), extension) != names.end();
  head = without_byte_order_mark(head);
  const std::size_t begin = head.find_first_not_of(" \t\r\n");
  if (begin == head.npos) return named ? std::optional(Verdict{CorpusFormat::jsonl}) : std::nullopt;
  head.remove_prefix(begin);
  if (head[0] == '[' && (named || begins_array_of_objects(head))) return Verdict{CorpusFormat::json};
  const std::size_t end = head.find('\n');
  if (head[0] == '{' && (end != head.npos || whole) && is_json_object(head.substr(0, end)))
    return Verdict{CorpusFormat::jsonl};
  if (head[0] == '{' && end == head.npos && !whole && (named || head.starts_with("{\"")))
    return Verdict{CorpusFormat::jsonl};
  // Lines that are no objects are the importer's to refuse, with their number.
  if (named && extension != ".json") return Verdict{CorpusFormat::jsonl};
  if (!named) return std::nullopt;
  if (head[0] == '{') return Verdict{CorpusFormat::json};
  return named_json_but(path, head[0]);
}

Verdict detect(const fs::path& path, const File& file) {
  const std::uint64_t size = file.size();
  const std::string head = first_bytes(file, kind_bytes);
  const std::string extension = lower_extension(path);
  const bool half = extension == ".bin" || extension == ".idx";
  if (half && has_both_halves(path)) return {CorpusFormat::megatron};
  if (auto kind = foreign_kind(path, head, size)) return {CorpusFormat::text, std::move(kind)};
  if (half || head.starts_with(megatron_magic)) return {CorpusFormat::megatron, half_of_a_pair(path)};
  if (extension == ".npy" || head.starts_with("\x93NUMPY")) return {CorpusFormat::npy};
  if (const auto verdict = json_verdict(path, head, head.size() == size)) return *verdict;
  return {CorpusFormat::text, binary_kind(path, head)};
}

Verdict judge(const fs::path& path, const File& file, CorpusFormat format) {
  if (format == CorpusFormat::automatic) return detect(path, file);
  if (format == CorpusFormat::text) return {format};
  const std::string head = first_bytes(file, kind_bytes);
  return {format, looks_binary(head) ? foreign_kind(path, head, file.size()) : std::nullopt};
}

std::string refusal(const fs::path& path, const FileKind& kind) {
  return fmt::format("{} is {}: {}", path.string(), kind.name, kind.advice);
}

CorpusFile one_file(const fs::path& path, CorpusFormat format) {
  if (format == CorpusFormat::megatron) return megatron_file(path);
  const File file = File::open_to_read(path);
  const Verdict verdict = judge(path, file, format);
  if (verdict.kind) throw std::runtime_error(refusal(path, *verdict.kind));
  if (verdict.format == CorpusFormat::megatron) return megatron_file(path);
  return {path, verdict.format, file.size()};
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
    std::error_code broken_link;
    if (entry->is_regular_file(broken_link)) paths.push_back(entry->path());
  }
  if (error)
    throw std::runtime_error(fmt::format("cannot read the directory {}: {}", directory.string(), error.message()));
  std::sort(paths.begin(), paths.end());
  return paths;
}

void pass_over(CorpusFiles& corpus, const std::string& kind, const fs::path& path) {
  const auto same = std::find_if(corpus.passed_over.begin(), corpus.passed_over.end(),
                                 [&](const PassedOver& other) { return other.kind == kind; });
  if (same == corpus.passed_over.end())
    corpus.passed_over.push_back({kind, 1, path});
  else
    ++same->files;
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
    const File file = File::open_to_read(path);
    Verdict verdict = judge(path, file, format);
    if (format == CorpusFormat::text) {
      const std::string head = first_bytes(file, kind_bytes);
      verdict.kind = binary_kind(path, head);
      if (verdict.kind)
        if (auto known = foreign_kind(path, head, file.size())) verdict.kind = std::move(known);
    }
    if (!verdict.kind) {
      if (verdict.format != CorpusFormat::megatron)
        corpus.files.push_back({path, verdict.format, file.size()});
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

// A pair that a shell's pattern names by both halves is one dataset. Any other file twice is a slip, which would weigh its
// documents double.
void keep_each_once(CorpusFiles& corpus) {
  std::set<fs::path> seen;
  std::vector<CorpusFile> once;
  for (CorpusFile& file : corpus.files) {
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
  throw std::runtime_error(fmt::format(
      "the format {} is not known; formats are auto, text, jsonl, json, npy and megatron", quote_for_message(name)));
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
  CorpusFiles corpus;
  for (const std::string& input : inputs) {
    const fs::path path(input);
    std::error_code ignored;
    if (fs::is_directory(path, ignored))
      add_directory(path, format, corpus);
    else if (format == CorpusFormat::automatic && !fs::exists(path, ignored) && has_both_halves(path))
      corpus.files.push_back(megatron_file(path));
    else
      corpus.files.push_back(one_file(path, format));
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
  std::string name = first.stem().string();
  if (inputs.size() > 1) name += fmt::format(" and {} more", inputs.size() - 1);
  return name;
}

}  // namespace smoe
