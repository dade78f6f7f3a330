// Times forward and backward of one decoder layer, without embedding, head and optimizer: what a GPU of many does most of. The
// gradients of weights accumulate in f32 and the router has its balance loss, as in training.
//
//   block_bench [--device cpu|cuda] [--dtype f32|bf16] [--model 123m|8x7b|8x22b|tiny] [--threads N]
//               [--routing drawn|even|skewed] [--documents MEAN] [--recompute none|layer] [--rounds 7] [--json] [--quick]
//
// README.md says what the keys mean. Rates are taken between the rounds, so that the shares hold on a machine whose speed changes.
// --quick hardly measures them: it shows that all of it runs, and its times mean nothing.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <new>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda_device.h"
#include "kernels/host_view.h"
#include "kernels/yardstick.h"
#include "model/balance_loss.h"
#include "model/decoder_layer.h"
#include "model/mixtral.h"
#include "model/recompute.h"
#include "model/rope_frequencies.h"
#include "tests/bench/arguments.h"
#include "tests/bench/device_options.h"
#include "tests/kernels/repeated_numbers.h"
#include "tests/reference/random.h"

namespace smoe::bench {
namespace {

using Index = std::int64_t;

struct Options {
  DeviceOptions on;
  std::string routing = "drawn";
  double documents = 0;  // tokens of one, on average; 0: a sequence is one
  Recompute recompute = Recompute::none;
  int rounds = 7;
  bool json = false, quick = false;
};

Options parse(int argc, char** argv) {
  Options o;
  for_each_option(argc, argv, "block_bench.cpp", [&](const std::string& name, const auto& value) {
    const auto one_of = [&](std::initializer_list<const char*> choices) {
      const std::string given = value();
      if (std::find(choices.begin(), choices.end(), given) == choices.end())
        throw std::runtime_error(fmt::format("{} {}: expected one of {}", name, given, fmt::join(choices, ", ")));
      return given;
    };
    if (o.on.take(name, value)) return true;
    if (name == "--json")
      o.json = true;
    else if (name == "--quick")
      o.quick = true;
    else if (name == "--routing")
      o.routing = one_of({"drawn", "even", "skewed"});
    else if (name == "--recompute")
      o.recompute = one_of({"none", "layer"}) == "layer" ? Recompute::layer : Recompute::none;
    else if (name == "--documents")
      o.documents = std::stod(value());
    else if (name == "--rounds")
      o.rounds = std::stoi(value());
    else
      return false;
    return true;
  });
  if (o.on.threads < 1 || o.rounds < 1 || o.documents < 0)
    throw std::runtime_error("--threads, --rounds and --documents must be positive");
  return o;
}

ModelConfig config_of(const BenchShape& shape) {
  ModelConfig config;
  config.vocab_size = shape.vocab, config.hidden_size = shape.hidden, config.intermediate_size = shape.ffn;
  config.num_hidden_layers = 1;
  config.num_attention_heads = shape.heads, config.num_key_value_heads = shape.kv_heads;
  config.head_dim = shape.head_dim;
  config.num_local_experts = shape.experts, config.num_experts_per_tok = shape.top_k;
  config.max_position_embeddings = shape.sequence_length;
  return config;
}

// [T,K]: each token's experts, so that expert e has rows[e] of them and a token has none twice. Which token goes where is random.
std::vector<std::int32_t> experts_of_tokens(const BenchShape& shape, const std::vector<Index>& rows) {
  const Index T = shape.tokens(), K = shape.top_k;
  std::vector<std::int32_t> by_expert;
  for (std::size_t e = 0; e < rows.size(); ++e)
    by_expert.insert(by_expert.end(), static_cast<std::size_t>(rows[e]), static_cast<std::int32_t>(e));
  std::vector<Index> token(static_cast<std::size_t>(T));
  std::iota(token.begin(), token.end(), Index{0});
  reference::Random random(3);
  for (Index t = T - 1; t > 0; --t)
    std::swap(token[static_cast<std::size_t>(t)], token[static_cast<std::size_t>(random.below(t + 1))]);
  std::vector<std::int32_t> chosen(by_expert.size());
  for (Index i = 0; i < T * K; ++i)  // T apart in by_expert are two experts, since none has more than T rows
    chosen[static_cast<std::size_t>(token[static_cast<std::size_t>(i % T)] * K + i / T)] =
        by_expert[static_cast<std::size_t>(i)];
  return chosen;
}

// The layer with all that its two calls take. Weights and activations are as large as those of a model that begins to train.
class Block {
 public:
  Block(Backend& backend, const Options& o)
      : backend_(backend),
        shape_(o.on.model),
        recompute_(o.recompute),
        mesh_(Mesh::single()),
        config_(config_of(shape_)),
        layer_(parameters_, config_, {}, mesh_, 0),
        balance_(config_, {}),
        persistent_(backend),
        activations_(backend),
        scratch_(backend) {
    for (Parameter& p : parameters_) p.type = o.on.type;
    parameters_.allocate(backend, persistent_, mesh_, true);
    rope_table_ = persistent_.take({shape_.sequence_length, shape_.head_dim});
    const RopeFrequencies rope = rope_frequencies(config_);
    backend.rope_table(rope.frequencies, rope.scale, rope_table_);
    for (Tensor* tensor : {&x_, &dy_, &gradient_})
      *tensor = persistent_.take(o.on.type, {shape_.tokens(), shape_.hidden});
    draw();
    if (o.routing != "drawn") route(o.routing == "even" ? shape_.even_rows() : shape_.skewed_rows());
    if (o.documents > 0) {
      reference::Random random(2);
      documents_ = reference::random_documents(random, shape_.sequences, shape_.sequence_length, o.documents);
    }
  }

