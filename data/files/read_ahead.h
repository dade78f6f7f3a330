// A stream that is read, and unpacked, on a thread of its own, some blocks ahead of whoever takes them.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "data/files/byte_stream.h"

namespace smoe {

class ReadAhead {
 public:
  static constexpr std::size_t block_bytes = 1 << 20, most_blocks = 4;

  struct Block {
    std::string bytes;
    std::uint64_t file_bytes = 0;  // of the file, read so far
  };

  explicit ReadAhead(std::shared_ptr<ByteStream> stream)
      : stream_(std::move(stream)), thread_([this](std::stop_token stop) { run(stop); }) {}
  ~ReadAhead() {
    thread_.request_stop();
    stream_->cancel();
  }
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // False at the end. What the stream throws comes behind the blocks before it.
  bool next(Block& block) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !blocks_.empty() || ended_; });
    if (blocks_.empty()) {
      if (error_) std::rethrow_exception(error_);
      return false;
    }
    block = std::move(blocks_.front());
    blocks_.pop_front();
    lock.unlock();
    changed_.notify_all();
    return true;
  }

 private:
  void run(std::stop_token stop) {
    std::exception_ptr error;
    try {
      while (fill(stop)) {
      }
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    error_ = error;
    ended_ = true;
    changed_.notify_all();
  }

  bool fill(std::stop_token stop) {
    Block block;
    block.bytes.resize(block_bytes);
    std::size_t filled = 0;
    bool more = true;
    while (more && filled < block_bytes) {
      const std::size_t read = stream_->read(block.bytes.data() + filled, block_bytes - filled);
      more = read > 0;
      filled += read;
    }
    block.bytes.resize(filled);
    block.file_bytes = stream_->file_bytes();
    std::unique_lock lock(mutex_);
    if (!changed_.wait(lock, stop, [this] { return blocks_.size() < most_blocks; })) return false;
    blocks_.push_back(std::move(block));  // an empty last one too: it knows how long the file is
    lock.unlock();
    changed_.notify_all();
    return more && !stop.stop_requested();
  }

  std::shared_ptr<ByteStream> stream_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Block> blocks_;
  std::exception_ptr error_;
  bool ended_ = false;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace smoe
