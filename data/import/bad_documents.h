// Documents that cannot be read, of which a corpus may have a few (--skip-bad).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "data/files/files.h"
#include "data/files/printable.h"
#include "data/import/import_jsonl.h"

namespace smoe {

// Of the whole corpus, in the order of its documents: what is allowed, told and counted.
class BadDocuments {
 public:
  static constexpr std::int64_t most_told = 10;

  // tell: is given the first messages; may be empty.
  // directory: its skipped.txt gets them all, one a line, where there are more than that; empty: there is no list.
  explicit BadDocuments(std::int64_t allowed, std::function<void(const std::string&)> tell = {},
                        const std::filesystem::path& directory = {})
      : allowed_(allowed),
        tell_(std::move(tell)),
        list_(directory.empty() ? std::filesystem::path() : directory / "skipped.txt") {}

  // Throws the message where it is one more than is allowed.
  void add(const std::string& message) {
    if (allowed_ == 0) throw std::runtime_error(message);
    if (++count_ > allowed_)
      throw std::runtime_error(
          fmt::format("{}; this is bad document number {}, and --skip-bad allows {}", message, count_, allowed_));
    if (tell_ && count_ <= most_told) tell_(message);
    if (!list_.empty()) write(message);
  }
  // The list gets its name; where it is, or empty: there is none.
  std::filesystem::path commit_list() {
    if (!file_) return {};
    file_->commit();
    return list_;
  }
  std::int64_t count() const { return count_; }

 private:
  void write(const std::string& message) {
    lines_ += printable(message) + "\n";
    if (count_ <= most_told) return;
    if (!file_) file_.emplace(list_);
    file_->write(lines_);
    lines_.clear();
  }

  std::int64_t allowed_, count_ = 0;
  std::function<void(const std::string&)> tell_;
  std::filesystem::path list_;
  std::string lines_;  // until there are more than most_told
  std::optional<AtomicFile> file_;
};

// Of a part that a thread reads while others read parts before it: kept until their turn comes (add them to the whole's).
class BadPart {
 public:
  explicit BadPart(std::int64_t allowed) : allowed_(allowed) {}

  void add(const std::string& message) {
    if (allowed_ == 0) throw std::runtime_error(message);
    messages_.push_back(message);
  }
  // There are too many already: what else the part holds does not matter.
  bool full() const { return static_cast<std::int64_t>(messages_.size()) > allowed_; }
  const std::vector<std::string>& messages() const { return messages_; }

 private:
  std::int64_t allowed_;
  std::vector<std::string> messages_;
};

// The next object of a batch that `use(const Json& object, const std::string& where)` takes; false where there is none left.
// What the parser or `use` refuses (std::runtime_error) is a bad document, and is passed over: `use` must leave nothing
// half done. where: "FILE:line:column", for messages.
template <class Bad, class Use>
bool next_good(JsonBatch& batch, Bad& bad, Use&& use) {
  Json object;
  std::string where;
  for (;;) {
    try {
      if (!batch.next(object, where)) return false;
      use(std::as_const(object), std::as_const(where));
      return true;
    } catch (const std::runtime_error& error) {
      bad.add(error.what());
    }
    if constexpr (requires { bad.full(); })
      if (bad.full()) return false;
  }
}

}  // namespace smoe
