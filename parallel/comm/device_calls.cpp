#include "parallel/comm/device_calls.h"

#include <algorithm>
#include <exception>
#include <optional>

namespace smoe {

void DeviceCalls::watch(const NcclGroup& group) {
  const std::lock_guard lock(mutex_);
  groups_.push_back(&group);
}

void DeviceCalls::forget(const NcclGroup& group, CommunicationStream& stream) {
  const std::lock_guard not_asked(asking_);
  const std::lock_guard lock(mutex_);
  if (const auto found = std::find(groups_.begin(), groups_.end(), &group); found != groups_.end())
    groups_.erase(found);  // one of those that share it
  std::erase_if(queues_, [&](const Queue& queue) { return queue.stream == &stream; });
}

void DeviceCalls::add(CommunicationStream& stream, std::uint64_t point, const CollectiveCall& call) {
  const std::lock_guard lock(mutex_);
  auto queue = std::find_if(queues_.begin(), queues_.end(), [&](const Queue& of) { return of.stream == &stream; });
  if (queue == queues_.end()) {
    queues_.push_back({&stream, std::vector<Queued>(CommunicationStream::points_kept), 0, 0});
    queue = queues_.end() - 1;
  }
  const std::size_t capacity = queue->ring.size();
  if (queue->count == capacity) {
    queue->first = (queue->first + 1) % capacity;
    --queue->count;
  }
  queue->ring[(queue->first + queue->count) % capacity] = {++added_, point, call};
  ++queue->count;
}

std::string DeviceCalls::look(NumberedLedger& device) {
  const std::lock_guard asking(asking_);
  const auto front_of = [&](std::size_t i) -> std::optional<Queued> {
    const std::lock_guard lock(mutex_);
    if (i >= queues_.size() || queues_[i].count == 0) return std::nullopt;
    return queues_[i].ring[queues_[i].first];
  };
  const auto stream_of = [&](std::size_t i) {
    const std::lock_guard lock(mutex_);
    return i < queues_.size() ? queues_[i].stream : nullptr;
  };
  std::optional<Queued> oldest;
  try {
    for (std::size_t i = 0; CommunicationStream* const stream = stream_of(i); ++i) {
      std::optional<Queued> front = front_of(i);
      for (; front && stream->is_past(front->point); front = front_of(i)) {
        const std::lock_guard lock(mutex_);
        Queue& queue = queues_[i];
        if (queue.count > 0 && queue.ring[queue.first].number == front->number) {
          queue.first = (queue.first + 1) % queue.ring.size();
          --queue.count;
        }
      }
      if (front && (!oldest || front->number < oldest->number)) oldest = front;
    }
  } catch (const std::exception& error) {
    return error.what();
  }
  if (const std::uint64_t number = oldest ? oldest->number : 0; number != shown_) {
    if (oldest)
      device.enter(oldest->call, number);
    else
      device.leave();
    shown_ = number;
  }
  const std::vector<const NcclGroup*> groups = [&] {
    const std::lock_guard lock(mutex_);
    return groups_;
  }();
  for (const NcclGroup* group : groups)
    if (std::string trouble = group->trouble(); !trouble.empty()) return trouble;
  return {};
}

}  // namespace smoe