  struct Seconds {
    double forward = 0, backward = 0;
  };
  // A micro-batch. Not counted is what lies between the two halves, where a training step has every rank's routing summed.
  Seconds run() {
    activations_.rewind({});
    scratch_.rewind({});
    Context context{backend_, mesh_, activations_, scratch_};
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(shape_.tokens()), 0);  // nothing reads them here
    const TokenBatch batch =
        make_token_batch(backend_, activations_, shape_.sequences, shape_.sequence_length, ids, {}, documents_);
    balance_.begin_step(1);
    const BalanceLoss::Statistics statistics =
        balance_.take_statistics(context, batch.sequences, batch.sequence_length);
    const Tensor y = activations_.take_like(x_);
    backend_.copy(gradient_, dy_);
    const Arena::Mark mark = activations_.mark();

    const Stamp begin = backend_.stamp();
    layer_.forward(context, batch, rope_table_, x_, nullptr, saved_, statistics.layer(0), y);
    const Stamp middle = backend_.stamp();
    if (recompute_ == Recompute::layer) activations_.rewind(mark);
    balance_.add_micro_batch(context, statistics, router_gradients_);
    const Stamp turned = backend_.stamp();
    if (recompute_ == Recompute::layer) {
      const ArenaScope scope(scratch_);
      layer_.forward(context, batch, rope_table_, x_, nullptr, saved_, {}, activations_.take_like(x_));
    }
    layer_.backward(context, batch, rope_table_, router_gradients_.front(), saved_, gradient_, true);
    const Stamp end = backend_.stamp();
    backend_.synchronize();
    const Seconds seconds{backend_.seconds_between(begin, middle), backend_.seconds_between(turned, end)};
    backend_.forget_stamps();
    return seconds;
  }

  // Of each expert, in the last run.
  std::vector<Index> rows() const {
    const std::span<const std::int32_t> offsets = saved_.dispatched.rows.host;
    std::vector<Index> rows;
    for (std::size_t e = 0; e + 1 < offsets.size(); ++e) rows.push_back(offsets[e + 1] - offsets[e]);
    return rows;
  }

  // Three times the forward's products. Of the whole S x S the scores, or, as forward_flops_per_token() counts, of half.
  double flops(bool full_attention) const {
    ModelConfig layer_alone = config_;
    layer_alone.vocab_size = 0;
    const double second_half = 2.0 * static_cast<double>(shape_.sequence_length * shape_.heads * shape_.head_dim);
    return 3 * static_cast<double>(shape_.tokens()) *
           (forward_flops_per_token(layer_alone, shape_.sequence_length) + (full_attention ? second_half : 0));
  }

 private:
  void draw() {
    checks::RepeatedNumbers activations(backend_, checks::normal_block(1)),
        weights(backend_, checks::normal_block(config_.initializer_range));
    activations.fill(x_);
    activations.fill(dy_);
    for (const Parameter& p : parameters_) {
      if (p.value.rank() == 1)
        backend_.fill(p.value, 1);  // a norm's
      else
        weights.fill(p.value);
    }
  }

  // A token's first components, one an expert, are large where the expert is one of its own, and each gate reads its own
  // above all.
  void route(const std::vector<Index>& rows) {
    constexpr float large = 16, preference = 1;
    const Index E = shape_.experts, K = shape_.top_k, D = shape_.hidden;
    const std::vector<std::int32_t> experts = experts_of_tokens(shape_, rows);
    std::vector<float> staging;
    const auto change = [&](const Tensor& tensor, const auto& of_row) {
      const HostView view(backend_, tensor, staging);
      view.fetch();
      for (Index r = 0; r < tensor.dim(0); ++r) {
        const std::span<float> row =
            view.numbers().subspan(static_cast<std::size_t>(r * D), static_cast<std::size_t>(E));
        std::fill(row.begin(), row.end(), 0.0f);
        of_row(r, row);
      }
      view.store();
    };
    change(x_, [&](Index t, std::span<float> row) {
      for (Index k = 0; k < K; ++k) row[static_cast<std::size_t>(experts[static_cast<std::size_t>(t * K + k)])] = large;
    });
    for (const Parameter& p : parameters_)
      if (p.name.find(".gate.weight") != std::string::npos)
        change(p.value, [&](Index e, std::span<float> row) { row[static_cast<std::size_t>(e)] = preference; });
  }

