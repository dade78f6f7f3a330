// The parts of the watchdog, one by one; watchdog_test.sh tries whole jobs.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/comm/node_ledger.h"
#include "parallel/comm/stall_report.h"
#include "parallel/comm/watchdog.h"
#include "tests/ranks/test_session.h"

namespace smoe {
namespace {

using Clock = std::chrono::steady_clock;

std::shared_ptr<void> memory_for(int ranks) {
  const std::size_t bytes = NodeLedger::bytes_for(ranks);
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("no memory to share");
  return {memory, [bytes](void* p) { ::munmap(p, bytes); }};
}

// ---- the ledger

// Calls whose every field tells their number.
std::string text_of(std::uint64_t number, std::size_t length) {
  return std::string(length, static_cast<char>('a' + number % 26));
}

[[noreturn]] void enter_and_leave_for_ever(NodeLedger& ledger) {
  std::vector<std::string> operations, labels;
  for (std::uint64_t i = 0; i < 26; ++i) operations.push_back(text_of(i, 20)), labels.push_back(text_of(i, 60));
  for (std::uint64_t number = 1;; ++number) {
    const std::array awaited{static_cast<int>(number), static_cast<int>(number) + 1};
    ledger.enter({operations[number % 26], "world", labels[number % 26], "f32", static_cast<std::int64_t>(number)});
    ledger.waits_for(awaited);
    ledger.leave();
  }
}

void expect_whole(const LedgerEntry& entry) {
  if (entry.number == 0) return;
  ASSERT_EQ(entry.operation.data(), text_of(entry.number, 20));
  ASSERT_EQ(entry.label.data(), text_of(entry.number, 60));
  ASSERT_EQ(entry.elements, static_cast<std::int64_t>(entry.number));
  if (entry.awaited_count == 0) return;
  ASSERT_EQ(entry.place, Place::inside);
  ASSERT_EQ(entry.awaited_count, 2u);
  ASSERT_EQ(entry.awaited[0], static_cast<int>(entry.number));
  ASSERT_EQ(entry.awaited[1], static_cast<int>(entry.number) + 1);
}

TEST(NodeLedger, IsReadWholeWhereverItsWriterIsOrWasStopped) {
  const auto memory = memory_for(2);
  const pid_t writer = ::fork();
  ASSERT_GE(writer, 0);
  if (writer == 0) {
    NodeLedger ledger(memory, 2, 0, 0);
    enter_and_leave_for_ever(ledger);
  }
  const std::shared_ptr<void> end_of_test(nullptr, [writer](void*) {
    ::kill(writer, SIGKILL);
    ::waitpid(writer, nullptr, 0);
  });
  const NodeLedger reader(memory, 2, 1, 1);
  for (int stop = 0; stop < 300; ++stop) {
    // While it runs; and it has to get on between two stops.
    const std::uint64_t before = reader.read(0).number;
    const auto deadline = Clock::now() + std::chrono::seconds(10);
    LedgerEntry entry;
    for (int i = 0; i < 200 || entry.number < before + 10; ++i) {
      entry = reader.read(0);
      expect_whole(entry);
      ASSERT_LT(Clock::now(), deadline) << "the writer does not get on";
    }
    ASSERT_EQ(::kill(writer, SIGSTOP), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(writer, &status, WUNTRACED), writer);
    ASSERT_TRUE(WIFSTOPPED(status));
    expect_whole(reader.read(0));
    ASSERT_EQ(::kill(writer, SIGCONT), 0);
    if (HasFatalFailure()) break;
  }
}

TEST(NodeLedger, CutsWhatIsLongerThanItsFieldsAndCountsAllThatIsAwaited) {
  NodeLedger ledger(memory_for(1), 1, 0, 7);
  std::vector<int> awaited(40);
  std::iota(awaited.begin(), awaited.end(), 100);
  ledger.enter({text_of(0, 200), text_of(1, 200), text_of(2, 200), text_of(3, 200), 5});
  ledger.waits_for(awaited);
  LedgerEntry entry = ledger.read(0);
  EXPECT_EQ(entry.operation.data(), text_of(0, entry.operation.size() - 1));
  EXPECT_EQ(entry.axis.data(), text_of(1, entry.axis.size() - 1));
  EXPECT_EQ(entry.label.data(), text_of(2, entry.label.size() - 1));
  EXPECT_EQ(entry.type.data(), text_of(3, entry.type.size() - 1));
  EXPECT_EQ(entry.awaited_count, 40u);
  EXPECT_EQ(entry.awaited.back(), 115);
  EXPECT_EQ(entry.place, Place::inside);
  ledger.leave();
  entry = ledger.read(0);
  EXPECT_EQ(entry.place, Place::outside);
  EXPECT_EQ(entry.awaited_count, 0u);
  EXPECT_EQ(entry.number, 1u);
  EXPECT_EQ(ledger.world_rank(0), 7);
  EXPECT_EQ(ledger.pid(0), ::getpid());
}

TEST(NodeLedger, LetsOneRankSpeak) {
  const auto memory = memory_for(2);
  NodeLedger a(memory, 2, 0, 0), b(memory, 2, 1, 1);
  EXPECT_FALSE(b.report_is_claimed());
  EXPECT_TRUE(a.claim_report());
  EXPECT_FALSE(b.claim_report());
  EXPECT_TRUE(b.report_is_claimed());
  EXPECT_FALSE(b.is_reported());
  a.set_reported();
  EXPECT_TRUE(b.is_reported());
}

TEST(NodeLedger, CostsLittle) {
  NodeLedger ledger(memory_for(1), 1, 0, 0);
  constexpr int calls = 20000;
  const auto start = Clock::now();
  for (int i = 0; i < calls; ++i) {
    ledger.enter({"reduce_scatter", "edp", "gradients.experts", "f32", i});
    ledger.leave();
  }
  const double microseconds = 1e6 * std::chrono::duration<double>(Clock::now() - start).count() / calls;
  RecordProperty("microseconds", std::to_string(microseconds));
  EXPECT_LT(microseconds, 5.0) << "for one enter and leave; about 0.2 where nothing else runs";
}

// ---- the report

RankState state(int rank, Place place, std::string_view label, std::vector<int> awaited = {},
                std::uint64_t number = 9) {
  NodeLedger ledger(memory_for(1), 1, 0, rank);
  for (std::uint64_t i = 1; i < number; ++i) ledger.enter({"barrier", "dp", "before", "none", 0});
  ledger.enter({"all_gather", "tp", label, "f32", 12});
  ledger.waits_for(awaited);
  if (place == Place::outside) ledger.leave();
  RankState r;
  r.rank = rank;
  r.pid = 1000 + rank;
  r.entry = ledger.read(0);
  r.seconds = 5;
  return r;
}

bool holds(const std::string& report, const std::string& part) { return report.find(part) != std::string::npos; }

TEST(StallReport, NamesTheRankThatDoesNotAnswerAndWhoWaitsForIt) {
  std::vector ranks{state(0, Place::inside, "x", {2}), state(1, Place::inside, "x", {2}),
                    state(2, Place::outside, "x", {}, 8)};
  ranks[2].answers = false;
  ranks[2].silent = 4.9;
  std::string report = stall_report(ranks, 5, "a");
  EXPECT_TRUE(holds(report, "  rank 2 does not answer: no sign of life for 4.9 s, stopped? (pid 1002)\n")) << report;
  EXPECT_TRUE(holds(report, "  ranks 0 and 1 wait for rank 2 in number 9: all_gather 'x' over tp, 12 of f32\n"))
      << report;
  EXPECT_TRUE(
      holds(report, "    rank 1: number 9: all_gather 'x' over tp, 12 of f32, inside for 5.0 s, waiting for rank 2\n"))
      << report;
  EXPECT_TRUE(holds(report, "    rank 2: number 8: all_gather 'x' over tp, 12 of f32, done 5.0 s ago\n")) << report;
  EXPECT_FALSE(holds(report, "diverged")) << report;
  ranks[2].process = "is stopped";
  EXPECT_TRUE(holds(stall_report(ranks, 5, "a"),
                    "  rank 2 does not answer: its process is stopped (pid 1002, no sign of life for 4.9 s)\n"));
}

TEST(StallReport, BlamesTheFewerOfTwoThatDiffer) {
  const std::vector ranks{state(0, Place::inside, "x", {1}), state(1, Place::inside, "y", {0, 2}),
                          state(2, Place::inside, "x", {1})};
  const std::string report = stall_report(ranks, 5, "a");
  EXPECT_TRUE(
      holds(report, "  rank 1 diverged: it is not in all_gather 'x' over tp, but in number 9: all_gather 'y' over tp"))
      << report;
  EXPECT_FALSE(holds(report, "rank 0 diverged")) << report;
  EXPECT_FALSE(holds(report, "rank 2 diverged")) << report;
}

TEST(StallReport, DoesNotBlameARankThatWaitsItself) {
  const std::vector ranks{state(0, Place::inside, "x", {1}), state(1, Place::inside, "y", {2}),
                          state(2, Place::outside, "z", {}, 7)};
  const std::string report = stall_report(ranks, 5, "a");
  EXPECT_FALSE(holds(report, "rank 1 diverged")) << report;
  EXPECT_TRUE(
      holds(report, "  rank 2 diverged: it is not in all_gather 'y' over tp, but outside any collective, for 5.0 s\n"))
      << report;
}

TEST(StallReport, SaysWhereNobodyOfTheNodeIsAtFault) {
  std::vector ranks{state(0, Place::inside, "x", {1, 9}), state(1, Place::inside, "x", {9})};
  const std::string report = stall_report(ranks, 5, "a");
  EXPECT_TRUE(holds(report, "  rank 0 waits for ranks 1 and 9 in number 9")) << report;
  EXPECT_TRUE(holds(report, "other nodes")) << report;
}

// ---- the session

TEST(Watchdog, StopsAtOnce) {
  NodeLedger ledger(memory_for(1), 1, 0, 0);
  const auto start = Clock::now();
  for (int i = 0; i < 5; ++i) Watchdog(ledger, false, [] { FAIL() << "the job was ended"; }, {}).set_limit(0.001);
  EXPECT_LT(std::chrono::duration<double>(Clock::now() - start).count(), 0.25) << "five of them; one period is 0.1 s";
}

TEST(WatchdogBadInput, ATimeoutBelowZeroIsRefused) {
  EXPECT_THROW(test_session().set_timeout(-1), std::invalid_argument);
  EXPECT_THROW(test_session().set_timeout(std::numeric_limits<double>::quiet_NaN()), std::invalid_argument);
  EXPECT_NO_THROW(test_session().set_timeout(0));
  EXPECT_NO_THROW(test_session().set_timeout(60));
}

// Every difference is refused on all ranks of the group, with what each of them called, and the group goes on after.
TEST(CheckedCollectives, ThatDifferAreRefusedOnAllRanks) {
  ASSERT_TRUE(test_session().checks_calls()) << "run with SMOE_CHECK_COLLECTIVES=1";
  const Mesh mesh = Mesh::over(test_session(), {.ranks = test_session().size()});
  Communicator& world = mesh.group(Axis::world);
  const bool odd = world.rank() == world.size() - 1;
  std::vector<float> numbers(64), all(64 * static_cast<std::size_t>(world.size()));
  std::vector<std::int32_t> integers(64);
  const auto floats = [&](std::int64_t n) { return Tensor(numbers.data(), DType::f32, {n}); };
  const Tensor ints(integers.data(), DType::i32, {64});
  const Tensor gathered(all.data(), DType::f32, {static_cast<std::int64_t>(all.size())});
  const auto expect_refused = [&](const std::string& usual, const std::string& different, const auto& call) {
    try {
      call();
      ADD_FAILURE() << different << " was taken for " << usual;
    } catch (const std::logic_error& error) {
      const std::string message = error.what();
      EXPECT_TRUE(holds(message, "rank 0: " + usual)) << message;
      EXPECT_TRUE(holds(message, "rank " + std::to_string(world.size() - 1) + ": " + different)) << message;
    }
    std::vector<double> sum{1};
    world.all_reduce(sum, Reduce::sum, "test.after");
    EXPECT_EQ(sum[0], world.size());
  };
  expect_refused("all_reduce 'a' over world, 64 of f32", "all_reduce 'a' over world, 63 of f32",
                 [&] { world.all_reduce(floats(odd ? 63 : 64), Reduce::sum, "a"); });
  expect_refused("all_reduce 'a' over world, 64 of f32", "all_reduce 'b' over world, 64 of f32",
                 [&] { world.all_reduce(floats(64), Reduce::sum, odd ? "b" : "a"); });
  expect_refused("all_reduce 'a' over world, 64 of f32", "all_reduce 'a' over world, 64 of i32",
                 [&] { world.all_reduce(odd ? ints : floats(64), Reduce::sum, "a"); });
  expect_refused("all_reduce 'a' over world, 64 of f32", "all_reduce max 'a' over world, 64 of f32",
                 [&] { world.all_reduce(floats(64), odd ? Reduce::max : Reduce::sum, "a"); });
  expect_refused("all_gather 'a' over world, 64 of f32", "broadcast 'a' over world, 64 of f32", [&] {
    if (odd)
      world.broadcast(floats(64), 0, "a");
    else
      world.all_gather(floats(64), gathered, "a");
  });
}

}  // namespace
}  // namespace smoe
