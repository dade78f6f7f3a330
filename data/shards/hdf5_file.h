// HDF5 files of one-dimensional columns of unsigned integers and of attributes: the part of HDF5 that token shards use.
//
// HDF5 is not safe against hostile files, so callers compare a checksum before they open one. What can be refused
// after opening is refused here: links out of the file, storage outside it, virtual datasets, filters beyond a short
// list, chunks that were never written or are too large, columns larger than deflate could make of the whole file,
// plugins. HDF5 prints nothing: what it would have said is part of the exception.
//
// Errors: std::runtime_error with the file, the operation and HDF5's own message.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace smoe {

// An HDF5 identifier and the function that gives it back.
class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);

  Hdf5Handle() = default;
  Hdf5Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Hdf5Handle() { reset(); }
  Hdf5Handle(Hdf5Handle&& other) noexcept;
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept;

  hid_t get() const { return id_; }
  bool valid() const { return id_ >= 0; }
  herr_t reset();  // what the close function answered; 0 if there was nothing to close

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

enum class ColumnType { u8, u16, u32, u64 };
const char* column_type_name(ColumnType type);
std::size_t column_type_bytes(ColumnType type);

// A chunked one-dimensional dataset. Values convert to the width of the caller's span, which must not be narrower.
class Hdf5Column {
 public:
  const std::string& name() const { return name_; }
  ColumnType type() const { return type_; }
  std::int64_t size() const { return size_; }

  void append(std::span<const std::uint8_t> values) { append(ColumnType::u8, values.data(), values.size()); }
  void append(std::span<const std::uint32_t> values) { append(ColumnType::u32, values.data(), values.size()); }
  void append(std::span<const std::uint64_t> values) { append(ColumnType::u64, values.data(), values.size()); }

  // Entries [offset, offset + values.size()).
  void read(std::int64_t offset, std::span<std::uint8_t> values) const {
    read(ColumnType::u8, offset, values.data(), values.size());
  }
  void read(std::int64_t offset, std::span<std::uint32_t> values) const {
    read(ColumnType::u32, offset, values.data(), values.size());
  }
  void read(std::int64_t offset, std::span<std::uint64_t> values) const {
    read(ColumnType::u64, offset, values.data(), values.size());
  }

 private:
  friend class Hdf5File;
  void append(ColumnType memory_type, const void* values, std::size_t count);
  void read(ColumnType memory_type, std::int64_t offset, void* values, std::size_t count) const;

  Hdf5Handle dataset_;
  Hdf5Handle transfer_;  // settings of reads and writes
  std::string file_, name_;
  ColumnType type_ = ColumnType::u8;
  std::int64_t size_ = 0;
};

class Hdf5File {
 public:
  // A new file; one that exists is refused.
  static Hdf5File create(const std::filesystem::path& path);
  static Hdf5File open_to_read(const std::filesystem::path& path);

  const std::string& path() const { return path_; }

  void write_attribute(const std::string& name, const std::string& value);
  void write_attribute(const std::string& name, std::int64_t value);
  std::string read_string_attribute(const std::string& name) const;  // of at most 64 KiB
  std::int64_t read_int_attribute(const std::string& name) const;

  // Names in the root group, in alphabetical order. Throws on a link that is not a plain one to a dataset of the file.
  std::vector<std::string> members() const;

  // Empty, to be appended to; chunks carry Fletcher-32 checksums, which HDF5 compares whenever it reads one.
  Hdf5Column create_column(const std::string& name, ColumnType type);
  // Throws unless it is a column as described above, of a type in `allowed`, and written in full.
  Hdf5Column open_column(const std::string& name, std::span<const ColumnType> allowed) const;

  // Checked, unlike the destructor: a full disk may show only here. Columns must be gone.
  void close();

 private:
  Hdf5Handle file_;
  std::string path_;
};

}  // namespace smoe
