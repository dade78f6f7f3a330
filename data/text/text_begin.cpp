#include "data/text/text_begin.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/json.h"
#include "data/text/tokenizer.h"
#include "data/text/tokenizer_files.h"

namespace smoe {

namespace {

const TokenizerFile* carried_file(const Tokenizer& tokenizer, std::string_view name) {
  const auto found = std::find_if(tokenizer.files().begin(), tokenizer.files().end(),
                                  [&](const TokenizerFile& file) { return file.name == name; });
  return found == tokenizer.files().end() ? nullptr : &*found;
}

bool is_named(const Json& step, const char* type) {
  return step.is_object() && step.contains("type") && step.at("type") == type;
}

// TemplateProcessing lists what stands around a text, under `single`; the ids of its names are in `special_tokens`.
bool opens_with(const Json& step, std::int32_t bos, const std::string& where) {
  const JsonReader reader(step, where);
  const Json& single = reader.require_array("single");
  if (single.empty() || !single.front().is_object() || !single.front().contains("SpecialToken")) return false;
  const JsonReader first(single.front(), where + ": single");
  const std::string name = first.require_object("SpecialToken").require_string("id");
  const Json& ids = reader.require_object("special_tokens").require_object(name).require_array("ids");
  return !ids.empty() && ids.front() == bos;
}

bool puts_bos_in_front(const Json& step, std::int32_t bos, const std::string& where) {
  if (is_named(step, "TemplateProcessing")) return opens_with(step, bos, where);
  if (is_named(step, "RobertaProcessing") || is_named(step, "BertProcessing")) {
    const Json& cls = JsonReader(step, where).require_array("cls");
    return cls.size() == 2 && cls[1] == bos;
  }
  if (!is_named(step, "Sequence")) return false;
  const Json& steps = JsonReader(step, where).require_array("processors");
  return std::any_of(steps.begin(), steps.end(), [&](const Json& one) { return puts_bos_in_front(one, bos, where); });
}

}  // namespace

bool texts_begin_with_bos(const Tokenizer& tokenizer) {
  const std::int32_t bos = tokenizer.bos();
  if (bos < 0) return false;
  if (const TokenizerFile* file = carried_file(tokenizer, "tokenizer_config.json")) {
    const Json config = parse_json(file->bytes, file->name);
    if (const auto added = JsonReader(config, file->name).optional_bool("add_bos_token")) return *added;
  }
  if (const TokenizerFile* file = carried_file(tokenizer, "tokenizer.json")) {
    constexpr JsonLimits limits{.max_bytes = 96 << 20, .max_values = 8'000'000};
    const Json document = parse_json(file->bytes, file->name, limits);
    // Without a model it is a list of added tokens alone (added_tokens.h).
    if (document.is_object() && document.contains("model"))
      return document.contains("post_processor") &&
             puts_bos_in_front(document.at("post_processor"), bos, file->name + ": post_processor");
  }
  return true;
}

}  // namespace smoe
