#include "launch/generate/chat_terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>

#include "configs/user_path.h"
#include "data/files/printable.h"
#include "data/files/utf8.h"
#include "launch/generate/line_reader.h"

namespace smoe {
namespace {

constexpr const char* chat_help =
    "  /reset       begins a new conversation, with the same system message\n"
    "  /save FILE   writes it as JSON: {\"messages\": [...]}\n"
    "  /help        lists these\n"
    "  /quit        ends, as Ctrl-D does\n"
    "  Ctrl-C       ends an answer; twice where a line is awaited, the program\n"
    "  A message that begins with a slash is written with two.\n";

class ChatTerminal {
 public:
  explicit ChatTerminal(Conversation& conversation)
      : conversation_(conversation),
        reads_terminal_(isatty(STDIN_FILENO) == 1),
        writes_terminal_(isatty(STDOUT_FILENO) == 1) {}

  void run() {
    if (reads_terminal_) tell("/help lists the commands");
    bool interrupted = false;  // at this prompt already
    for (std::string line;;) {
      show_sign();
      const LineReader::Found found = lines_.next(line);
      if (found == LineReader::Found::interrupt) {
        end_line();
        if (interrupted) return;
        interrupted = true;
        tell("Ctrl-C again ends, as /quit and Ctrl-D do");
        continue;
      }
      interrupted = false;
      if (found == LineReader::Found::end) return end_line();
      if (!take(line)) return;
    }
  }

 private:
  static void tell(std::string_view message) { fmt::print(stderr, "smoe: {}\n", printable(message)); }

  static void flush() {
    if (std::fflush(stdout) != 0) throw std::runtime_error("standard output could not be written");
  }

  bool on_terminal() const { return reads_terminal_ && writes_terminal_; }
  void show_sign() const {
    if (!on_terminal()) return;
    fmt::print("> ");
    std::fflush(stdout);
  }
  // Behind a sign that was left without an answer.
  void end_line() const {
    if (on_terminal()) fmt::print("\n");
    std::fflush(stdout);
  }

  // False: it was the last.
  bool take(std::string_view line) {
    if (line.starts_with("//"))
      line.remove_prefix(1);
    else if (line.starts_with('/'))
      return command(line);
    if (!is_valid_utf8(line))
      tell("this line is no UTF-8, and is not asked");
    else if (line.find_first_not_of(" \t") != std::string_view::npos)
      ask(line);
    return true;
  }

  bool command(std::string_view line) {
    const std::size_t space = line.find(' ');
    const std::string_view name = line.substr(0, space);
    std::string_view rest = space == std::string_view::npos ? std::string_view() : line.substr(space + 1);
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    rest = rest.substr(0, rest.find_last_not_of(' ') + 1);
    if (name == "/save") {
      save(rest);
    } else if (!rest.empty()) {
      tell(fmt::format("{} takes nothing behind it, found '{}'; a message that begins with a slash is written with two",
                       name, rest));
    } else if (name == "/quit") {
      return false;
    } else if (name == "/reset") {
      conversation_.reset();
      tell("a new conversation");
    } else if (name == "/help") {
      fmt::print(stderr, "{}", chat_help);
    } else {
      tell(
          fmt::format("unknown command {}, expected /reset, /save FILE, /help or /quit; a message that begins with a "
                      "slash is written with two",
                      name));
    }
    return true;
  }

  void save(std::string_view file) const {
    if (file.empty()) return tell("/save wants a file: /save conversation.json");
    try {
      const std::string path = expand_path(file);
      conversation_.save(path);
      tell(fmt::format("{} messages in {}", conversation_.messages(), path));
    } catch (const std::runtime_error& error) {
      tell(fmt::format("not saved: {}", error.what()));
    }
  }

  void ask(std::string_view question) {
    interrupts_.take();  // one that came while nothing was being answered ends nothing
    Conversation::Answer answer{};
    try {
      answer = conversation_.ask(question, [&](std::string_view piece) {
        fmt::print("{}", writes_terminal_ ? printable(piece) : std::string(piece));
        flush();
        return !interrupts_.take();
      });
    } catch (const NotAsked& error) {
      return tell(error.what());
    }
    if (answer.end != Conversation::End::no_room) fmt::print("\n");
    flush();
    tell_end(conversation_, answer);
  }

  Conversation& conversation_;
  Interrupts interrupts_;
  LineReader lines_{interrupts_};
  bool reads_terminal_, writes_terminal_;
};

}  // namespace

void converse(Conversation& conversation) { ChatTerminal(conversation).run(); }

void tell_end(const Conversation& conversation, const Conversation::Answer& answer) {
  const auto tell = [](const std::string& message) { fmt::print(stderr, "smoe: {}\n", message); };
  switch (answer.end) {
    case Conversation::End::stop:
    case Conversation::End::broken_off: return;
    case Conversation::End::max_tokens: return tell("the answer was cut at --max-tokens");
    case Conversation::End::nothing:
      return tell("the model ended its answer before the first word; neither it nor the question is kept");
    case Conversation::End::positions:
      return tell(
          fmt::format("the answer was cut: with it the conversation has the {} tokens that the model reads "
                      "(max_position_embeddings)",
                      conversation.positions()));
    case Conversation::End::no_room:
      return tell(
          fmt::format("the conversation has {} tokens with this message, which is not kept, and the model reads {} "
                      "(max_position_embeddings), its answer included: /reset begins a new one, /save FILE keeps "
                      "this one",
                      answer.prompt_tokens, conversation.positions()));
  }
}

}  // namespace smoe
