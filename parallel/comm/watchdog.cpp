#include "parallel/comm/watchdog.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <string>

#include "kernels/stamp.h"
#include "parallel/comm/stall_report.h"

namespace smoe {
namespace {

constexpr double period = 0.1;              // between two looks, in seconds
constexpr double longest_step = 0.4;        // of the watchdog's clock in one look: the rest, it was not awake
constexpr double other_nodes_report = 0.3;  // time for them to see what this node has seen
constexpr double reporter_patience = 2;     // for a rank that claimed the report, and for the end of the job

void write_to_stderr(const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(STDERR_FILENO, text.data() + done, text.size() - done);
    if (n <= 0) return;
    done += static_cast<std::size_t>(n);
  }
}

std::string node_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

// What the system says of a process that cannot answer, or "" where it says that it runs.
std::string trouble_of_process(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string stat;
  if (!std::getline(file, stat)) return "";
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos || name_end + 2 >= stat.size()) return "";
  switch (stat[name_end + 2]) {
    case 'T': return "is stopped";
    case 't': return "is held by a debugger";
    case 'Z':
    case 'X': return "has died";
    default: return "";
  }
}

}  // namespace

Watchdog::Watchdog(NodeLedger& ledger, bool other_nodes, std::function<void()> end_job, const Devices& devices)
    : ledger_(ledger),
      devices_(devices),
      other_nodes_(other_nodes),
      end_job_(std::move(end_job)),
      seen_(static_cast<std::size_t>(ledger.ranks())) {
  // Signals are for the thread that trains.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  if (devices_.calls) device_thread_ = std::thread([this] { ask_device(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  if (device_thread_.joinable()) device_thread_.join();
  ledger_.set_heartbeat(NodeLedger::no_more_heartbeats);
}

bool Watchdog::sleep(double seconds) {
  std::unique_lock lock(mutex_);
  return !wake_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return stopping_; });
}

void Watchdog::run() {
  std::int64_t last = host_nanoseconds();
  while (sleep(period)) {
    const std::int64_t now = host_nanoseconds();
    clock_ += std::min(1e-9 * static_cast<double>(now - last), longest_step);
    last = now;
    ledger_.set_heartbeat(now);
    if (ledger_.report_is_claimed()) return end_after_report();
    if (const std::string trouble = trouble_of_device(); !trouble.empty() && ledger_.claim_report()) {
      write_to_stderr("\nsmoe: rank " + std::to_string(ledger_.world_rank(ledger_.own_line())) + ": " + trouble +
                      "; the job ends with status 1\n");
      ledger_.set_reported();
      return end_job();
    }
    look();
    const double limit = limit_;
    if (limit <= 0 || !is_stuck(limit) || !ledger_.claim_report()) continue;
    write_to_stderr(report(limit));
    ledger_.set_reported();
    return end_job();
  }
}

void Watchdog::ask_device() {
  while (sleep(period)) {
    const std::string trouble = devices_.calls->look(*devices_.ledger);
    if (trouble.empty()) continue;
    const std::lock_guard lock(mutex_);
    device_trouble_ = trouble;
    return;
  }
}

std::string Watchdog::trouble_of_device() {
  const std::lock_guard lock(mutex_);
  return device_trouble_;
}

void Watchdog::look() {
  bool long_work = false;
  for (int line = 0; line < ledger_.ranks(); ++line) {
    Seen& seen = seen_[static_cast<std::size_t>(line)];
    if (const std::int64_t heartbeat = ledger_.heartbeat(line); heartbeat != seen.heartbeat) {
      seen.heartbeat = heartbeat;
      seen.heartbeat_at = clock_;
    }
    const LedgerEntry entry = ledger_.read(line);
    if (entry.number != seen.entry.number || entry.place != seen.entry.place) seen.entry_at = clock_;
    seen.entry = entry;
    if (devices_.ledger) {
      const LedgerEntry device = devices_.ledger->read(line);
      if (device.number != seen.device.number || device.place != seen.device.place) seen.device_at = clock_;
      seen.device = device;
    }
    long_work = long_work || entry.work[0] != 0;
  }
  // A rank may wait for one whose long work has just ended: it gets the whole limit for what is left.
  if (Seen& own = seen_[static_cast<std::size_t>(ledger_.own_line())]; long_work != long_work_)
    own.entry_at = own.device_at = clock_;
  long_work_ = long_work;
}

bool Watchdog::is_stuck(double limit) const {
  const Seen& own = seen_[static_cast<std::size_t>(ledger_.own_line())];
  const double patience = long_work_ ? std::max(limit, long_limit) : limit;
  if (own.entry.place == Place::inside && clock_ - own.entry_at > patience) return true;
  if (own.device.place == Place::inside && clock_ - own.device_at > patience) return true;
  const auto is_silent = [&](const Seen& seen) {
    return seen.heartbeat != NodeLedger::no_more_heartbeats && clock_ - seen.heartbeat_at > limit;
  };
  return std::any_of(seen_.begin(), seen_.end(), is_silent) &&
         std::any_of(seen_.begin(), seen_.end(), [](const Seen& seen) { return seen.entry.place != Place::outside; });
}

std::string Watchdog::report(double limit) const {
  std::vector<RankState> ranks;
  for (int line = 0; line < ledger_.ranks(); ++line) {
    const Seen& seen = seen_[static_cast<std::size_t>(line)];
    RankState& r = ranks.emplace_back();
    r.rank = ledger_.world_rank(line);
    r.pid = ledger_.pid(line);
    r.entry = seen.entry;
    r.device = seen.device;
    r.device_seconds = 1e-9 * static_cast<double>(host_nanoseconds() - seen.device.since_ns);
    r.seconds = 1e-9 * static_cast<double>(host_nanoseconds() - seen.entry.since_ns);
    if (seen.heartbeat == NodeLedger::no_more_heartbeats) continue;
    // The others may have waited for as long as the limit before the silence itself is that old.
    r.silent = clock_ - seen.heartbeat_at;
    r.process = trouble_of_process(r.pid);
    r.answers = r.silent < limit / 2 && r.process.empty();
  }
  std::sort(ranks.begin(), ranks.end(), [](const RankState& a, const RankState& b) { return a.rank < b.rank; });
  return stall_report(ranks, limit, node_name());
}

void Watchdog::end_job() {
  if (other_nodes_) std::this_thread::sleep_for(std::chrono::duration<double>(other_nodes_report));
  std::thread([] {
    std::this_thread::sleep_for(std::chrono::duration<double>(reporter_patience));
    ::_exit(1);
  }).detach();
  end_job_();
  ::_exit(1);
}

// Another rank of the node speaks and ends the job. This one goes even if it is not ended: a program that catches
// SIGTERM would live on for a second, and the speaker may have frozen.
void Watchdog::end_after_report() {
  for (double waited = 0; waited < reporter_patience && !ledger_.is_reported(); waited += period)
    if (!sleep(period)) return;
  if (sleep((other_nodes_ ? other_nodes_report : 0) + 2 * period)) ::_exit(1);
}

}  // namespace smoe
