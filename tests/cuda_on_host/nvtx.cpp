#include <nvtx3/nvToolsExt.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda_on_host/block.h"

struct nvtxDomainRegistration_st {
  std::vector<std::string> open;  // each with those around it
};

namespace cuda_on_host {
namespace {

struct Noted {
  std::vector<std::string> ranges;
  int open = 0, wrong_ends = 0;
};
Noted& noted() {
  static Noted what;
  return what;
}

}  // namespace

std::vector<std::string> take_ranges() {
  const Noted taken = std::exchange(noted(), {.ranges = {}, .open = noted().open, .wrong_ends = 0});
  if (taken.open != 0 || taken.wrong_ends != 0)
    throw std::logic_error(std::to_string(taken.open) + " ranges have not ended, and " +
                           std::to_string(taken.wrong_ends) + " ended that had not begun");
  return taken.ranges;
}

}  // namespace cuda_on_host

using cuda_on_host::noted;

nvtxDomainHandle_t nvtxDomainCreateA(const char*) {
  return cuda_on_host::machine().profiled ? new nvtxDomainRegistration_st : nullptr;
}
void nvtxDomainDestroy(nvtxDomainHandle_t domain) { delete domain; }

int nvtxDomainRangePushEx(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* range) {
  if (range->version != NVTX_VERSION || range->size != NVTX_EVENT_ATTRIB_STRUCT_SIZE ||
      range->messageType != NVTX_MESSAGE_TYPE_ASCII)
    throw std::logic_error("a range whose attributes say not what they are");
  const std::string around = domain->open.empty() ? std::string() : domain->open.back() + "/";
  domain->open.push_back(around + range->message.ascii);
  noted().ranges.push_back(domain->open.back());
  ++noted().open;
  return static_cast<int>(domain->open.size()) - 1;
}

int nvtxDomainRangePop(nvtxDomainHandle_t domain) {  // not an exception: scopes end where one may be on its way
  if (domain->open.empty()) return ++noted().wrong_ends, -1;
  domain->open.pop_back();
  --noted().open;
  return static_cast<int>(domain->open.size());
}
