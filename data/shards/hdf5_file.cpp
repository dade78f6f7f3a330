#include "data/shards/hdf5_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "data/shards/hdf5_calls.h"

namespace smoe {
namespace {

constexpr hsize_t chunk_entries = 1 << 14;              // of columns written here; a sample is seldom in more than two
constexpr hsize_t max_chunk_bytes = hsize_t{64} << 20;  // of columns read
constexpr hsize_t most_expansion = 1032;                // bytes that deflate makes of one, at most (zlib's own figure)
constexpr std::size_t chunk_cache_slots = 13;
constexpr std::size_t chunk_cache_bytes = 512 << 10;  // a column; shards stay open, so it is paid once for each
constexpr std::size_t conversion_bytes = 64 << 10;    // HDF5 clears this much a call; its default, 1 MiB, costs 80 us
constexpr std::size_t max_attribute_bytes = 64 << 10;

using hdf5::check;
using hdf5::own;
using hdf5::prepare_library;
using hdf5::refuse_call;

[[noreturn]] void refuse_content(const std::string& file, const std::string& name, const std::string& found,
                                 const std::string& expected) {
  throw std::runtime_error(fmt::format("{}: '{}' {}; expected {}", file, name, found, expected));
}

// Little-endian in files, native in memory.
hid_t file_type_of(ColumnType type) {
  switch (type) {
    case ColumnType::u8: return H5T_STD_U8LE;
    case ColumnType::u16: return H5T_STD_U16LE;
    case ColumnType::u32: return H5T_STD_U32LE;
    case ColumnType::u64: return H5T_STD_U64LE;
  }
  throw std::logic_error("unknown column type");
}

hid_t memory_type_of(ColumnType type) {
  switch (type) {
    case ColumnType::u8: return H5T_NATIVE_UINT8;
    case ColumnType::u16: return H5T_NATIVE_UINT16;
    case ColumnType::u32: return H5T_NATIVE_UINT32;
    case ColumnType::u64: return H5T_NATIVE_UINT64;
  }
  throw std::logic_error("unknown column type");
}

Hdf5Handle transfer_settings(const std::string& file, const std::string& action) {
  Hdf5Handle list = own(H5Pcreate(H5P_DATASET_XFER), H5Pclose, file, action);
  check(H5Pset_buffer(list.get(), conversion_bytes, nullptr, nullptr), file, action);
  return list;
}

std::string joined_names(std::span<const ColumnType> types) {
  std::string text;
  for (const ColumnType type : types) text += (text.empty() ? "" : " or ") + std::string(column_type_name(type));
  return text;
}

// Every chunk must be in this file, passed through known filters only, and have been written.
void check_storage(hid_t dataset, const std::string& file, const std::string& name, hsize_t entries,
                   std::size_t entry_bytes) {
  const Hdf5Handle list = own(H5Dget_create_plist(dataset), H5Pclose, file, "read the storage of '" + name + "'");
  const int external_files = H5Pget_external_count(list.get());
  if (external_files < 0) refuse_call(file, "read the storage of '" + name + "'");
  if (external_files > 0) refuse_content(file, name, "keeps its values in another file", "values in the shard itself");
  if (H5Pget_layout(list.get()) != H5D_CHUNKED)
    refuse_content(file, name, "is not stored in chunks (contiguous, compact or virtual)", "a chunked dataset");

  const int filters = H5Pget_nfilters(list.get());
  if (filters < 0) refuse_call(file, "read the filters of '" + name + "'");
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0;
    std::size_t values = 0;
    const H5Z_filter_t filter = H5Pget_filter2(list.get(), i, &flags, &values, nullptr, 0, nullptr, nullptr);
    if (filter != H5Z_FILTER_FLETCHER32 && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_DEFLATE)
      refuse_content(file, name, fmt::format("uses filter {}", filter), "fletcher32, shuffle or deflate only");
  }

