// Compilers get constants wrong too: GCC 12.2 with AVX-512 stored {c, c, 0, 0} as {c, c, c, c} (see cmake/targets.cmake).
#include <gtest/gtest.h>

#include <array>
#include <cstdint>

namespace smoe {

// Not in an anonymous namespace: a function that the compiler knows to run once it may compile for size, and right.
template <class T, T... values>
[[gnu::noinline]] void store_constants(T* out) {
  const T constants[] = {values...};
  __builtin_memcpy(out, constants, sizeof constants);
}

template <class T, T... values>
void expect_stored_whole() {
  std::array<T, sizeof...(values)> found{};
  store_constants<T, values...>(found.data());
  std::size_t i = 0;  // one by one: an array of what is expected would be stored as wrongly
  const auto expect = [&](T value) {
    EXPECT_EQ(found[i], value) << "element " << i << " of " << found.size();
    ++i;
  };
  (expect(values), ...);
}

TEST(Toolchain, ConstantArraysAreStoredWhole) {
  expect_stored_whole<double, 0.5, 0.5, 0.0, 0.0>();
  expect_stored_whole<double, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0>();
  expect_stored_whole<float, 1.0f, 1.0f, 1.0f, 1.0f, 0.0f, 0.0f, 0.0f, 0.0f>();
  expect_stored_whole<std::int32_t, 3, 3, 3, 3, 0, 0, 0, 0>();
  expect_stored_whole<std::int64_t, 7, 7, 0, 0>();
  expect_stored_whole<std::int64_t, -1, -1, -1, -1, 0, 0, 0, 0>();
}

}  // namespace smoe
