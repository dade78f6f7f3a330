// device: check, the CUDA backend held against the CPU's op by op: over every op that is compared with the reference and
// through whole runs it finds nothing, and an error planted into a kernel is called by its op's name.
#include <gtest/gtest.h>

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/check_backend.h"
#include "tests/cuda_on_host/block.h"
#include "tests/kernels/backend_vs_reference.h"
#include "tests/trainer/training_fixture.h"

namespace smoe {
namespace {
using checks::OpCase;
using cuda_on_host::Plant;

class CheckedOps : public testing::TestWithParam<std::tuple<DType, OpCase>> {
 protected:
  CheckedOps() { cuda_on_host::set_late(true); }
  ~CheckedOps() override { cuda_on_host::set_late(false), cuda_on_host::machine() = {}; }
};

TEST_P(CheckedOps, AgreeWithTheCpu) {
  const auto& [type, op_case] = GetParam();
  for (const bool fused_attention : {true, false}) {
    cuda_on_host::machine().fused_attention = fused_attention;
    const auto both = make_backend(DeviceChoice::check, 1);
    EXPECT_NO_THROW(checks::compare_with_reference(op_case, *both, type));
    if (!op_case.name.starts_with("attention")) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, CheckedOps,
                         testing::Combine(testing::Values(DType::f32, DType::bf16),
                                          testing::ValuesIn(checks::compared_cases())),
                         [](const auto& info) {
                           return name_of(std::get<0>(info.param)) + ("_" + std::get<1>(info.param).name);
                         });

class CheckedRuns : public TrainingTest {
 protected:
  ~CheckedRuns() override {
    cuda_on_host::set_plant({});
    cuda_on_host::set_late(false);
    cuda_on_host::machine() = {};
  }

  TrainerConfig tiny(const std::string& output, std::int64_t steps, DeviceChoice device,
                     PrecisionChoice precision) const {
    TrainerConfig c = config(output);
    c.train.device = device;
    c.train.precision = precision;
    c.train.steps = steps;
    c.train.global_batch_size = 4;
    c.train.micro_batch_size = 2;
    c.checkpoint.interval = c.eval.interval = 2;
    c.eval.batches = 1;
    c.log.dump_steps = {1};
    return c;
  }
  void train(const TrainerConfig& c) const {
    EXPECT_EQ(Trainer(assemble(c, mesh(), make_backend(c.train.device, 1))).run().end, RunEnd::complete);
  }
  std::string said_in_training(const TrainerConfig& c) const {
    testing::internal::CaptureStderr();
    EXPECT_NO_THROW(train(c));
    return testing::internal::GetCapturedStderr();
  }
};

// Training, evaluation, checkpoints and going on from one, with work of the device done as late as the waits allow: nothing
// differs, and what is trained are the device's numbers, to the bit.
TEST_F(CheckedRuns, FindNothingAndTrainTheNumbersOfTheDevice) {
  cuda_on_host::set_late(true);
  for (const auto& [precision, name] :
       {std::pair(PrecisionChoice::fp32, "fp32"), std::pair(PrecisionChoice::automatic, "bf16")}) {
    const std::string checked = std::string("checked-") + name, alone = std::string("alone-") + name;
    mentions(said_in_training(tiny(checked, 2, DeviceChoice::check, precision)), {check_notice});
    train(tiny(checked, 3, DeviceChoice::check, precision));  // goes on from the checkpoint
    const std::string said = said_in_training(tiny(alone, 2, DeviceChoice::cuda, precision));
    EXPECT_EQ(said.find(check_notice), std::string::npos);
    train(tiny(alone, 3, DeviceChoice::cuda, precision));
    EXPECT_EQ(results(checked), results(alone));
    EXPECT_FALSE(results(checked).empty());
  }
}

std::set<const void*> kernels_seen() {
  std::set<const void*> kernels;
  for (const auto& [kernel, barriers] : cuda_on_host::take_kernels_seen()) kernels.insert(kernel);
  return kernels;
}

// The kernels of each op.
std::map<std::string, std::set<const void*>> kernels_by_op(const std::set<std::string>& wanted) {
  const auto backend = make_cuda_backend();
  kernels_seen();
  std::map<std::string, std::set<const void*>> kernels;
  for (const OpCase& c : checks::compared_cases())
    for (const checks::OpCall& call : c.calls)
      for (const DType type : {DType::f32, DType::bf16}) {
        if (!wanted.contains(call.op)) continue;
        checks::compare_with_reference({c.name, false, {call}}, *backend, type);
        kernels[call.op].merge(kernels_seen());
      }
  // Backward ops are tried with what their forward has made.
  for (auto& [op, own] : kernels)
    if (op.ends_with("_backward"))
      for (const auto& [other, others] : kernels)
        if (other != op) std::erase_if(own, [&of = others](const void* kernel) { return of.contains(kernel); });
  return kernels;
}

// Of kernels that compute no indices: what is done with wrong ones may be anything.
TEST_F(CheckedRuns, NameTheOpWhoseKernelIsWrong) {
  const std::set<std::string> ops = {"rms_norm_forward",       "router_forward",  "swiglu_forward",    "unpermute",
                                     "cross_entropy_backward", "swiglu_backward", "rms_norm_backward", "adamw"};
  const std::map<std::string, std::set<const void*>> kernels = kernels_by_op(ops);
  for (const auto& [precision, name] :
       {std::pair(PrecisionChoice::fp32, "fp32"), std::pair(PrecisionChoice::bf16, "bf16")}) {
    cuda_on_host::set_plant({});
    kernels_seen();
    train(tiny(std::string("right-") + name, 1, DeviceChoice::cuda, precision));
    const std::set<const void*> of_a_run = kernels_seen();
    for (const std::string& op : ops) {
      int planted = 0;
      for (const void* kernel : kernels.at(op)) {
        if (!of_a_run.contains(kernel)) continue;
        ++planted;
        cuda_on_host::set_plant({Plant::Error::last_block, kernel, {}, 0});
        const std::string output = "wrong-" + op + std::to_string(planted) + name;
        const std::string message = message_of([&] { train(tiny(output, 1, DeviceChoice::check, precision)); });
        EXPECT_TRUE(message.starts_with(op + ": ")) << op << " in " << name << ": " << message;
        mentions(message, {" differs at [", " on cuda and ", " on cpu, which may be "});
      }
      EXPECT_GT(planted, 0) << op << " in " << name;
    }
  }
}

TEST(CheckedDevice, IsRefusedInALineWhereThereIsNoGpu) {
  cuda_on_host::machine().driver = false;
  EXPECT_EQ(message_of([] { make_backend(DeviceChoice::check, 1); }),
            "device: found no NVIDIA driver (libcuda.so.1); expected one for CUDA 13.0 or later (check holds a "
            "GPU against the CPU)");
  cuda_on_host::machine() = {};
  EXPECT_EQ(make_backend(DeviceChoice::check, 1)->device(), Device::cuda);
}

}  // namespace
}  // namespace smoe
