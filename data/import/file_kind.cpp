#include "data/import/file_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <initializer_list>
#include <iterator>

#include "data/import/import_megatron.h"
#include "data/files/utf8.h"

namespace smoe {
namespace fs = std::filesystem;

namespace {

using namespace std::string_view_literals;

// packed and table: their advice follows the words below. collection: documents in yet another wrapping.
enum class Wrapping { none, packed, table, collection };

// In an advice, {0} is the file and {1} its name without the last extension.
struct Signature {
  std::string_view bytes;
  std::size_t at;
  Wrapping wrapping;
  const char* name;
  const char* advice;
};

constexpr const char* no_text = "it holds no text to prepare";
constexpr const char* save_ids = "ids are saved with numpy.save, texts as JSON lines";
constexpr const char* save_text = "save its text as UTF-8";
constexpr const char* dump_rows = "write its texts as JSON lines first, each with json.dumps";
constexpr const char* hdf5_advice = "--format hdf5 reads ids from it";

constexpr Signature signatures[] = {
    {"\x1F\x8B"sv, 0, Wrapping::packed, "gzip-compressed", "zcat {0} > {1}"},
    {"\x28\xB5\x2F\xFD"sv, 0, Wrapping::packed, "compressed with zstd", "zstdcat {0} > {1}"},
    {"\xFD\x37zXZ\0"sv, 0, Wrapping::packed, "compressed with xz", "xzcat {0} > {1}"},
    {"1AY&SY"sv, 4, Wrapping::packed, "compressed with bzip2", "bzcat {0} > {1}"},
    {"\x04\x22\x4D\x18"sv, 0, Wrapping::packed, "compressed with lz4", "lz4cat {0} > {1}"},
    {"\x5D\0\0"sv, 0, Wrapping::packed, "compressed with lzma", "lzcat {0} > {1}"},
    {"\x02\x21\x4C\x18"sv, 0, Wrapping::packed, "compressed with lz4", "lz4cat {0} > {1}"},
    {"\x1F\x9D"sv, 0, Wrapping::packed, "compressed", "zcat {0} > {1}"},
    {"7z\xBC\xAF\x27\x1C"sv, 0, Wrapping::packed, "a 7z archive", "7z x {0}"},
    {"Rar!\x1A\x07"sv, 0, Wrapping::packed, "a RAR archive", "unrar x {0}"},
    {"ustar"sv, 257, Wrapping::packed, "a tar archive", "tar -xf {0}"},
    {"PAR1"sv, 0, Wrapping::table, "an Apache Parquet table", "read_parquet('{0}')"},
    {"PARE"sv, 0, Wrapping::table, "an encrypted Apache Parquet table", "read_parquet('{0}')"},
    {"ARROW1"sv, 0, Wrapping::table, "an Apache Arrow table (Feather)", "read_feather('{0}')"},
    {"FEA1"sv, 0, Wrapping::table, "a Feather table", "read_feather('{0}')"},
    {"\xFF\xFF\xFF\xFF"sv, 0, Wrapping::collection, "an Apache Arrow stream",
     "write its texts as JSON lines first, in Python: datasets.Dataset.from_file('{0}').to_json('{1}.jsonl')"},
    {"Obj\x01"sv, 0, Wrapping::collection, "an Apache Avro file", dump_rows},
    {"SQLite format 3\0"sv, 0, Wrapping::collection, "an SQLite database", dump_rows},
    {"\x89HDF\r\n\x1A\n"sv, 0, Wrapping::collection, "an HDF5 file", hdf5_advice},
    {"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1"sv, 0, Wrapping::none, "a Microsoft Office document", save_text},
    {"GGUF"sv, 0, Wrapping::none, "a GGUF model", no_text},
    {"\x89PNG\r\n\x1A\n"sv, 0, Wrapping::none, "a PNG image", no_text},
    {"\xFF\xD8\xFF"sv, 0, Wrapping::none, "a JPEG image", no_text},
    {"GIF8"sv, 0, Wrapping::none, "a GIF image", no_text},
    {"II*\0"sv, 0, Wrapping::none, "a TIFF image", no_text},
    {"MM\0*"sv, 0, Wrapping::none, "a TIFF image", no_text},
    {"WEBP"sv, 8, Wrapping::none, "a WebP image", no_text},
    {"WAVE"sv, 8, Wrapping::none, "a WAV recording", no_text},
    {"fLaC"sv, 0, Wrapping::none, "a FLAC recording", no_text},
    {"OggS"sv, 0, Wrapping::none, "an Ogg recording", no_text},
    {"ID3"sv, 0, Wrapping::none, "an MP3 recording", no_text},
    {"ftyp"sv, 4, Wrapping::none, "an MP4 recording or an image", no_text},
    {"\x1A\x45\xDF\xA3"sv, 0, Wrapping::none, "a Matroska video", no_text},
    {"\x7F"
     "ELF"sv,
     0, Wrapping::none, "a program or library", no_text},
    {"\xCA\xFE\xBA\xBE"sv, 0, Wrapping::none, "a program or library", no_text},
    {"\xCF\xFA\xED\xFE"sv, 0, Wrapping::none, "a program or library", no_text},
    {"\0asm"sv, 0, Wrapping::none, "a program or library", no_text},
};

// Names of wrapped documents. A file that has one and none of the signatures is damaged, or another kind of the same name.
constexpr std::string_view wrapped_extensions[] = {
    ".gz",      ".zst",   ".xz",      ".bz2", ".lz4",  ".lzma", ".z",    ".zip",  ".7z",  ".rar",    ".tar", ".tgz",
    ".parquet", ".arrow", ".feather", ".orc", ".avro", ".h5",   ".hdf5", ".xlsx", ".xls", ".sqlite", ".npz"};

bool is_wrapped_name(std::string_view extension) {
  return std::find(std::begin(wrapped_extensions), std::end(wrapped_extensions), extension) !=
         std::end(wrapped_extensions);
}

// A signature of letters that a text could begin with ("ID3") counts only where this is seen to be none.
bool is_printable(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](unsigned char c) { return c >= 0x20 && c < 0x7F; });
}

