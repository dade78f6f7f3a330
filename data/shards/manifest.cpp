#include "data/shards/manifest.h"

#include <fmt/format.h>

#include <limits>
#include <numeric>
#include <set>
#include <stdexcept>

#include "data/files/json.h"

namespace smoe {
namespace {

constexpr const char* format_name = "smoe-token-shards";
constexpr std::int64_t max_tokens = std::int64_t{1} << 48;  // keeps sums and products of counts far from overflow
constexpr std::int64_t max_id = std::numeric_limits<std::int32_t>::max();

[[noreturn]] void refuse(const std::string& where, const std::string& key, const std::string& found,
                         const std::string& expected) {
  throw std::runtime_error(fmt::format("{}: '{}' is {}, expected {}", where, key, found, expected));
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name[0] != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

ShardEntry read_entry(const JsonReader& object) {
  object.refuse_other_keys({"file", "tokens", "documents", "sha256"});
  ShardEntry entry;
  entry.file = object.require_string("file");
  if (!is_plain_file_name(entry.file))
    refuse(object.where(), "file", quote_for_message(entry.file), "the plain name of a file in the same directory");
  entry.tokens = object.require_int("tokens", 1, max_tokens);
  entry.documents = object.require_int("documents", 1, max_tokens);
  entry.sha256 = object.require_string("sha256");
  if (!is_sha256(entry.sha256))
    refuse(object.where(), "sha256", quote_for_message(entry.sha256), "64 lower-case hexadecimal digits");
  return entry;
}

void check_total(const JsonReader& object, const std::string& key, std::int64_t sum) {
  const std::int64_t stated = object.require_int(key, 1, max_tokens);
  if (stated != sum)
    refuse(object.where(), key, std::to_string(stated), fmt::format("{}, the sum over the shards", sum));
}

}  // namespace

void validate(const ShardSetInfo& info, const std::string& where) {
  if (!info.tokenizer_sha256.empty() && !is_sha256(info.tokenizer_sha256))
    refuse(where, "tokenizer_sha256", quote_for_message(info.tokenizer_sha256),
           "64 lower-case hexadecimal digits, or nothing for ids without a tokenizer");
  if (info.vocab_size < 1 || info.vocab_size > max_id)
    refuse(where, "vocab_size", std::to_string(info.vocab_size), fmt::format("1 to {}", max_id));
  if (info.bos < -1 || info.bos >= info.vocab_size)
    refuse(where, "bos", std::to_string(info.bos), fmt::format("-1 (none) or an id below {}", info.vocab_size));
  if (info.eos < -1 || info.eos >= info.vocab_size)
    refuse(where, "eos", std::to_string(info.eos), fmt::format("-1 (none) or an id below {}", info.vocab_size));
  for (const std::string* text : {&info.tokenizer_name, &info.source}) {
    const char* key = text == &info.source ? "source" : "tokenizer_name";
    if (text->size() > 4096 || text->find('\0') != std::string::npos)
      refuse(where, key, quote_for_message(*text), "at most 4096 bytes of text");
    try {
      dump_json(Json(*text));
    } catch (const std::exception&) {
      refuse(where, key, quote_for_message(*text), "valid UTF-8");
    }
  }
}

std::int64_t Manifest::tokens() const {
  return std::accumulate(shards.begin(), shards.end(), std::int64_t{0},
                         [](std::int64_t sum, const ShardEntry& shard) { return sum + shard.tokens; });
}

std::int64_t Manifest::documents() const {
  return std::accumulate(shards.begin(), shards.end(), std::int64_t{0},
                         [](std::int64_t sum, const ShardEntry& shard) { return sum + shard.documents; });
}

std::filesystem::path manifest_path(const std::filesystem::path& directory) { return directory / "manifest.json"; }

Manifest read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path path = manifest_path(directory);
  if (!std::filesystem::exists(path))
    throw std::runtime_error(fmt::format(
        "{} is no directory of token shards: it has no manifest.json. Make one with: smoe prepare INPUT... --out {} "
        "--tokenizer T",
        directory.string(), directory.string()));
  const Json json = read_json_file(path);
  const JsonReader object(json, path.string());

  const std::string& format = object.require_string("format");
  if (format != format_name)
    refuse(path.string(), "format", quote_for_message(format), fmt::format("\"{}\"", format_name));
  const std::int64_t version = object.require_int("format_version", 0, max_id);
  if (version != shard_format_version)
    refuse(path.string(), "format_version", std::to_string(version),
           fmt::format("{}; prepare the data again with this version of smoe", shard_format_version));
  object.refuse_other_keys({"format", "format_version", "tokenizer_sha256", "tokenizer_name", "vocab_size", "bos",
                            "eos", "source", "tokens", "documents", "shards"});

  Manifest manifest;
  manifest.info.tokenizer_sha256 = object.require_string("tokenizer_sha256");
  manifest.info.tokenizer_name = object.require_string("tokenizer_name");
  manifest.info.vocab_size = object.require_int("vocab_size", 1, max_id);
  manifest.info.bos = static_cast<std::int32_t>(object.require_int("bos", -1, max_id));
  manifest.info.eos = static_cast<std::int32_t>(object.require_int("eos", -1, max_id));
  manifest.info.source = object.require_string("source");
  validate(manifest.info, path.string());

  std::set<std::string> names;
  std::int64_t tokens = 0;
  for (const Json& shard : object.require_array("shards")) {
    const std::string where = fmt::format("{}: shards[{}]", path.string(), manifest.shards.size());
    manifest.shards.push_back(read_entry(JsonReader(shard, where)));
    const ShardEntry& entry = manifest.shards.back();
    if (!names.insert(entry.file).second)
      refuse(where, "file", quote_for_message(entry.file), "a name that no other shard has");
    tokens += entry.tokens;
    if (tokens > max_tokens) refuse(where, "tokens", "more than 2^48 in all", "a sum within it");
  }
  if (manifest.shards.empty()) refuse(path.string(), "shards", "an empty list", "at least one shard");
  check_total(object, "tokens", manifest.tokens());
  check_total(object, "documents", manifest.documents());
  return manifest;
}

void write_manifest(const std::filesystem::path& directory, const Manifest& manifest) {
  OrderedJson json;
  json["format"] = format_name;
  json["format_version"] = shard_format_version;
  json["tokenizer_sha256"] = manifest.info.tokenizer_sha256;
  json["tokenizer_name"] = manifest.info.tokenizer_name;
  json["vocab_size"] = manifest.info.vocab_size;
  json["bos"] = manifest.info.bos;
  json["eos"] = manifest.info.eos;
  json["source"] = manifest.info.source;
  json["tokens"] = manifest.tokens();
  json["documents"] = manifest.documents();
  json["shards"] = OrderedJson::array();
  for (const ShardEntry& shard : manifest.shards) {
    OrderedJson entry;
    entry["file"] = shard.file;
    entry["tokens"] = shard.tokens;
    entry["documents"] = shard.documents;
    entry["sha256"] = shard.sha256;
    json["shards"].push_back(std::move(entry));
  }
  write_json_file(manifest_path(directory), json);
}

}  // namespace smoe
