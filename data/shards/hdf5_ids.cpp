#include "data/shards/hdf5_ids.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "data/shards/hdf5_calls.h"

namespace smoe {

namespace {

constexpr hsize_t most_chunk_bytes = hsize_t{256} << 20;
constexpr std::array<ColumnType, 1> offset_types{ColumnType::u64};
constexpr std::size_t most_datasets_named = 20;

// Names of groups lead to datasets by plain links only: the others may lead out of the file.
void check_links(hid_t file, const std::string& file_name, const std::string& dataset) {
  for (std::size_t begin = 0; begin < dataset.size();) {
    const std::size_t end = std::min(dataset.find('/', begin), dataset.size());
    const std::string prefix = dataset.substr(0, end);
    begin = end + 1;
    if (prefix.empty() || prefix.back() == '/') continue;
    H5L_info_t info;
    hdf5::check(H5Lget_info(file, prefix.c_str(), &info, H5P_DEFAULT), file_name, "look up '" + prefix + "'");
    if (info.type != H5L_TYPE_HARD)
      throw std::runtime_error(
          fmt::format("{}: '{}' is a soft or external link, expected a dataset of the file itself", file_name, prefix));
  }
}

bool has_link(hid_t file, const std::string& path) {
  for (std::size_t begin = 0; begin < path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string prefix = path.substr(0, end);
    begin = end + 1;
    if (!prefix.empty() && prefix.back() != '/' && H5Lexists(file, prefix.c_str(), H5P_DEFAULT) <= 0) return false;
  }
  return !path.empty();
}

// Of H5Lvisit: gathers the names of datasets, into a vector of strings.
herr_t name_dataset(hid_t file, const char* name, const H5L_info_t* info, void* out) {
  auto& names = *static_cast<std::vector<std::string>*>(out);
  if (info->type != H5L_TYPE_HARD || names.size() > most_datasets_named) return 0;
  const Hdf5Handle object(H5Oopen(file, name, H5P_DEFAULT), H5Oclose);
  if (H5Iget_type(object.get()) == H5I_DATASET) names.emplace_back(name);
  return 0;
}

}  // namespace

Hdf5Ids::Hdf5Ids(const std::filesystem::path& path, const std::string& dataset)
    : file_name_(path.string()), name_(file_name_) {
  hdf5::prepare_library();
  const std::string action = "open the HDF5 file";
  const Hdf5Handle access = hdf5::own(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, file_name_, action);
  hdf5::check(H5Pset_file_locking(access.get(), false, true), file_name_, action);
  file_ = hdf5::own(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose, file_name_, action);
  if (!dataset.empty()) {
    open_dataset(dataset);
    return;
  }
  if (!has_link(file_.get(), "tokens") || !has_link(file_.get(), "document_offsets"))
    refuse(fmt::format("which dataset holds the ids? Name it with --dataset; the file has {}", datasets()));
  if (has_link(file_.get(), "loss_mask"))
    refuse("is a token shard with a loss_mask, which would be lost: train on its directory as it is");
  open_dataset("tokens");
  read_offsets();
}

std::int64_t Hdf5Ids::size() const {
  std::int64_t size = 1;
  for (const std::int64_t dim : shape_) size *= dim;
  return size;
}

void Hdf5Ids::refuse(const std::string& what) const { throw std::runtime_error(fmt::format("{}: {}", name_, what)); }

std::string Hdf5Ids::datasets() const {
  std::vector<std::string> names;
  H5Lvisit(file_.get(), H5_INDEX_NAME, H5_ITER_INC, name_dataset, &names);
  if (names.empty()) return "none";
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), most_datasets_named); ++i) text += (i > 0 ? ", " : "") + names[i];
  return text + (names.size() > most_datasets_named ? ", ..." : "");
}

