#include "parallel/mpi_session.h"

#define OMPI_SKIP_MPICXX 1  // the C interface only
#include <mpi.h>

#include <cstdlib>
#include <stdexcept>
#include <string_view>

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

}  // namespace

MpiSession::MpiSession(int* argc, char*** argv) : checks_calls_(wants_checks()), ledger_(std::make_unique<NoLedger>()) {
  int provided = 0;
  if (MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS)
    throw std::runtime_error("MPI could not be initialised; run alone or through mpirun, and check the Open MPI installation");
  if (provided < MPI_THREAD_MULTIPLE)
    throw std::runtime_error("this MPI library was built without threads; smoe needs MPI_THREAD_MULTIPLE");
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  MPI_Comm node;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &local_rank_);
  MPI_Comm_size(node, &local_size_);
  MPI_Comm_free(&node);
}

MpiSession::~MpiSession() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized) MPI_Finalize();
}

void MpiSession::abort(int status) {
  MPI_Abort(MPI_COMM_WORLD, status);
  std::abort();
}

}  // namespace smoe