FileKind described(const fs::path& path, Wrapping wrapping, const std::string& name, const std::string& advice) {
  fs::path bare = path;
  if (const std::string extension = lower_extension(path);
      is_wrapped_name(extension) || extension == ".csv" || extension == ".tsv" || extension == ".pdf")
    bare.replace_extension();
  else if (wrapping == Wrapping::packed)  // never onto itself
    bare += ".unpacked";
  std::string text = advice;
  if (wrapping == Wrapping::packed) text = "unpack it first: " + advice;
  if (wrapping == Wrapping::table)
    text = "write its texts as JSON lines first, in Python: pandas." + advice +
           ".to_json('{1}.jsonl', orient='records', lines=True)";
  return {name, fmt::format(fmt::runtime(text), path.string(), bare.string()), wrapping != Wrapping::none};
}

FileKind zip_kind(const fs::path& path) {
  const std::string extension = lower_extension(path);
  const auto is = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), extension) != names.end();
  };
  if (is({".pt", ".pth", ".ckpt", ".bin"})) return described(path, Wrapping::none, "a PyTorch file", save_ids);
  if (is({".npz"}))
    return described(path, Wrapping::collection, "a NumPy archive",
                     "save each array of ids alone: numpy.save('{1}.npy', array)");
  if (is({".xlsx", ".xlsm"})) return described(path, Wrapping::table, "an Excel workbook", "read_excel('{0}')");
  if (is({".docx", ".pptx", ".odt", ".odp", ".ods", ".epub"}))
    return described(path, Wrapping::none, "an office document or e-book", save_text);
  if (is({".jar", ".whl", ".apk"})) return described(path, Wrapping::none, "a program or library", no_text);
  return described(path, Wrapping::packed, "a zip archive", "unzip {0}");
}

FileKind utf_text(const fs::path& path, const std::string& name, const std::string& encoding) {
  return described(path, Wrapping::collection, name,
                   "make it UTF-8: iconv -f " + encoding + " -t UTF-8 {0} > {0}.utf8");
}

// The byte order of UTF-16 of Western text, in which one half of the pairs of bytes holds nearly all the zeros; null for
// anything else.
const char* utf16_without_mark(std::string_view head) {
  std::size_t zeros[2] = {0, 0};
  for (std::size_t i = 0; i < head.size(); ++i) zeros[i % 2] += head[i] == '\0';
  const std::size_t most = std::max(zeros[0], zeros[1]), least = std::min(zeros[0], zeros[1]);
  const bool is_text = head.size() >= 8 && most * 4 > head.size() && least * 20 < most &&
                       std::none_of(head.begin(), head.end(), [](unsigned char c) { return c != 0 && c < 9; });
  if (!is_text) return nullptr;
  return zeros[0] > zeros[1] ? "UTF-16BE" : "UTF-16LE";
}