  hsize_t chunk = 0;
  if (H5Pget_chunk(list.get(), 1, &chunk) != 1 || chunk == 0)
    refuse_call(file, "read the chunk size of '" + name + "'");
  if (chunk > max_chunk_bytes / entry_bytes)
    refuse_content(file, name, fmt::format("has chunks of {} entries", chunk),
                   fmt::format("at most {} bytes a chunk", max_chunk_bytes));
  const Hdf5Handle space = own(H5Dget_space(dataset), H5Sclose, file, "read the extent of '" + name + "'");
  hsize_t written = 0;
  check(H5Dget_num_chunks(dataset, space.get(), &written), file, "count the chunks of '" + name + "'");
  const hsize_t needed = entries / chunk + (entries % chunk != 0);
  if (written != needed)
    refuse_content(file, name, fmt::format("has {} chunks stored", written),
                   fmt::format("{} for its {} entries", needed, entries));
}

// Callers make room for what a column says it holds, before they have seen a byte of it. Filters applied one over the
// other, and chunks that share one address, would let a file of a few KB ask for a terabyte.
void check_size(hid_t open_file, const std::string& file, const std::string& name, hsize_t entries,
                std::size_t entry_bytes) {
  hsize_t file_bytes = 0;
  check(H5Fget_filesize(open_file, &file_bytes), file, "read the size of the file");
  const hsize_t bytes = entries * entry_bytes;  // entries are at most 2^48
  if (bytes / most_expansion > file_bytes)
    refuse_content(
        file, name, fmt::format("has {} entries, {} bytes, in a file of {} bytes", entries, bytes, file_bytes),
        fmt::format("at most {} times the file's size, which is the most that deflate makes of it", most_expansion));
}

}  // namespace

Hdf5Handle::Hdf5Handle(Hdf5Handle&& other) noexcept
    : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}

Hdf5Handle& Hdf5Handle::operator=(Hdf5Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = std::exchange(other.id_, H5I_INVALID_HID);
    close_ = other.close_;
  }
  return *this;
}

herr_t Hdf5Handle::reset() { return valid() ? close_(std::exchange(id_, H5I_INVALID_HID)) : 0; }

const char* column_type_name(ColumnType type) {
  constexpr std::array names{"u8", "u16", "u32", "u64"};
  return names[static_cast<std::size_t>(type)];
}

std::size_t column_type_bytes(ColumnType type) { return std::size_t{1} << static_cast<std::size_t>(type); }

void Hdf5Column::append(ColumnType memory_type, const void* values, std::size_t count) {
  if (count == 0) return;
  prepare_library();
  const std::string action = fmt::format("write {} entries of '{}' after the first {}", count, name_, size_);
  const hsize_t first = static_cast<hsize_t>(size_), entries = count, extent = first + entries;
  check(H5Dset_extent(dataset_.get(), &extent), file_, action);
  const Hdf5Handle file_space = own(H5Dget_space(dataset_.get()), H5Sclose, file_, action);
  check(H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, &first, nullptr, &entries, nullptr), file_, action);
  const Hdf5Handle memory_space = own(H5Screate_simple(1, &entries, nullptr), H5Sclose, file_, action);
  check(H5Dwrite(dataset_.get(), memory_type_of(memory_type), memory_space.get(), file_space.get(), transfer_.get(),
                 values),
        file_, action);
  size_ += static_cast<std::int64_t>(count);
}

void Hdf5Column::read(ColumnType memory_type, std::int64_t offset, void* values, std::size_t count) const {
  if (offset < 0 || offset > size_ || count > static_cast<std::size_t>(size_ - offset))
    throw std::logic_error(
        fmt::format("{}: {} entries from {} of '{}', which has {}", file_, count, offset, name_, size_));
  if (column_type_bytes(memory_type) < column_type_bytes(type_))
    throw std::logic_error(fmt::format("{}: '{}' is read into a narrower type", file_, name_));
  if (count == 0) return;
  prepare_library();
  const auto refuse = [&] { refuse_call(file_, fmt::format("read {} entries from {} of '{}'", count, offset, name_)); };
  const hsize_t first = static_cast<hsize_t>(offset), entries = count;
  const Hdf5Handle file_space(H5Dget_space(dataset_.get()), H5Sclose);
  const Hdf5Handle memory_space(H5Screate_simple(1, &entries, nullptr), H5Sclose);
  if (!file_space.valid() || !memory_space.valid()) refuse();
  if (H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, &first, nullptr, &entries, nullptr) < 0) refuse();
  if (H5Dread(dataset_.get(), memory_type_of(memory_type), memory_space.get(), file_space.get(), transfer_.get(),
              values) < 0)
    refuse();
}

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  prepare_library();
  Hdf5File file;
  file.path_ = path.string();
  file.file_ = own(H5Fcreate(path.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT), H5Fclose, file.path_,
                   "create the HDF5 file");
  return file;
}

