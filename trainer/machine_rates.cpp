#include "trainer/machine_rates.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <span>

#include "kernels/arena.h"
#include "parallel/cores.h"
#include "trainer/stopwatch.h"

namespace smoe {
namespace {

constexpr std::int64_t product_size = 2048;
constexpr double product_seconds = 0.06;

// Rows of a product of 2048^3, a slab at a time for as long as that takes: a slow product does not hold up the start of a
// run. A slab has work for all threads.
double measure_product(Backend& backend, int threads) {
  const std::int64_t slab = std::clamp<std::int64_t>((64 * threads + 255) / 256 * 256, 256, product_size);
  Arena arena(backend);
  const Tensor a = arena.take({slab, product_size}), b = arena.take({product_size, product_size}),
               c = arena.take({slab, product_size});
  backend.fill(a, 1.0f);
  backend.fill(b, 1.0f);
  double best = 0;
  const auto start = Clock::now();
  for (int slabs = 0; slabs < 3 || seconds_since(start) < product_seconds; ++slabs) {
    const auto begin = Clock::now();
    backend.gemm(Gemm::nt, a, b, c, Write::assign);
    backend.synchronize();
    best = std::max(best, 2.0 * static_cast<double>(slab * product_size * product_size) / seconds_since(begin));
  }
  return best;
}

// Ranks measure at once, but so briefly that each may find a core free: what they share is counted.
double cores_per_thread(int threads, int ranks_on_node, int ranks_on_own_cores) {
  const double online = static_cast<double>(std::max(1l, ::sysconf(_SC_NPROCESSORS_ONLN)));
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const bool known = ::sched_getaffinity(0, sizeof allowed, &allowed) == 0;
  const double own = known ? static_cast<double>(CPU_COUNT(&allowed)) : online;
  return std::min({1.0, online / (threads * ranks_on_node), own / (threads * ranks_on_own_cores)});
}

}  // namespace

MachineRates measure_machine_rates(Backend& backend, Communicator& world, int ranks_on_node) {
  MachineRates rates;
  world.barrier("machine_rates");
  rates.device = backend.measure_profile();
  if (rates.device.kind == Device::cuda) {  // its peak is a product
    rates.peak_flops = rates.device.peak_flops;
    world.all_reduce(std::span(&rates.peak_flops, 1), Reduce::sum, "machine_rates");
    rates.product_flops = rates.peak_flops;
    rates.memory = cuda_memory();
    return rates;
  }
  const double part = cores_per_thread(rates.device.threads, ranks_on_node, count_ranks_on_own_cores(world));
  // Where the first look finds the product slow, another program may have held a core: a second one decides.
  for (int look = 0; look < 2 && (look == 0 || rates.product_share() < least_product_share); ++look) {
    world.barrier("machine_rates");
    const double product = measure_product(backend, rates.device.threads);
    // On a busy machine the product may have had the cores for longer than their own measurement.
    double totals[] = {std::max(rates.device.peak_flops, product) * part, product};
    world.all_reduce(std::span(totals), Reduce::sum, "machine_rates");
    rates.peak_flops = std::max(rates.peak_flops, totals[0]);
    rates.product_flops = std::max(rates.product_flops, totals[1]);
  }
  return rates;
}

std::vector<std::string> describe(const MachineRates& rates) {
  const DeviceProfile& device = rates.device;
  if (device.kind == Device::cuda)
    return {fmt::format("{}; {:.0f} TF/s ({}) by {}; {:.1f} of {:.1f} GiB are free beside the model", device.name,
                        1e-12 * rates.peak_flops, device.peak_form, device.product_kernel,
                        static_cast<double>(rates.memory.free) / 0x1p30,
                        static_cast<double>(rates.memory.total) / 0x1p30)};
  std::vector<std::string> lines{fmt::format(
      "{}, {} thread(s) a rank; cores {:.0f} GF/s ({} multiply-adds), products of 2048^3 {:.0f} GF/s ({:.0f}%) by {}",
      device.name, device.threads, 1e-9 * rates.peak_flops, device.peak_form, 1e-9 * rates.product_flops,
      100 * rates.product_share(), device.product_kernel)};
  if (rates.product_share() < least_product_share)
    lines.push_back(fmt::format(
        "warning: matrix products run at {:.0f}% of what the cores can do, expected at least {:.0f}%: another program holds "
        "the cores, or {} does not suit this CPU (OPENBLAS_CORETYPE names its kernels: Haswell, SkylakeX, Cooperlake)",
        100 * rates.product_share(), 100 * least_product_share, device.product_kernel));
  return lines;
}

std::string describe_rate(Device device, double gflops, double mfu) {
  return device == Device::cpu ? fmt::format("{:.1f} GF/s ({:.0f}% of the cores)", gflops, 100 * mfu)
                               : fmt::format("{:.1f} TF/s ({:.0f}% of the bf16 product)", 1e-3 * gflops, 100 * mfu);
}

}  // namespace smoe
