// kernels/shared_library.h: libraries that are opened when they are needed, and what is said where they are not.
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "kernels/shared_library.h"

namespace smoe::cuda {
namespace {

std::string message_of_opening(const std::string& file) {
  try {
    const SharedLibrary library(file, "the package libnothing-13");
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "opened";
}

TEST(SharedLibrary, ThatIsMissingIsNamedWithWhatToInstall) {
  const std::string message = message_of_opening("libnothing.so.13");
  EXPECT_TRUE(message.starts_with("device: cuda needs libnothing.so.13: ")) << message;
  EXPECT_NE(message.find("install the package libnothing-13, or "), std::string::npos) << message;
  EXPECT_NE(message.find("LD_LIBRARY_PATH"), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

TEST(SharedLibrary, GivesItsFunctionsAndNamesThoseItHasNot) {
  const SharedLibrary library("libm.so.6", "the C library");
  double (*cosine)(double) = nullptr;
  library.find(cosine, "cos");
  EXPECT_EQ(cosine(0), 1);
  try {
    library.find(cosine, "cosine_of");
    FAIL() << "found a function that is not there";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "device: cuda needs libm.so.6 with the function cosine_of, which this one has not");
  }
}

}  // namespace
}  // namespace smoe::cuda
