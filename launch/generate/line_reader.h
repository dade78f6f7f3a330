// Lines of standard input, and Ctrl-C between and during what is done with them.
#pragma once

#include <csignal>
#include <cstddef>
#include <string>

namespace smoe {

// While one lives, Ctrl-C (SIGINT) does not end the program but is noted. One at a time.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // Whether there was one since it was last asked.
  bool take();
  int fd() const { return pipe_[0]; }  // can be read from while there is one

 private:
  int pipe_[2] = {-1, -1};
  struct sigaction earlier_ = {};
};

class LineReader {
 public:
  enum class Found { line, end, interrupt };

  explicit LineReader(Interrupts& interrupts) : interrupts_(interrupts) {}

  // The next line, without its end; the last one needs none. Throws std::runtime_error where standard input fails.
  Found next(std::string& line);

 private:
  bool take_line(std::string& line);

  Interrupts& interrupts_;
  std::string held_;
  std::size_t searched_ = 0;  // of held_, without a line's end
  bool ended_ = false;
};

}  // namespace smoe
