#include "data/text/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "data/text/sentencepiece_tokenizer.h"
#include "data/text/tokenizer.h"
#include "data/files/utf8.h"

namespace smoe {

namespace {

constexpr std::int64_t largest_id = std::numeric_limits<std::int32_t>::max() - 1;
constexpr const char* space_piece = "\xE2\x96\x81";

class Comparison {
 public:
  Comparison(const Json& document, const std::string& where, const SentencePieceTokenizer& model,
             const std::map<std::int32_t, std::string>& added)
      : document_(document, where), model_(&model), added_(&added) {}

  void run() const {
    const JsonReader model = document_.require_object("model");
    check_settings(model);
    check_vocabulary(model);
    check_merges(model);
    check_steps();
  }

 private:
  [[noreturn]] void refuse(const std::string& key, const std::string& what) const {
    throw std::runtime_error(fmt::format(
        "{}: {}: {}. transformers reads this tokenizer.json, smoe the tokenizer.model beside it, and the two "
        "would give texts different ids: remove the one that is wrong",
        document_.where(), key, what));
  }

  void check_settings(const JsonReader& model) const {
    if (const std::string type = model.optional_string("type").value_or("none"); type != "BPE")
      refuse("model", fmt::format("type is {}, expected \"BPE\"", quote_for_message(type)));
    if (!model_->joins_pairs()) refuse("model", "type is \"BPE\", but the tokenizer.model is no byte pair encoding");
    if (model_->rewrites_texts())
      refuse("normalizer", "the tokenizer.model strips or rewrites texts, which is not compared with a tokenizer.json");
    if (const bool bytes = model.optional_bool("byte_fallback").value_or(false); bytes != model_->falls_back_to_bytes())
      refuse("model",
             fmt::format("byte_fallback is {}, that of the tokenizer.model {}", bytes, model_->falls_back_to_bytes()));
    if (const auto dropout = model.optional_number("dropout"); dropout && *dropout != 0)
      refuse("model", fmt::format("dropout is {}, expected null: sampled encodings are not supported", *dropout));
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const auto affix = model.optional_string(key); affix && !affix->empty())
        refuse("model", fmt::format("{} is {}, expected null", key, quote_for_message(*affix)));
    if (model.optional_bool("ignore_merges").value_or(false)) refuse("model", "ignore_merges is true, expected false");
    if (model_->falls_back_to_bytes()) return;  // nothing is unknown
    if (!model.optional_bool("fuse_unk").value_or(false)) refuse("model", "fuse_unk is false, expected true");
    const std::string unk = model.optional_string("unk_token").value_or("");
    if (model_->unk() < 0 || unk != model_->piece(model_->unk()))
      refuse("model", fmt::format("unk_token is {}, which is not that of the tokenizer.model", quote_for_message(unk)));
  }

  bool is_added(std::int32_t id, const std::string& text) const {
    const auto token = added_->find(id);
    return token != added_->end() && token->second == text;
  }

  void check_vocabulary(const JsonReader& model) const {
    const JsonReader vocabulary = model.require_object("vocab");
    const auto size = static_cast<std::int32_t>(model_->vocab_size());
    std::vector<bool> found(static_cast<std::size_t>(size));
    for (const auto& [text, value] : vocabulary.object().items()) {
      const auto id = static_cast<std::int32_t>(vocabulary.require_int(text, 0, largest_id));
      const bool of_model = id < size;
      if (of_model) found[static_cast<std::size_t>(id)] = true;
      if (of_model && model_->piece(id) == text) continue;
      if (is_added(id, text) && (!of_model || model_->is_control(id))) continue;
      refuse("model: vocab",
             of_model
                 ? fmt::format("id {} is {}, but {} in the tokenizer.model", id, quote_for_message(text),
                               quote_for_message(model_->piece(id)))
                 : fmt::format("{} has the id {}, but the tokenizer.model has only {} pieces, and it is no added token",
                               quote_for_message(text), id, size));
    }
    for (std::int32_t id = 0; id < size; ++id)
      if (!found[static_cast<std::size_t>(id)])
        refuse("model: vocab", fmt::format("id {} is missing, which is {} in the tokenizer.model", id,
                                           quote_for_message(model_->piece(id))));
  }

