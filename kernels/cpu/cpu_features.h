// What the CPU can do, by its own word. Kernels are chosen by features, never by a model's name or its maker's: a CPU
// newer than the software still says what it executes.
#pragma once

#include <string>

namespace smoe::cpu {

// Each is true where the CPU has it and the system saves its registers.
struct CpuFeatures {
  bool avx = false;
  bool avx2_fma = false;
  bool avx512 = false;  // F, DQ, BW, CD and VL: what compilers and libraries mean by AVX-512
  bool avx512_bf16 = false;
  bool amx_bf16 = false;
};

CpuFeatures cpu_features();

// For people, not for choices.
std::string to_string(const CpuFeatures& features);  // "AVX-512, BF16"
std::string cpu_name();                              // what /proc/cpuinfo calls it, "unknown CPU" where it does not say

}  // namespace smoe::cpu