Hdf5File Hdf5File::open_to_read(const std::filesystem::path& path) {
  prepare_library();
  Hdf5File file;
  file.path_ = path.string();
  const Hdf5Handle access = own(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, file.path_, "open the HDF5 file");
  // Nobody writes to a finished shard, and network file systems often have no locks to give.
  check(H5Pset_file_locking(access.get(), false, true), file.path_, "open the HDF5 file");
  file.file_ = own(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose, file.path_, "open the HDF5 file");
  return file;
}

void Hdf5File::write_attribute(const std::string& name, const std::string& value) {
  prepare_library();
  const std::string action = fmt::format("write attribute '{}'", name);
  if (value.size() >= max_attribute_bytes)
    throw std::runtime_error(fmt::format("{}: cannot {}: it has {} bytes, at most {} fit", path_, action, value.size(),
                                         max_attribute_bytes - 1));
  const Hdf5Handle type = own(H5Tcopy(H5T_C_S1), H5Tclose, path_, action);
  // One byte more than the text, so that an empty one has a size too.
  check(H5Tset_size(type.get(), value.size() + 1), path_, action);
  check(H5Tset_cset(type.get(), H5T_CSET_UTF8), path_, action);
  const Hdf5Handle space = own(H5Screate(H5S_SCALAR), H5Sclose, path_, action);
  const Hdf5Handle attribute =
      own(H5Acreate2(file_.get(), name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose, path_,
          action);
  check(H5Awrite(attribute.get(), type.get(), value.c_str()), path_, action);
}

void Hdf5File::write_attribute(const std::string& name, std::int64_t value) {
  prepare_library();
  const std::string action = fmt::format("write attribute '{}'", name);
  const Hdf5Handle space = own(H5Screate(H5S_SCALAR), H5Sclose, path_, action);
  const Hdf5Handle attribute =
      own(H5Acreate2(file_.get(), name.c_str(), H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose, path_,
          action);
  check(H5Awrite(attribute.get(), H5T_NATIVE_INT64, &value), path_, action);
}

std::string Hdf5File::read_string_attribute(const std::string& name) const {
  prepare_library();
  const std::string action = fmt::format("read attribute '{}'", name);
  const Hdf5Handle attribute = own(H5Aopen(file_.get(), name.c_str(), H5P_DEFAULT), H5Aclose, path_, action);
  const Hdf5Handle type = own(H5Aget_type(attribute.get()), H5Tclose, path_, action);
  const Hdf5Handle space = own(H5Aget_space(attribute.get()), H5Sclose, path_, action);
  const std::size_t bytes = H5Tget_size(type.get());
  if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) != 0 ||
      H5Sget_simple_extent_npoints(space.get()) != 1 || bytes == 0 || bytes > max_attribute_bytes)
    refuse_content(path_, name, "is an attribute of another type",
                   fmt::format("one string of fixed length, of at most {} bytes", max_attribute_bytes));
  std::string value(bytes, '\0');
  check(H5Aread(attribute.get(), type.get(), value.data()), path_, action);
  value.resize(std::min(value.find('\0'), value.size()));
  return value;
}

std::int64_t Hdf5File::read_int_attribute(const std::string& name) const {
  prepare_library();
  const std::string action = fmt::format("read attribute '{}'", name);
  const Hdf5Handle attribute = own(H5Aopen(file_.get(), name.c_str(), H5P_DEFAULT), H5Aclose, path_, action);
  const Hdf5Handle type = own(H5Aget_type(attribute.get()), H5Tclose, path_, action);
  const Hdf5Handle space = own(H5Aget_space(attribute.get()), H5Sclose, path_, action);
  if (H5Tequal(type.get(), H5T_STD_I64LE) <= 0 || H5Sget_simple_extent_npoints(space.get()) != 1)
    refuse_content(path_, name, "is an attribute of another type", "one 64-bit signed integer, little-endian");
  std::int64_t value = 0;
  check(H5Aread(attribute.get(), H5T_NATIVE_INT64, &value), path_, action);
  return value;
}

