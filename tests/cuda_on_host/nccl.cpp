// NCCL by messages between processes. Sums are made as a device would make them: in the order of the ranks, bf16 rounded at every
// step, which is what our own sums of bf16 are there to avoid.
#include "nccl.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <stdexcept>

#include "kernels/bf16.h"

struct ncclComm {
  int group, size, rank;
};

namespace cuda_on_host {
namespace {

class Mirror final : public Wire {
 public:
  void fill(ncclUniqueId& id) override { id.internal[0] = 1; }
  int join(const ncclUniqueId&, int, int) override { return 0; }
  void exchange(int, int, const std::vector<Parcel>& sent, const std::vector<Parcel>& received) override {
    for (const Parcel& in : received) {
      const auto out = std::find_if(sent.begin(), sent.end(), [&](const Parcel& p) { return p.peer == in.peer; });
      if (out != sent.end()) std::memcpy(in.to, out->from, std::min(in.bytes, out->bytes));
    }
  }
};

struct Recorder {
  std::unique_ptr<Wire> wire = std::make_unique<Mirror>();
  std::vector<NcclCall> calls;
  NcclState state;
  int together = 0, groups_started = 0;
  bool open = false;
  std::vector<Parcel> sent, received;  // of the group that is open
  ncclComm_t comm = nullptr;
  Stream* stream = nullptr;
};
Recorder& recorder() {
  static Recorder the_recorder;
  return the_recorder;
}

std::size_t size_of(ncclDataType_t type) {
  return type == ncclInt8 ? 1 : type == ncclBfloat16 ? 2 : type == ncclFloat64 ? 8 : 4;
}

void expect(bool holds, const char* what) {
  if (!holds) throw std::logic_error(std::string("NCCL: ") + what);
}

void record(const char* name, const void* from, void* to, std::size_t count, ncclDataType_t type, int peer,
            Stream* stream) {
  recorder().calls.push_back({name, count, type, peer, from, to, stream, recorder().open ? recorder().together : 0});
}

// parts [ranks][count], reduced into to.
template <class T>
void reduce(const std::vector<std::byte>& parts, int ranks, std::size_t count, ncclRedOp_t op, void* to) {
  auto* out = static_cast<T*>(to);
  const T* in = reinterpret_cast<const T*>(parts.data());
  for (std::size_t i = 0; i < count; ++i) {
    T sum = in[i];
    for (int q = 1; q < ranks; ++q) {
      const T x = in[static_cast<std::size_t>(q) * count + i];
      if constexpr (std::is_same_v<T, smoe::Bf16>) {
        const float a = smoe::widened(sum), b = smoe::widened(x);
        sum = smoe::rounded(op == ncclSum ? a + b : std::max(a, b));
      } else {
        sum = op == ncclSum ? static_cast<T>(sum + x) : std::max(sum, x);
      }
    }
    out[i] = sum;
  }
}
void reduce_as(ncclDataType_t type, const std::vector<std::byte>& parts, int ranks, std::size_t count, ncclRedOp_t op,
               void* to) {
  switch (type) {
    case ncclFloat32: return reduce<float>(parts, ranks, count, op, to);
    case ncclFloat64: return reduce<double>(parts, ranks, count, op, to);
    case ncclInt32: return reduce<std::int32_t>(parts, ranks, count, op, to);
    case ncclBfloat16: return reduce<smoe::Bf16>(parts, ranks, count, op, to);
    case ncclInt8: break;
  }
  throw std::logic_error("NCCL: no sums of that type here");
}

// Work of a stream that uses this memory.
template <class Work>
void queue_on(Stream* stream, std::initializer_list<const void*> used, const Work& work) {
  queue(stream, [stream, used = std::vector<const void*>(used), work] {
    for (const void* at : used)
      if (at) expect_taken(stream, at);
    work();
  });
}

// Every rank's part, by rank: of `bytes` each, from where sent_at says for that rank.
template <class SentAt>
std::vector<std::byte> gathered(const ncclComm& comm, std::size_t bytes, const SentAt& sent_at) {
  std::vector<std::byte> all(bytes * static_cast<std::size_t>(comm.size));
  std::vector<Parcel> sent, received;
  for (int q = 0; q < comm.size; ++q) {
    std::byte* const place = all.data() + bytes * static_cast<std::size_t>(q);
    if (q == comm.rank) {
      std::memcpy(place, sent_at(q), bytes);
      continue;
    }
    sent.push_back({q, sent_at(q), nullptr, bytes});
    received.push_back({q, nullptr, place, bytes});
  }
  recorder().wire->exchange(comm.group, comm.rank, sent, received);
  return all;
}

}  // namespace

void set_wire(std::unique_ptr<Wire> wire) { recorder().wire = wire ? std::move(wire) : std::make_unique<Mirror>(); }
std::vector<NcclCall> take_nccl_calls() { return std::exchange(recorder().calls, {}); }
NcclState& nccl() { return recorder().state; }

void* nccl_function_named(const std::string& name) {
  if (!nccl().installed) return nullptr;
#define SMOE_FUNCTION(function) \
  if (name == #function) return reinterpret_cast<void*>(&function)
  SMOE_FUNCTION(ncclGetVersion);
  SMOE_FUNCTION(ncclGetUniqueId);
  SMOE_FUNCTION(ncclCommInitRank);
  SMOE_FUNCTION(ncclCommDestroy);
  SMOE_FUNCTION(ncclCommAbort);
  SMOE_FUNCTION(ncclCommGetAsyncError);
  SMOE_FUNCTION(ncclGetErrorString);
  SMOE_FUNCTION(ncclGetLastError);
  SMOE_FUNCTION(ncclAllReduce);
  SMOE_FUNCTION(ncclAllGather);
  SMOE_FUNCTION(ncclReduceScatter);
  SMOE_FUNCTION(ncclBroadcast);
  SMOE_FUNCTION(ncclSend);
  SMOE_FUNCTION(ncclRecv);
  SMOE_FUNCTION(ncclGroupStart);
  SMOE_FUNCTION(ncclGroupEnd);
#undef SMOE_FUNCTION
  return nullptr;
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

ncclResult_t ncclGetVersion(int* version) { return *version = nccl().version, ncclSuccess; }
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  *id = {};
  recorder().wire->fill(*id);
  return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  if (rank < 0 || rank >= size) return ncclInvalidArgument;
  *comm = new ncclComm{recorder().wire->join(id, size, rank), size, rank};
  ++nccl().groups;
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  --nccl().groups;
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  ++nccl().aborted;
  return ncclCommDestroy(comm);
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) { return *error = nccl().async_error, ncclSuccess; }
const char* ncclGetErrorString(ncclResult_t code) {
  switch (code) {
    case ncclSuccess: return "no error";
    case ncclSystemError: return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case ncclInvalidArgument: return "invalid argument";
    case ncclRemoteError: return "remote process exited or there was a network error";
    default: return "another error";
  }
}
const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclAllReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  expect(!recorder().open, "a collective between sends and receives");
  record(op == ncclSum ? "all_reduce" : "all_reduce max", send, receive, count, type, -1, stream);
  queue_on(stream, {send, receive}, [=, of = *comm] {
    reduce_as(type, gathered(of, count * size_of(type), [&](int) { return send; }), of.size, count, op, receive);
  });
  return ncclSuccess;
}
ncclResult_t ncclAllGather(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  expect(!recorder().open, "a collective between sends and receives");
  record("all_gather", send, receive, count, type, -1, stream);
  queue_on(stream, {send, receive}, [=, of = *comm] {
    const auto all = gathered(of, count * size_of(type), [&](int) { return send; });
    std::memcpy(receive, all.data(), all.size());
  });
  return ncclSuccess;
}
ncclResult_t ncclReduceScatter(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  expect(!recorder().open, "a collective between sends and receives");
  record("reduce_scatter", send, receive, count, type, -1, stream);
  const std::size_t bytes = count * size_of(type);
  queue_on(stream, {send, receive}, [=, of = *comm] {
    const auto parts = gathered(
        of, bytes, [&](int q) { return static_cast<const std::byte*>(send) + bytes * static_cast<std::size_t>(q); });
    reduce_as(type, parts, of.size, count, op, receive);
  });
  return ncclSuccess;
}
ncclResult_t ncclBroadcast(const void* send, void* receive, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  expect(!recorder().open, "a collective between sends and receives");
  record("broadcast", send, receive, count, type, root, stream);
  const std::size_t bytes = count * size_of(type);
  queue_on(stream, {send, receive}, [=, of = *comm] {
    std::vector<Parcel> sent, received;
    if (of.rank != root) received.push_back({root, nullptr, receive, bytes});
    for (int q = 0; of.rank == root && q < of.size; ++q)
      if (q != root) sent.push_back({q, send, nullptr, bytes});
    recorder().wire->exchange(of.group, of.rank, sent, received);
    if (of.rank == root) std::memmove(receive, send, bytes);
  });
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  expect(!recorder().open, "a group inside another");
  recorder().open = true;
  recorder().together = ++recorder().groups_started;
  recorder().comm = nullptr;
  return ncclSuccess;
}
namespace {
ncclResult_t put(std::vector<Parcel>& among, const Parcel& parcel, ncclComm_t comm, cudaStream_t stream) {
  expect(recorder().open, "a send or receive alone, which waits for its other end before the next is queued");
  expect(!recorder().comm || (recorder().comm == comm && recorder().stream == stream), "a group over two of them");
  recorder().comm = comm;
  recorder().stream = stream;
  expect(parcel.bytes > 0, "a parcel of nothing");
  for (const Parcel& other : among) expect(other.peer != parcel.peer, "two parcels for one rank");
  among.push_back(parcel);
  return ncclSuccess;
}
}  // namespace
ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  if (nccl().failing_send > 0 && --nccl().failing_send == 0) return ncclSystemError;
  record("send", from, nullptr, count, type, peer, stream);
  return put(recorder().sent, {peer, from, nullptr, count * size_of(type)}, comm, stream);
}
ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  record("receive", nullptr, to, count, type, peer, stream);
  return put(recorder().received, {peer, nullptr, to, count * size_of(type)}, comm, stream);
}
ncclResult_t ncclGroupEnd() {
  Recorder& r = recorder();
  expect(r.open, "the end of no group");
  r.open = false;
  const auto sent = std::exchange(r.sent, {}), received = std::exchange(r.received, {});
  if (!r.comm) return ncclSuccess;
  queue(r.stream, [sent, received, of = *r.comm, stream = r.stream] {
    for (const std::vector<Parcel>& parcels : {sent, received})
      for (const Parcel& p : parcels) expect_taken(stream, p.from ? p.from : p.to);
    std::vector<Parcel> out, in;
    const Parcel *to_self = nullptr, *from_self = nullptr;
    for (const Parcel& p : sent)
      if (p.peer == of.rank)
        to_self = &p;
      else
        out.push_back(p);
    for (const Parcel& p : received)
      if (p.peer == of.rank)
        from_self = &p;
      else
        in.push_back(p);
    expect(!to_self == !from_self && (!to_self || to_self->bytes == from_self->bytes), "a rank that misses itself");
    if (to_self) std::memcpy(from_self->to, to_self->from, to_self->bytes);
    recorder().wire->exchange(of.group, of.rank, out, in);
  });
  return ncclSuccess;
}
