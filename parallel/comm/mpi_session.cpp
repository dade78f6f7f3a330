#include "parallel/comm/mpi_session.h"

#define OMPI_SKIP_MPICXX 1  // the C interface only
#include <fcntl.h>
#include <mpi.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "parallel/comm/collective_observer.h"
#include "parallel/comm/device_calls.h"
#include "parallel/comm/node_ledger.h"
#include "parallel/comm/watchdog.h"

namespace smoe {
namespace {

class NoLedger final : public Ledger {
 public:
  void enter(const CollectiveCall&) override {}
  void waits_for(std::span<const int>) override {}
  void leave() override {}
};

bool wants_checks() {
#ifndef NDEBUG
  return true;
#else
  const char* wanted = std::getenv("SMOE_CHECK_COLLECTIVES");
  return wanted && std::string_view(wanted) == "1";
#endif
}

// Maps the named shared memory, which one rank makes. Null on failure, with the reason in errno.
void* map_shared(const char* name, bool make, std::size_t bytes) {
  const int fd = ::shm_open(name, make ? O_CREAT | O_EXCL | O_RDWR : O_RDWR, 0600);
  if (fd < 0) return nullptr;
  // Reserved now, because a full /dev/shm would otherwise kill whoever writes there first.
  const int reserved = make ? ::posix_fallocate(fd, 0, static_cast<off_t>(bytes)) : 0;
  void* const memory = reserved == 0 ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  const int error = reserved ? reserved : errno;
  ::close(fd);
  errno = error;
  return memory == MAP_FAILED ? nullptr : memory;
}

// Memory of this many bytes, zero, that the ranks of a node share. Its name is gone before this returns, so nothing is
// left behind however the ranks end.
std::shared_ptr<void> share_memory(MPI_Comm node, std::size_t bytes) {
  int local_rank = 0;
  MPI_Comm_rank(node, &local_rank);
  std::array<char, 64> name{};
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  std::snprintf(name.data(), name.size(), "/smoe-%d-%lld%09ld", static_cast<int>(::getpid()),
                static_cast<long long>(now.tv_sec), now.tv_nsec);
  MPI_Bcast(name.data(), static_cast<int>(name.size()), MPI_CHAR, 0, node);

  void* memory = local_rank == 0 ? map_shared(name.data(), true, bytes) : nullptr;
  int error = local_rank == 0 && !memory ? errno : 0;
  MPI_Barrier(node);
  if (local_rank != 0) memory = map_shared(name.data(), false, bytes);
  if (local_rank != 0 && !memory) error = errno;
  int worst = 0;
  MPI_Allreduce(&error, &worst, 1, MPI_INT, MPI_MAX, node);
  if (local_rank == 0) ::shm_unlink(name.data());
  if (worst)
    throw std::runtime_error("the ranks of a node cannot share " + std::to_string(bytes) +
                             " bytes of memory in /dev/shm: " + std::strerror(worst) +
                             "; make room there, or let all ranks of a node see the same /dev/shm");
  return {memory, [bytes](void* p) { ::munmap(p, bytes); }};
}

}  // namespace

MpiSession::MpiSession(int* argc, char*** argv)
    : checks_calls_(wants_checks()), ledger_(std::make_unique<ObservedLedger>(std::make_unique<NoLedger>())) {
  int provided = 0;
  if (MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS)
    throw std::runtime_error("MPI could not be initialised; start the ranks with the mpirun of the same Open MPI");
  if (provided < MPI_THREAD_MULTIPLE)
    throw std::runtime_error("this MPI library was built without threads; smoe needs MPI_THREAD_MULTIPLE");
  // Messages are told apart by 23 bits of tag (mpi_communicator.h); MPI promises 15, libraries in use have 31.
  int* largest_tag = nullptr;
  int found = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &largest_tag, &found);
  if (!found || *largest_tag < (1 << 23))
    throw std::runtime_error("this MPI library has too few message tags: smoe needs 2^23");
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  if (size_ > 1)
    start_watchdog();
  else
    device_calls_ = std::make_unique<DeviceCalls>(*ledger_);
}

void MpiSession::start_watchdog() {
  MPI_Comm node;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &local_rank_);
  MPI_Comm_size(node, &local_size_);
  const auto make_ledger = [&] {
    return std::make_unique<NodeLedger>(share_memory(node, NodeLedger::bytes_for(local_size_)), local_size_,
                                        local_rank_, rank_);
  };
  auto ledger = make_ledger();
  device_ledger_ = make_ledger();
  MPI_Barrier(node);  // every line is filled in before anybody reads it
  MPI_Comm_free(&node);
  node_ledger_ = ledger.get();
  ledger_ = std::make_unique<ObservedLedger>(std::move(ledger));
  device_calls_ = std::make_unique<DeviceCalls>(*node_ledger_);  // a trace shows them where they run
  watchdog_ = std::make_unique<Watchdog>(
      *node_ledger_, local_size_ < size_, [] { MPI_Abort(MPI_COMM_WORLD, 1); },
      Watchdog::Devices{device_ledger_.get(), device_calls_.get()});
}

void MpiSession::slice(int slices) {
  if (slices < 1 || size_ % slices != 0)
    throw std::invalid_argument(std::to_string(slices) + " slices of " + std::to_string(size_) +
                                " ranks: the ranks must be a multiple of the slices");
  const int ranks = size_ / slices;
  first_rank_ = rank_ / ranks * ranks;
  rank_ -= first_rank_;
  size_ = ranks;
  read_place_on_node();
}

void MpiSession::rejoin() {
  wait_for_every_slice();
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  first_rank_ = 0;
  read_place_on_node();
}

void MpiSession::read_place_on_node() {
  MPI_Comm slice, node;
  MPI_Comm_split(MPI_COMM_WORLD, first_rank_, rank_, &slice);
  MPI_Comm_split_type(slice, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &local_rank_);
  MPI_Comm_size(node, &local_size_);
  MPI_Comm_free(&node);
  MPI_Comm_free(&slice);
}

// So that ranks that wait for one which has come here, or for one that never does, are still watched.
void MpiSession::wait_for_all_ranks() {
  node_ledger_->end_of_program();
  wait_for_every_slice();
}

// In no collective of the ledger's, which has a limit.
void MpiSession::wait_for_every_slice() {
  MPI_Request request;
  if (MPI_Ibarrier(MPI_COMM_WORLD, &request) != MPI_SUCCESS) return;
  for (int done = 0; MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done;) {
    const timespec nap{0, 200'000};
    ::nanosleep(&nap, nullptr);
  }
}

MpiSession::~MpiSession() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized) return;
  if (node_ledger_) wait_for_all_ranks();
  watchdog_.reset();
  MPI_Finalize();
}

void MpiSession::set_timeout(double seconds) {
  if (!(seconds >= 0))
    throw std::invalid_argument("a timeout of " + std::to_string(seconds) + " s: it must be 0 (none) or more");
  if (watchdog_) watchdog_->set_limit(seconds);
}

Ledger& MpiSession::ledger() { return *ledger_; }

void MpiSession::observe(CollectiveObserver* observer) {
  ledger_->observe(observer);
  device_calls_->observe(observer);
}

void MpiSession::abort(int status) {
  MPI_Abort(MPI_COMM_WORLD, status);
  std::abort();
}

LongWork::LongWork(MpiSession* session, std::string_view name) : ledger_(session ? session->node_ledger_ : nullptr) {
  if (ledger_) outer_ = ledger_->set_work(name);
}

LongWork::~LongWork() {
  if (ledger_) ledger_->set_work(outer_);
}

}  // namespace smoe
