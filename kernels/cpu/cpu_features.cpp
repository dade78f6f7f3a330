#include "kernels/cpu/cpu_features.h"

#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace smoe::cpu {

#if defined(__x86_64__)
namespace {
// AMX is newer than the compiler's __builtin_cpu_supports: bits 22 and 24 of leaf 7's edx, and the tiles' state (17, 18)
// among those that the system saves.
bool has_amx_bf16() {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx >> 27 & 1)) return false;  // no XGETBV
  unsigned saved, unused;
  __asm__("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
  if ((saved >> 17 & 3) != 3 || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  return (edx >> 22 & 1) && (edx >> 24 & 1);
}
}  // namespace

CpuFeatures cpu_features() {
  __builtin_cpu_init();  // may be asked before the constructors have run
  CpuFeatures f;
  f.avx = __builtin_cpu_supports("avx");
  f.avx2_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  f.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
             __builtin_cpu_supports("avx512vl");
  f.avx512_bf16 = f.avx512 && __builtin_cpu_supports("avx512bf16");
  f.amx_bf16 = f.avx512 && has_amx_bf16();
  return f;
}
#else
CpuFeatures cpu_features() { return {}; }
#endif

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name"))
      if (const auto colon = line.find(": "); colon != std::string::npos) return line.substr(colon + 2);
  return "unknown CPU";
}

std::string to_string(const CpuFeatures& f) {
  std::string text = f.avx512 ? "AVX-512" : f.avx2_fma ? "AVX2" : f.avx ? "AVX" : "no AVX";
  if (f.avx512_bf16) text += ", BF16";
  if (f.amx_bf16) text += ", AMX";
  return text;
}

}  // namespace smoe::cpu
