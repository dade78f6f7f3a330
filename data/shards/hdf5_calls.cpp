#include "data/shards/hdf5_calls.h"

#include <fmt/format.h>

#include <mutex>
#include <stdexcept>

namespace smoe::hdf5 {

void prepare_library() {
  static std::once_flag once;
  std::call_once(once, [] {
    // At exit the library would close what a full disk kept it from closing before, and crash on it (1.10.8). Files are
    // closed explicitly, so there is nothing else for it to do.
    H5dont_atexit();
    hbool_t thread_safe = false;
    if (H5open() < 0 || H5is_library_threadsafe(&thread_safe) < 0)
      throw std::runtime_error("the HDF5 library does not start");
    if (!thread_safe)
      throw std::runtime_error(
          "this build uses an HDF5 library without thread safety, which reading ahead needs: build against the serial "
          "HDF5 of the distribution (Debian: libhdf5-dev) rather than a parallel one");
    H5PLset_loading_state(0);  // a file's filter must not make the library load code from HDF5_PLUGIN_PATH
  });
  thread_local const herr_t quiet = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  (void)quiet;
}

namespace {

// What HDF5 recorded about the call that just failed: the innermost entry, which is the cause.
std::string hdf5_message() {
  std::string message;
  const auto visit = [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
    auto& text = *static_cast<std::string*>(out);
    if (text.empty() && error->desc != nullptr) text = fmt::format("{} (in {})", error->desc, error->func_name);
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, visit, &message);
  H5Eclear2(H5E_DEFAULT);
  return message.empty() ? "HDF5 gives no reason" : message;
}

}  // namespace

[[noreturn]] void refuse_call(const std::string& file, const std::string& action) {
  throw std::runtime_error(fmt::format("{}: cannot {}: {}", file, action, hdf5_message()));
}

Hdf5Handle own(hid_t id, Hdf5Handle::Close close, const std::string& file, const std::string& action) {
  if (id < 0) refuse_call(file, action);
  return Hdf5Handle(id, close);
}

void check(herr_t status, const std::string& file, const std::string& action) {
  if (status < 0) refuse_call(file, action);
}

}  // namespace smoe::hdf5
