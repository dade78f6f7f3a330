#include "kernels/nccl.h"

#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include "kernels/shared_library.h"

namespace smoe {
namespace {

struct Library {
  cuda::SharedLibrary file{"libnccl.so.2", "NVIDIA's NCCL 2 (the package libnccl2, or the wheel nvidia-nccl-cu13)"};
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRank) init_rank;
  decltype(&ncclCommDestroy) destroy;
  decltype(&ncclCommAbort) abort;
  decltype(&ncclCommGetAsyncError) async_error;
  decltype(&ncclGetErrorString) error_string;
  decltype(&ncclGetLastError) last_error;
  decltype(&ncclAllReduce) all_reduce;
  decltype(&ncclAllGather) all_gather;
  decltype(&ncclReduceScatter) reduce_scatter;
  decltype(&ncclBroadcast) broadcast;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) receive;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;

  Library() {
    // Groups on two streams: their collectives start in the order of the calls on every rank (NCCL 2.26 and later).
    setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
    file.find(get_version, "ncclGetVersion");
    file.find(get_unique_id, "ncclGetUniqueId");
    file.find(init_rank, "ncclCommInitRank");
    file.find(destroy, "ncclCommDestroy");
    file.find(abort, "ncclCommAbort");
    file.find(async_error, "ncclCommGetAsyncError");
    file.find(error_string, "ncclGetErrorString");
    file.find(last_error, "ncclGetLastError");
    file.find(all_reduce, "ncclAllReduce");
    file.find(all_gather, "ncclAllGather");
    file.find(reduce_scatter, "ncclReduceScatter");
    file.find(broadcast, "ncclBroadcast");
    file.find(send, "ncclSend");
    file.find(receive, "ncclRecv");
    file.find(group_start, "ncclGroupStart");
    file.find(group_end, "ncclGroupEnd");
  }

  std::string text_of(ncclResult_t code, ncclComm_t comm) const {
    std::string text = error_string(code);
    if (const char* more = last_error(comm); more && *more) text += std::string(" (") + more + ")";
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
  }
  void expect(ncclResult_t code, const char* what, ncclComm_t comm = nullptr) const {
    if (code != ncclSuccess) throw std::runtime_error(std::string("nccl: ") + what + ": " + text_of(code, comm));
  }
};

ncclDataType_t type_of(DType type) {
  switch (type) {
    case DType::f32: return ncclFloat32;
    case DType::bf16: return ncclBfloat16;
    case DType::i32: return ncclInt32;
    case DType::f64: return ncclFloat64;
  }
  throw std::logic_error("nccl: no such type");
}

cudaStream_t on(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

std::string nccl_missing() {
  try {
    const Library library;
    return {};
  } catch (const std::exception& error) {
    return error.what();
  }
}

struct NcclGroup::Comm {
  Library library;
  ncclComm_t handle = nullptr;
  std::atomic<bool> aborted = false;
};

NcclGroup::Id NcclGroup::make_id() {
  const Library library;
  ncclUniqueId made;
  library.expect(library.get_unique_id(&made), "an address for the ranks of a group");
  static_assert(sizeof made.internal == sizeof(Id));
  Id id;
  std::copy(std::begin(made.internal), std::end(made.internal), id.begin());
  return id;
}

int NcclGroup::version() {
  const Library library;
  int number = 0;
  library.expect(library.get_version(&number), "its version");
  return number;
}

NcclGroup::NcclGroup(const Id& id, int size, int rank) : comm_(new Comm) {
  ncclUniqueId address;
  std::copy(id.begin(), id.end(), std::begin(address.internal));
  comm_->library.expect(comm_->library.init_rank(&comm_->handle, size, address, rank), "a group of ranks");
}

NcclGroup::~NcclGroup() {
  if (comm_->handle && !comm_->aborted) comm_->library.destroy(comm_->handle);
}

void NcclGroup::all_reduce(void* x, std::size_t n, DType type, Op op, void* stream) {
  const ncclRedOp_t how = op == Op::sum ? ncclSum : ncclMax;
  comm_->library.expect(comm_->library.all_reduce(x, x, n, type_of(type), how, comm_->handle, on(stream)), "all_reduce",
                        comm_->handle);
}

void NcclGroup::all_gather(const void* in, void* out, std::size_t n_of_a_rank, DType type, void* stream) {
  comm_->library.expect(comm_->library.all_gather(in, out, n_of_a_rank, type_of(type), comm_->handle, on(stream)),
                        "all_gather", comm_->handle);
}

void NcclGroup::reduce_scatter(const void* in, void* out, std::size_t n_of_a_rank, DType type, void* stream) {
  comm_->library.expect(
      comm_->library.reduce_scatter(in, out, n_of_a_rank, type_of(type), ncclSum, comm_->handle, on(stream)),
      "reduce_scatter", comm_->handle);
}

void NcclGroup::broadcast(void* x, std::size_t n, DType type, int root, void* stream) {
  comm_->library.expect(comm_->library.broadcast(x, x, n, type_of(type), root, comm_->handle, on(stream)), "broadcast",
                        comm_->handle);
}

void NcclGroup::begin() { comm_->library.expect(comm_->library.group_start(), "a call of several", comm_->handle); }

void NcclGroup::send(const void* from, std::size_t bytes, int to_rank, void* stream) {
  comm_->library.expect(comm_->library.send(from, bytes, ncclInt8, to_rank, comm_->handle, on(stream)), "send",
                        comm_->handle);
}

void NcclGroup::receive(void* to, std::size_t bytes, int from_rank, void* stream) {
  comm_->library.expect(comm_->library.receive(to, bytes, ncclInt8, from_rank, comm_->handle, on(stream)), "receive",
                        comm_->handle);
}

void NcclGroup::end() { comm_->library.expect(comm_->library.group_end(), "a call of several", comm_->handle); }

std::string NcclGroup::trouble() const noexcept {
  if (comm_->aborted) return {};
  ncclResult_t code = ncclSuccess;
  const ncclResult_t asked = comm_->library.async_error(comm_->handle, &code);
  if (asked == ncclSuccess && (code == ncclSuccess || code == ncclInProgress)) return {};
  return "nccl: " + comm_->library.text_of(asked == ncclSuccess ? code : asked, comm_->handle);
}

void NcclGroup::abort() noexcept {
  if (!comm_->aborted.exchange(true)) comm_->library.abort(comm_->handle);
}

}  // namespace smoe
