#include "parallel/comm/agreement.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

namespace smoe {

void together(Communicator& group, std::string_view label, const std::function<void()>& work,
              const StatusOf& status_of) {
  if (group.size() == 1) return work();
  std::string message;
  bool failed = false;
  int status = 0;
  try {
    work();
  } catch (const SharedFailure&) {
    throw;  // all ranks have it already
  } catch (const std::exception& error) {
    failed = true;
    status = status_of ? status_of(error) : 1;
    message = error.what();
  }
  // The lowest rank that failed speaks for all; how many failed tells whether the failure is its own.
  std::array<double, 1> lowest{failed ? static_cast<double>(group.size() - group.rank()) : 0.0},
      failures{failed ? 1.0 : 0.0};
  group.all_reduce(lowest, Reduce::max, label);
  if (lowest[0] == 0) return;
  group.all_reduce(failures, Reduce::sum, label);
  const int speaker = group.size() - static_cast<int>(lowest[0]);

  std::array<double, 1> shared_status{static_cast<double>(group.rank() == speaker ? status : 0)};
  group.all_reduce(shared_status, Reduce::sum, label);
  std::string shared = broadcast_text(group, message, speaker, label);
  if (speaker != 0 && static_cast<int>(failures[0]) < group.size())
    shared = "rank " + std::to_string(speaker) + ": " + shared;
  throw SharedFailure(shared, static_cast<int>(shared_status[0]));
}

std::string broadcast_text(Communicator& group, const std::string& text, int root, std::string_view label) {
  if (group.size() == 1) return text;
  std::array<std::int32_t, 1> length{static_cast<std::int32_t>(text.size())};
  group.broadcast(host_tensor(length), root, label);
  std::vector<std::int32_t> words(static_cast<std::size_t>(length[0]) / 4 + 1);
  if (group.rank() == root) std::memcpy(words.data(), text.data(), text.size());
  group.broadcast(host_tensor(words), root, label);
  return {reinterpret_cast<const char*>(words.data()), static_cast<std::size_t>(length[0])};
}

}  // namespace smoe
