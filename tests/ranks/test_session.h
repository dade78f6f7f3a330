// The MPI session of a test binary that runs under mpirun, and how its tests go over several layouts.
#pragma once

#include "parallel/comm/mpi_session.h"

namespace smoe {

MpiSession& test_session();

}  // namespace smoe
