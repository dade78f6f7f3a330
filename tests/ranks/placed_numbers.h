// Numbers of a test as a tensor where collectives are tried: on the host, or on the GPU of this rank.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "parallel/mesh.h"

namespace smoe {

// Where the tensors of one test lie. A backend of a GPU is told to the groups of each mesh for as long as the test has it.
class Placement {
 public:
  explicit Placement(Device device) : backend_(device == Device::cuda ? make_cuda_backend() : nullptr) {}
  Backend* backend() const { return backend_.get(); }

 private:
  std::unique_ptr<Backend> backend_;
};

class UsedMesh {
 public:
  UsedMesh(Mesh mesh, const Placement& where) : mesh_(std::move(mesh)), where_(where) {
    if (where_.backend()) mesh_.use(*where_.backend());
  }
  ~UsedMesh() {
    if (where_.backend()) mesh_.leave(*where_.backend());
  }
  UsedMesh(const UsedMesh&) = delete;
  UsedMesh& operator=(const UsedMesh&) = delete;
  Mesh* operator->() { return &mesh_; }

 private:
  Mesh mesh_;
  const Placement& where_;
};

template <class T>
class Numbers {
 public:
  Numbers(const Placement& where, std::vector<T> values) : host_(std::move(values)), backend_(where.backend()) {
    if (!backend_) return;
    bytes_ = host_.size() * sizeof(T);
    device_ = backend_->allocate(bytes_);
    if (!host_.empty()) backend_->copy_from_host(tensor(), host_.data());
  }
  Numbers(const Placement& where, std::int64_t count)
      : Numbers(where, std::vector<T>(static_cast<std::size_t>(count))) {}
  ~Numbers() {
    if (device_) backend_->release(device_, bytes_);
  }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;

  Tensor tensor() { return tensor({static_cast<std::int64_t>(host_.size())}); }
  Tensor tensor(const Shape& shape) {
    constexpr DType type = std::is_same_v<T, float> ? DType::f32 : std::is_same_v<T, Bf16> ? DType::bf16 : DType::i32;
    return device_ ? Tensor(device_, type, shape, Device::cuda) : Tensor(host_.data(), type, shape);
  }
  // As they were when they were last read.
  const std::vector<T>& numbers() const { return host_; }
  // As they are now.
  const std::vector<T>& read() {
    if (device_ && !host_.empty()) backend_->copy_to_host(host_.data(), tensor());
    return host_;
  }

 private:
  std::vector<T> host_;
  Backend* backend_;
  void* device_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace smoe