  Backend& backend_;
  BenchShape shape_;
  Recompute recompute_;
  Mesh mesh_;
  ModelConfig config_;
  ParameterSet parameters_;
  DecoderLayer layer_;
  BalanceLoss balance_;
  Arena persistent_, activations_, scratch_;
  Tensor rope_table_, x_, dy_;
  Tensor gradient_;  // of y, and then of x
  std::vector<std::int32_t> documents_;
  DecoderLayer::Saved saved_;
  std::vector<RouterGradient> router_gradients_;
};

struct Result {
  std::vector<Index> rows;
  double forward = 0, backward = 0;  // seconds
  double product = 0, copy = 0;      // flop/s and bytes/s
  double flops = 0, flops_full_attention = 0;
  std::uint64_t peak = 0;  // bytes of a GPU, without the yardstick's
};

Result measure(const Options& o) {
  const std::unique_ptr<Backend> backend = o.on.make();
  const bool on_gpu = backend->device() == Device::cuda;
  if (on_gpu) restart_cuda_peak();
  Block block(*backend, o);
  for (int warm_up = 0; warm_up < 2; ++warm_up) block.run();  // afterwards the arenas are as large as it needs them
  Result result;
  result.flops = block.flops(false), result.flops_full_attention = block.flops(true);
  if (on_gpu) result.peak = cuda_memory().peak;
  Yardstick yardstick(*backend, o.quick ? 64 : Yardstick::product_size, yardstick_elements(o.on.device, o.quick));
  std::vector<double> forward, backward, product, copy;
  for (int round = 0; round < o.rounds; ++round) {
    product.push_back(yardstick.product());
    copy.push_back(yardstick.copy());
    const Block::Seconds seconds = block.run();
    forward.push_back(seconds.forward);
    backward.push_back(seconds.backward);
  }
  result.rows = block.rows();
  result.forward = median(forward), result.backward = median(backward);
  result.product = median(product), result.copy = median(copy);
  return result;
}

void print(const Options& o, const Result& r) {
  const double seconds = r.forward + r.backward, rate = r.flops / seconds;
  const BenchShape& model = o.on.model;
  if (o.json)
    fmt::print(
        R"({{"what": "block", "who": "smoe", "model": "{}", "dtype": "{}", "device": "{}", "threads": {}, "tokens": {}, "seq": {}, )"
        R"("documents": {}, "recompute": "{}", "routing": "{}", "rows": [{}], "forward_us": {:.1f}, "backward_us": {:.1f}, )"
        R"("tflops": {:.4f}, "tflops_full_attention": {:.4f}, "product_tflops": {:.4f}, "share": {:.4f}, "copy_gbs": {:.1f}, )"
        R"("peak_device_memory_mib": {}}})"
        "\n",
        model.name, name_of(o.on.type), o.on.device_name(), o.on.threads, model.tokens(), model.sequence_length,
        o.documents, o.recompute == Recompute::layer ? "layer" : "none", o.routing, fmt::join(r.rows, ", "),
        1e6 * r.forward, 1e6 * r.backward, 1e-12 * rate, 1e-12 * r.flops_full_attention / seconds, 1e-12 * r.product,
        rate / r.product, 1e-9 * r.copy, r.peak >> 20);
  else
    fmt::print(
        "{} {} on {}: {} tokens, routing {} ({} rows)\n"
        "forward {:.1f} us, backward {:.1f} us: {:.2f} TF/s, {:.1f}% of a product's {:.2f}; copies {:.1f} GB/s; {} MiB\n",
        model.name, name_of(o.on.type), o.on.device_name(), model.tokens(), o.routing, fmt::join(r.rows, " "),
        1e6 * r.forward, 1e6 * r.backward, 1e-12 * rate, 100 * rate / r.product, 1e-12 * r.product, 1e-9 * r.copy,
        r.peak >> 20);
}

}  // namespace
}  // namespace smoe::bench

int main(int argc, char** argv) {
  try {
    const smoe::bench::Options options = smoe::bench::parse(argc, argv);
    smoe::bench::print(options, smoe::bench::measure(options));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "block_bench: %s\n", error.what());
    return 1;
  }
}
