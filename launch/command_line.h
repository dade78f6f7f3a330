// The command line: commands and their options. CLI11 stands behind it, whose header takes seconds to compile and which
// command_line.cpp alone includes.
//
// Command and Option are handles, copied freely; what they stand for lives as long as the CommandLine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace smoe {

// Arguments that make no sense, to the parser or to a command.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown by a command that ends with a status of its own, whose reason has been told.
class EndsWith : public std::runtime_error {
 public:
  explicit EndsWith(int status) : std::runtime_error("the command ended with a status of its own"), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option required() const;
  Option show_default() const;  // in --help: the value that the variable has now
  Option range(std::int64_t min, std::int64_t max) const;
  Option real_range(double min, double max) const;
  Option one_of(std::vector<std::string> words) const;
  Option delimiter(char between) const;  // of the values of a list that is one argument
  Option excludes(const Option& other) const;
  Option needs(const Option& other) const;

  bool given() const;  // on the command line

 private:
  CLI::Option* option_;
};

class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  std::string name() const;
  // Fills `value`, which must outlive the parsing. "--name" is an option, "NAME" a position. Values are bool, int,
  // std::int64_t, std::uint64_t, double, std::string and vectors of std::int32_t and std::string: the linker misses others.
  template <class Value>
  Option option(const std::string& name, Value& value, const std::string& help) const;
  // The same for files and directories: ~/ is expanded (configs/user_path.h). Values are std::string and vectors of it.
  template <class Value>
  Option path(const std::string& name, Value& value, const std::string& help) const;
  Option flag(const std::string& name, bool& value, const std::string& help) const;
  void takes_anything() const;                              // unknown arguments are no error
  void before_parsing(std::function<void()> action) const;  // called when the command was named, for what refuses it
  void runs(std::function<void()> action) const;

 private:
  CLI::App* app_;
};

class CommandLine {
 public:
  CommandLine(const std::string& description, const std::string& name, const std::string& version);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  Command command(const std::string& name, const std::string& does);
  std::vector<Command> commands() const;

  // Parses and runs the command. Returns 0, or the status of an EndsWith. --help and --version are printed if `prints`.
  // Throws UsageError where the arguments do not parse, naming an option that the command has not before all else, and
  // what the command throws.
  int run(int argc, char** argv, bool prints);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace smoe
