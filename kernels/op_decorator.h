// A backend in front of another: every op, copies too, passes through one function, which says where it runs and where its
// arguments lie. For what is wanted around all ops alike: CheckBackend runs each one twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/backend.h"

namespace smoe {

class OpDecorator : public Backend {
 public:
  explicit OpDecorator(Backend& inner) : inner_(inner) {}

  Device device() const override { return inner_.device(); }
  DeviceProfile measure_profile() override { return inner_.measure_profile(); }

  void* allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
  void release(void* data, std::size_t bytes) noexcept override { inner_.release(data, bytes); }
  void* allocate_host(std::size_t bytes) override { return inner_.allocate_host(bytes); }
  void release_host(void* data, std::size_t bytes) noexcept override { inner_.release_host(data, bytes); }
  Event record() override { return inner_.record(); }
  void wait(Event event) override { inner_.wait(event); }
  void synchronize() override { inner_.synchronize(); }
  Stamp stamp() override { return inner_.stamp(); }
  double seconds_between(Stamp from, Stamp to) override { return inner_.seconds_between(from, to); }
  void forget_stamps() override { inner_.forget_stamps(); }
  CommunicationStream* communication(Lane lane) override { return inner_.communication(lane); }
  void begin_range(const char* name, int number) override { inner_.begin_range(name, number); }
  void end_range() noexcept override { inner_.end_range(); }

 protected:
  enum class Access : std::uint8_t { read, write, read_write };  // write: the whole tensor, without reading it
  // Where the arguments of a call lie on the backend that runs it.
  class Placing {
   public:
    virtual ~Placing() = default;
    // name: the argument's in kernels/backend.h.
    Tensor operator()(const char* name, const Tensor& tensor) const { return place(name, tensor, Access::read); }
    Tensor out(const char* name, const Tensor& tensor) const { return place(name, tensor, Access::write); }
    Tensor in_out(const char* name, const Tensor& tensor) const { return place(name, tensor, Access::read_write); }
    ExpertRows operator()(const ExpertRows& rows) const { return {(*this)("offsets", rows.offsets), rows.host}; }

   private:
    virtual Tensor place(const char* /*name*/, const Tensor& tensor, Access) const { return tensor; }
  };
  // A lambda of (Backend& on, const Placing& at), which outlives it: a std::function would take from the heap for each op.
  class Call {
   public:
    template <class Body>
    Call(const Body& body)
        : body_(&body),
          make_([](const void* of, Backend& on, const Placing& at) { (*static_cast<const Body*>(of))(on, at); }) {}
    void operator()(Backend& on, const Placing& at) const { make_(body_, on, at); }

   private:
    const void* body_;
    void (*make_)(const void* body, Backend& on, const Placing& at);
  };

  Backend& inner() { return inner_; }

  double do_measure_memory_rate(const Tensor& room) override;
#include "kernels/op_overrides.inc"

 private:
  // op: the function's name in kernels/backend.h. The call may be made as often as wanted.
  virtual void run(const char* op, const Call& call) = 0;

  Backend& inner_;
};

}  // namespace smoe
