#include "data/text/bpe/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

#include "data/files/utf8.h"
#include "data/text/bpe/newer_characters.h"

namespace smoe {
namespace {

std::string normal_form_by_utf8proc(std::string_view text, int options) {
  utf8proc_uint8_t* made = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &made, static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owned(made, &std::free);
  if (size < 0)
    throw std::runtime_error(fmt::format("a text of {} bytes cannot be brought to a normal form of Unicode: {}",
                                         text.size(), utf8proc_errmsg(size)));
  return {reinterpret_cast<const char*>(made), static_cast<std::size_t>(size)};
}

// utf8proc sees what lies between characters that are left as they are, over which nothing is moved or joined.
std::string normal_form(std::string_view text, int options) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
    return std::string(text);
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t inert = find_inert_character(text, at);
    if (inert > at) result += normal_form_by_utf8proc(text.substr(at, inert - at), options);
    at = inert;
    if (at == text.size()) break;
    const auto bytes = static_cast<std::size_t>(read_utf8(text.substr(at)).bytes);
    result += text.substr(at, bytes);
    at += bytes;
  }
  return result;
}

std::string replace_all(std::string_view text, const SplitPattern& pattern, const std::string& by) {
  const std::optional<std::string> other = pattern.is_literal() ? std::nullopt : with_stand_ins(text);
  const std::string_view shown = other ? *other : text;
  std::string result;
  std::size_t at = 0;
  while (const auto match = pattern.find(shown, at)) {
    result += text.substr(at, match->begin - at);
    result += by;
    at = match->end;
  }
  return result += text.substr(at);
}

}  // namespace

Normalizer::Normalizer(const Json& normalizer, const std::string& where) { add(normalizer, where + ": normalizer"); }

void Normalizer::add(const Json& value, const std::string& where) {
  if (value.is_null()) return;
  const JsonReader step(value, where);
  const std::string& type = step.require_string("type");
  if (type == "Sequence") {
    for (const Json& one : step.require_array("normalizers")) add(one, where);
  } else if (type == "NFC") {
    steps_.push_back({Kind::nfc});
  } else if (type == "NFD") {
    steps_.push_back({Kind::nfd});
  } else if (type == "NFKC") {
    steps_.push_back({Kind::nfkc});
  } else if (type == "NFKD") {
    steps_.push_back({Kind::nfkd});
  } else if (type == "Prepend") {
    steps_.push_back({Kind::prepend, step.require_string("prepend")});
  } else if (type == "Replace") {
    steps_.push_back({Kind::replace, step.require_string("content"), read_split_pattern(value, where)});
    if (steps_.back().pattern->pattern() == " ") space_ = read_utf8(steps_.back().text).code;
  } else {
    throw std::runtime_error(fmt::format(
        "{}: found a step {}, expected one of NFC, NFD, NFKC, NFKD, Prepend, Replace: others are not supported", where,
        quote_for_message(type)));
  }
}

bool Normalizer::is_local() const {
  return std::all_of(steps_.begin(), steps_.end(), [](const Step& step) { return step.kind <= Kind::nfkd; });
}

bool Normalizer::only_moves_spaces() const {
  return std::all_of(steps_.begin(), steps_.end(), [](const Step& step) {
    return step.kind == Kind::prepend ||
           (step.kind == Kind::replace && step.pattern->is_literal() && step.pattern->pattern() == " " &&
            static_cast<std::size_t>(read_utf8(step.text).bytes) == step.text.size() && !step.text.empty());
  });
}

std::string Normalizer::apply(std::string_view given, bool opens) const {
  std::string text(given);
  for (const Step& step : steps_) switch (step.kind) {
      case Kind::nfc: text = normal_form(text, UTF8PROC_COMPOSE); break;
      case Kind::nfd: text = normal_form(text, UTF8PROC_DECOMPOSE); break;
      case Kind::nfkc: text = normal_form(text, UTF8PROC_COMPOSE | UTF8PROC_COMPAT); break;
      case Kind::nfkd: text = normal_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT); break;
      case Kind::prepend:
        if (opens && !text.empty()) text.insert(0, step.text);
        break;
      case Kind::replace: text = replace_all(text, *step.pattern, step.text); break;
    }
  return text;
}

}  // namespace smoe
