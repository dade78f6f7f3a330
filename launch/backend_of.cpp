// The backend that a command's --device and --threads ask for.
#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "kernels/check_backend.h"
#include "launch/commands.h"
#include "parallel/cores.h"
#include "trainer/train_config.h"

namespace smoe {

std::unique_ptr<Backend> backend_of(const std::string& device, std::int64_t threads) {
  const DeviceChoice choice = device_named(device);
  std::unique_ptr<Backend> backend = make_backend(choice, claim_threads(threads));
  if (choice == DeviceChoice::check) fmt::print(stderr, "smoe: {}\n", check_notice);
  return backend;
}

}  // namespace smoe
