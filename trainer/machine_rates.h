// What the machine that trains can do, measured at the start of a run: what the run's speed is held against.
#pragma once

#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda_device.h"
#include "parallel/comm/communicator.h"

namespace smoe {

struct MachineRates {
  DeviceProfile device;      // this rank's
  double peak_flops = 0;     // of the arithmetic units, all ranks together (DeviceProfile): the denominator of mfu
  double product_flops = 0;  // of the backend's product of 2048^3, all ranks together; on GPUs that of DeviceProfile
  DeviceMemory memory = {};  // of this rank's GPU, as the measurement found it

  double product_share() const { return product_flops / peak_flops; }
};

// A product slower than this share of the cores is a fault of the library or of its choice of kernels, not of the machine.
constexpr double least_product_share = 0.6;

// Collective over `world`: the ranks share machines, so all are measured at once. ranks_on_node: how many share this one;
// with more threads than cores a thread has a part of a core. Takes some 100 ms.
MachineRates measure_machine_rates(Backend& backend, Communicator& world, int ranks_on_node);

// For the log: CPU, kernels and rates in a line, and a warning where the product is slow.
std::vector<std::string> describe(const MachineRates& rates);

// A step's speed beside what bounds it: "84.1 GF/s (61% of the cores)", "412.0 TF/s (58% of the bf16 product)".
std::string describe_rate(Device device, double gflops, double mfu);

}  // namespace smoe
