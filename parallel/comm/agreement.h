// Work that each rank does for itself and that may fail on some of them alone: a missing file, a full disk. All ranks
// learn of it and fail together, so that nobody waits for a rank that has given up.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "parallel/comm/communicator.h"

namespace smoe {

// Thrown on every rank of the group, with the message of the lowest rank that failed.
class SharedFailure : public std::runtime_error {
 public:
  SharedFailure(const std::string& message, int status) : std::runtime_error(message), status_(status) {}
  int status() const { return status_; }  // what status_of made of the failure, the same on every rank

 private:
  int status_;
};

using StatusOf = std::function<int(const std::exception&)>;

// Calls work() on every rank of the group and returns when all have succeeded. If any threw a std::exception, throws
// SharedFailure on all. work must call no collective that a failure before it would skip: others would wait there; a
// together() inside it must be over the same group.
// In a group of one, exceptions pass unchanged. status_of turns the exception into an exit status; 1 without it.
void together(Communicator& group, std::string_view label, const std::function<void()>& work,
              const StatusOf& status_of = {});

// The root's text, on every rank.
std::string broadcast_text(Communicator& group, const std::string& text, int root, std::string_view label);

}  // namespace smoe
