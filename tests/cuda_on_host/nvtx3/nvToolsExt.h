// As much of NVTX as kernels/cuda/ranges.cpp calls, in its names: ranges are noted for take_ranges() (nvtx.cpp).
#pragma once

#include <cstddef>
#include <cstdint>

#define NVTX_VERSION 3

using nvtxDomainHandle_t = struct nvtxDomainRegistration_st*;
enum { NVTX_MESSAGE_TYPE_ASCII = 1 };
struct nvtxEventAttributes_t {
  std::uint16_t version, size;
  std::int32_t messageType;
  union {
    const char* ascii;
  } message;
};
constexpr auto NVTX_EVENT_ATTRIB_STRUCT_SIZE = static_cast<std::uint16_t>(sizeof(nvtxEventAttributes_t));

nvtxDomainHandle_t nvtxDomainCreateA(const char* name);  // null: nobody watches
void nvtxDomainDestroy(nvtxDomainHandle_t domain);
int nvtxDomainRangePushEx(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* range);
int nvtxDomainRangePop(nvtxDomainHandle_t domain);
