// What an action says when it is refused.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

namespace smoe::test {

// The message of the std::runtime_error that the action must throw.
template <class Action>
std::string message_of(Action&& action) {
  try {
    action();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  ADD_FAILURE() << "accepted what had to be refused";
  return {};
}

// Whether every one of the pieces is in the text; names the first that is not.
inline bool mentions(const std::string& text, std::initializer_list<std::string_view> pieces) {
  for (const std::string_view piece : pieces)
    if (text.find(piece) == std::string::npos) {
      ADD_FAILURE() << "'" << piece << "' is not in: " << text;
      return false;
    }
  return true;
}

template <class Action>
void expect_refused(Action&& action, std::initializer_list<std::string_view> pieces) {
  mentions(message_of(action), pieces);
}

}  // namespace smoe::test