  static std::uint64_t pair_of_ids(std::int32_t left, std::int32_t right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }

  std::pair<std::string, std::string> require_merge(const Json& merge, std::size_t place) const {
    if (auto parts = read_merge(merge)) return std::move(*parts);
    refuse("model: merges", fmt::format("entry {} is no pair of pieces, expected \"a b\" or [\"a\", \"b\"]", place));
  }

  // SentencePiece joins two pieces into any piece, that of the highest score first; a list of merges does the same where
  // it has every such pair, in the order of the scores.
  void check_merges(const JsonReader& model) const {
    std::unordered_set<std::uint64_t> listed;
    float last = std::numeric_limits<float>::infinity();
    const Json& merges = model.require_array("merges");
    for (std::size_t place = 0; place < merges.size(); ++place) {
      const auto parts = require_merge(merges[place], place);
      const std::string &left = parts.first, &right = parts.second;
      const std::int32_t a = model_->id_of_piece(left), b = model_->id_of_piece(right),
                         joined = model_->id_of_piece(left + right);
      const auto named = [&] {
        return fmt::format("entry {} ({} and {})", place, quote_for_message(left), quote_for_message(right));
      };
      // Such a merge is never reached: an added token is found before anything is joined.
      if (joined >= 0 && !model_->is_text(joined) && is_added(joined, left + right)) continue;
      if (a < 0 || b < 0 || joined < 0 || !model_->is_text(a) || !model_->is_text(b) || !model_->is_text(joined))
        refuse("model: merges", named() + " joins what the tokenizer.model does not");
      if (model_->score(joined) > last)
        refuse(
            "model: merges",
            named() + " stands behind one whose piece has a lower score in the tokenizer.model, which joins it first");
      last = model_->score(joined);
      if (!listed.insert(pair_of_ids(a, b)).second) refuse("model: merges", named() + " stands there twice");
    }
    for (std::int32_t id = 0; id < model_->vocab_size(); ++id)
      if (model_->is_text(id)) check_splits(model_->piece(id), listed);
  }

  void check_splits(const std::string& piece, const std::unordered_set<std::uint64_t>& listed) const {
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      if (is_utf8_trail(piece[cut])) continue;
      const std::string left = piece.substr(0, cut), right = piece.substr(cut);
      const std::int32_t a = model_->id_of_piece(left), b = a < 0 ? -1 : model_->id_of_piece(right);
      if (b >= 0 && model_->is_text(a) && model_->is_text(b) && !listed.contains(pair_of_ids(a, b)))
        refuse("model: merges", fmt::format("{} and {} are missing, which the tokenizer.model joins",
                                            quote_for_message(left), quote_for_message(right)));
    }
  }

  static std::string name_of(const Json& step) {
    if (!step.is_object()) return "no object";
    return step.contains("type") && step.at("type").is_string() ? quote_for_message(step.at("type").get<std::string>())
                                                                : "of no type";
  }

