// What a test found, beside that it passed: a line that launch/test-gpu takes into its table.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

namespace smoe::test {

template <class... Values>
void figure(const std::string& name, fmt::format_string<Values...> form, Values&&... values) {
  fmt::print("figure: {}: {}\n", name, fmt::format(form, std::forward<Values>(values)...));
  std::fflush(stdout);
}

}  // namespace smoe::test
