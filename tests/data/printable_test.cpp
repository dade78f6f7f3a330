#include "data/files/printable.h"

#include <gtest/gtest.h>

#include <string>

namespace smoe {
namespace {

TEST(Printable, TextStaysAsItIs) {
  const std::string text = "caf\u00e9, \u65e5\u672c and\n\ta second line";
  EXPECT_EQ(printable(text), text);
  EXPECT_EQ(printable(""), "");
}

TEST(Printable, ControlCharactersAreWrittenOut) {
  EXPECT_EQ(printable("a\x1b[31mb\rc\x7f"), "a\\x1b[31mb\\x0dc\\x7f");
  EXPECT_EQ(printable(std::string("\0", 1)), "\\x00");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m")
      << "U+009B opens an escape sequence by itself";
}

TEST(Printable, BytesThatAreNotUtf8AreWrittenOut) {
  EXPECT_EQ(printable("caf\xe9.txt"), "caf\\xe9.txt");
  EXPECT_EQ(printable("\x9b"
                      "31m"),
            "\\x9b31m");
  EXPECT_EQ(printable("\xe6\x97"), "\\xe6\\x97");
}

}  // namespace
}  // namespace smoe
