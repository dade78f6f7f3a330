// MPI for the life of the process. The binary runs alone (`smoe ...`) or under `mpirun -n 1 smoe ...` alike.
#pragma once

namespace smoe {

class MpiSession {
 public:
  // Initialises MPI with MPI_THREAD_MULTIPLE; throws std::runtime_error if the library grants less than FUNNELED.
  MpiSession(int* argc, char*** argv);
  ~MpiSession();  // finalises
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  int local_size() const { return local_size_; }  // ranks on this node: threads are cores / local_size

  // Ends every rank of the job with this exit status, for failures that only one rank has seen.
  [[noreturn]] void abort(int status);

 private:
  int rank_ = 0, size_ = 1, local_size_ = 1;
};

}  // namespace smoe
