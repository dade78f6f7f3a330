#include "parallel/comm/device_communicator.h"

#include <stdexcept>
#include <string>
#include <utility>

#include "parallel/comm/staged_communicator.h"

namespace smoe {

DeviceCommunicator::DeviceCommunicator(std::shared_ptr<Communicator> host, std::shared_ptr<NcclGroup> nccl,
                                       const NcclCommunicator::Place& place, Traffic& traffic, DeviceCalls& calls)
    : host_(std::move(host)), nccl_(std::move(nccl)), place_(place), traffic_(traffic), calls_(calls) {}

DeviceCommunicator::~DeviceCommunicator() = default;

void DeviceCommunicator::use(Backend& backend) {
  if (backend_ == &backend) return;
  if (backend_) leave(*backend_);
  if (backend.device() == Device::cpu) return;
  if (nccl_)
    device_ = std::make_unique<NcclCommunicator>(*host_, backend, nccl_, place_, traffic_, calls_);
  else
    device_ = std::make_unique<StagedCommunicator>(*host_, backend);
  backend_ = &backend;
}

void DeviceCommunicator::leave(Backend& backend) noexcept {
  if (backend_ != &backend) return;
  device_.reset();
  backend_ = nullptr;
}

void DeviceCommunicator::finish_started() {
  host_->finish_started();
  if (device_) device_->finish_started();
}

Communicator& DeviceCommunicator::of(const Tensor& x, std::string_view label) const {
  if (x.device() == Device::cpu) return *host_;
  if (!device_ || backend_->device() != x.device())
    throw std::logic_error(std::string(label) + ": a tensor of a device whose backend the communicator was not given");
  return *device_;
}

Communicator& DeviceCommunicator::of(const Tensor& in, const Tensor& out, std::string_view label) const {
  if (in.device() != out.device())
    throw std::logic_error(std::string(label) + ": one tensor is the host's, the other a device's");
  return of(in, label);
}

}  // namespace smoe
