#include "tests/cuda_on_host/fiber.h"

#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <bit>
#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_host {
namespace {

constexpr std::size_t stack_bytes = 128 * 1024;

#if defined(__SANITIZE_ADDRESS__)
// The sanitizer has to know which stack is in use, and that nothing is left of an earlier use.
struct Sanitizer {
  void* fake_stack = nullptr;
  const void* caller_stack = nullptr;
  std::size_t caller_bytes = 0;
  void clean(void* stack) { __asan_unpoison_memory_region(stack, stack_bytes); }
  void leave_caller(void* stack) { __sanitizer_start_switch_fiber(&fake_stack, stack, stack_bytes); }
  void back_in_caller() { __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr); }
  void in_fiber(void* own) { __sanitizer_finish_switch_fiber(own, &caller_stack, &caller_bytes); }
  void leave_fiber(void** own) { __sanitizer_start_switch_fiber(own, caller_stack, caller_bytes); }
};
#else
struct Sanitizer {
  void clean(void*) {}
  void leave_caller(void*) {}
  void back_in_caller() {}
  void in_fiber(void*) {}
  void leave_fiber(void**) {}
};
#endif

// Two places that are left for each other. swapcontext() asks the kernel for the signal mask at every switch, which costs more
// than all else here, so where we know the registers we write it ourselves.
#if defined(__x86_64__)
extern "C" void cuda_on_host_switch(void** from, void* to);
extern "C" void cuda_on_host_start();
__asm__(
    ".text\n"
    "cuda_on_host_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    "cuda_on_host_start:\n"  // the first switch to a stack "returns" here, with what prepare() laid into its registers
    "  movq %r12, %rdi\n"
    "  call *%rbx\n"
    "  ud2\n");

class Places {
 public:
  void prepare(void* stack, void (*enter)(void*), void* argument) {
    void** top = reinterpret_cast<void**>(static_cast<char*>(stack) + stack_bytes) - 2;
    *--top = reinterpret_cast<void*>(&cuda_on_host_start);
    void* registers[6] = {nullptr, reinterpret_cast<void*>(enter), argument, nullptr, nullptr, nullptr};  // rbp first
    for (void* content : registers) *--top = content;
    own_ = top;
  }
  void go() { cuda_on_host_switch(&caller_, own_); }
  void come_back() { cuda_on_host_switch(&own_, caller_); }

 private:
  void *caller_ = nullptr, *own_ = nullptr;  // the stacks' ends
};
#else
class Places {
 public:
  void prepare(void* stack, void (*enter)(void*), void* argument) {
    enter_ = enter;
    argument_ = argument;
    getcontext(&own_);
    own_.uc_stack.ss_sp = stack;
    own_.uc_stack.ss_size = stack_bytes;
    own_.uc_link = nullptr;
    const auto self = std::bit_cast<std::uintptr_t>(this);
    makecontext(&own_, reinterpret_cast<void (*)()>(&Places::start), 2, static_cast<unsigned>(self),
                static_cast<unsigned>(self >> 32));
  }
  void go() { swapcontext(&caller_, &own_); }
  void come_back() { swapcontext(&own_, &caller_); }

 private:
  static void start(unsigned low, unsigned high) {
    const auto* self = std::bit_cast<Places*>(std::uintptr_t{low} | std::uintptr_t{high} << 32);
    self->enter_(self->argument_);
  }
  ucontext_t caller_{}, own_{};
  void (*enter_)(void*) = nullptr;
  void* argument_ = nullptr;
};
#endif

}  // namespace

struct Fiber::Context {
  void* stack = nullptr;
  Sanitizer sanitizer;
  Places places;
  bool waits_for_work = false;
};

Fiber::Fiber() : context_(std::make_unique<Context>()) {
  context_->stack =
      mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (context_->stack == MAP_FAILED) throw std::bad_alloc();
}

Fiber::~Fiber() {
  context_->sanitizer.clean(context_->stack);
  munmap(context_->stack, stack_bytes);
}

void Fiber::begin(const std::function<void()>& work) {
  work_ = &work;
  done_ = false;
  if (context_->waits_for_work) return;
  context_->sanitizer.clean(context_->stack);
  context_->places.prepare(context_->stack, &Fiber::enter, this);
}

// Its stack is prepared anew when it next begins.
void Fiber::abandon() {
  if (done_) return;
  done_ = true;
  context_->waits_for_work = false;
}

void Fiber::enter(void* self) {
  auto* fiber = static_cast<Fiber*>(self);
  fiber->context_->sanitizer.in_fiber(nullptr);
  for (;;) {
    (*fiber->work_)();
    fiber->done_ = true;
    fiber->leave();
  }
}

void Fiber::resume() {
  context_->waits_for_work = false;
  context_->sanitizer.leave_caller(context_->stack);
  context_->places.go();
  context_->sanitizer.back_in_caller();
  context_->waits_for_work = done_;
}

void Fiber::leave() {
  void* own = nullptr;
  context_->sanitizer.leave_fiber(&own);
  context_->places.come_back();
  context_->sanitizer.in_fiber(own);
}

}  // namespace cuda_on_host
