#include "data/import/format_of_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

#include "data/files/files.h"
#include "data/files/json.h"
#include "data/import/import_megatron.h"
#include "data/import/parquet.h"

namespace smoe {
namespace fs = std::filesystem;

namespace {

// Of the name of what is inside: "f.jsonl" of "f.jsonl.gz". One that is only compressed keeps its name.
fs::path unpacked_name(const FileHead& file) {
  const std::string extension = lower_extension(file.path);
  const bool says_so = extension == ".gz" || extension == ".zst" || extension == ".tgz" || extension == ".zstd";
  return file.compression != Compression::none && says_so ? fs::path(file.path).replace_extension() : file.path;
}

// Of a file that is no text and has no other kind.
std::optional<FileKind> zero_byte_kind(const fs::path& path, std::string_view head) {
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
  if (head.starts_with("\xEF\xBB\xBF")) head.remove_prefix(3);
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

bool is_hdf5(std::string_view head) { return head.starts_with("\x89HDF\r\n\x1A\n"); }

Verdict detect(const FileHead& file, const fs::path& path) {
  const std::string_view head = file.bytes;
  const std::string extension = lower_extension(path);
  const bool half = extension == ".bin" || extension == ".idx";
  if (half && !file.pipe && file.compression == Compression::none && has_both_halves(path))
    return {CorpusFormat::megatron};
  if (is_hdf5(head)) return {CorpusFormat::hdf5};
  if (head.starts_with("PAR1") && parquet_is_available()) return {CorpusFormat::parquet};
  if (auto kind = foreign_kind(path, head, file.size)) return {CorpusFormat::text, std::move(kind)};
  if (half || head.starts_with(megatron_magic)) return {CorpusFormat::megatron, half_of_a_pair(path)};
  if (extension == ".npy" || head.starts_with("\x93NUMPY")) return {CorpusFormat::npy};
  if (const auto verdict = json_verdict(path, head, file.whole)) return *verdict;
  return {CorpusFormat::text, zero_byte_kind(path, head)};
}

Verdict judge_content(const FileHead& file, const fs::path& path, CorpusFormat asked) {
  switch (asked) {
    case CorpusFormat::automatic: return detect(file, path);
    case CorpusFormat::jsonl:
    case CorpusFormat::json:
    case CorpusFormat::npy:
      if (is_hdf5(file.bytes)) return {asked, FileKind{"an HDF5 file", "--format hdf5 reads ids from it", true}};
      return {asked, looks_binary(file.bytes) ? foreign_kind(path, file.bytes, file.size) : std::nullopt};
    default: return {asked};  // whose reader says what it misses
  }
}

const char* program_of(Compression compression) { return compression == Compression::gzip ? "zcat" : "zstdcat"; }

FileKind packed_kind(const FileHead& file, const fs::path& inside, const FileKind& kind) {
  const std::string path = file.path.string(),
                    unpack = fmt::format("{} {} > {}", program_of(file.compression), path,
                                         inside == file.path ? path + ".unpacked" : inside.string());
  const bool tar = kind.name == "a tar archive";
  return {fmt::format("{}, and what it holds is {}", name_of(file.compression), kind.name),
          tar ? fmt::format("unpack it first: tar -xf {}", path)
              : fmt::format("unpack it first: {}{}{}", unpack, kind.advice.empty() ? "" : "; then ", kind.advice),
          kind.holds_documents};
}

}  // namespace

bool has_both_halves(const fs::path& given) {
  std::error_code ignored;
  return fs::is_regular_file(megatron_half(given, ".idx"), ignored) &&
         fs::is_regular_file(megatron_half(given, ".bin"), ignored);
}

std::string refusal(const fs::path& path, const FileKind& kind) {
  return fmt::format("{} is {}: {}", display_name(path), kind.name, kind.advice);
}

FileHead look_at(const fs::path& path) {
  FileHead file;
  file.path = path;
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  const bool is_pipe = path == fs::path(standard_input) || fs::is_fifo(status) || fs::is_socket(status);
  if (!is_pipe) {
    const File plain = File::open_to_read(path);
    file.size = plain.size();
    file.bytes.resize(std::min<std::uint64_t>(file.size, kind_bytes));
    plain.pread_all(file.bytes.data(), file.bytes.size(), 0);
    file.whole = file.bytes.size() == file.size;
    file.compression = compression_of(file.bytes);
    if (file.compression == Compression::none) return file;
  }
  const auto stream = std::make_shared<PeekedStream>(open_byte_stream(path), display_name(path), kind_bytes);
  file.compression = stream->compression();
  file.bytes = stream->head();
  file.whole = stream->head_is_all();
  file.size = file.whole ? file.bytes.size() : std::numeric_limits<std::uint64_t>::max();
  if (is_pipe) file.pipe = stream;
  return file;
}

Verdict format_of(const FileHead& file, CorpusFormat asked) {
  const fs::path inside = unpacked_name(file);
  Verdict verdict = judge_content(file, inside, asked);
  const bool is_stream = file.pipe || file.compression != Compression::none;
  if (!verdict.kind && is_stream && (carries_ids(verdict.format) || verdict.format == CorpusFormat::parquet))
    verdict.kind = FileKind{fmt::format("read as {}, which is read in place", name_of(verdict.format)),
                            file.pipe ? "write it into a file, and name that" : "", true};
  if (verdict.kind && file.compression != Compression::none) verdict.kind = packed_kind(file, inside, *verdict.kind);
  return verdict;
}

std::optional<FileKind> binary_kind(const FileHead& file) {
  const fs::path inside = unpacked_name(file);
  auto kind = zero_byte_kind(inside, file.bytes);
  if (kind)
    if (auto known = foreign_kind(inside, file.bytes, file.size)) kind = std::move(known);
  return kind;
}

}  // namespace smoe
