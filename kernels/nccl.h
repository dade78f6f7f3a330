// NVIDIA's collectives between GPUs (NCCL), as far as a communicator wants them: kernels/cuda/nccl.cpp opens the library. Each
// call is queued on a stream and returns. Buffers are of the device; n is a number of elements.
//
// Throws std::runtime_error with what NCCL says.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/tensor.h"

namespace smoe {

// Why no NCCL can be had: not in this build, or the library is not there. Empty: it can.
std::string nccl_missing();

// One rank's part of one group.
class NcclGroup {
 public:
  // What all ranks of a group have to know to meet: made by one of them, brought to the others.
  using Id = std::array<char, 128>;
  static Id make_id();
  static int version();  // 22809: 2.28.9

  // Returns when all ranks have called it.
  NcclGroup(const Id& id, int size, int rank);
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  enum class Op : std::uint8_t { sum, max };
  void all_reduce(void* x, std::size_t n, DType type, Op op, void* stream);
  void all_gather(const void* in, void* out, std::size_t n_of_a_rank, DType type, void* stream);
  void reduce_scatter(const void* in, void* out, std::size_t n_of_a_rank, DType type, void* stream);
  void broadcast(void* x, std::size_t n, DType type, int root, void* stream);

  // Sends and receives between begin() and end() are one call: they go on side by side, in whatever order.
  void begin();
  void send(const void* from, std::size_t bytes, int to_rank, void* stream);
  void receive(void* to, std::size_t bytes, int from_rank, void* stream);
  void end();

  // What went wrong behind the calls, or "". From any thread.
  std::string trouble() const noexcept;
  // Ends what is under way, here and, with an error, on the other ranks. From any thread, once; nothing is called after it but the
  // destructor.
  void abort() noexcept;

 private:
  struct Comm;
  std::unique_ptr<Comm> comm_;
};

}  // namespace smoe
