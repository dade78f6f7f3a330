#include "kernels/cuda/ranges.h"

#include <nvtx3/nvToolsExt.h>

#include <cstdio>
#include <memory>
#include <utility>

#include "kernels/op_decorator.h"
#include "kernels/range.h"

namespace smoe::cuda {
namespace {

// The ranges of this program, apart from those of libraries. NVTX gives one to a process that a profiler has started; to others
// it gives none.
class Domain {
 public:
  Domain() : handle_(nvtxDomainCreateA("smoe")) {}
  ~Domain() {
    if (handle_) nvtxDomainDestroy(handle_);
  }
  Domain(Domain&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Domain& operator=(Domain&&) = delete;

  bool watched() const { return handle_ != nullptr; }
  void push(const char* text) const {
    nvtxEventAttributes_t range{};
    range.version = NVTX_VERSION;
    range.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    range.messageType = NVTX_MESSAGE_TYPE_ASCII;
    range.message.ascii = text;
    nvtxDomainRangePushEx(handle_, &range);
  }
  void pop() const { nvtxDomainRangePop(handle_); }

 private:
  nvtxDomainHandle_t handle_;
};

class RangedBackend final : public OpDecorator {
 public:
  RangedBackend(std::unique_ptr<Backend> backend, Domain domain)
      : OpDecorator(*backend), backend_(std::move(backend)), domain_(std::move(domain)) {}

  void begin_range(const char* name, int number) override {
    if (number < 0) return domain_.push(name);
    char text[64];
    std::snprintf(text, sizeof text, "%s %d", name, number);
    domain_.push(text);
  }
  void end_range() noexcept override { domain_.pop(); }

 private:
  void run(const char* op, const Call& call) override {
    const Range range(*this, op);
    call(inner(), Placing());
  }

  std::unique_ptr<Backend> backend_;
  Domain domain_;
};

}  // namespace

std::unique_ptr<Backend> with_ranges(std::unique_ptr<Backend> backend) {
  Domain domain;
  if (!domain.watched()) return backend;
  return std::make_unique<RangedBackend>(std::move(backend), std::move(domain));
}

}  // namespace smoe::cuda
