// The least that a card could take for each op of a training step: bytes and operations by kernels/op_work.h, over rates that are
// named. The step is Mixtral's own, on a backend that computes nothing and whose memory nobody touches, so the ops, their shapes
// and how often each is called are those of a run; no GPU is needed.
//
//   op_floors [--seq 4096] [--sequences 1] [--flops 989e12] [--bytes 3.35e12]
//   op_floors --check FILE     whether the table stands in FILE as it is printed
//
// One layer of Mixtral 8x7B with embedding and head in bf16, one micro-batch and one update. Every expert has as many rows.
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/op_decorator.h"
#include "kernels/timed_backend.h"
#include "trainer/training_step.h"

namespace smoe {
namespace {

// A backend of memory that is promised and never there. What the host reads of it are zeros, but for the rows of the experts.
class NoBackend final : public OpDecorator {
 public:
  explicit NoBackend(Backend& checks) : OpDecorator(checks) {}

  void* allocate(std::size_t bytes) override {
    void* const room =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) throw std::bad_alloc();
    return room;
  }
  void release(void* data, std::size_t bytes) noexcept override { ::munmap(data, bytes); }

 private:
  void run(const char*, const Call&) override {}
  void do_copy_to_host(void* host, const Tensor& from) override {
    std::memset(host, 0, static_cast<std::size_t>(from.elements()) * bytes_of(from.type()));
  }
  void do_routing_map(const Tensor& experts, const Tensor&, const Capacity&, const Tensor&, const Tensor&,
                      const Tensor& offsets) override {
    assignments_ = experts.elements(), offsets_ = offsets.raw();
  }
  void do_start_copy_to_host(void* host, const Tensor& from) override {
    do_copy_to_host(host, from);
    if (from.raw() != offsets_) return;
    const std::int64_t groups = from.elements() - 1;
    for (std::int64_t e = 0; e <= groups; ++e)
      static_cast<std::int32_t*>(host)[e] = static_cast<std::int32_t>(assignments_ * e / groups);
  }

  std::int64_t assignments_ = 0;
  const void* offsets_ = nullptr;
};

struct Options {
  std::int64_t sequences = 1, sequence_length = 4096;
  double flops = 989e12, bytes = 3.35e12;
  std::string check;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    const char* const value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--seq")
      o.sequence_length = std::atoll(value);
    else if (name == "--sequences")
      o.sequences = std::atoll(value);
    else if (name == "--flops")
      o.flops = std::atof(value);
    else if (name == "--bytes")
      o.bytes = std::atof(value);
    else if (name == "--check")
      o.check = value;
    else
      std::fprintf(stderr, "unknown option %s\n", argv[i]), std::exit(2);
  }
  return o;
}

ModelConfig one_layer_of_mixtral_8x7b() {
  ModelConfig model;
  model.vocab_size = 32000, model.hidden_size = 4096, model.intermediate_size = 14336;
  model.num_hidden_layers = 1, model.num_attention_heads = 32, model.num_key_value_heads = 8;
  model.num_local_experts = 8, model.num_experts_per_tok = 2;
  model.max_position_embeddings = 32768;
  return model;
}

std::vector<OpTime> ops_of_a_step(const Options& o) {
  const std::unique_ptr<Backend> cpu = make_cpu_backend(1);
  NoBackend nothing(*cpu);
  TimedBackend counted(nothing);
  Arena persistent(counted);
  const Mesh mesh = Mesh::single();
  Mixtral model(one_layer_of_mixtral_8x7b(), mesh, {}, {}, DType::bf16);
  model.allocate(counted, persistent, o.sequence_length, true);
  AdamW optimizer(counted, persistent, model.parameters(), mesh, {});
  TrainingStep step(counted, mesh, model, optimizer, {}, o.sequences, Recompute::none);
  const std::vector<std::int32_t> ids(static_cast<std::size_t>(o.sequences * o.sequence_length), 0);
  counted.reset();
  step.apply(step.compute_gradients({o.sequences, o.sequence_length, ids, ids, {}}), 1, 1e-4);
  return counted.times();
}

std::string table_of(const Options& o) {
  std::vector<OpTime> ops = ops_of_a_step(o);
  const auto seconds = [&](const OpTime& op) { return std::max(op.work.flops / o.flops, op.work.bytes / o.bytes); };
  std::stable_sort(ops.begin(), ops.end(), [&](const OpTime& a, const OpTime& b) { return seconds(a) > seconds(b); });
  std::string table = "| op | shape | calls | GFLOP | MB | floor, us | set by |\n|---|---|---|---|---|---|---|\n";
  char row[256];
  OpTime all, small;  // small: of too little work for a floor to mean something beside a launch
  const auto add = [&](const char* form, auto... numbers) {
    std::snprintf(row, sizeof row, form, numbers...);
    table += row;
  };
  double sum = 0, of_small = 0;
  for (const OpTime& op : ops) {
    const bool by_flops = op.work.flops / o.flops > op.work.bytes / o.bytes;
    sum += seconds(op), all.calls += op.calls, all.work += op.work;
    if (seconds(op) < 1e-6) {
      of_small += seconds(op), small.calls += op.calls, small.work += op.work;
      continue;
    }
    add("| %s | %s | %lld | %.1f | %.1f | %.1f | %s |\n", op.op.c_str(), op.shape.c_str(),
        static_cast<long long>(op.calls), 1e-9 * op.work.flops, 1e-6 * op.work.bytes, 1e6 * seconds(op),
        by_flops ? "tensor cores" : "memory");
  }
  const auto add_sum = [&](const char* name, const OpTime& op, double floor) {
    add("| %s | | %lld | %.1f | %.1f | %.1f | |\n", name, static_cast<long long>(op.calls), 1e-9 * op.work.flops,
        1e-6 * op.work.bytes, 1e6 * floor);
  };
  add_sum("all others, each below 1 us", small, of_small);
  add_sum("**all**", all, sum);
  return table;
}

int run(const Options& o) {
  const std::string table = table_of(o);
  if (o.check.empty()) return std::fputs(table.c_str(), stdout) < 0 ? 1 : 0;
  std::ifstream file(o.check);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.find(table) != std::string::npos) return 0;
  std::fprintf(stderr, "%s: found no table that is this one, by the formulas and the model as they are:\n%s",
               o.check.c_str(), table.c_str());
  return 1;
}

}  // namespace
}  // namespace smoe

int main(int argc, char** argv) { return smoe::run(smoe::parse(argc, argv)); }
