#include "parallel/comm/nccl_communicator.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "parallel/comm/agreement.h"
#include "parallel/comm/collective_observer.h"

namespace smoe {
namespace {

// The address that the first rank of a group makes, on all of them.
NcclGroup::Id shared_id(Communicator& host) {
  NcclGroup::Id id{};
  together(host, "nccl.address", [&] {
    if (host.rank() == 0) id = NcclGroup::make_id();
  });
  std::vector<std::int32_t> numbers(id.size() / sizeof(std::int32_t));
  std::memcpy(numbers.data(), id.data(), id.size());
  host.broadcast(host_tensor(numbers), 0, "nccl.address");
  std::memcpy(id.data(), numbers.data(), id.size());
  return id;
}

CommunicationStream& lane_of(Backend& backend, Lane lane) {
  CommunicationStream* const stream = backend.communication(lane);
  if (!stream) throw std::logic_error("NCCL for a backend without a stream of its own");
  return *stream;
}

const std::byte* bytes_of(const Tensor& x) { return static_cast<const std::byte*>(x.raw()); }
std::byte* bytes_in(const Tensor& x) { return static_cast<std::byte*>(x.raw()); }
std::size_t count_of(const Tensor& x) { return static_cast<std::size_t>(x.elements()); }

}  // namespace

std::shared_ptr<NcclGroup> join_by_nccl(Communicator& host, std::string_view axis, DeviceCalls& calls) {
  const NcclGroup::Id id = shared_id(host);
  const InsideCollective inside(calls.host(), {"nccl init", axis, "nccl.group", "none", 0});
  return std::make_shared<NcclGroup>(id, host.size(), host.rank());
}

// One collective: behind the ops before it, before those after it, seen by the watchdog and counted. While it is queued the host
// counts as inside it: the first of its kind makes connections, and waits for the other ranks in that.
class NcclCommunicator::Call {
 public:
  Call(NcclCommunicator& group, const CollectiveCall& described) : group_(group), described_(described) {
    if (group.place_.check_calls) group.host_.barrier(described.label);
    group.stream_.follow_ops();
    inside_.emplace(group.calls_.host(), described);
    if (group.calls_.observer()) begin_ = group.stream_.stamp();
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() { group_.traffic_.add(described_.label, sent_); }

  void count(std::int64_t bytes) { sent_ += bytes; }
  // Behind all that was queued for it, and counted.
  std::uint64_t queued() {
    inside_.reset();
    if (CollectiveObserver* const observer = group_.calls_.observer(); observer && begin_.number > 0)
      observer->queued({described_, group_.place_.lane, begin_, group_.stream_.stamp(), sent_});
    const std::uint64_t point = group_.stream_.mark();
    group_.calls_.add(group_.stream_, point, described_);
    return point;
  }
  void finish() { group_.stream_.lead_ops(queued()); }

 private:
  NcclCommunicator& group_;
  CollectiveCall described_;
  std::optional<InsideCollective> inside_;
  Stamp begin_;  // where somebody looks
  std::int64_t sent_ = 0;
};

// Sends and receives that are one call. It is closed also where an exception comes between: what NCCL were asked after that
// would only be collected.
class NcclCommunicator::Together {
 public:
  explicit Together(NcclGroup& group) : group_(group) { group.begin(); }
  Together(const Together&) = delete;
  Together& operator=(const Together&) = delete;
  ~Together() {
    if (!open_) return;
    try {
      group_.end();
    } catch (const std::exception&) {  // there is one on its way
    }
  }
  void end() {
    open_ = false;
    group_.end();
  }

