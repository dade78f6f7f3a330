#include "data/files/live_temporaries.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <map>
#include <string>

namespace smoe {
namespace {

std::atomic_flag list_is_held = ATOMIC_FLAG_INIT;

void hold_list() {
  while (list_is_held.test_and_set(std::memory_order_acquire)) sched_yield();
}

// Signals wait as long as a thread holds the list, so that no handler waits for the thread that it interrupts.
class HeldList {
 public:
  HeldList() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
    hold_list();
  }
  ~HeldList() {
    list_is_held.clear(std::memory_order_release);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  HeldList(const HeldList&) = delete;
  HeldList& operator=(const HeldList&) = delete;

 private:
  sigset_t before_;
};

// Made with the first name, and never destroyed: static objects may still have names when the program ends.
std::map<const void*, std::string>* live = nullptr;

}  // namespace

void add_live_temporary(const void* owner, const std::filesystem::path& path) {
  const HeldList held;
  if (!live) live = new std::map<const void*, std::string>;
  (*live)[owner] = path.string();
}

void drop_live_temporary(const void* owner) {
  const HeldList held;
  if (live) live->erase(owner);
}

void remove_live_temporaries_and_hold() noexcept {
  hold_list();
  if (!live) return;
  for (const auto& [owner, path] : *live) ::unlink(path.c_str());
}

}  // namespace smoe
