#include "data/text/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "data/files/json.h"
#include "data/files/json_place.h"
#include "data/text/sentencepiece_tokenizer.h"
#include "data/text/tokenizer_json.h"

namespace smoe {

namespace {

constexpr std::int64_t max_token_id = std::numeric_limits<std::int32_t>::max() - 1;
constexpr std::size_t longest_added_content = 1024;  // bytes
constexpr std::size_t most_tokens = 1 << 16;
// Keys under which transformers keeps special tokens; each must be a token that has an id.
constexpr const char* special_keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
constexpr const char* special_list_keys[] = {"additional_special_tokens", "extra_special_tokens"};

[[noreturn]] void refuse_token(const std::string& where, const std::string& why) {
  throw std::runtime_error(fmt::format("{}: {}", where, why));
}

// A special token is written as its text, or as an object that holds it; null is none.
std::optional<std::string> content_of(const Json& value, const std::string& where) {
  if (value.is_null()) return std::nullopt;
  if (value.is_object()) return JsonReader(value, where).require_string("content");
  return json_string(value, where);
}

class Reader {
 public:
  Reader(const std::string& directory, const std::vector<TokenizerFile>& files, const SentencePieceTokenizer& model)
      : directory_(directory), model_(&model) {
    for (const TokenizerFile& file : files)
      if (changes_tokenizer(file.name)) documents_[file.name] = parse_json(file.bytes, path_of(file.name));
  }

  AddedTokens read() {
    AddedTokens result;
    const Json empty = Json::object();
    const Json& config_json = documents_.contains(config_name) ? documents_.at(config_name) : empty;
    const JsonReader config(config_json, path_of(config_name));
    // transformers 4 takes an absent key for true and null for false; 5 takes both for false.
    result.legacy = config.optional_bool("legacy").value_or(!config.has("legacy"));
    result.takes_own_space = !result.legacy;
    const bool decided = read_space_of_tokenizer_json(result);
    result.legacy_is_absent =
        documents_.contains(config_name) && !config.has("legacy") && !decided && model_->adds_space();
    refuse_what_encodes_differently(config);

    // As transformers does, the older files count only where tokenizer_config.json lists no tokens itself.
    Json special = config_json;
    if (const auto listed = config.optional_object("added_tokens_decoder")) {
      read_decoder(*listed);
    } else {
      if (documents_.contains("special_tokens_map.json")) {
        const JsonReader map(documents_.at("special_tokens_map.json"), path_of("special_tokens_map.json"));
        special.update(map.object());
      }
      read_encoder(special);
    }
    read_tokenizer_json();
    check_tokenizer_json();
    drop_what_repeats_the_model();
    for (const auto& [id, token] : tokens_) result.tokens.push_back(token);
    check_ids_follow_on(result.tokens);
    refuse_normalized(result);
    refuse_space_pieces(result);
    check_special(special, result);
    if ((!result.legacy || result.takes_own_space) && !model_->cuts_text())
      refuse_token(
          config.where(),
          "legacy is false here or in effect, expected true: this kind of tokenizer.model (no byte pair encoding with "
          "byte fallback, or a normaliser) cannot encode a text without a space in front");
    return result;
  }

 private:
  static constexpr const char* config_name = "tokenizer_config.json";

  std::string path_of(const std::string& name) const { return directory_ + "/" + name; }

  void refuse_what_encodes_differently(const JsonReader& config) const {
    if (model_->adds_space() && !config.optional_bool("add_prefix_space").value_or(true))
      refuse_token(config.where(),
                   "add_prefix_space is false, but its tokenizer.model puts a space in front of texts: not supported");
    if (config.optional_bool("split_special_tokens").value_or(false))
      refuse_token(config.where(),
                   "split_special_tokens is true, expected false: special tokens are read from texts as one id");
    if (const auto arguments = config.optional_object("sp_model_kwargs"); arguments && !arguments->object().empty())
      refuse_token(config.where(),
                   fmt::format("sp_model_kwargs is {}, expected none: sampled or altered encodings are not supported",
                               quote_for_message(dump_json(arguments->object()))));
  }

  void add(const AddedToken& token, const std::string& where) {
    if (token.content.empty() || token.content.size() > longest_added_content)
      refuse_token(where,
                   fmt::format("content has {} bytes, expected 1 to {}", token.content.size(), longest_added_content));
    const auto [same_id, fresh] = tokens_.try_emplace(token.id, token);
    if (!fresh && same_id->second.content != token.content)
      refuse_token(where, fmt::format("id {} is {}, but {} elsewhere in this directory", token.id,
                                      quote_for_message(token.content), quote_for_message(same_id->second.content)));
    const auto [same_text, first] = ids_.try_emplace(token.content, token.id);
    if (!first && same_text->second != token.id)
      refuse_token(where, fmt::format("{} has the id {}, but {} elsewhere in this directory",
                                      quote_for_message(token.content), token.id, same_text->second));
    if (tokens_.size() > most_tokens) refuse_token(where, fmt::format("more than {} added tokens", most_tokens));
  }

