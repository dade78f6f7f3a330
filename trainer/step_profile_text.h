// A step's profile in words: what bounds the configuration, the table that people read, and the object that tools read.
#pragma once

#include <string>
#include <string_view>

#include "trainer/step_profile.h"

namespace smoe {

enum class Limit {
  arithmetic,     // products and attention, near what the cores can do
  slow_products,  // products and attention, far from it
  memory,         // ops that move numbers
  small_work,     // products of few rows, and ops too short for the threads to start
  outside,        // time between the ops
  mixed,          // none of these alone
};
std::string_view name_of(Limit limit);

// The step's time by what an op is held against. Shares add up to 1.
struct TimeShares {
  double matrix = 0, memory = 0, small = 0, outside = 0;
  double update = 0;                                        // of `memory`: gradient norm and AdamW
  double matrix_rate = 0, memory_rate = 0, small_rate = 0;  // share of the ceiling that they reach together
};

// What decides, in shares of the step's time.
constexpr double least_outside = 0.25, least_small = 0.25, least_memory = 0.35, least_matrix = 0.5;
// Small: a call shorter than this, or a product of fewer rows than that, which reaches less than half of its ceiling.
constexpr double short_call_seconds = 50e-6, small_rate = 0.5;
constexpr std::int64_t few_rows = 64;
// Products and attention slower than this share of the cores' rate are not limited by the cores.
constexpr double least_matrix_rate = 0.6;
// Likewise ops that move numbers, and the memory's rate.
constexpr double least_memory_rate = 0.5;

// Threads that ran less than this share of the time waited: for cores that others held, or for each other.
constexpr double least_cpu_share = 0.8;
// Generation that reads its weights faster than this share of the memory's rate is bound by it.
constexpr double memory_bound_generation = 0.6;

TimeShares time_shares(const StepProfile& profile);

struct Verdict {
  Limit limit = Limit::mixed;
  std::string sentence;  // what bounds the step, with the numbers, and what would change it
};
Verdict judge(const StepProfile& profile);

// Device, rates, step, the ops by time and the verdict; lines of text.
std::string describe(const StepProfile& profile);
// One object on one line; docs/formats.md has its keys.
std::string to_json_line(const StepProfile& profile);

}  // namespace smoe