void Hdf5Ids::open_dataset(const std::string& dataset) {
  const std::string action = fmt::format("open '{}'", dataset);
  if (!has_link(file_.get(), dataset)) refuse(fmt::format("has no dataset '{}'; the file has {}", dataset, datasets()));
  check_links(file_.get(), file_name_, dataset);
  const Hdf5Handle object = hdf5::own(H5Oopen(file_.get(), dataset.c_str(), H5P_DEFAULT), H5Oclose, file_name_, action);
  if (H5Iget_type(object.get()) != H5I_DATASET)
    refuse(fmt::format("'{}' is no dataset; the file has {}", dataset, datasets()));
  dataset_ = hdf5::own(H5Dopen2(file_.get(), dataset.c_str(), H5P_DEFAULT), H5Dclose, file_name_, action);
  name_ = fmt::format("{}: '{}'", file_name_, dataset);

  const Hdf5Handle type = hdf5::own(H5Dget_type(dataset_.get()), H5Tclose, file_name_, action);
  bytes_per_token_ = H5Tget_size(type.get());
  if (H5Tget_class(type.get()) != H5T_INTEGER)
    refuse(H5Tget_class(type.get()) == H5T_FLOAT ? "holds floating-point numbers, expected integers: ids"
                                                 : "holds no numbers, expected integers: ids");
  is_u64_ = bytes_per_token_ == 8 && H5Tget_sign(type.get()) == H5T_SGN_NONE;
  const Hdf5Handle space = hdf5::own(H5Dget_space(dataset_.get()), H5Sclose, file_name_, action);
  const int dims = H5Sget_simple_extent_ndims(space.get());
  if (dims != 1 && dims != 2)
    refuse(fmt::format("has {} dims, expected 1 (one document) or 2 (one document a row)", dims));
  std::array<hsize_t, 2> extent{};
  if (H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr) != dims) hdf5::refuse_call(file_name_, action);
  constexpr hsize_t most = hsize_t{1} << 48;
  for (int i = 0; i < dims; ++i) shape_.push_back(static_cast<std::int64_t>(std::min(extent[i], most)));
  if (extent[0] > most || (dims == 2 && extent[1] > most / std::max<hsize_t>(extent[0], 1)))
    refuse("has more than 2^48 elements");
  check_storage();
}

// All values must be in this file, behind filters of the library's own, and have been written.
void Hdf5Ids::check_storage() const {
  const std::string action = "read the storage of the dataset";
  const Hdf5Handle list = hdf5::own(H5Dget_create_plist(dataset_.get()), H5Pclose, name_, action);
  const H5D_layout_t layout = H5Pget_layout(list.get());
  if (H5Pget_external_count(list.get()) != 0 || layout == H5D_VIRTUAL)
    refuse("keeps its values in other files; copy them into one dataset");
  const int filters = H5Pget_nfilters(list.get());
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0;
    std::size_t values = 0;
    char filter_name[32] = "";
    const H5Z_filter_t filter = H5Pget_filter2(list.get(), static_cast<unsigned>(i), &flags, &values, nullptr,
                                               sizeof filter_name, filter_name, nullptr);
    if (filter != H5Z_FILTER_FLETCHER32 && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_DEFLATE)
      refuse(fmt::format("is compressed with the filter {} ({}); write it again with gzip, or without", filter,
                         std::string(filter_name)));
  }
  if (size() == 0) return;
  bool written = false;
  if (layout == H5D_CHUNKED) {
    std::array<hsize_t, 2> chunk{1, 1};
    if (H5Pget_chunk(list.get(), 2, chunk.data()) < 1) hdf5::refuse_call(name_, action);
    if (chunk[0] > most_chunk_bytes || chunk[1] > most_chunk_bytes ||
        chunk[0] * chunk[1] > most_chunk_bytes / std::max<std::uint64_t>(bytes_per_token_, 1))
      refuse(fmt::format("has chunks of {} x {} values, expected at most {} bytes a chunk", chunk[0], chunk[1],
                         most_chunk_bytes));
    hsize_t chunks = 0, needed = 1;
    const Hdf5Handle space = hdf5::own(H5Dget_space(dataset_.get()), H5Sclose, name_, action);
    hdf5::check(H5Dget_num_chunks(dataset_.get(), space.get(), &chunks), name_, action);
    for (std::size_t i = 0; i < shape_.size(); ++i)
      needed *= (static_cast<hsize_t>(shape_[i]) + chunk[i] - 1) / chunk[i];
    written = chunks == needed;
  } else {
    H5D_space_status_t status = H5D_SPACE_STATUS_ERROR;
    hdf5::check(H5Dget_space_status(dataset_.get(), &status), name_, action);
    written = status == H5D_SPACE_STATUS_ALLOCATED;
  }
  if (!written) refuse("was not written in full: some of its values are not in the file");
}