  AddedToken read_token(const JsonReader& object, std::int32_t id) const {
    if (object.optional_bool("single_word").value_or(false))
      refuse_token(object.where(),
                   "single_word is true, expected false: tokens that count only as whole words are not supported");
    return {id, object.require_string("content"), object.optional_bool("special").value_or(false),
            object.optional_bool("lstrip").value_or(false), object.optional_bool("rstrip").value_or(false)};
  }

  void read_decoder(const JsonReader& listed) {
    for (const auto& [key, value] : listed.object().items()) {
      const std::string where =
          fmt::format("{}: added_tokens_decoder: {}", path_of(config_name), quote_for_message(key));
      std::int32_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > max_token_id)
        refuse_token(where, "expected an id for a key");
      add(read_token(JsonReader(value, where), id), where);
    }
  }

  // added_tokens.json: texts to ids; special are those that some special key names.
  void read_encoder(const Json& special) {
    constexpr const char* name = "added_tokens.json";
    if (!documents_.contains(name)) return;
    std::set<std::string> named;
    for (const auto& [text, where] : named_tokens(special)) named.insert(text);
    const JsonReader encoder(documents_.at(name), path_of(name));
    for (const auto& [content, id] : encoder.object().items())
      add({static_cast<std::int32_t>(encoder.require_int(content, 0, max_token_id)), content, named.contains(content)},
          path_of(name));
  }

  // Its list repeats the others' as a rule; a token that stands here alone counts all the same.
  void read_tokenizer_json() {
    constexpr const char* name = "tokenizer.json";
    if (!documents_.contains(name)) return;
    const JsonReader document(documents_.at(name), path_of(name));
    if (!document.has("added_tokens")) return;
    for (std::size_t place = 0; const Json& value : document.require_array("added_tokens")) {
      const std::string where = fmt::format("{}: added_tokens[{}]", path_of(name), place++);
      const JsonReader object(value, where);
      const AddedToken token = read_token(object, static_cast<std::int32_t>(object.require_int("id", 0, max_token_id)));
      add(token, where);
      if (object.optional_bool("normalized").value_or(false)) normalized_.insert(token.id);
    }
  }

  // What transformers reads of it in place of the tokenizer.model. Without a model it is a list of added tokens alone.
  void check_tokenizer_json() const {
    constexpr const char* name = "tokenizer.json";
    if (!documents_.contains(name) || !documents_.at(name).contains("model")) return;
    std::map<std::int32_t, std::string> contents;
    for (const auto& [id, token] : tokens_) contents[id] = token.content;
    require_same_encoding(documents_.at(name), path_of(name), *model_, contents);
  }

  // The steps of one type of a tokenizer.json that stand under `key`.
  static std::vector<const Json*> steps(const Json& document, const char* key, const std::string& type) {
    std::vector<const Json*> found = tokenizer_json_steps(document, key);
    std::erase_if(found, [&](const Json* step) {
      return !step->is_object() || !step->contains("type") || step->at("type") != type;
    });
    return found;
  }

  // Whether it says where the space goes.
  bool read_space_of_tokenizer_json(AddedTokens& result) const {
    constexpr const char* name = "tokenizer.json";
    if (!documents_.contains(name) || !model_->adds_space()) return false;
    const Json& document = JsonReader(documents_.at(name), path_of(name)).object();
    if (!steps(document, "normalizer", "Prepend").empty()) {
      result.legacy = true;
      result.takes_own_space = false;
      return true;
    }
    const auto metaspace = steps(document, "pre_tokenizer", "Metaspace");
    if (metaspace.empty()) return false;
    const JsonReader reader(*metaspace.front(), path_of(name) + ": pre_tokenizer");
    const std::string scheme =
        reader.optional_string("prepend_scheme")
            .value_or(reader.optional_bool("add_prefix_space").value_or(true) ? "always" : "never");
    if (scheme != "always" && scheme != "first")
      refuse_token(
          reader.where(),
          fmt::format("prepend_scheme is {}, expected \"always\" or \"first\": its tokenizer.model puts a space in "
                      "front of texts",
                      quote_for_message(scheme)));
    result.legacy = scheme == "always";
    // A Metaspace leaves a text alone that begins with a space. A replacement in front of it doubles that space where it
    // is to do as SentencePiece does.
    const auto replacements = steps(document, "normalizer", "Replace");
    result.takes_own_space =
        !(result.legacy && std::any_of(replacements.begin(), replacements.end(), [](const Json* step) {
            return step->contains("pattern") && step->at("pattern") == Json::object({{"Regex", "\\A\xE2\x96\x81"}});
          }));
    return true;
  }

