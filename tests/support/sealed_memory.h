// A backend whose memory nothing can touch but its ops: between them every page of it is sealed, as if it lay on a device.
// A host that reads or writes a tensor dies of it (SIGSEGV), on any machine. What the ops compute is the CPU's, bit for bit.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <map>
#include <memory>
#include <new>

#include "kernels/op_decorator.h"

namespace smoe::test {

struct OwnedBackend {
  std::unique_ptr<Backend> cpu;
};

class SealedMemory final : private OwnedBackend, public OpDecorator {
 public:
  explicit SealedMemory(int threads) : OwnedBackend{make_cpu_backend(threads)}, OpDecorator(*cpu) {}

  Device device() const override { return Device::cuda; }

  void* allocate(std::size_t bytes) override {
    const std::size_t whole = (bytes + page - 1) / page * page + (bytes == 0 ? page : 0);
    void* data = ::mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    blocks_.emplace(data, whole);
    return data;
  }
  void release(void* data, std::size_t) noexcept override {
    const auto block = blocks_.find(data);
    ::munmap(data, block->second);
    blocks_.erase(block);
  }

 private:
  static constexpr std::size_t page = 4096;

  class OnTheCpu final : public Placing {
   private:
    Tensor place(const char*, const Tensor& tensor, Access) const override {
      return {tensor.raw(), tensor.type(), tensor.shape(), Device::cpu};
    }
  };

  // Opens all memory while it lives.
  class Unsealed {
   public:
    explicit Unsealed(const std::map<void*, std::size_t>& blocks) : blocks_(blocks) { protect(PROT_READ | PROT_WRITE); }
    ~Unsealed() { protect(PROT_NONE); }
    Unsealed(const Unsealed&) = delete;
    Unsealed& operator=(const Unsealed&) = delete;

   private:
    void protect(int how) const {
      for (const auto& [data, bytes] : blocks_) ::mprotect(data, bytes, how);
    }
    const std::map<void*, std::size_t>& blocks_;
  };

  void run(const char*, const Call& call) override {
    const Unsealed unsealed(blocks_);
    call(inner(), OnTheCpu());
  }

  std::map<void*, std::size_t> blocks_;
};

}  // namespace smoe::test