std::vector<std::string> Hdf5File::members() const {
  prepare_library();
  struct Member {
    std::string name;
    bool inside;  // a hard link: it cannot lead out of the file
  };
  std::vector<Member> found;
  const auto visit = [](hid_t, const char* name, const H5L_info_t* info, void* out) -> herr_t {
    static_cast<std::vector<Member>*>(out)->push_back({name, info->type == H5L_TYPE_HARD});
    return 0;
  };
  check(H5Literate(file_.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, visit, &found), path_, "list the content");

  std::vector<std::string> names;
  for (const Member& member : found) {
    if (!member.inside)
      refuse_content(path_, member.name, "is a soft or external link", "datasets in the shard itself");
    const Hdf5Handle object = own(H5Oopen(file_.get(), member.name.c_str(), H5P_DEFAULT), H5Oclose, path_,
                                  fmt::format("open '{}'", member.name));
    if (H5Iget_type(object.get()) != H5I_DATASET)
      refuse_content(path_, member.name, "is not a dataset", "datasets only");
    names.push_back(member.name);
  }
  return names;
}

Hdf5Column Hdf5File::create_column(const std::string& name, ColumnType type) {
  prepare_library();
  const std::string action = fmt::format("create '{}'", name);
  const hsize_t empty = 0, unlimited = H5S_UNLIMITED, chunk = chunk_entries;
  const Hdf5Handle space = own(H5Screate_simple(1, &empty, &unlimited), H5Sclose, path_, action);
  const Hdf5Handle list = own(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, path_, action);
  check(H5Pset_chunk(list.get(), 1, &chunk), path_, action);
  check(H5Pset_fletcher32(list.get()), path_, action);
  check(H5Pset_obj_track_times(list.get(), false), path_, action);  // equal content, equal checksum

  Hdf5Column column;
  column.dataset_ =
      own(H5Dcreate2(file_.get(), name.c_str(), file_type_of(type), space.get(), H5P_DEFAULT, list.get(), H5P_DEFAULT),
          H5Dclose, path_, action);
  column.transfer_ = transfer_settings(path_, action);
  column.file_ = path_;
  column.name_ = name;
  column.type_ = type;
  return column;
}

Hdf5Column Hdf5File::open_column(const std::string& name, std::span<const ColumnType> allowed) const {
  prepare_library();
  const std::string action = fmt::format("open '{}'", name);
  const Hdf5Handle access = own(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose, path_, action);
  check(H5Pset_chunk_cache(access.get(), chunk_cache_slots, chunk_cache_bytes, H5D_CHUNK_CACHE_W0_DEFAULT), path_,
        action);

  Hdf5Column column;
  column.dataset_ = own(H5Dopen2(file_.get(), name.c_str(), access.get()), H5Dclose, path_, action);
  column.transfer_ = transfer_settings(path_, action);
  column.file_ = path_;
  column.name_ = name;

  const Hdf5Handle type = own(H5Dget_type(column.dataset_.get()), H5Tclose, path_, action);
  const auto matching = std::find_if(allowed.begin(), allowed.end(), [&](ColumnType candidate) {
    return H5Tequal(type.get(), file_type_of(candidate)) > 0;
  });
  if (matching == allowed.end())
    refuse_content(path_, name, "has values of another type", joined_names(allowed) + ", little-endian");
  column.type_ = *matching;

  const Hdf5Handle space = own(H5Dget_space(column.dataset_.get()), H5Sclose, path_, action);
  const int dims = H5Sget_simple_extent_ndims(space.get());
  if (dims != 1) refuse_content(path_, name, fmt::format("has {} dimensions", dims), "one");
  hsize_t entries = 0;
  if (H5Sget_simple_extent_dims(space.get(), &entries, nullptr) != 1) refuse_call(path_, action);
  if (entries > hsize_t{1} << 48) refuse_content(path_, name, fmt::format("has {} entries", entries), "at most 2^48");
  column.size_ = static_cast<std::int64_t>(entries);
  check_storage(column.dataset_.get(), path_, name, entries, column_type_bytes(column.type_));
  check_size(file_.get(), path_, name, entries, column_type_bytes(column.type_));
  return column;
}

void Hdf5File::close() {
  prepare_library();
  check(file_.reset(), path_, "write out and close the HDF5 file");
}

}  // namespace smoe
