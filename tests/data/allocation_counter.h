// Calls of operator new in this test binary so far, by all threads (allocation_counter.cpp replaces the operator).
#pragma once

#include <cstdint>

namespace smoe::test {

std::int64_t allocations();

}  // namespace smoe::test
