// JSON from files that strangers wrote: size, depth and number of values are capped, a duplicate key is an error, and a
// number is never converted silently (the library alone turns -1 into 2^64 - 1, 1.5 into 1 and 2^64 into 0).
//
// Errors: std::runtime_error with the file, and line:column for text that does not parse or repeats a key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace smoe {

using Json = nlohmann::json;                 // keys sorted; lookup by key is quick
using OrderedJson = nlohmann::ordered_json;  // keys as written, for small objects that people read

struct JsonLimits {
  std::uint64_t max_bytes = 64 << 20;
  std::size_t max_depth = 64;           // of nested arrays and objects
  std::size_t max_values = 10'000'000;  // bounds the memory that the parsed form takes
  // NaN, Infinity and -Infinity, which JSON lacks and Python's json writes nevertheless, are numbers. For data alone:
  // what a program is configured by stays strict.
  bool allow_non_finite = false;
};

// Where in its file a text begins, both counted from 1, columns in bytes.
struct JsonOrigin {
  std::int64_t line = 1, column = 1;
};

// `where` opens every message: the file's name. Lines and columns count from the file's beginning, given the text's own.
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {}, JsonOrigin origin = {});
Json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});

// Text of a value; finite numbers read back exactly. Non-finite numbers, which JSON lacks, and invalid UTF-8 are
// errors. indent < 0: one line.
std::string dump_json(const Json& value, int indent = -1);
std::string dump_json(const OrderedJson& value, int indent = -1);
// Indented by two, with a final newline, in place of what was there (write_file_atomically).
void write_json_file(const std::filesystem::path& path, const Json& value);
void write_json_file(const std::filesystem::path& path, const OrderedJson& value);

// A name from a file as it may stand in a message: in quotes, ASCII, control characters escaped, long ones cut.
std::string quote_for_message(std::string_view text);
// The first few keys of an object, so quoted, or "no key".
std::string keys_for_message(const Json& object);

// One object being read. It knows where it stands, so that every refusal names the file and the key.
// The Json must outlive the reader. The optional_ forms take an absent key or null as nothing; a wrong type is an
// error.
class JsonReader {
 public:
  JsonReader(const Json& object, std::string where);  // throws unless it is an object

  const std::string& where() const { return where_; }
  const Json& object() const { return *object_; }
  bool has(const std::string& key) const { return object_->contains(key); }

  // An integer in [min, max]; 1.0 and true are not integers.
  std::int64_t require_int(const std::string& key, std::int64_t min, std::int64_t max) const;
  std::uint64_t require_u64(const std::string& key) const;
  // A finite number; an integer beyond +-2^53, where doubles skip some, is refused.
  double require_number(const std::string& key) const;
  bool require_bool(const std::string& key) const;
  const std::string& require_string(const std::string& key) const;
  const Json& require_array(const std::string& key) const;
  JsonReader require_object(const std::string& key) const;

  std::optional<std::int64_t> optional_int(const std::string& key, std::int64_t min, std::int64_t max) const;
  std::optional<double> optional_number(const std::string& key) const;
  std::optional<bool> optional_bool(const std::string& key) const;
  std::optional<std::string> optional_string(const std::string& key) const;
  std::optional<JsonReader> optional_object(const std::string& key) const;

  void refuse_other_keys(std::initializer_list<std::string_view> known) const;

 private:
  const Json& at(const std::string& key, const char* expected) const;
  bool absent(const std::string& key) const;
  [[noreturn]] void refuse(const std::string& key, const std::string& expected) const;

  const Json* object_;
  std::string where_;
};

// The same rules for an element of an array; `where` names it.
std::int64_t json_int(const Json& value, std::int64_t min, std::int64_t max, const std::string& where);
const std::string& json_string(const Json& value, const std::string& where);

}  // namespace smoe
