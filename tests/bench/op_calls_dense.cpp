// Copies, elementwise ops, embedding, norm, products, rotary embedding, cross-entropy, AdamW.
#include <fmt/format.h>

#include <memory>

#include "kernels/host_mirror.h"
#include "tests/bench/op_calls.h"

namespace smoe::bench {
namespace {

using namespace op_cases;

void add_elementwise(std::vector<OpCall>& calls, const ElementwiseCase& c) {
  const std::string what = fmt::format("n{}", c.n);
  const auto host = std::make_shared<std::vector<float>>(static_cast<std::size_t>(c.n));
  calls.push_back({"copy_to_host", what, op_work::copy(c.n), [c, host](Inputs& in) {
    return [&b = in.backend(), from = in.uniform({c.n}), host] { b.copy_to_host(host->data(), from); };
  }});
  calls.push_back({"start_copy_to_host", what, op_work::copy(c.n), [c](Inputs& in) {
    return [&b = in.backend(), from = in.uniform({c.n}), mirror = std::make_shared<HostMirror<float>>()] {
      mirror->start_fetch(b, from);
      b.wait(b.record());
    };
  }});
  calls.push_back({"copy_from_host", what, op_work::copy(c.n), [c, host](Inputs& in) {
    return [&b = in.backend(), to = in.output({c.n}), host] { b.copy_from_host(to, host->data()); };
  }});
  calls.push_back({"copy", what, op_work::copy(c.n), [c](Inputs& in) {
    return [&b = in.backend(), to = in.output({c.n}), from = in.uniform({c.n})] { b.copy(to, from); };
  }});
  calls.push_back({"fill", what, op_work::fill(c.n), [c](Inputs& in) {
    return [&b = in.backend(), to = in.output({c.n})] { b.fill(to, 1.0f); };
  }});
  calls.push_back({"add", what, c.forward(), [c](Inputs& in) {
    return [&b = in.backend(), x = in.uniform({c.n}), y = in.uniform({c.n}), out = in.output({c.n})] { b.add(x, y, out); };
  }});
  calls.push_back({"sum", what, op_work::sum(c.n), [c](Inputs& in) {
    return [&b = in.backend(), x = in.uniform({c.n}), out = in.scalar()] { b.sum(x, out); };
  }});
  calls.push_back({"sum_of_squares", what, op_work::sum_of_squares(c.n), [c](Inputs& in) {
    return [&b = in.backend(), x = in.uniform({c.n}), out = in.scalar()] { b.sum_of_squares(x, out); };
  }});
}

void add_embedding(std::vector<OpCall>& calls, const EmbeddingCase& c) {
  const std::string what = fmt::format("T{} V{} D{}", c.tokens, c.vocab, c.hidden);
  const Shape activations{c.tokens, c.hidden}, table{c.vocab, c.hidden};
  calls.push_back({"embedding_forward", what, c.forward(), [=](Inputs& in) {
    return [&b = in.backend(), vocab = c.vocab, ids = in.ids({c.tokens}, c.vocab), table = in.uniform(table), out = in.output(activations)] {
      b.embedding_forward(ids, table, 0, vocab, out);
    };
  }});
  calls.push_back({"embedding_backward", what, c.backward(), [=](Inputs& in) {
    return [&b = in.backend(), vocab = c.vocab, ids = in.ids({c.tokens}, c.vocab), dout = in.uniform(activations), dtable = in.output(table)] {
      b.embedding_backward(ids, dout, 0, vocab, dtable);
    };
  }});
}

void add_rms_norm(std::vector<OpCall>& calls, const RmsNormCase& c) {
  const std::string what = fmt::format("T{} D{}", c.tokens, c.hidden);
  const Shape x{c.tokens, c.hidden};
  calls.push_back({"rms_norm_forward", what, c.forward(), [=](Inputs& in) {
    return [&b = in.backend(), c, x = in.uniform(x), weight = in.uniform({c.hidden}), y = in.output(x),
            rstd = in.output({c.tokens})] { b.rms_norm_forward(x, weight, c.epsilon, y, rstd); };
  }});
  calls.push_back({"rms_norm_backward", what, c.backward(), [=](Inputs& in) {
    return [&b = in.backend(), dy = in.uniform(x), x = in.uniform(x), weight = in.uniform({c.hidden}),
            rstd = in.constant({c.tokens}, 1), dresidual = in.uniform(x), dx = in.output(x),
            dweight = in.output({c.hidden})] { b.rms_norm_backward(dy, x, weight, rstd, dresidual, dx, dweight); };
  }});
}

void add_gemm(std::vector<OpCall>& calls, const GemmCase& c) {
  const Shape x{c.rows, c.in}, w{c.out, c.in}, y{c.rows, c.out};
  const auto add = [&](const char* name, Gemm kind, Shape sa, Shape sb, Shape sc) {
    const Write write = kind == Gemm::tn ? Write::add : Write::assign;  // as the layers call it: weight gradients accumulate
    calls.push_back({"gemm", fmt::format("{} {}: {} {} to {}", name, c.name.substr(6), sa.to_string(), sb.to_string(), sc.to_string()),
                     c.forward(), [=](Inputs& in) {
      return [&backend = in.backend(), a = in.uniform(sa), b = in.uniform(sb), c = in.output(sc), kind, write] {
        backend.gemm(kind, a, b, c, write);
      };
    }});
  };
  add("nt", Gemm::nt, x, w, y);
  add("nn", Gemm::nn, y, w, x);
  add("tn", Gemm::tn, y, x, w);
}

void add_rope(std::vector<OpCall>& calls, const RopeCase& c) {
  const std::string what = fmt::format("T{} heads {} of {} C{}", c.tokens, c.rotated_heads, c.heads, c.head_dim);
  const Shape table{c.positions, c.head_dim};
  calls.push_back({"rope_table", fmt::format("P{} C{}", c.positions, c.head_dim), op_work::rope_table(table.elements()),
                   [=](Inputs& in) {
    return [&b = in.backend(), frequencies = c.frequencies(), table = in.output(table)] { b.rope_table(frequencies, 1, table); };
  }});
  const auto add = [&](const char* op, void (Backend::*rotate)(const Tensor&, std::int64_t, const Tensor&, const Tensor&)) {
    calls.push_back({op, what, c.forward(), [=](Inputs& in) {
      const Tensor angles = in.output(table);
      in.backend().rope_table(c.frequencies(), 1, angles);
      return [&b = in.backend(), rotate, c, x = in.uniform({c.tokens, c.heads, c.head_dim}),
              positions = in.ids({c.tokens}, c.positions), angles] { (b.*rotate)(x, c.rotated_heads, positions, angles); };
    }});
  };
  add("rope_forward", &Backend::rope_forward);
  add("rope_backward", &Backend::rope_backward);
}

void add_cross_entropy(std::vector<OpCall>& calls, const CrossEntropyCase& c) {
  const Index N = c.rows, V = c.vocab();
  const std::string what = fmt::format("N{} V{}", N, V);
  const float scale = static_cast<float>(c.logit_scale);
  calls.push_back({"cross_entropy_statistics", what, c.forward(), [=](Inputs& in) {
    return [&b = in.backend(), logits = in.uniform({N, V}, scale), targets = in.ids({N}, V), maxima = in.output({N}),
            sums = in.output({N}), target_logits = in.output({N})] {
      b.cross_entropy_statistics(logits, targets, 0, maxima, sums, target_logits);
    };
  }});
  constexpr Index ranges = 4;
  calls.push_back({"cross_entropy_merge", what, op_work::cross_entropy_merge(ranges, N), [=](Inputs& in) {
    return [&b = in.backend(), parts = in.uniform({ranges, 3, N}), maxima = in.output({N}), sums = in.output({N}), target_logits = in.output({N})] {
      b.cross_entropy_merge(parts, maxima, sums, target_logits);
    };
  }});
  calls.push_back({"cross_entropy_losses", what, op_work::cross_entropy_losses(N), [=](Inputs& in) {
    return [&b = in.backend(), targets = in.ids({N}, V), maxima = in.uniform({N}), sums = in.constant({N}, 100),
            target_logits = in.uniform({N}), logsumexp = in.output({N}), losses = in.output({N})] {
      b.cross_entropy_losses(targets, maxima, sums, target_logits, logsumexp, losses);
    };
  }});
  calls.push_back({"cross_entropy_backward", what, c.backward(), [=](Inputs& in) {
    return [&b = in.backend(), logits = in.uniform({N, V}, scale), targets = in.ids({N}, V), logsumexp = in.constant({N}, 10)] {
      b.cross_entropy_backward(logits, targets, 0, logsumexp, 1.0, {});
    };
  }});
}

void add_adamw(std::vector<OpCall>& calls, const AdamWCase& c) {
  // An op clears the gradient that it has used, so later calls read zeros. The betas keep the moments from decaying into
  // denormals, which a run of thousands of updates without a gradient would otherwise reach.
  const AdamWStep step{1e-4, 0.9999, 0.9999, 1e-8, c.weight_decay, 1.0, 1.0, c.gradient_scale};
  calls.push_back({"adamw", fmt::format("n{}", c.n), c.forward(), [=](Inputs& in) {
    return [&b = in.backend(), step, parameter = in.uniform({c.n}), gradient = in.uniform({c.n}), first = in.uniform({c.n}),
            second = in.constant({c.n}, 1)] { b.adamw(step, parameter, gradient, first, second); };
  }});
}

}  // namespace

std::vector<OpCall> dense_calls() {
  std::vector<OpCall> calls;
  for (const auto& c : bench_cases(elementwise_cases())) add_elementwise(calls, c);
  for (const auto& c : bench_cases(embedding_cases())) add_embedding(calls, c);
  for (const auto& c : bench_cases(rms_norm_cases())) add_rms_norm(calls, c);
  for (const auto& c : bench_cases(gemm_cases())) add_gemm(calls, c);
  for (const auto& c : bench_cases(rope_cases())) add_rope(calls, c);
  for (const auto& c : bench_cases(cross_entropy_cases())) add_cross_entropy(calls, c);
  for (const auto& c : bench_cases(adamw_cases())) add_adamw(calls, c);
  return calls;
}

}  // namespace smoe::bench
