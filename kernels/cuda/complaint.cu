#include "kernels/cuda/complaint.h"

#include <stdexcept>
#include <string>

namespace smoe::cuda {

Complaints::Complaints(const Stream& stream) : stream_(stream), note_(page_locked<Note>(1)) { *note_ = {}; }

Complaints::~Complaints() { cudaStreamSynchronize(stream_); }  // kernels under way may write the note

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
