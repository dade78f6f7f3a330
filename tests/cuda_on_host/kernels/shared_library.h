// Libraries of the host that stand for NVIDIA's: linked, and found by the names of their functions.
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>

namespace cuda_on_host {
void* function_named(const std::string& name);  // or nullptr
}

namespace smoe::cuda {

class SharedLibrary {
 public:
  SharedLibrary(const std::string&, const std::string&) {}
  SharedLibrary(const SharedLibrary&) = delete;
  SharedLibrary& operator=(const SharedLibrary&) = delete;

  template <class... Arguments, class Result>
  void find(Result (*&function)(Arguments...), const char* name) const {
    void* const found = cuda_on_host::function_named(name);
    if (!found) throw std::runtime_error(std::string("the emulated libraries have no function ") + name);
    function = reinterpret_cast<Result (*)(Arguments...)>(found);
  }
};

}  // namespace smoe::cuda
