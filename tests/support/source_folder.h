// Where a test finds the files that it reads: where it was compiled, or where a bundle has them (launch/bundle --with-tests).
#pragma once

#include <cstdlib>
#include <string>

namespace smoe::test {

inline std::string source_folder() {
  const char* moved = std::getenv("SMOE_SOURCE_DIR");
  return moved ? moved : SMOE_SOURCE_DIR;
}

}  // namespace smoe::test
