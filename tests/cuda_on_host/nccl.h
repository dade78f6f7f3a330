// As much of NCCL as kernels/cuda/nccl.cpp calls, in its names: collectives between processes of the host (nccl.cpp), and a record
// of the calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/device.h"

enum ncclResult_t {
  ncclSuccess = 0,
  ncclUnhandledCudaError = 1,
  ncclSystemError = 2,
  ncclInvalidArgument = 4,
  ncclInvalidUsage = 5,
  ncclRemoteError = 6,
  ncclInProgress = 7,
};
enum ncclDataType_t { ncclInt8 = 0, ncclInt32 = 2, ncclFloat32 = 7, ncclFloat64 = 8, ncclBfloat16 = 9 };
enum ncclRedOp_t { ncclSum = 0, ncclMax = 2 };
struct ncclUniqueId {
  char internal[128];
};
using ncclComm_t = struct ncclComm*;

ncclResult_t ncclGetVersion(int* version);
ncclResult_t ncclGetUniqueId(ncclUniqueId* id);
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error);
const char* ncclGetErrorString(ncclResult_t code);
const char* ncclGetLastError(ncclComm_t comm);
ncclResult_t ncclAllReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclAllGather(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream);
ncclResult_t ncclReduceScatter(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclBroadcast(const void* send, void* receive, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);
ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();

namespace cuda_on_host {

// Bytes for a rank of a group, or from it.
struct Parcel {
  int peer;
  const void* from;
  void* to;
  std::size_t bytes;
};
// What brings bytes from rank to rank. Called when the stream comes to it.
class Wire {
 public:
  virtual ~Wire() = default;
  virtual void fill(ncclUniqueId& id) = 0;
  virtual int join(const ncclUniqueId& id, int size, int rank) = 0;  // a number for the group
  // Of this rank: to each peer at most one parcel, and from each; none to itself.
  virtual void exchange(int group, int rank, const std::vector<Parcel>& sent, const std::vector<Parcel>& received) = 0;
};
// Without one (null), the other ranks of a group are this one's mirror: what it sends to a rank comes from there.
void set_wire(std::unique_ptr<Wire> wire);

struct NcclCall {
  std::string name;  // "all_gather"
  std::size_t count = 0;
  ncclDataType_t type{};
  int peer = -1;  // of a send or receive; the root of a broadcast
  const void* from = nullptr;
  void* to = nullptr;
  Stream* stream = nullptr;
  int together = 0;  // calls between a start and an end of a group have one number above 0
  bool operator==(const NcclCall&) const = default;
};
inline void PrintTo(const NcclCall& call, std::ostream* out) {
  *out << call.name << " of " << call.count << ", peer " << call.peer << ", from " << call.from << " to " << call.to
       << ", together " << call.together;
}
std::vector<NcclCall> take_nccl_calls();  // since the last time

struct NcclState {
  int version = 22809;
  bool installed = true;
  ncclResult_t async_error = ncclSuccess;  // what every group answers when it is asked
  int groups = 0, aborted = 0;             // alive; ended by ncclCommAbort
  int failing_send = 0;                    // the how-manieth from now on fails; 0: none
};
NcclState& nccl();
void* nccl_function_named(const std::string& name);  // or nullptr

}  // namespace cuda_on_host
