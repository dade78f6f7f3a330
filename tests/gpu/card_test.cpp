// What GPU this is, and that its driver and NVIDIA's libraries do what the backend asks of them.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "kernels/cuda_device.h"
#include "kernels/nccl.h"
#include "kernels/yardstick.h"
#include "tests/gpu/figure.h"
#include "tests/kernels/workspace.h"

namespace smoe {
namespace {

using test::figure;

std::string dotted(int version, int hundred) {
  return fmt::format("{}.{}.{}", version / (hundred * 100), version / hundred % 100, version % hundred);
}

TEST(Card, IsWhatItSaysAndReachesItsRates) {
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  Yardstick yardstick(*backend);
  const DeviceProfile profile = backend->measure_profile();
  figure("card", "{}", profile.name);
  figure("driver", "for CUDA {}.{}", cuda_device().driver_version / 1000, cuda_device().driver_version / 10 % 100);
  const DeviceMemory memory = cuda_memory();
  figure("memory", "{:.1f} GiB, {:.1f} free", 0x1p-30 * static_cast<double>(memory.total),
         0x1p-30 * static_cast<double>(memory.free));
  figure(profile.peak_form, "{:.0f} TFLOP/s", 1e-12 * profile.peak_flops);
  const double triad = yardstick.memory();
  figure("triad", "{:.2f} TB/s", 1e-12 * triad);
  EXPECT_GT(profile.peak_flops, 0);
  EXPECT_GT(triad, 0);
  EXPECT_GT(memory.total, memory.free);
}

// Which kernels compute it is told once on stderr, where it is not cuDNN.
TEST(Card, ComputesAttentionByCudnn) {
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  checks::Workspace ws(*backend);
  const AttentionShape shape{1, 256, 4, 2, 128, 0};
  const std::vector<double> ones(256 * 8 * 128, 1.0);
  const Tensor qkv = ws.bf16({256, 8, 128}, ones), out = ws.output_bf16({256, 4, 128}), lse = ws.output({4, 256});
  testing::internal::CaptureStderr();
  backend->attention_forward(shape, qkv, {}, out, lse);
  backend->attention_backward(shape, qkv, {}, out, lse, out, ws.output_bf16({256, 8, 128}));
  backend->synchronize();
  const std::string said = testing::internal::GetCapturedStderr();
  figure("attention in bf16", "{}", said.empty() ? "cuDNN" : said.substr(0, said.find('\n')));
  for (const double value : ws.read(out)) ASSERT_EQ(value, 1.0);  // a mean of ones
  EXPECT_EQ(said, "");
}

// A group of one rank asks NCCL for all that it is asked for in a run; what comes back is what was there.
TEST(Card, HasNcclWhoseCallsAreMade) {
  if (const std::string missing = nccl_missing(); !missing.empty()) {
    figure("NCCL", "{}", missing);
    GTEST_SKIP() << missing;
  }
  figure("NCCL", "{}", dotted(NcclGroup::version(), 100));
  const std::unique_ptr<Backend> backend = make_cuda_backend();
  NcclGroup group(NcclGroup::make_id(), 1, 0);
  CommunicationStream& lane = *backend->communication(Lane::foreground);
  checks::Workspace ws(*backend);
  const std::vector<double> numbers{1, -2, 3.5, 4, 0.25, -6, 7, 8};
  const Tensor from = ws.f32({8}, numbers);
  std::vector<Tensor> to;
  for (int i = 0; i < 3; ++i) to.push_back(ws.output({8}));
  lane.follow_ops();
  group.all_gather(from.raw(), to[0].raw(), 8, DType::f32, lane.native());
  group.reduce_scatter(from.raw(), to[1].raw(), 8, DType::f32, lane.native());
  group.begin();
  group.send(from.raw(), from.bytes(), 0, lane.native());
  group.receive(to[2].raw(), from.bytes(), 0, lane.native());
  group.end();
  group.all_reduce(from.raw(), 8, DType::f32, NcclGroup::Op::sum, lane.native());
  group.broadcast(from.raw(), 8, DType::f32, 0, lane.native());
  lane.lead_ops(lane.mark());
  for (const Tensor& tensor : to) EXPECT_EQ(ws.read(tensor), numbers);
  EXPECT_EQ(ws.read(from), numbers);
  EXPECT_EQ(group.trouble(), "");
}

}  // namespace
}  // namespace smoe