 private:
  NcclGroup& group_;
  bool open_ = true;
};

NcclCommunicator::NcclCommunicator(Communicator& host, Backend& backend, std::shared_ptr<NcclGroup> group,
                                   const Place& place, Traffic& traffic, DeviceCalls& calls)
    : host_(host),
      backend_(backend),
      place_(place),
      traffic_(traffic),
      calls_(calls),
      stream_(lane_of(backend, place.lane)),
      group_(std::move(group)) {
  calls_.watch(*group_);
}

// On the way out of a failure nothing is waited for: another rank may never come to what this one has called.
NcclCommunicator::~NcclCommunicator() {
  if (std::uncaught_exceptions() > failures_at_birth_) {
    calls_.forget(*group_, stream_);
    const InsideCollective inside(calls_.host(), {"nccl abort", place_.axis, "nccl.group", "none", 0});
    group_->abort();
  } else {
    try {
      stream_.lead_ops(stream_.mark());
      backend_.synchronize();
    } catch (const std::exception&) {  // said where it was found, or nowhere: this is the end
    }
    calls_.forget(*group_, stream_);
  }
  if (room_bytes_ > 0) backend_.release(room_.raw(), room_bytes_);
}

Tensor NcclCommunicator::room_for(const Tensor& x, std::int64_t elements) {
  const Shape shape{size(), elements};
  const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * smoe::bytes_of(x.type());
  if (bytes > room_bytes_) {
    if (room_bytes_ > 0) backend_.release(room_.raw(), room_bytes_);
    room_bytes_ = 0;
    room_ = Tensor(backend_.allocate(bytes), x.type(), shape, backend_.device());
    room_bytes_ = bytes;
  }
  return Tensor(room_.raw(), x.type(), shape, backend_.device());
}

std::int64_t NcclCommunicator::sent_bytes(std::size_t whole) const {
  return static_cast<std::int64_t>(whole) / size() * (size() - 1);
}

// Room is taken before the call: its stream follows what was queued before, the taking too.
void NcclCommunicator::all_reduce(const Tensor& x, Reduce op, std::string_view label) {
  require_sums(x, label);
  const bool in_rank_order = x.type() == DType::bf16 && op == Reduce::sum;
  const Tensor all = in_rank_order ? room_for(x, x.elements()) : Tensor();
  Call call(*this,
            {op == Reduce::sum ? "all_reduce" : "all_reduce max", place_.axis, label, name_of(x.type()), x.elements()});
  if (x.elements() == 0) return call.finish();
  if (!in_rank_order) {
    group_->all_reduce(x.raw(), count_of(x), x.type(), op == Reduce::sum ? NcclGroup::Op::sum : NcclGroup::Op::max,
                       stream_.native());
    call.count(2 * sent_bytes(x.bytes()));
    return call.finish();
  }
  group_->all_gather(x.raw(), all.raw(), count_of(x), x.type(), stream_.native());
  call.count(static_cast<std::int64_t>(x.bytes()) * (size() - 1));
  call.finish();
  backend_.sum_rows(all, x.reshape({x.elements()}));
}

void NcclCommunicator::all_gather(const Tensor& in, const Tensor& out, std::string_view label) {
  finish(start_all_gather(in, out, label));
}

Started NcclCommunicator::start_all_gather(const Tensor& in, const Tensor& out, std::string_view label) {
  require_gather(in, out, size(), label);
  Call call(*this, {"all_gather", place_.axis, label, name_of(in.type()), in.elements()});
  if (in.elements() > 0) group_->all_gather(in.raw(), out.raw(), count_of(in), in.type(), stream_.native());
  call.count(sent_bytes(out.bytes()));
  return {call.queued()};
}

void NcclCommunicator::finish(Started started) { stream_.lead_ops(started.number); }

void NcclCommunicator::reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) {
  require_scatter(in, out, size(), label);
  const bool in_rank_order = in.type() == DType::bf16;
  const Tensor parts = in_rank_order ? room_for(in, out.elements()) : Tensor();
  Call call(*this, {"reduce_scatter", place_.axis, label, name_of(in.type()), in.elements()});
  if (in.elements() == 0) return call.finish();
  call.count(sent_bytes(in.bytes()));
  if (!in_rank_order) {
    group_->reduce_scatter(in.raw(), out.raw(), count_of(out), in.type(), stream_.native());
    return call.finish();
  }
  const std::size_t part = out.bytes();
  Together together(*group_);
  for (int q = 0; q < size(); ++q) {
    const std::size_t at = part * static_cast<std::size_t>(q);
    group_->send(bytes_of(in) + at, part, q, stream_.native());
    group_->receive(bytes_in(parts) + at, part, q, stream_.native());
  }
  together.end();
  call.finish();
  backend_.sum_rows(parts, out.reshape({out.elements()}));
}

void NcclCommunicator::start_reduce_scatter(const Tensor& x, std::string_view label) {
  require_parts(x, size(), label);
  if (x.type() == DType::bf16) return reduce_scatter(x, part_of(x, rank(), size()), label);
  Call call(*this, {"reduce_scatter", place_.axis, label, name_of(x.type()), x.elements()});
  const Tensor own = part_of(x, rank(), size());
  if (own.elements() > 0) group_->reduce_scatter(x.raw(), own.raw(), count_of(own), x.type(), stream_.native());
  call.count(sent_bytes(x.bytes()));
  last_scatter_ = call.queued();
}

void NcclCommunicator::finish_started() {
  if (last_scatter_ > 0) stream_.lead_ops(last_scatter_);
  last_scatter_ = 0;
}

void NcclCommunicator::all_to_all_v(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
                                    std::span<const std::int64_t> receive_rows, std::string_view label) {
  rows_.find(in, send_rows, out, receive_rows, rank(), size(), label);
  Call call(*this, {"all_to_all_v", place_.axis, label, name_of(in.type()), 0});
  if (rows_.send.back() + rows_.receive.back() > 0) {
    Together together(*group_);
    // Each rank begins with itself and the one after it, so that not all of them send to the same one first.
    for (int i = 0; i < size(); ++i) {
      const int to = (rank() + i) % size(), from = (rank() + size() - i) % size();
      const auto sent = static_cast<std::size_t>(to), received = static_cast<std::size_t>(from);
      if (rows_.sent_to(sent) > 0)
        group_->send(bytes_of(in) + rows_.send[sent], rows_.sent_to(sent), to, stream_.native());
      if (rows_.received_from(received) > 0)
        group_->receive(bytes_in(out) + rows_.receive[received], rows_.received_from(received), from, stream_.native());
    }
    together.end();
    call.count(static_cast<std::int64_t>(rows_.send.back() - rows_.sent_to(static_cast<std::size_t>(rank()))));
  }
  call.finish();
}

void NcclCommunicator::broadcast(const Tensor& x, int root, std::string_view label) {
  require_root(root, size(), label);
  Call call(*this, {"broadcast", place_.axis, label, name_of(x.type()), x.elements()});
  if (x.elements() > 0) group_->broadcast(x.raw(), count_of(x), x.type(), root, stream_.native());
  if (rank() == root) call.count(static_cast<std::int64_t>(x.bytes()) * (size() - 1));
  call.finish();
}

}  // namespace smoe
