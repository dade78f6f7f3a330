#include "parallel/comm/mpi_communicator.h"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

#include "parallel/comm/collective_trace.h"

namespace smoe {
namespace {

constexpr std::size_t largest_message = std::size_t{1} << 30;  // MPI counts in int
constexpr int check_tag = 1 << 22;

void require(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw std::runtime_error(std::string(what) + ": " + std::string(text, static_cast<std::size_t>(length)));
}

std::uint64_t hash_of(std::uint64_t h, std::string_view text) {
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return (h ^ 0xff) * 1099511628211ull;
}

// What must agree on all ranks. The sizes of an all_to_all_v differ by nature and are described as 0.
std::uint64_t hash_of(const CollectiveCall& call) {
  std::uint64_t h = 14695981039346656037ull;
  for (const std::string_view text : {call.operation, call.axis, call.label, call.type}) h = hash_of(h, text);
  h = (h ^ static_cast<std::uint64_t>(call.elements)) * 0x9E3779B97F4A7C15ull;
  return h ^ (h >> 29);
}

// What a sum of numbers is made in, and back: bf16 is rounded once, after all ranks' have been added in f32.
template <class T>
T summed(T x) {
  return x;
}
float summed(Bf16 x) { return widened(x); }
template <class T>
void write_sum(T sum, T& out) {
  out = sum;
}
void write_sum(float sum, Bf16& out) { out = rounded(sum); }

// The ranks' numbers, reduced in rank order. out may be one of them.
template <class T>
void reduce_parts(T* out, const std::vector<const T*>& parts, std::int64_t n, Reduce op) {
  constexpr std::int64_t block = 2048;
  const auto reduce_block = [&](std::int64_t first) {
    decltype(summed(T())) sum[block];
    const std::int64_t count = std::min(block, n - first);
    for (std::int64_t i = 0; i < count; ++i) sum[i] = summed(parts[0][first + i]);
    for (std::size_t q = 1; q < parts.size(); ++q) {
      const T* part = parts[q] + first;
      if (op == Reduce::sum) {
#pragma omp simd
        for (std::int64_t i = 0; i < count; ++i) sum[i] += summed(part[i]);
      } else {
#pragma omp simd
        for (std::int64_t i = 0; i < count; ++i) sum[i] = summed(part[i]) > sum[i] ? summed(part[i]) : sum[i];
      }
    }
    for (std::int64_t i = 0; i < count; ++i) write_sum(sum[i], out[first + i]);
  };
  if (n <= 16 * block) {
    for (std::int64_t first = 0; first < n; first += block) reduce_block(first);
    return;
  }
#pragma omp parallel for schedule(static)
  for (std::int64_t b = 0; b < (n + block - 1) / block; ++b) reduce_block(b * block);
}

void require_host(const Tensor& x, std::string_view label) {
  if (x.device() != Device::cpu)
    throw std::logic_error(std::string(label) + ": this communicator reads host memory only");
}

}  // namespace

class MpiCommunicator::Call {
 public:
  Call(MpiCommunicator& group, const CollectiveCall& described)
      : group_(group), inside_(group.ledger_, described), label_(described.label) {
    const std::uint64_t number = group.calls_++;
    tag_ = static_cast<int>((number & 0x3ff) << 12 | (hash_of(described) & 0xfff));
    if (group.check_calls_) group.check_same_call(described, number);
  }
  ~Call() { group_.traffic_.add(label_, sent_); }
  int tag() const { return tag_; }
  void count(std::size_t bytes) { sent_ += static_cast<std::int64_t>(bytes); }

 private:
  MpiCommunicator& group_;
  InsideCollective inside_;
  std::string_view label_;
  int tag_;
  std::int64_t sent_ = 0;
};

MpiCommunicator::MpiCommunicator(MPI_Comm comm, std::string_view axis, std::vector<int> world_ranks, Ledger& ledger,
                                 Traffic& traffic, bool check_calls)
    : comm_(comm),
      axis_(axis),
      world_ranks_(std::move(world_ranks)),
      ledger_(ledger),
      traffic_(traffic),
      check_calls_(check_calls) {
  MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &size_);
  if (static_cast<std::size_t>(size_) != world_ranks_.size())
    throw std::logic_error("a communicator needs the world rank of each member");
}

MpiCommunicator::~MpiCommunicator() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized) MPI_Comm_free(&comm_);
}