  // The steps that SentencePiece does itself: U+2581 for every space, and one in front.
  void check_steps() const {
    bool prepends = false, replaces = false, doubles = false;
    for (const Json* step : tokenizer_json_steps(document_.object(), "normalizer")) {
      const auto is = [&](const char* key, const Json& value) { return step->contains(key) && step->at(key) == value; };
      if (is("type", "Prepend") && is("prepend", space_piece) && !prepends)
        prepends = true;
      else if (is("type", "Replace") && is("pattern", {{"String", " "}}) && is("content", space_piece))
        replaces = true;
      else if (is("type", "Replace") && is("pattern", {{"Regex", std::string("\\A") + space_piece}}) &&
               is("content", std::string(space_piece) + space_piece) && replaces && !doubles && !prepends)
        doubles = true;
      else
        refuse("normalizer",
               fmt::format(
                   "a step is {}{}, expected what the tokenizer.model does: \"Prepend\" of U+2581, or \"Replace\" of "
                   "spaces by it",
                   name_of(*step), is("type", "Prepend") || is("type", "Replace") ? " of something else" : ""));
    }
    std::optional<std::string> scheme;
    for (const Json* step : tokenizer_json_steps(document_.object(), "pre_tokenizer")) {
      if (name_of(*step) != "\"Metaspace\"" || scheme)
        refuse(
            "pre_tokenizer",
            fmt::format("a step is {}, expected one \"Metaspace\" at most, as the tokenizer.model cuts texts nowhere",
                        name_of(*step)));
      const JsonReader metaspace(*step, document_.where() + ": pre_tokenizer");
      if (metaspace.optional_string("replacement").value_or(space_piece) != space_piece)
        refuse("pre_tokenizer", "its replacement is not U+2581");
      if (metaspace.optional_bool("split").value_or(true))
        refuse("pre_tokenizer",
               "split of \"Metaspace\" is true, expected false: the tokenizer.model joins across spaces");
      scheme = metaspace.optional_string("prepend_scheme")
                   .value_or(metaspace.optional_bool("add_prefix_space").value_or(true) ? "always" : "never");
    }
    if (!replaces && !scheme)
      refuse("normalizer", "spaces stay spaces, where the tokenizer.model makes U+2581 of them");
    const bool in_front = prepends || (scheme && *scheme != "never");
    if (in_front != model_->adds_space())
      refuse("pre_tokenizer", fmt::format("{} space is put in front of a text, where the tokenizer.model puts {}",
                                          in_front ? "a" : "no", model_->adds_space() ? "one" : "none"));
    if (prepends && scheme) refuse("pre_tokenizer", "\"Metaspace\" stands beside \"Prepend\", expected one of them");
    if (doubles && scheme.value_or("") != "always")
      refuse("normalizer",
             "a space in front is doubled, which goes with \"Metaspace\" of prepend_scheme \"always\" alone");
  }

  JsonReader document_;
  const SentencePieceTokenizer* model_;
  const std::map<std::int32_t, std::string>* added_;
};

void append_steps(const Json& step, std::vector<const Json*>& steps) {
  if (step.is_null()) return;
  if (step.is_object() && step.contains("type") && step.at("type") == "Sequence")
    for (const char* list : {"normalizers", "pretokenizers"})
      if (step.contains(list) && step.at(list).is_array()) {
        for (const Json& one : step.at(list)) append_steps(one, steps);
        return;
      }
  steps.push_back(&step);
}

}  // namespace

std::optional<std::pair<std::string, std::string>> read_merge(const Json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return std::pair{merge[0].get<std::string>(), merge[1].get<std::string>()};
  if (!merge.is_string()) return std::nullopt;
  const auto& text = merge.get_ref<const std::string&>();
  const std::size_t cut = text.find(' ');
  if (cut == std::string::npos || text.find(' ', cut + 1) != std::string::npos) return std::nullopt;
  return std::pair{text.substr(0, cut), text.substr(cut + 1)};
}

std::vector<const Json*> tokenizer_json_steps(const Json& document, const char* key) {
  std::vector<const Json*> steps;
  if (document.contains(key)) append_steps(document.at(key), steps);
  return steps;
}

void require_same_encoding(const Json& document, const std::string& where, const SentencePieceTokenizer& model,
                           const std::map<std::int32_t, std::string>& added) {
  Comparison(document, where, model, added).run();
}

std::int64_t vocab_size_of_tokenizer_json(const std::filesystem::path& path) {
  const Json json = read_json_file(path);
  const JsonReader document(json, path.string());
  const JsonReader model = document.require_object("model");
  std::int64_t size = 0;
  if (model.has("vocab") && model.object().at("vocab").is_array()) {
    size = static_cast<std::int64_t>(model.object().at("vocab").size());  // entries by id
  } else {
    const JsonReader vocabulary = model.require_object("vocab");
    for (const auto& [text, id] : vocabulary.object().items())
      size = std::max(size, vocabulary.require_int(text, 0, largest_id) + 1);
  }
  if (document.has("added_tokens"))
    for (const Json& token : document.require_array("added_tokens"))
      size = std::max(size, JsonReader(token, path.string() + ": added_tokens").require_int("id", 0, largest_id) + 1);
  return size;
}

std::int64_t vocabulary_of_directory(const std::filesystem::path& directory) {
  if (std::filesystem::exists(directory / "tokenizer.model")) return load_tokenizer(directory.string())->vocab_size();
  const std::filesystem::path listed = directory / "tokenizer.json";
  return std::filesystem::exists(listed) ? vocab_size_of_tokenizer_json(listed) : 0;
}

}  // namespace smoe