  // A token that is searched for in the normalised text is found there as in the text itself only where the normaliser
  // does no more than write a space as U+2581.
  void refuse_normalized(const AddedTokens& result) const {
    constexpr const char* name = "tokenizer.json";
    if (normalized_.empty() || !documents_.at(name).contains("normalizer") ||
        documents_.at(name).at("normalizer").is_null())
      return;
    for (const AddedToken& token : result.tokens)
      if (normalized_.contains(token.id) && (!result.takes_own_space || token.lstrip || token.rstrip))
        refuse_token(
            path_of(name),
            fmt::format("added_tokens: {}: normalized is true, expected false: where this normaliser puts a space "
                        "in front or takes one along, the token would be found elsewhere than in the text",
                        quote_for_message(token.content)));
  }

  // Pieces write a space so, and where transformers searches for such a token depends on its normaliser.
  void refuse_space_pieces(const AddedTokens& result) const {
    for (const AddedToken& token : result.tokens)
      if (token.content.find("\xE2\x96\x81") != std::string::npos)
        refuse_token(
            directory_,
            fmt::format("the added token {} (id {}) holds U+2581, which stands for a space in pieces: not supported",
                        quote_for_message(token.content), token.id));
  }

  void drop_what_repeats_the_model() {
    for (auto it = tokens_.begin(); it != tokens_.end();) {
      const auto& [id, token] = *it;
      const bool of_model = id < model_->vocab_size();
      const bool same = of_model && model_->piece(id) == token.content;
      if (of_model && !same && !model_->is_control(id))  // a control piece is only a name, and may get another
        refuse_token(
            directory_,
            fmt::format("id {} is {} in tokenizer.model, but the added token {}; do the files belong together?", id,
                        quote_for_message(model_->piece(id)), quote_for_message(token.content)));
      if (same && (id == model_->unk() || id == model_->bos() || id == model_->eos()))
        it = tokens_.erase(it);
      else
        ++it;
    }
  }

  void check_ids_follow_on(const std::vector<AddedToken>& tokens) const {
    std::int64_t next = model_->vocab_size();
    for (const AddedToken& token : tokens) {
      if (token.id < model_->vocab_size()) continue;
      if (token.id != next)
        refuse_token(
            directory_,
            fmt::format("id {} is the added token {}, but id {} is no token: tokenizer.model has {} pieces, and "
                        "added tokens follow on them without a gap; do the files belong together?",
                        token.id, quote_for_message(token.content), next, model_->vocab_size()));
      ++next;
    }
  }

  // Texts of the special tokens that the keys name, each with where it stands.
  std::vector<std::pair<std::string, std::string>> named_tokens(const Json& special) const {
    std::vector<std::pair<std::string, std::string>> named;
    const auto take = [&](const Json& value, const std::string& key) {
      if (const auto content = content_of(value, fmt::format("{}: {}", path_of(config_name), key)))
        named.emplace_back(*content, key);
    };
    for (const char* key : special_keys)
      if (special.contains(key)) take(special.at(key), key);
    for (const char* key : special_list_keys)
      if (special.contains(key))
        for (const Json& value : special.at(key)) take(value, key);  // a list, or an object from names to tokens
    return named;
  }

  std::int32_t id_of(const std::string& content) const {
    const auto added = ids_.find(content);
    return added != ids_.end() ? added->second : model_->id_of_piece(content);
  }

  void check_special(const Json& special, AddedTokens& result) const {
    result.bos = model_->bos();
    result.eos = model_->eos();
    for (const auto& [content, key] : named_tokens(special)) {
      const std::int32_t id = id_of(content);
      if (id < 0 && content.empty()) continue;
      if (id < 0)
        refuse_token(path_of(config_name),
                     fmt::format("{} is {}, which is neither in tokenizer.model nor among the added tokens, so it has "
                                 "no id; add it to added_tokens_decoder, or take the key away",
                                 key, quote_for_message(content)));
      if (key == "bos_token") result.bos = id;
      if (key == "eos_token") result.eos = id;
    }
  }

  std::string directory_;
  const SentencePieceTokenizer* model_;
  std::map<std::string, Json> documents_;
  std::map<std::int32_t, AddedToken> tokens_;
  std::map<std::string, std::int32_t> ids_;
  std::set<std::int32_t> normalized_;  // of tokenizer.json
};

}  // namespace

bool AddedTokens::changes(const SentencePieceTokenizer& model) const {
  return !tokens.empty() || !legacy || takes_own_space || bos != model.bos() || eos != model.eos();
}

AddedTokens read_added_tokens(const std::string& directory, const std::vector<TokenizerFile>& files,
                              const SentencePieceTokenizer& model) {
  Reader reader(directory, files, model);
  try {
    return reader.read();
  } catch (const std::runtime_error& error) {  // of whichever file it begins with
    std::string message = error.what();
    for (const TokenizerFile& file : files)
      message = with_place_in_json(message, directory + "/" + file.name, file.bytes);
    throw std::runtime_error(message);
  }
}

}  // namespace smoe
