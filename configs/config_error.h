// What is wrong with a configuration. The program ends with status 2 on it.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace smoe {

// Where a value was written. line 0: nowhere in the file; the command line has its own mark.
struct ConfigLocation {
  int line = 0;
  int column = 0;
  bool command_line = false;
};

struct ConfigProblem {
  ConfigLocation where;
  std::string key;      // dotted: optimizer.learning_rate; empty where the trouble is the file itself
  std::string message;  // what was found and what was expected
};

// All problems of one configuration, in the order in which a reader of the file meets them. what() lists the first
// ten, a line each: FILE:LINE:COLUMN: section.key: found X, expected Y; did you mean 'Z'?
class ConfigError : public std::runtime_error {
 public:
  ConfigError(const std::string& source, std::vector<ConfigProblem> problems);
  const std::vector<ConfigProblem>& problems() const { return problems_; }

 private:
  std::vector<ConfigProblem> problems_;
};

}  // namespace smoe
