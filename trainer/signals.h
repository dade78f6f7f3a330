// SIGTERM and SIGUSR1 ask a run to save at the next step boundary and end with status 18 (schedulers send one of them
// before they kill). The handler only sets a flag.
#pragma once

namespace smoe {

inline constexpr int preempted_status = 18;

// Installs the handlers for as long as it lives, and puts the earlier ones back. May be nested: the outermost counts, and a
// signal that it has received stays received until it goes. So a process that runs one training after another inside one of
// these ends all of them at a signal; without an outer one each training begins with none received.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  static int received();  // the signal's number, 0: none yet
};

}  // namespace smoe
