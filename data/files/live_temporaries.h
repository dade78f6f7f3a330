// The names that TemporaryPath (files.h) has given out and that are neither committed nor given up.
//
// A destructor removes what was not committed; where a signal ends the program there are none, and its handler does this instead.
#pragma once

#include <filesystem>

namespace smoe {

// owner: tells one name from another.
void add_live_temporary(const void* owner, const std::filesystem::path& path);
void drop_live_temporary(const void* owner);

// Removes the files under all of them. For a handler that ends the program, and safe there: whoever wants to add or drop a name
// afterwards waits for that end.
void remove_live_temporaries_and_hold() noexcept;

}  // namespace smoe
