#include "launch/generate/line_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace smoe {

namespace {

int interrupt_pipe = -1;

// A pipe and no flag: a signal that comes just before the wait for a line still ends it.
void note_interrupt(int) {
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(interrupt_pipe, "", 1);  // full: it is noted already
  errno = error;
}

[[noreturn]] void fail_at(const char* what) {
  throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno)));
}

}  // namespace

Interrupts::Interrupts() {
  if (pipe2(pipe_, O_NONBLOCK | O_CLOEXEC) != 0) fail_at("a pipe for Ctrl-C cannot be made");
  interrupt_pipe = pipe_[1];
  struct sigaction action = {};
  action.sa_handler = note_interrupt;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &earlier_);
}

Interrupts::~Interrupts() {
  sigaction(SIGINT, &earlier_, nullptr);
  interrupt_pipe = -1;
  close(pipe_[0]);
  close(pipe_[1]);
}

bool Interrupts::take() {
  char bytes[64];
  bool any = false;
  while (read(pipe_[0], bytes, sizeof(bytes)) > 0) any = true;
  return any;
}

bool LineReader::take_line(std::string& line) {
  const std::size_t end = held_.find('\n', searched_);
  if (end == std::string::npos && !(ended_ && !held_.empty())) {
    searched_ = held_.size();
    return false;
  }
  line = held_.substr(0, end);
  held_.erase(0, end == std::string::npos ? end : end + 1);
  searched_ = 0;
  if (line.ends_with('\r')) line.pop_back();
  return true;
}

LineReader::Found LineReader::next(std::string& line) {
  for (;;) {
    if (interrupts_.take()) return Found::interrupt;
    if (take_line(line)) return Found::line;
    if (ended_) return Found::end;
    pollfd waits[2] = {{STDIN_FILENO, POLLIN, 0}, {interrupts_.fd(), POLLIN, 0}};
    if (poll(waits, 2, -1) < 0) {
      if (errno == EINTR) continue;
      fail_at("waiting for a line failed");
    }
    if (waits[1].revents != 0) continue;
    char bytes[4096];
    const ssize_t got = read(STDIN_FILENO, bytes, sizeof(bytes));
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) fail_at("standard input cannot be read");
    if (got == 0) ended_ = true;
    held_.append(bytes, static_cast<std::size_t>(got));
  }
}

}  // namespace smoe
