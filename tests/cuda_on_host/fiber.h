// A second stack, and the switch between it and the thread that has it. What is switched to goes on where it was left.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace cuda_on_host {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() begins `work`, whatever was under way.
  void begin(const std::function<void()>& work);
  // Runs it until it leaves or has done its work. From the thread that owns the fiber.
  void resume();
  // Back to resume(). From the fiber.
  void leave();
  bool done() const { return done_; }
  // Its work is not gone on with.
  void abandon();

 private:
  struct Context;
  static void enter(void* self);

  std::unique_ptr<Context> context_;
  const std::function<void()>* work_ = nullptr;
  bool done_ = true;
};

}  // namespace cuda_on_host
