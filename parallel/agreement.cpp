#include "parallel/agreement.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

namespace smoe {

void together(Communicator& group, std::string_view label, const std::function<void()>& work, const StatusOf& status_of) {
  if (group.size() == 1) return work();
  std::string message;
  int status = 0;
  try {
    work();
  } catch (const SharedFailure&) {
    throw;  // all ranks have it already
  } catch (const std::exception& error) {
    status = status_of ? status_of(error) : 1;
    message = error.what();
  }
  // The lowest rank that failed speaks for all; how many failed tells whether the failure is its own.
  const bool failed = status != 0;
  std::array<double, 1> lowest{failed ? static_cast<double>(group.size() - group.rank()) : 0.0}, failures{failed ? 1.0 : 0.0};
  group.all_reduce(lowest, Reduce::max, label);
  if (lowest[0] == 0) return;
  group.all_reduce(failures, Reduce::sum, label);
  const int speaker = group.size() - static_cast<int>(lowest[0]);

  std::array<std::int32_t, 2> about{static_cast<std::int32_t>(message.size()), status};
  group.broadcast(Tensor(about.data(), DType::i32, {2}), speaker, label);
  std::vector<std::int32_t> text(static_cast<std::size_t>(about[0]) / 4 + 1);
  if (group.rank() == speaker) std::memcpy(text.data(), message.data(), message.size());
  group.broadcast(Tensor(text.data(), DType::i32, {static_cast<std::int64_t>(text.size())}), speaker, label);
  std::string shared(reinterpret_cast<const char*>(text.data()), static_cast<std::size_t>(about[0]));
  if (static_cast<int>(failures[0]) < group.size()) shared = "rank " + std::to_string(speaker) + ": " + shared;
  throw SharedFailure(shared, about[1]);
}

}  // namespace smoe
