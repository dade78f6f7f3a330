#include "kernels/cuda/complaint.h"

#include <stdexcept>
#include <string>

#include "kernels/cuda/error.h"

namespace smoe::cuda {

Complaints::Complaints() {
  check("page-locked memory", cudaMallocHost(reinterpret_cast<void**>(&note_), sizeof(Note)));
  *note_ = {};
}

Complaints::~Complaints() { cudaFreeHost(note_); }

void Complaints::report() {
  if (!*static_cast<volatile int*>(&note_->written)) return;
  const Note note = *note_;
  note_->written = 0;
  *static_cast<volatile int*>(&note_->taken) = 0;  // the next one may be written
  throw std::logic_error(std::string(note.op) + ": " + note.argument + "[" + std::to_string(note.entry) + "] is " +
                         std::to_string(note.id) + ", expected " + std::to_string(note.first) + " .. " +
                         std::to_string(note.limit - 1));
}

}  // namespace smoe::cuda
