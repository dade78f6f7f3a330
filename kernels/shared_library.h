// NVIDIA's libraries, opened when the first backend is made: a program starts where they are not.
#pragma once

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace smoe::cuda {

class SharedLibrary {
 public:
  // file: "libcublasLt.so.13"; package: who brings it. Throws std::runtime_error where it is in none of the loader's folders
  // nor where NVIDIA's packages put it.
  SharedLibrary(const std::string& file, const std::string& package) : file_(file), path_(file) {
    handle_ = ::dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_) return;
    const char* why = ::dlerror();
    std::string reason = why ? why : file + ": no reason given";
    path_ = "/usr/local/cuda/lib64/" + file;
    handle_ = ::dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle_)
      throw std::runtime_error("device: cuda needs " + reason + "; install " + package +
                               ", or name the folder that it is in with LD_LIBRARY_PATH");
  }
  // It stays open: such libraries have threads and handlers of their own, which outlive whoever closes them.
  SharedLibrary(const SharedLibrary&) = delete;
  SharedLibrary& operator=(const SharedLibrary&) = delete;

  void* handle() const { return handle_; }
  const std::string& path() const { return path_; }  // by which it was opened

  template <class... Arguments, class Result>
  void find(Result (*&function)(Arguments...), const char* name) const {
    void* const found = ::dlsym(handle_, name);
    if (!found)
      throw std::runtime_error("device: cuda needs " + file_ + " with the function " + name +
                               ", which this one has not");
    function = reinterpret_cast<Result (*)(Arguments...)>(found);
  }

 private:
  std::string file_, path_;
  void* handle_;
};

}  // namespace smoe::cuda
