// Shards changed behind the manifest's back and then sealed again, so that a refusal comes from the reader and not from the
// checksum.
#pragma once

#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "data/files/sha256.h"
#include "data/shards/manifest.h"

namespace smoe::test {

// The manifest's checksums become those of the files as they are now.
inline void reseal(const std::filesystem::path& directory) {
  Manifest manifest = read_manifest(directory);
  for (ShardEntry& shard : manifest.shards) shard.sha256 = sha256_file(directory / shard.file);
  write_manifest(directory, manifest);
}

// Runs `change` on the open HDF5 file of the directory's only shard, then seals the directory again.
template <class Change>
void tamper(const std::filesystem::path& directory, Change&& change) {
  const hid_t file = H5Fopen((directory / "shard-00000.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  change(file);
  ASSERT_GE(H5Fclose(file), 0);
  reseal(directory);
}

// Puts a chunked column with the values in place of the one of that name.
template <class T>
void replace_column(hid_t file, const char* name, hid_t file_type, hid_t memory_type, const std::vector<T>& values) {
  if (H5Lexists(file, name, H5P_DEFAULT) > 0) H5Ldelete(file, name, H5P_DEFAULT);
  const hsize_t extent = values.size(), chunk = std::min<hsize_t>(extent, 16);
  const hid_t space = H5Screate_simple(1, &extent, nullptr);
  const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(list, 1, &chunk);
  const hid_t column = H5Dcreate2(file, name, file_type, space, H5P_DEFAULT, list, H5P_DEFAULT);
  ASSERT_GE(column, 0);
  ASSERT_GE(H5Dwrite(column, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  H5Dclose(column);
  H5Pclose(list);
  H5Sclose(space);
}

}  // namespace smoe::test