void MpiCommunicator::send(Call& call, Bytes bytes, int to, Messages& messages) {
  call.count(bytes.size);
  for (std::size_t done = 0; done < bytes.size; done += largest_message) {
    const int n = static_cast<int>(std::min(largest_message, bytes.size - done));
    require(MPI_Isend(bytes.data + done, n, MPI_BYTE, to, call.tag(), comm_, &messages.requests.emplace_back()),
            "MPI_Isend");
    messages.peers.push_back(world_ranks_[static_cast<std::size_t>(to)]);
  }
}

void MpiCommunicator::receive(const Call& call, Bytes bytes, int from, Messages& messages) {
  for (std::size_t done = 0; done < bytes.size; done += largest_message) {
    const int n = static_cast<int>(std::min(largest_message, bytes.size - done));
    require(MPI_Irecv(bytes.data + done, n, MPI_BYTE, from, call.tag(), comm_, &messages.requests.emplace_back()),
            "MPI_Irecv");
    messages.peers.push_back(world_ranks_[static_cast<std::size_t>(from)]);
  }
}

// Polls, because waiting inside the library would keep a whole core busy where ranks share cores, and because whom we
// wait for is worth knowing.
void MpiCommunicator::wait(Messages& messages) {
  auto& [requests, peers] = messages;
  using Clock = std::chrono::steady_clock;
  constexpr int busy_polls = 200;
  constexpr auto patience = std::chrono::milliseconds(20), name_again_after = std::chrono::milliseconds(100);
  Clock::time_point nap_from{}, name_from{};
  for (int polls = 0;; ++polls) {
    int done = 0;
    require(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
            "waiting for other ranks");
    if (done) break;
    if (polls < busy_polls) continue;
    ::sched_yield();
    const Clock::time_point now = Clock::now();
    if (nap_from == Clock::time_point{}) nap_from = name_from = now + patience;
    if (now < nap_from) continue;
    const timespec nap{0, 100'000};
    if (polls % 64 == 0) ::nanosleep(&nap, nullptr);
    if (now < name_from) continue;
    name_from = now + name_again_after;
    awaited_.clear();
    for (std::size_t i = 0; i < requests.size(); ++i) {
      int complete = 0;
      require(MPI_Request_get_status(requests[i], &complete, MPI_STATUS_IGNORE), "waiting for other ranks");
      if (!complete && std::find(awaited_.begin(), awaited_.end(), peers[i]) == awaited_.end())
        awaited_.push_back(peers[i]);
    }
    ledger_.waits_for(awaited_);
  }
  requests.clear();
  peers.clear();
}

// Sends outgoing(q) to each other rank q of the group and receives incoming(q) from it. Parts of no bytes are not sent.
template <class Outgoing, class Incoming>
void MpiCommunicator::post(Call& call, const Outgoing& outgoing, const Incoming& incoming, Messages& messages) {
  // Each rank begins with the one after it, so that not all of them send to the same one first.
  for (int i = 1; i < size_; ++i)
    receive(call, incoming((rank_ + size_ - i) % size_), (rank_ + size_ - i) % size_, messages);
  for (int i = 1; i < size_; ++i) send(call, outgoing((rank_ + i) % size_), (rank_ + i) % size_, messages);
}

template <class Outgoing, class Incoming>
void MpiCommunicator::exchange(Call& call, const Outgoing& outgoing, const Incoming& incoming) {
  post(call, outgoing, incoming, messages_);
  wait(messages_);
}

void MpiCommunicator::check_same_call(const CollectiveCall& described, std::uint64_t number) {
  struct Description {
    std::uint64_t hash = 0;
    char text[120] = "";
  };
  std::vector<Description> all(world_ranks_.size());
  Description& mine = all[static_cast<std::size_t>(rank_)];
  mine.hash = hash_of(described);
  const auto print = [](std::string_view text) { return static_cast<int>(text.size()); };
  std::snprintf(mine.text, sizeof mine.text, "%.*s '%.*s' over %.*s, %lld of %.*s", print(described.operation),
                described.operation.data(), print(described.label), described.label.data(), print(axis_), axis_.data(),
                static_cast<long long>(described.elements), print(described.type), described.type.data());
  const int tag = check_tag | static_cast<int>(number & 0x3ff);
  for (int q = 0; q < size_; ++q) {
    if (q == rank_) continue;
    require(MPI_Irecv(&all[static_cast<std::size_t>(q)], sizeof(Description), MPI_BYTE, q, tag, comm_,
                      &messages_.requests.emplace_back()),
            "MPI_Irecv");
    require(MPI_Isend(&mine, sizeof(Description), MPI_BYTE, q, tag, comm_, &messages_.requests.emplace_back()),
            "MPI_Isend");
    messages_.peers.insert(messages_.peers.end(), 2, world_ranks_[static_cast<std::size_t>(q)]);
  }
  wait(messages_);
  for (const Description& other : all) {
    if (other.hash == mine.hash) continue;
    std::string message = "the ranks of a group called different collectives (number " + std::to_string(number) +
                          " over " + std::string(axis_) + "):";
    for (std::size_t q = 0; q < all.size(); ++q)
      message += "\n  rank " + std::to_string(world_ranks_[q]) + ": " + all[q].text;
    throw std::logic_error(message);
  }
}

std::byte* MpiCommunicator::staging(std::size_t bytes) {
  if (staging_.size() < bytes) staging_.resize(bytes);
  return staging_.data();
}

// What the other ranks sent lies in arrived, n elements for each rank of the group.
template <class T>
void MpiCommunicator::reduce_arrived(T* out, const T* own, const T* arrived, std::int64_t n, Reduce op) const {
  std::vector<const T*> parts(world_ranks_.size());
  for (int q = 0; q < size_; ++q) parts[static_cast<std::size_t>(q)] = q == rank_ ? own : arrived + q * n;
  reduce_parts(out, parts, n, op);
}

void MpiCommunicator::sum_arrived(const Tensor& out, const Tensor& own, const std::byte* arrived) const {
  if (own.type() == DType::bf16)
    reduce_arrived(out.bf16(), own.bf16(), reinterpret_cast<const Bf16*>(arrived), own.elements(), Reduce::sum);
  else if (own.type() == DType::i32)
    reduce_arrived(out.i32(), own.i32(), reinterpret_cast<const std::int32_t*>(arrived), own.elements(), Reduce::sum);
  else
    reduce_arrived(out.f32(), own.f32(), reinterpret_cast<const float*>(arrived), own.elements(), Reduce::sum);
}

// Every rank sums one part of x and then hands it to the others. Few numbers are cheaper to send whole.
template <class T>
void MpiCommunicator::reduce_in_place(Call& call, T* x, std::int64_t n, Reduce op) {
  constexpr std::int64_t few = 1024;
  const auto first_of = [&](int q) { return n < few ? 0 : n * q / size_; };
  const auto count_of = [&](int q) { return n < few ? n : n * (q + 1) / size_ - n * q / size_; };
  const std::int64_t mine = count_of(rank_);
  T* arrived = reinterpret_cast<T*>(staging(static_cast<std::size_t>(mine * size_) * sizeof(T)));
  T* own = x + first_of(rank_);
  exchange(
      call,
      [&](int q) {
        return Bytes{reinterpret_cast<std::byte*>(x + first_of(q)), static_cast<std::size_t>(count_of(q)) * sizeof(T)};
      },
      [&](int q) {
        return Bytes{reinterpret_cast<std::byte*>(arrived + q * mine), static_cast<std::size_t>(mine) * sizeof(T)};
      });
  reduce_arrived(own, own, arrived, mine, op);
  if (n < few) return;
  exchange(
      call,
      [&](int) {
        return Bytes{reinterpret_cast<std::byte*>(own), static_cast<std::size_t>(mine) * sizeof(T)};
      },
      [&](int q) {
        return Bytes{reinterpret_cast<std::byte*>(x + first_of(q)), static_cast<std::size_t>(count_of(q)) * sizeof(T)};
      });
}

void MpiCommunicator::all_reduce(const Tensor& x, Reduce op, std::string_view label) {
  require_host(x, label);
  require_sums(x, label);
  Call call(*this,
            {op == Reduce::sum ? "all_reduce" : "all_reduce max", axis_, label, name_of(x.type()), x.elements()});
  if (x.type() == DType::bf16)
    reduce_in_place(call, x.bf16(), x.elements(), op);
  else if (x.type() == DType::i32)
    reduce_in_place(call, x.i32(), x.elements(), op);
  else
    reduce_in_place(call, x.f32(), x.elements(), op);
}

void MpiCommunicator::all_reduce(std::span<double> x, Reduce op, std::string_view label) {
  Call call(*this, {op == Reduce::sum ? "all_reduce" : "all_reduce max", axis_, label, "f64",
                    static_cast<std::int64_t>(x.size())});
  reduce_in_place(call, x.data(), static_cast<std::int64_t>(x.size()), op);
}

void MpiCommunicator::all_gather(const Tensor& in, const Tensor& out, std::string_view label) {
  require_host(in, label);
  require_host(out, label);
  require_gather(in, out, size_, label);
  Call call(*this, {"all_gather", axis_, label, name_of(in.type()), in.elements()});
  auto* all = static_cast<std::byte*>(out.raw());
  auto* own = static_cast<std::byte*>(in.raw());
  const std::size_t bytes = in.bytes(), place = bytes * static_cast<std::size_t>(rank_);
  exchange(
      call,
      [&](int) {
        return Bytes{own, bytes};
      },
      [&](int q) {
        return Bytes{all + bytes * static_cast<std::size_t>(q), bytes};
      });
  if (all + place != own && bytes) std::memcpy(all + place, own, bytes);
}

void MpiCommunicator::start_reduce_scatter(const Tensor& x, std::string_view label) {
  require_host(x, label);
  require_parts(x, size_, label);
  Scattering& slot = started_[next_started_];
  next_started_ = 1 - next_started_;
  complete(slot);
  Call call(*this, {start_of_reduce_scatter, axis_, label, name_of(x.type()), x.elements()});
  const std::size_t part = x.bytes() / static_cast<std::size_t>(size_);
  slot.x = x;
  slot.label = label;
  slot.active = true;
  if (slot.arrived.size() < part * static_cast<std::size_t>(size_))
    slot.arrived.resize(part * static_cast<std::size_t>(size_));
  auto* data = static_cast<std::byte*>(x.raw());
  const auto at = [&](std::byte* all, int q) { return Bytes{all + part * static_cast<std::size_t>(q), part}; };
  post(
      call, [&](int q) { return at(data, q); }, [&](int q) { return at(slot.arrived.data(), q); }, slot.messages);
}

void MpiCommunicator::complete(Scattering& slot) {
  if (!slot.active) return;
  const InsideCollective inside(
      ledger_, {finish_of_reduce_scatter, axis_, slot.label, name_of(slot.x.type()), slot.x.elements()});
  wait(slot.messages);
  const Tensor own = part_of(slot.x, rank_, size_);
  sum_arrived(own, own, slot.arrived.data());
  slot.active = false;
}

void MpiCommunicator::finish_started() {
  complete(started_[next_started_]);  // the older one first
  complete(started_[1 - next_started_]);
}

void MpiCommunicator::reduce_scatter(const Tensor& in, const Tensor& out, std::string_view label) {
  require_host(in, label);
  require_host(out, label);
  require_scatter(in, out, size_, label);
  Call call(*this, {"reduce_scatter", axis_, label, name_of(in.type()), in.elements()});
  const std::size_t part = out.bytes();
  auto* data = static_cast<std::byte*>(in.raw());
  std::byte* arrived = staging(in.bytes());
  exchange(
      call,
      [&](int q) {
        return Bytes{data + part * static_cast<std::size_t>(q), part};
      },
      [&](int q) {
        return Bytes{arrived + part * static_cast<std::size_t>(q), part};
      });
  sum_arrived(out, part_of(in, rank_, size_), arrived);
}

void MpiCommunicator::all_to_all_v(const Tensor& in, std::span<const std::int64_t> send_rows, const Tensor& out,
                                   std::span<const std::int64_t> receive_rows, std::string_view label) {
  require_host(in, label);
  require_host(out, label);
  rows_.find(in, send_rows, out, receive_rows, rank_, size_, label);
  Call call(*this, {"all_to_all_v", axis_, label, name_of(in.type()), 0});
  auto* from = static_cast<std::byte*>(in.raw());
  auto* to = static_cast<std::byte*>(out.raw());
  exchange(
      call,
      [&](int q) {
        const auto to_rank = static_cast<std::size_t>(q);
        return Bytes{from + rows_.send[to_rank], rows_.sent_to(to_rank)};
      },
      [&](int q) {
        const auto from_rank = static_cast<std::size_t>(q);
        return Bytes{to + rows_.receive[from_rank], rows_.received_from(from_rank)};
      });
  const auto me = static_cast<std::size_t>(rank_);
  if (rows_.sent_to(me) > 0) std::memcpy(to + rows_.receive[me], from + rows_.send[me], rows_.sent_to(me));
}

void MpiCommunicator::broadcast(const Tensor& x, int root, std::string_view label) {
  require_host(x, label);
  require_root(root, size_, label);
  Call call(*this, {"broadcast", axis_, label, name_of(x.type()), x.elements()});
  const Bytes all{static_cast<std::byte*>(x.raw()), x.bytes()};
  exchange(
      call, [&](int) { return rank_ == root ? all : Bytes{}; }, [&](int q) { return q == root ? all : Bytes{}; });
}

void MpiCommunicator::barrier(std::string_view label) {
  Call call(*this, {"barrier", axis_, label, "none", 0});
  std::byte sent{}, *arrived = staging(static_cast<std::size_t>(size_));
  exchange(
      call,
      [&](int) {
        return Bytes{&sent, 1};
      },
      [&](int q) {
        return Bytes{arrived + q, 1};
      });
}

}  // namespace smoe
