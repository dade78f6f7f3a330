#include "trainer/signals.h"

#include <csignal>

namespace smoe {
namespace {
volatile std::sig_atomic_t last_signal = 0;
int alive = 0;
struct sigaction previous_term, previous_usr1;

void on_signal(int number) { last_signal = number; }
}  // namespace

StopSignals::StopSignals() {
  if (alive++ > 0) return;
  last_signal = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, &previous_term);
  sigaction(SIGUSR1, &action, &previous_usr1);
}

StopSignals::~StopSignals() {
  if (--alive > 0) return;
  sigaction(SIGTERM, &previous_term, nullptr);
  sigaction(SIGUSR1, &previous_usr1, nullptr);
}

int StopSignals::received() { return last_signal; }

}  // namespace smoe
