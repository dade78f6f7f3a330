// How fast training goes: steps and tokens over the time since the last report, without what is not training.
#pragma once

#include <cstdint>

#include "trainer/stopwatch.h"

namespace smoe {

class RateMeter {
 public:
  // Not counted for as long as it lives: an evaluation, a save. The meter must outlive it.
  class Pause {
   public:
    explicit Pause(RateMeter& meter) : meter_(meter) {}
    ~Pause() { meter_.since_ += Clock::now() - start_; }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    RateMeter& meter_;
    Clock::time_point start_ = Clock::now();
  };

  void count_step(std::int64_t tokens) {
    ++steps_;
    tokens_ += tokens;
  }
  void restart() { *this = RateMeter(); }

  double seconds() const { return seconds_since(since_); }
  double tokens_per_second() const { return static_cast<double>(tokens_) / seconds(); }
  double seconds_per_step() const { return seconds() / static_cast<double>(steps_); }  // not finite before the first

 private:
  Clock::time_point since_ = Clock::now();
  std::int64_t steps_ = 0, tokens_ = 0;
};

}  // namespace smoe
