// MPI for the life of the process. The binary runs alone (`smoe ...`) or under `mpirun -n N smoe ...` alike.
#pragma once

#include <memory>

#include "parallel/ledger.h"

namespace smoe {

class MpiSession {
 public:
  // Initialises MPI with MPI_THREAD_MULTIPLE; throws std::runtime_error if the library grants less.
  MpiSession(int* argc, char*** argv);
  ~MpiSession();  // finalises
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  int local_rank() const { return local_rank_; }  // among the ranks of this node
  int local_size() const { return local_size_; }

  Ledger& ledger() { return *ledger_; }
  // Whether each collective first compares what the ranks of its group are about to call: in debug builds, or where
  // the environment has SMOE_CHECK_COLLECTIVES=1.
  bool checks_calls() const { return checks_calls_; }

  // Ends every rank of the job with this exit status, for failures that only one rank has seen.
  [[noreturn]] void abort(int status);

 private:
  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1;
  bool checks_calls_ = false;
  std::unique_ptr<Ledger> ledger_;
};

}  // namespace smoe
