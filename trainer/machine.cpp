#include "trainer/machine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <system_error>

#include "kernels/cuda_device.h"
#include "model/mixtral.h"
#include "optim/adamw.h"
#include "parallel/control_groups.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace smoe {

std::uint64_t usable_memory_bytes(const std::filesystem::path& membership, const std::filesystem::path& groups) {
  const long pages = ::sysconf(_SC_PHYS_PAGES), size = ::sysconf(_SC_PAGESIZE);
  std::uint64_t least =
      pages > 0 && size > 0 ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(size) : 0;
  for (const ControlGroup& group : control_groups("memory", membership, groups)) {
    const std::string limit = content_of(group.directory / (group.version_2 ? "memory.max" : "memory.limit_in_bytes"));
    std::uint64_t bytes = 0;  // "max" is no number
    const auto [end, error] = std::from_chars(limit.data(), limit.data() + limit.size(), bytes);
    if (error == std::errc() && end == limit.data() + limit.size() && bytes > 0 && (least == 0 || bytes < least))
      least = bytes;
  }
  return least;
}

std::uint64_t training_state_bytes(const ModelConfig& model, const Layout& layout,
                                   const std::vector<std::string>& frozen, DType type, const LoraConfig* lora) {
  const Mesh mesh = Mesh::placed(layout, layout.ranks - 1);  // the last one has the larger part of what does not divide
  ParameterSet parameters = declare_parameters(model, mesh, frozen, type, lora);
  parameters.lay_out(mesh);
  return parameters.bytes(true) + AdamW::bytes(parameters, mesh);
}

std::uint64_t least_training_state_bytes(const ModelConfig& model, const Layout& layout, bool some_frozen, DType type) {
  const ParameterCounts counts = count_parameters(model);
  const auto total = static_cast<std::uint64_t>(counts.total), experts = static_cast<std::uint64_t>(counts.experts);
  const std::uint64_t held =
      experts / static_cast<std::uint64_t>(layout.ep) + (total - experts) / static_cast<std::uint64_t>(layout.tp);
  const std::uint64_t value = bytes_of(type), gradient = 4,
                      owned = type == DType::bf16 ? 12 : 8;  // moments, and masters
  return some_frozen ? value * held
                     : (value + gradient) * held + owned * total / static_cast<std::uint64_t>(layout.ranks);
}

Room room_on(Device device, int ranks) {
  Room room{.device = device, .ranks = ranks};
  if (device == Device::cpu) {
    room.total = room.free = usable_memory_bytes();
  } else {
    const DeviceMemory memory = cuda_memory();
    room.total = memory.total;
    room.free = memory.free;
  }
  return room;
}

void require_memory(const ModelConfig& model, const Room& room, std::uint64_t bytes_a_rank, const char* purpose,
                    const std::string& advice) {
  if (room.holds(bytes_a_rank)) return;
  const std::int64_t parameters = count_parameters(model).total;
  const double needed = static_cast<double>(bytes_a_rank) * room.ranks;
  const auto gib = [](auto bytes) { return static_cast<double>(bytes) / 0x1p30; };
  if (room.device == Device::cpu)
    throw std::runtime_error(fmt::format(
        "the model needs {:.1f} GiB here for {} ({} parameters), this machine has {:.1f} GiB of memory for it: choose a "
        "smaller model{}",
        gib(needed), purpose, parameters, gib(room.free), advice));
  throw std::runtime_error(
      fmt::format("the model needs {:.2f} GiB on a GPU for {}{} ({} parameters), {:.2f} of its {:.2f} GiB are free: "
                  "choose a smaller model{}",
                  gib(needed), purpose, room.ranks > 1 ? fmt::format(" of {} ranks", room.ranks) : "", parameters,
                  gib(room.free), gib(room.total), advice));
}

void require_computable(const ModelConfig& model, Device device) {
  if (device == Device::cpu || model.head_size() <= most_cuda_head_dim) return;
  throw std::runtime_error(
      fmt::format("model.head_dim: found {}{}, expected at most {} on a GPU; train.device: cpu takes it",
                  model.head_size(), model.head_dim ? "" : " (hidden_size / num_attention_heads)", most_cuda_head_dim));
}

}  // namespace smoe
