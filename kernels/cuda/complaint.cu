#include "kernels/cuda/complaint.h"

#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/cuda/error.h"

namespace smoe::cuda {

Complaints::Complaints() {
  check("page-locked memory", cudaMallocHost(reinterpret_cast<void**>(&note_), sizeof(Note)));
  *note_ = {};
}

Complaints::~Complaints() { cudaFreeHost(note_); }

void Complaints::report() {
  if (!note_->op) return;
  const Note note = std::exchange(*note_, {});
  throw std::logic_error(std::string(note.op) + ": " + note.argument + "[" + std::to_string(note.entry) + "] is " +
                         std::to_string(note.id) + ", expected " + std::to_string(note.first) + " .. " +
                         std::to_string(note.limit - 1));
}

}  // namespace smoe::cuda
