// Bytes that come one after another, with bounded memory: of a file, a pipe or standard input, and what gzip and zstd make
// of them. What is not compressed and lies in a file is better mapped (files.h).
//
// Errors: std::runtime_error with the name, and the place in the (compressed) file where it goes wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace smoe {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Up to `bytes` of the next ones, which is above 0; 0 at the end alone.
  virtual std::size_t read(char* out, std::size_t bytes) = 0;
  // Of the file or pipe, taken so far: compressed ones, where they are compressed.
  virtual std::uint64_t file_bytes() const = 0;
  // From another thread: a read that waits for a pipe ends soon, with an exception.
  virtual void cancel() = 0;
};

enum class Compression { none, gzip, zstd };

// By the first bytes. 6 are enough.
Compression compression_of(std::string_view head);
const char* name_of(Compression compression);  // "gzip-compressed", "compressed with zstd", as behind "FILE is"

// The name by which standard input is given, and the one that messages have for it.
inline constexpr std::string_view standard_input = "-";
std::string display_name(const std::filesystem::path& path);

// A regular file, a FIFO (this waits for its writer), a pipe as in /dev/fd/63, or standard input.
std::unique_ptr<ByteStream> open_byte_stream(const std::filesystem::path& path);

// What `packed` holds. gzip: members one behind another are one file, as gzip has it, and zeros may follow; anything else behind one is refused.
// zstd: frames likewise, and a window of at most 128 MiB, the zstd program's own limit, so that no file takes more memory.
std::unique_ptr<ByteStream> decompress(std::unique_ptr<ByteStream> packed, Compression compression, std::string name);

// A stream whose first bytes were looked at, and are read again: unpacked, where they are compressed.
class PeekedStream final : public ByteStream {
 public:
  // Reads the head: as much of `bytes` as there is. `name` is for messages.
  PeekedStream(std::unique_ptr<ByteStream> stream, std::string name, std::size_t bytes);

  Compression compression() const { return compression_; }
  const std::string& head() const { return head_; }
  bool head_is_all() const { return head_is_all_; }

  std::size_t read(char* out, std::size_t bytes) override;
  std::uint64_t file_bytes() const override { return stream_->file_bytes(); }
  void cancel() override { stream_->cancel(); }

 private:
  PeekedStream(std::unique_ptr<ByteStream> stream, std::string head)
      : stream_(std::move(stream)), head_(std::move(head)) {}

  std::unique_ptr<ByteStream> stream_;
  Compression compression_ = Compression::none;
  std::string head_;
  std::size_t next_ = 0;  // of the head
  bool head_is_all_ = false;
};

}  // namespace smoe
