#include "data/text/bpe/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <new>
#include <stdexcept>
#include <utility>

#include "data/files/json.h"
#include "data/files/printable.h"

namespace smoe {
namespace {

// Unicode's White_Space, which is Oniguruma's \s; PCRE2's has U+180E too.
constexpr const char* white_space =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// Oniguruma's \w: what is alphabetic, marks, digits and connectors, which takes in circled letters, and of the first 256 characters
// the superscripts and fractions too. PCRE2's has letters and numbers, and other things in other versions.
constexpr const char* word_sign =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";

[[noreturn]] void refuse_pattern(const std::string& pattern, std::size_t at, const std::string& why) {
  throw std::runtime_error(fmt::format("the pattern {}: at byte {}: {}", quote_for_message(pattern), at, why));
}

class Translation {
 public:
  explicit Translation(const std::string& pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\')
        escape();
      else if (in_class_)
        inside_class(c);
      else if (c == '[')
        open_class();
      else if (starts("(?") && is_option(at_ + 2))
        option();
      else
        take(1);
    }
    return result_;
  }

 private:
  bool starts(std::string_view text) const { return std::string_view(pattern_).substr(at_).starts_with(text); }

  void take(std::size_t bytes) {
    result_.append(pattern_, at_, bytes);
    at_ += bytes;
  }

  bool is_option(std::size_t at) const {
    return at < pattern_.size() && ((pattern_[at] >= 'a' && pattern_[at] <= 'z') || pattern_[at] == '-');
  }

  // (?i) and (?i: mean the same in both; Ruby's (?m is PCRE2's (?s.
  void option() {
    if (!starts("(?i:") && !starts("(?i)"))
      refuse_pattern(pattern_, at_, "found an option, expected (?i: or none: others are not supported");
    take(4);
  }

  void open_class() {
    in_class_ = true;
    take(1);
    if (at_ < pattern_.size() && pattern_[at_] == '^') take(1);
    if (at_ < pattern_.size() && pattern_[at_] == ']')
      refuse_pattern(pattern_, at_, "found an empty class, or one that begins with ], expected \\]");
  }

  void inside_class(char c) {
    if (c == '[') refuse_pattern(pattern_, at_, "found a class inside a class, which is not supported; a sign is \\[");
    if (starts("&&")) refuse_pattern(pattern_, at_, "found an intersection of classes, which is not supported");
    if (c == ']') in_class_ = false;
    take(1);
  }

  void escape() {
    if (at_ + 1 == pattern_.size()) refuse_pattern(pattern_, at_, "found \\ at the end");
    const char c = pattern_[at_ + 1];
    if (c == 's' || c == 'w' || ((c == 'S' || c == 'W') && !in_class_)) {
      const char* const members = c == 's' || c == 'S' ? white_space : word_sign;
      result_ += in_class_ ? members : fmt::format("[{}{}]", c == 'S' || c == 'W' ? "^" : "", members);
      at_ += 2;
    } else if ((c == 'b' || c == 'B') && !in_class_) {
      word_end(c == 'b');
    } else if (c == 'S' || c == 'W' || c == 'h' || c == 'H' || c == 'R' || c == 'X' || c == 'K' || c == 'Q' ||
               c == 'E' || c == 'C') {
      refuse_pattern(pattern_, at_,
                     fmt::format("found \\{}, which is not supported{}", c, in_class_ ? " in a class" : ""));
    } else if (c == 'u') {
      code_point();
    } else if (c == 'p' || c == 'P') {
      property();
    } else {
      take(2);
    }
  }

  // Where a word begins or ends, or where none does.
  void word_end(bool there) {
    result_ +=
        fmt::format("(?:(?<=[{0}])(?{1}[{0}])|(?<![{0}])(?{2}[{0}]))", word_sign, there ? '!' : '=', there ? '=' : '!');
    at_ += 2;
  }

  // \uHHHH
  void code_point() {
    const std::string digits = pattern_.substr(at_ + 2, 4);
    if (digits.size() != 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
      refuse_pattern(pattern_, at_, "found \\u without four hexadecimal digits");
    result_ += "\\x{" + digits + "}";
    at_ += 6;
  }

  // A script's name means characters of that script; PCRE2 alone would add those that it shares with others.
  void property() {
    const std::size_t close = pattern_.find('}', at_);
    if (at_ + 2 >= pattern_.size() || pattern_[at_ + 2] != '{' || close == std::string::npos)
      refuse_pattern(pattern_, at_, "found a property without {NAME}");
    std::string name = pattern_.substr(at_ + 3, close - at_ - 3);
    const bool negated = name.starts_with('^');
    if (negated) name.erase(0, 1);
    const bool category = name.size() <= 2;
    result_ += fmt::format("\\{}{{{}{}{}}}", pattern_[at_ + 1], negated ? "^" : "", category ? "" : "sc:", name);
    at_ = close + 1;
  }

  const std::string& pattern_;
  std::string result_;
  std::size_t at_ = 0;
  bool in_class_ = false;
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// One a thread: a match needs room of its own, and making it costs as much as the match.
pcre2_match_data* match_room() {
  struct Room {
    pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
    ~Room() { pcre2_match_data_free(data); }
  };
  thread_local Room room;
  if (!room.data) throw std::bad_alloc();
  return room.data;
}

}  // namespace

SplitPattern read_split_pattern(const Json& step, const std::string& where) {
  const JsonReader pattern = JsonReader(step, where).require_object("pattern");
  if (const auto text = pattern.optional_string("String")) return SplitPattern::of_literal(*text);
  try {
    return SplitPattern(pattern.require_string("Regex"));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(fmt::format("{}: {}", where, error.what()));
  }
}

std::string translate_from_oniguruma(const std::string& pattern) { return Translation(pattern).run(); }

struct SplitPattern::Code {
  explicit Code(pcre2_code* compiled) : code(compiled), context(pcre2_match_context_create(nullptr)) {
    if (!context) throw std::bad_alloc();
    pcre2_set_match_limit(context, 20'000'000);
    pcre2_set_heap_limit(context, 1 << 20);  // KiB
  }
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  pcre2_code* code;
  pcre2_match_context* context;
};

SplitPattern::SplitPattern(const std::string& pattern) : pattern_(pattern) {
  const std::string translated = translate_from_oniguruma(pattern);
  int error = 0;
  PCRE2_SIZE place = 0;
  pcre2_code* const code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &place, nullptr);
  if (!code)
    throw std::runtime_error(fmt::format("the pattern {} does not compile: {}", quote_for_message(pattern),
                                         printable(pcre2_message(error))));
  code_ = std::make_unique<Code>(code);
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where it cannot, the interpreter matches
}

SplitPattern SplitPattern::of_literal(const std::string& text) {
  SplitPattern result;
  result.pattern_ = result.literal_ = text;
  return result;
}

SplitPattern::~SplitPattern() = default;
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;

std::optional<TextRange> SplitPattern::find(std::string_view text, std::size_t from) const {
  if (!code_) {
    const std::size_t at = literal_.empty() ? std::string_view::npos : text.find(literal_, from);
    if (at == std::string_view::npos) return std::nullopt;
    return TextRange{at, at + literal_.size()};
  }
  pcre2_match_data* const room = match_room();
  const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, room, code_->context);
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0)
    throw std::runtime_error(fmt::format("the pattern {} cannot be matched in a text of {} bytes: {}",
                                         quote_for_message(pattern_), text.size(), printable(pcre2_message(found))));
  const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(room);
  return TextRange{ends[0], ends[1]};
}

}  // namespace smoe
