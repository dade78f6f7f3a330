// What an action says when it fails.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

namespace smoe {

inline std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace smoe
