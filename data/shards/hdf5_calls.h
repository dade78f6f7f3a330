// Calls of the HDF5 library whose failures are exceptions; of hdf5_file.h and hdf5_ids.h.
#pragma once

#include <hdf5.h>

#include <string>

#include "data/shards/hdf5_file.h"

namespace smoe::hdf5 {

// The library's settings. Error printing is a setting of each thread: before the first call on any.
void prepare_library();

// Throws std::runtime_error: "FILE: cannot ACTION: ...", with the cause that HDF5 recorded of the call that just failed.
[[noreturn]] void refuse_call(const std::string& file, const std::string& action);

// Owns what a call gave back, or throws.
Hdf5Handle own(hid_t id, Hdf5Handle::Close close, const std::string& file, const std::string& action);

void check(herr_t status, const std::string& file, const std::string& action);

}  // namespace smoe::hdf5
