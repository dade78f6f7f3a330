// What a call says that refuses its arguments.
#pragma once

#include <stdexcept>
#include <string>

namespace smoe::checks {

// The message of the std::invalid_argument that it throws; empty: it throws none.
template <class F>
std::string complaint_of(const F& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return {};
}

}  // namespace smoe::checks
