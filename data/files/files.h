// Files as a training run needs them: what is read must be a regular file of a sane size, what is written is whole
// or absent, and every error names the path, the operation and, where the disk is full, the bytes that were wanted.
//
// Errors: std::runtime_error. New files get the mode 0666 and new directories 0755, both less the umask.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace smoe {

// An open regular file. Reads and writes are at explicit offsets, so one File serves several threads.
class File {
 public:
  // Follows symlinks (a Hugging Face cache is made of them); refuses directories, FIFOs and devices without blocking.
  static File open_to_read(const std::filesystem::path& path);
  // An existing file, for reading and writing; symlinks are refused.
  static File open_to_update(const std::filesystem::path& path);
  // A new file; refuses a path that exists in any form, a dangling symlink included.
  static File create(const std::filesystem::path& path);

  File() = default;
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;

  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  const std::string& path() const { return path_; }
  std::uint64_t size() const;

  void pread_all(void* out, std::size_t bytes, std::uint64_t offset) const;
  void pwrite_all(const void* data, std::size_t bytes, std::uint64_t offset);
  // Grows the file to `bytes`, taking the blocks now where the file system can, so that a full disk shows at once.
  void reserve(std::uint64_t bytes);
  void sync();
  void close();  // checked: some file systems report a failed write only here

 private:
  File(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  static File open_regular(const std::filesystem::path& path, int flags, const char* action);

  int fd_ = -1;
  std::string path_;
};

// A whole file mapped read-only. The file must not shrink while it is mapped: touching a lost page ends the process.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const File& file);
  explicit MappedFile(const std::filesystem::path& path) : MappedFile(File::open_to_read(path)) {}
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// A name to write under, hidden and beside `target`. commit() renames it onto the target, durably, and replaces what
// was there; without it the destructor removes what was written. The writer syncs the content before commit(). Throws
// std::runtime_error for a target that is a device, a FIFO or a socket.
class TemporaryPath {
 public:
  explicit TemporaryPath(std::filesystem::path target);
  ~TemporaryPath();
  TemporaryPath(const TemporaryPath&) = delete;
  TemporaryPath& operator=(const TemporaryPath&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void commit();

 private:
  std::filesystem::path target_, path_;
  bool committed_ = false;
};

// Removes what killed writers of `target` left under such names; only for who knows that nobody else is writing it.
void remove_temporaries(const std::filesystem::path& target);

// A file written front to back that appears under its name only when commit() has made it durable.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  void write(std::string_view bytes);
  void write(std::span<const std::byte> bytes);
  void commit();

 private:
  TemporaryPath temporary_;
  File file_;
  std::uint64_t written_ = 0;
};

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);
void copy_file_atomically(const std::filesystem::path& from, const std::filesystem::path& to);

// The whole content; refuses a file larger than max_bytes before reading it.
std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes);

// Makes renames and new names inside the directory survive a power cut.
void fsync_directory(const std::filesystem::path& directory);

// rename(2), then the target's directory is synced. The content must be synced already.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);

// The directory and the missing ones above it.
void make_directories(const std::filesystem::path& directory);

}  // namespace smoe