bool is_safetensors(std::string_view head, std::uint64_t file_bytes) {
  std::uint64_t header = 0;
  if (head.size() < 10) return false;
  std::memcpy(&header, head.data(), sizeof header);
  return head[8] == '{' && header >= 2 && header <= file_bytes - 8;
}

// The protocol, then what the protocols open with: the shortest of all signatures, which ids could have too.
bool is_pickle(std::string_view head) {
  return head.size() > 2 && head[0] == '\x80' &&
         ((head[1] >= 4 && head[1] <= 5 && head[2] == '\x95') ||
          (head[1] >= 2 && head[1] <= 3 && "}](cX)K\x8A\x8C"sv.find(head[2]) != std::string_view::npos));
}

}  // namespace

std::string lower_extension(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension;
}

bool looks_binary(std::string_view head) {
  if (head.find('\0') != head.npos) return true;
  while (!head.empty()) {
    const Utf8Char next = read_utf8(head);
    if (next.bytes == 0) return !next.cut;
    head.remove_prefix(static_cast<std::size_t>(next.bytes));
  }
  return false;
}

FileKind half_of_a_pair(const fs::path& path) {
  const bool index = lower_extension(path) == ".idx";
  fs::path other = path;
  other.replace_extension(index ? ".bin" : ".idx");
  if (index)
    return {"the index of a Megatron dataset without its ids", fmt::format("copy {} beside it", other.string()), true};
  return {"half of a Megatron dataset, or ids without a header",
          fmt::format("a Megatron dataset is the .bin and its index: copy {} beside it. Bare ids are read with "
                      "--format u16 or --format u32",
                      other.string()),
          true};
}

std::optional<FileKind> foreign_kind(const fs::path& path, std::string_view head, std::uint64_t file_bytes) {
  const std::string extension = lower_extension(path);
  if (head.starts_with(megatron_magic) || head.starts_with("\x93NUMPY"sv)) return std::nullopt;
  if (head.starts_with("PK\3\4"sv) || head.starts_with("PK\5\6"sv)) return zip_kind(path);
  if (head.starts_with("\xFF\xFE\0\0"sv) || head.starts_with("\0\0\xFE\xFF"sv))
    return utf_text(path, "UTF-32 text", "UTF-32");
  if (head.starts_with("\xFF\xFE"sv) || head.starts_with("\xFE\xFF"sv)) return utf_text(path, "UTF-16 text", "UTF-16");
  if (head.starts_with("version https://git-lfs.github.com/spec/"sv))
    return described(path, Wrapping::collection, "a Git LFS pointer, not the file itself",
                     "fetch the file: git lfs pull");
  if (head.starts_with("%PDF-"sv))
    return described(path, Wrapping::none, "a PDF document", "extract its text: pdftotext {0} {1}.txt");
  if (head.starts_with("{\\rtf"sv)) return described(path, Wrapping::none, "an RTF document", save_text);
  for (const Signature& known : signatures) {
    if (head.size() < known.at + known.bytes.size() || head.substr(known.at, known.bytes.size()) != known.bytes)
      continue;
    if (known.wrapping == Wrapping::none && is_printable(known.bytes) && !looks_binary(head)) continue;
    return described(path, known.wrapping, known.name, known.advice);
  }
  if (extension == ".orc" && head.starts_with("ORC"sv))
    return described(path, Wrapping::table, "an Apache ORC table", "read_orc('{0}')");
  if (is_pickle(head)) return described(path, Wrapping::none, "a Python pickle", save_ids);
  if (is_safetensors(head, file_bytes)) return described(path, Wrapping::none, "a safetensors file", save_ids);
  if (extension == ".bin" || extension == ".idx") return std::nullopt;  // ids of 16 bits look like UTF-16
  if (const char* const encoding = utf16_without_mark(head))
    return utf_text(path, "UTF-16 text without a byte order mark", encoding);
  if (extension == ".csv")
    return described(path, Wrapping::table, "a table of comma-separated values", "read_csv('{0}')");
  if (extension == ".tsv")
    return described(path, Wrapping::table, "a table of tab-separated values", "read_csv('{0}', sep='\\t')");
  if (!head.empty() && is_wrapped_name(extension))
    return described(path, Wrapping::collection,
                     fmt::format("not what its name says ({}): its first bytes are of no such file", extension),
                     "is the copy complete? Where it is text, give it another name");
  return std::nullopt;
}

}  // namespace smoe