void Hdf5Ids::read_offsets() {
  const Hdf5File file = Hdf5File::open_to_read(file_name_);
  const Hdf5Column column = file.open_column("document_offsets", offset_types);
  offsets_.resize(static_cast<std::size_t>(column.size()));
  column.read(0, std::span<std::uint64_t>(offsets_));
  const bool rises = std::is_sorted(offsets_.begin(), offsets_.end());
  if (shape_.size() != 1 || offsets_.empty() || offsets_.front() != 0 ||
      offsets_.back() != static_cast<std::uint64_t>(size()) || !rises)
    throw std::runtime_error(fmt::format(
        "{}: its document_offsets do not rise from 0 to its {} tokens, as those of a token shard do; of another file, name "
        "the dataset of the ids with --dataset",
        file_name_, size()));
}

void Hdf5Ids::read_block(const hsize_t* start, const hsize_t* count, std::int64_t* out) const {
  const std::string action = "read its values";
  const int dims = static_cast<int>(shape_.size());
  const Hdf5Handle from = hdf5::own(H5Dget_space(dataset_.get()), H5Sclose, name_, action);
  const Hdf5Handle to = hdf5::own(H5Screate_simple(dims, count, nullptr), H5Sclose, name_, action);
  hdf5::check(H5Sselect_hyperslab(from.get(), H5S_SELECT_SET, start, nullptr, count, nullptr), name_, action);
  // HDF5 would make the largest i64 of a u64 that is larger; as they are, those are below 0.
  hdf5::check(
      H5Dread(dataset_.get(), is_u64_ ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64, to.get(), from.get(), H5P_DEFAULT, out),
      name_, action);
  if (!is_u64_) return;
  const std::int64_t values = static_cast<std::int64_t>(dims == 2 ? count[0] * count[1] : count[0]);
  const auto* const large = std::find_if(out, out + values, [](std::int64_t value) { return value < 0; });
  if (large != out + values)
    refuse(fmt::format("holds {}, which is no id of any vocabulary", static_cast<std::uint64_t>(*large)));
}

void Hdf5Ids::read(std::int64_t first, std::int64_t count, std::int64_t* out) const {
  if (first < 0 || count < 0 || first > size() - count)
    throw std::logic_error(fmt::format("elements {}+{} of {}, which has {}", first, count, name_, size()));
  hdf5::prepare_library();
  const std::int64_t columns = shape_.size() == 2 ? shape_[1] : size();
  while (count > 0) {
    // The rest of a row, or as many whole rows as there are.
    const std::int64_t row = first / columns, column = first % columns;
    const std::int64_t rows = column == 0 ? std::max<std::int64_t>(count / columns, 1) : 1;
    const std::int64_t width = rows > 1 ? columns : std::min(columns - column, count);
    const hsize_t start[2] = {static_cast<hsize_t>(row), static_cast<hsize_t>(column)};
    const hsize_t block[2] = {static_cast<hsize_t>(rows), static_cast<hsize_t>(width)};
    const bool flat = shape_.size() == 1;
    read_block(flat ? start + 1 : start, flat ? block + 1 : block, out);
    first += rows * width;
    count -= rows * width;
    out += rows * width;
  }
}

}  // namespace smoe
