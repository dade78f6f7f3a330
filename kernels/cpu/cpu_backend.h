// The op table on the CPU: OpenMP threads, loops that the compiler vectorises, OpenBLAS for the large products.
// One op family a .cpp in this folder, forward and backward adjacent. What the ops compute is said in kernels/backend.h.
//
// One caller at a time: the workspaces belong to the backend.
#pragma once

#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/workspace.h"

namespace smoe {

namespace cpu {
struct GemmTile;
struct AttentionProblem;
}  // namespace cpu

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads = 0);  // 0: as many as OpenMP offers (OMP_NUM_THREADS, or the cores of the process)
  ~CpuBackend() override;

  Device device() const override { return Device::cpu; }
  DeviceProfile measure_profile() override;
  int threads() const { return threads_; }

  void* allocate(std::size_t bytes) override;
  void release(void* data, std::size_t bytes) noexcept override;
  void* allocate_host(std::size_t bytes) override;
  void release_host(void* data, std::size_t bytes) noexcept override;
  Event record() override { return {}; }  // an op is done when its call returns
  void wait(Event) override {}
  void synchronize() override {}

 private:
  double do_measure_memory_rate(const Tensor& room) override;
#include "kernels/op_overrides.inc"

  void run_tiles(Gemm kind, const Tensor& a, std::int64_t lda, const Tensor& b, std::int64_t ldb, const Tensor& c,
                 std::int64_t ldc, Write write);
  void run_attention_forward(const cpu::AttentionProblem& problem);

  int threads_;
  cpu::Workspace shared_;                   // what one op's threads read or fill together
  cpu::Workspace counters_;                 // likewise
  std::vector<cpu::Workspace> per_thread_;  // indexed by OpenMP thread number
  std::vector<cpu::GemmTile> tiles_;        // of the matrix product under way
};

}  // namespace smoe
