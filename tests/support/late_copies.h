// A backend whose copies to the host arrive late, as those of a device do that runs behind it: from start_copy_to_host() until
// an event recorded after it has been waited for, the host finds rubbish. A missing wait, or an event recorded too early,
// so shows on any machine. What the ops compute is the inner backend's, bit for bit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/op_decorator.h"

namespace smoe::test {

struct OwnedInner {
  std::unique_ptr<Backend> owned;
};

class LateCopies final : private OwnedInner, public OpDecorator {
 public:
  explicit LateCopies(std::unique_ptr<Backend> inner) : OwnedInner{std::move(inner)}, OpDecorator(*owned) {}

  Event record() override { return {++recorded_}; }
  void wait(Event event) override { arrive(event.number); }
  void synchronize() override { arrive(std::numeric_limits<std::uint64_t>::max()); }
  void release_host(void* data, std::size_t bytes) noexcept override {
    std::erase_if(on_the_way_,
                  [&](const Copy& copy) { return copy.host >= data && copy.host < static_cast<char*>(data) + bytes; });
    inner().release_host(data, bytes);
  }

 private:
  struct Copy {
    void* host;
    std::vector<char> bytes;
    std::uint64_t event;  // the first one behind it
  };

  void arrive(std::uint64_t event) {
    for (const Copy& copy : on_the_way_)
      if (copy.event <= event) std::memcpy(copy.host, copy.bytes.data(), copy.bytes.size());
    std::erase_if(on_the_way_, [event](const Copy& copy) { return copy.event <= event; });
  }
  void do_copy_to_host(void* host, const Tensor& from) override {
    synchronize();
    inner().copy_to_host(host, from);
  }
  void do_start_copy_to_host(void* host, const Tensor& from) override {
    Copy& copy = on_the_way_.emplace_back(Copy{host, std::vector<char>(from.bytes()), recorded_ + 1});
    inner().copy_to_host(copy.bytes.data(), from);
    std::memset(host, 0x7f, from.bytes());
  }
  void run(const char*, const Call& call) override { call(inner(), Placing()); }

  std::vector<Copy> on_the_way_;
  std::uint64_t recorded_ = 0;
};

}  // namespace smoe::test
