#pragma once

#include <string_view>

namespace smoe {

std::string_view version();  // major.minor.patch, from the build

}  // namespace smoe
