#include "data/shards/laid_aside.h"

#include <algorithm>

namespace smoe {

namespace {

constexpr std::size_t most_held = 1 << 20;  // 4 MiB

}  // namespace

void LaidAside::append(std::span<const std::int32_t> ids) {
  held_.insert(held_.end(), ids.begin(), ids.end());
  if (held_.size() <= most_held) return;
  if (!file_.is_open()) {
    const TemporaryPath name(directory_ / "begun-document");  // which takes the name away again
    file_ = File::create(name.path());
  }
  file_.pwrite_all(held_.data(), held_.size() * sizeof(std::int32_t),
                   static_cast<std::uint64_t>(in_file_) * sizeof(std::int32_t));
  in_file_ += static_cast<std::int64_t>(held_.size());
  held_.clear();
}

void LaidAside::take(const std::function<void(std::span<const std::int32_t>)>& use) {
  std::vector<std::int32_t> piece;
  for (std::int64_t done = 0; done < in_file_;) {
    piece.resize(std::min<std::size_t>(most_held, static_cast<std::size_t>(in_file_ - done)));
    file_.pread_all(piece.data(), piece.size() * sizeof(std::int32_t),
                    static_cast<std::uint64_t>(done) * sizeof(std::int32_t));
    use(piece);
    done += static_cast<std::int64_t>(piece.size());
  }
  if (!held_.empty()) use(held_);
  file_ = File();
  in_file_ = 0;
  held_.clear();
}

}  // namespace smoe
