// What the machine that we run on has.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "model/lora_config.h"
#include "model/model_config.h"
#include "parallel/layout.h"

namespace smoe {

// Bytes of memory that this process may have: what is installed, or less where a container or a job scheduler limits it by
// control groups; 0 where the system does not say.
std::uint64_t usable_memory_bytes(const std::filesystem::path& membership = "/proc/self/cgroup",
                                  const std::filesystem::path& groups = "/sys/fs/cgroup");

// Bytes of weights, gradients and moments that one rank of a layout, which must fit the model, holds in training, in fp32:
// 4 + 4 + 8 / d for each parameter of its slice, d being the number of ranks with the same slice; 4 for a frozen one.
// frozen: patterns of their names (model/freeze.h). lora: the adapters, which are trained in place of the weights; may be null.
std::uint64_t training_state_bytes(const ModelConfig& model, const Layout& layout,
                                   const std::vector<std::string>& frozen = {}, DType type = DType::f32,
                                   const LoraConfig* lora = nullptr);

// A lower bound of that in no time, where the names of a model of thousands of experts a layer are millions: its weights
// alone where some may be frozen.
std::uint64_t least_training_state_bytes(const ModelConfig& model, const Layout& layout, bool some_frozen,
                                         DType type = DType::f32);

// The memory that the tensors of a rank lie in, and how many of this machine's ranks share it.
struct Room {
  Device device = Device::cpu;
  std::uint64_t total = 0, free = 0;  // bytes; 0: the system does not say. Of a machine, what it may have is free
  int ranks = 1;

  bool knows() const { return total > 0; }
  bool holds(std::uint64_t bytes_a_rank) const { return !knows() || bytes_a_rank <= a_rank(); }
  std::uint64_t a_rank() const { return free / static_cast<std::uint64_t>(ranks); }
};
// ranks: how many share the machine, or the GPU of this rank.
Room room_on(Device device, int ranks = 1);

// Throws std::runtime_error, with numbers, where so many bytes of each rank cannot fit: better than the kernel's out-of-memory
// killer. purpose: what they are, in words. advice: what else would help.
void require_memory(const ModelConfig& model, const Room& room, std::uint64_t bytes_a_rank, const char* purpose,
                    const std::string& advice = {});

// Throws std::runtime_error where the device computes no model of that shape.
void require_computable(const ModelConfig& model, Device device);

}  // namespace smoe
