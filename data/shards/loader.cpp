#include "data/shards/loader.h"

#include <fmt/format.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <span>
#include <stdexcept>
#include <stop_token>
#include <thread>
#include <utility>

namespace smoe {

class Loader::Impl {
 public:
  Impl(std::vector<std::shared_ptr<const Dataset>> datasets, Sampler sampler, std::int64_t micro_batch_size,
       std::int64_t dp_rank, std::int64_t dp_size, std::int64_t first_step, std::int64_t prefetch)
      : datasets_(std::move(datasets)),
        sampler_(std::move(sampler)),
        micro_batch_size_(micro_batch_size),
        dp_rank_(dp_rank),
        dp_size_(dp_size),
        step_(first_step) {
    check_arguments(micro_batch_size, dp_rank, dp_size, first_step, prefetch);
    sequences_ = sampler_.global_batch_size() / dp_size;
    const std::int64_t length = datasets_[0]->sequence_length();
    // One more than is read ahead: the batch that the caller holds.
    for (std::int64_t i = 0; i <= prefetch; ++i) {
      Batch& batch = ring_.emplace_back();
      batch.sequences = sequences_;
      batch.sequence_length = length;
      batch.whole_documents = datasets_[0]->packing() == Packing::best_fit;
      const auto tokens = static_cast<std::size_t>(sequences_ * length);
      batch.ids.resize(tokens);
      batch.targets.resize(tokens);
      batch.document_start.resize(tokens);
    }
    thread_ = std::jthread([this](std::stop_token stop) { read_ahead(stop); });
  }

  const Batch& next() {
    std::unique_lock lock(mutex_);
    if (holding_) {  // the batch of the call before is the thread's again
      head_ = (head_ + 1) % ring_.size();
      filled_ -= 1;
      holding_ = false;
      changed_.notify_all();
    }
    changed_.wait(lock, [&] { return filled_ > 0 || error_; });
    if (filled_ == 0) std::rethrow_exception(error_);
    holding_ = true;
    return ring_[head_];
  }

 private:
  void check_arguments(std::int64_t micro_batch_size, std::int64_t dp_rank, std::int64_t dp_size,
                       std::int64_t first_step, std::int64_t prefetch) const {
    if (datasets_.empty() || datasets_.size() != sampler_.sources().size())
      throw std::logic_error(
          fmt::format("Loader: {} datasets for {} sources", datasets_.size(), sampler_.sources().size()));
    for (std::size_t i = 0; i < datasets_.size(); ++i) {
      if (datasets_[i]->samples() != sampler_.sources()[i].samples)
        throw std::logic_error(fmt::format("Loader: {} has {} samples, the sampler's source {} has {}",
                                           datasets_[i]->directory(), datasets_[i]->samples(), i,
                                           sampler_.sources()[i].samples));
      if (datasets_[i]->sequence_length() != datasets_[0]->sequence_length())
        throw std::logic_error(fmt::format("Loader: {} has sequences of {}, {} of {}", datasets_[i]->directory(),
                                           datasets_[i]->sequence_length(), datasets_[0]->directory(),
                                           datasets_[0]->sequence_length()));
      if (datasets_[i]->packing() != datasets_[0]->packing())
        throw std::logic_error(fmt::format("Loader: {} and {} are packed in two ways", datasets_[i]->directory(),
                                           datasets_[0]->directory()));
    }
    if (dp_size < 1 || dp_rank < 0 || dp_rank >= dp_size)
      throw std::logic_error(fmt::format("Loader: data-parallel rank {} of {}", dp_rank, dp_size));
    if (micro_batch_size < 1 || sampler_.global_batch_size() % (dp_size * micro_batch_size) != 0)
      throw std::logic_error(
          fmt::format("Loader: a global batch of {} sequences does not divide over {} ranks of {} at once",
                      sampler_.global_batch_size(), dp_size, micro_batch_size));
    if (first_step < 1) throw std::logic_error(fmt::format("Loader: first step {}", first_step));
    if (prefetch < 1) throw std::logic_error(fmt::format("Loader: prefetch {}", prefetch));
  }

  // The thread: fills the ring's batches in turn until it is told to stop or something fails.
  void read_ahead(const std::stop_token& stop) {
    for (std::size_t slot = 0;; slot = (slot + 1) % ring_.size(), ++step_) {
      {
        std::unique_lock lock(mutex_);
        if (!changed_.wait(lock, stop, [&] { return filled_ < ring_.size(); })) return;
      }
      std::exception_ptr error;
      try {
        if (!read_batch(ring_[slot], stop)) return;
      } catch (...) {
        error = std::current_exception();
      }
      const std::lock_guard lock(mutex_);
      if (error)
        error_ = error;
      else
        filled_ += 1;
      changed_.notify_all();
      if (error) return;
    }
  }

  // In the global batch, of this rank's b-th sequence.
  std::int64_t position_of(std::int64_t b) const {
    return (b / micro_batch_size_ * dp_size_ + dp_rank_) * micro_batch_size_ + b % micro_batch_size_;
  }

  // False if told to stop halfway.
  bool read_batch(Batch& batch, const std::stop_token& stop) const {
    batch.step = step_;
    const auto length = static_cast<std::size_t>(batch.sequence_length);
    for (std::int64_t b = 0; b < sequences_; ++b) {
      if (stop.stop_requested()) return false;
      const SampleRef ref = sampler_.at(step_, position_of(b));
      const auto row = static_cast<std::size_t>(b) * length;
      datasets_[static_cast<std::size_t>(ref.source)]->read(ref.sample, std::span(batch.ids).subspan(row, length),
                                                            std::span(batch.targets).subspan(row, length),
                                                            std::span(batch.document_start).subspan(row, length));
    }
    return true;
  }

  std::vector<std::shared_ptr<const Dataset>> datasets_;
  Sampler sampler_;
  std::int64_t micro_batch_size_, dp_rank_, dp_size_;
  std::int64_t sequences_ = 0;  // of this rank, a step
  std::int64_t step_;           // the thread's: of the batch being read

  std::mutex mutex_;  // for all below
  std::condition_variable_any changed_;
  std::vector<Batch> ring_;
  std::size_t head_ = 0, filled_ = 0;  // batches [head_, head_ + filled_) of the ring are ready or held
  bool holding_ = false;               // the caller has ring_[head_]
  std::exception_ptr error_;

  std::jthread thread_;  // last, so that it is joined before what it uses goes away
};

Loader::Loader(std::vector<std::shared_ptr<const Dataset>> datasets, Sampler sampler, std::int64_t micro_batch_size,
               std::int64_t dp_rank, std::int64_t dp_size, std::int64_t first_step, std::int64_t prefetch)
    : impl_(std::make_unique<Impl>(std::move(datasets), std::move(sampler), micro_batch_size, dp_rank, dp_size,
                                   first_step, prefetch)) {}
Loader::~Loader() = default;

const Batch& Loader::next() { return impl_->next(); }

}  // namespace smoe
