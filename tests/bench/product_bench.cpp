// The rate of one library's single-precision matrix product over the shapes of a training step, against the cores' own
// rate taken just before and just after each.
//
//   product_bench --library FILE.so [--symbol cblas_sgemm] [--coretype KERNEL] [--threads 1] [--shapes REGEX] [--seconds 0.03]
//   product_bench --library smoe ...      the CPU backend's own gemm
//   product_bench --list                  the shapes
//
// --symbol: of the CBLAS convention; dnnl_sgemm is oneDNN's, a name that ends in _ Fortran's. --coretype: the kernels that
// an OpenBLAS is told to use (OPENBLAS_CORETYPE): "chosen" for what smoe would choose here; without it, its own choice.
// Prints one JSON line a shape: the best of 9 repetitions of --seconds each, on operands that were just used. The best, as
// the cores' own rate is, and one thread by its own CPU time: on a machine that others use too, the rest measures them.
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <functional>
#include <memory>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/core_rate.h"
#include "kernels/op_work.h"
#include "tests/bench/arguments.h"

namespace smoe::bench {
namespace {

// Seconds, from some start. A single thread's clock stands while the thread waits for a core; several threads also wait for
// one another, which counts.
double now(int threads) {
  timespec time{};
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

struct Product {
  const char* what;
  Gemm kind;
  std::int64_t m, n, k;

  const char* kind_name() const { return kind == Gemm::nt ? "nt" : kind == Gemm::nn ? "nn" : "tn"; }
  std::string name() const { return fmt::format("{} {}x{}x{}", kind_name(), m, n, k); }
};

// y = x W^T of a layer with `rows` tokens: forward, and the gradients by x and by W.
void add_layer(std::vector<Product>& all, const char* what, std::int64_t rows, std::int64_t out, std::int64_t in) {
  all.push_back({what, Gemm::nt, rows, out, in});
  all.push_back({what, Gemm::nn, rows, in, out});
  all.push_back({what, Gemm::tn, out, in, rows});
}

std::vector<Product> products() {
  std::vector<Product> all{{"square", Gemm::nt, 2048, 2048, 2048}};
  // The 123.5M-parameter model: an expert's share of 4 x 512 tokens and of 1 x 256; chunks of the head.
  add_layer(all, "123m w13, 512 rows", 512, 3584, 512);
  add_layer(all, "123m w2, 512 rows", 512, 512, 1792);
  add_layer(all, "123m w13, 64 rows", 64, 3584, 512);
  add_layer(all, "123m w2, 64 rows", 64, 512, 1792);
  add_layer(all, "123m head", 256, 32000, 512);
  add_layer(all, "123m qkv", 2048, 768, 512);
  add_layer(all, "123m out", 2048, 512, 512);
  add_layer(all, "123m router", 2048, 8, 512);
  // The quickstart's model.
  add_layer(all, "quickstart w13", 256, 768, 256);
  add_layer(all, "quickstart w2", 256, 256, 384);
  add_layer(all, "quickstart head", 256, 4096, 256);
  add_layer(all, "quickstart qkv", 1024, 384, 256);
  // Tiles of attention: queries by keys, and probabilities by values.
  all.push_back({"attention scores", Gemm::nn, 64, 128, 64});
  all.push_back({"attention values", Gemm::nn, 64, 64, 128});
  // Few rows: generation, and experts that hardly anybody chooses.
  for (const std::int64_t rows : {1, 8}) {
    all.push_back({"few rows w13", Gemm::nt, rows, 3584, 512});
    all.push_back({"few rows w2", Gemm::nt, rows, 512, 1792});
    all.push_back({"few rows head", Gemm::nt, rows, 32000, 512});
  }
  return all;
}

struct Options {
  std::string library, symbol = "cblas_sgemm", coretype, shapes = ".";
  int threads = 1;
  double seconds = 0.03;  // at least, of each repetition
  bool list = false;
};

Options parse(int argc, char** argv) {
  Options o;
  for_each_option(argc, argv, "product_bench.cpp", [&](const std::string& name, const auto& value) {
    if (name == "--library")
      o.library = value();
    else if (name == "--symbol")
      o.symbol = value();
    else if (name == "--coretype")
      o.coretype = value();
    else if (name == "--threads")
      o.threads = std::stoi(value());
    else if (name == "--shapes")
      o.shapes = value();
    else if (name == "--seconds")
      o.seconds = std::stod(value());
    else if (name == "--list")
      o.list = true;
    else
      return false;
    return true;
  });
  if (o.library.empty() && !o.list) throw std::runtime_error("--library is missing: a shared object, or smoe");
  if (o.threads < 1 || o.seconds <= 0) throw std::runtime_error("--threads and --seconds must be positive");
  return o;
}

using Call = std::function<void(const Product&, const float* a, const float* b, float* c)>;

// Weight gradients accumulate, as in the model.
float beta_of(const Product& p) { return p.kind == Gemm::tn ? 1.0f : 0.0f; }

// Row-major operands: a [m,k] or, tn, [k,m]; b [k,n] or, nt, [n,k].
Call cblas_call(void* function) {
  const auto sgemm = reinterpret_cast<void (*)(int, int, int, int, int, int, float, const float*, int, const float*,
                                               int, float, float*, int)>(function);
  return [sgemm](const Product& p, const float* a, const float* b, float* c) {
    constexpr int row_major = 101, plain = 111, transposed = 112;
    const bool ta = p.kind == Gemm::tn, tb = p.kind == Gemm::nt;
    const int m = static_cast<int>(p.m), n = static_cast<int>(p.n), k = static_cast<int>(p.k);
    sgemm(row_major, ta ? transposed : plain, tb ? transposed : plain, m, n, k, 1.0f, a, ta ? m : k, b, tb ? k : n,
          beta_of(p), c, n);
  };
}

Call dnnl_call(void* function) {
  const auto sgemm =
      reinterpret_cast<int (*)(char, char, std::int64_t, std::int64_t, std::int64_t, float, const float*, std::int64_t,
                               const float*, std::int64_t, float, float*, std::int64_t)>(function);
  return [sgemm](const Product& p, const float* a, const float* b, float* c) {
    const bool ta = p.kind == Gemm::tn, tb = p.kind == Gemm::nt;
    if (sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', p.m, p.n, p.k, 1.0f, a, ta ? p.m : p.k, b, tb ? p.k : p.n, beta_of(p), c,
              p.n) != 0)
      throw std::runtime_error("dnnl_sgemm failed");
  };
}

// Column-major: c^T = b^T a^T, and what is row-major here is a transposed matrix there.
Call fortran_call(void* function) {
  const auto sgemm =
      reinterpret_cast<void (*)(const char*, const char*, const int*, const int*, const int*, const float*,
                                const float*, const int*, const float*, const int*, const float*, float*, const int*)>(
          function);
  return [sgemm](const Product& p, const float* a, const float* b, float* c) {
    const bool ta = p.kind == Gemm::tn, tb = p.kind == Gemm::nt;
    const int m = static_cast<int>(p.m), n = static_cast<int>(p.n), k = static_cast<int>(p.k), lda = ta ? m : k,
              ldb = tb ? k : n;
    const float one = 1, beta = beta_of(p);
    sgemm(tb ? "T" : "N", ta ? "T" : "N", &n, &m, &k, &one, b, &ldb, a, &lda, &beta, c, &n);
  };
}

Call own_call(Backend& backend) {
  return [&backend](const Product& p, const float* a, const float* b, float* c) {
    const bool ta = p.kind == Gemm::tn, tb = p.kind == Gemm::nt;
    const auto view = [](const float* data, Shape shape) {
      return Tensor(const_cast<float*>(data), DType::f32, shape);
    };
    backend.gemm(p.kind, view(a, ta ? Shape{p.k, p.m} : Shape{p.m, p.k}),
                 view(b, tb ? Shape{p.n, p.k} : Shape{p.k, p.n}), view(c, {p.m, p.n}), ta ? Write::add : Write::assign);
  };
}

// Libraries read these when they are loaded.
void tell_libraries(const Options& o) {
  for (const char* name : {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "MKL_NUM_THREADS"})
    setenv(name, std::to_string(o.threads).c_str(), 1);
  // Linked with the CPU backend, this program has chosen for itself when it started: another library shall choose freely.
  const char* chosen = cpu::blas_kernel_for(cpu::cpu_features());
  const std::string coretype = o.coretype == "chosen" ? (chosen ? chosen : "") : o.coretype;
  if (coretype.empty())
    unsetenv("OPENBLAS_CORETYPE");
  else
    setenv("OPENBLAS_CORETYPE", coretype.c_str(), 1);
}

Call open_library(const Options& o, Backend& backend) {
  if (o.library == "smoe") return own_call(backend);
  void* library = dlopen(o.library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw std::runtime_error(dlerror());
  void* function = dlsym(library, o.symbol.c_str());
  if (!function) throw std::runtime_error(dlerror());
  if (o.symbol == "dnnl_sgemm") return dnnl_call(function);
  return o.symbol.ends_with('_') ? fortran_call(function) : cblas_call(function);
}

// A convention misread would be a fast way to compute something else.
void require_correct(const Call& call) {
  for (const Gemm kind : {Gemm::nt, Gemm::nn, Gemm::tn}) {
    const Product p{"", kind, 3, 5, 4};
    std::vector<float> a(12), b(20), c(15, 0.0f);
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 5) - 1.0f;
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 7) - 2.0f;
    call(p, a.data(), b.data(), c.data());
    for (std::int64_t i = 0; i < p.m; ++i)
      for (std::int64_t j = 0; j < p.n; ++j) {
        float expected = 0;
        for (std::int64_t l = 0; l < p.k; ++l)
          expected += a[static_cast<std::size_t>(kind == Gemm::tn ? l * p.m + i : i * p.k + l)] *
                      b[static_cast<std::size_t>(kind == Gemm::nt ? j * p.k + l : l * p.n + j)];
        if (c[static_cast<std::size_t>(i * p.n + j)] != expected)
          throw std::runtime_error(
              fmt::format("the library's {} product is wrong: it has another calling convention than --symbol says",
                          p.kind_name()));
      }
  }
}

double time_of(const Product& p, const Call& call, int threads, double seconds, const float* a, const float* b,
               float* c) {
  constexpr int repetitions = 9;
  const auto run = [&](std::int64_t times) {
    const double start = now(threads);
    for (std::int64_t i = 0; i < times; ++i) call(p, a, b, c);
    return (now(threads) - start) / static_cast<double>(times);
  };
  run(1);
  const auto times = std::max<std::int64_t>(1, static_cast<std::int64_t>(seconds / std::max(run(2), 1e-7)));
  double best = run(times);
  for (int i = 1; i < repetitions; ++i) best = std::min(best, run(times));
  return best;
}

int run(const Options& o) {
  std::vector<Product> chosen;
  for (const Product& p : products())
    if (std::regex_search(fmt::format("{} {}", p.name(), p.what), std::regex(o.shapes))) chosen.push_back(p);
  if (chosen.empty()) throw std::runtime_error("no shape matches --shapes " + o.shapes);
  if (o.list) {
    for (const Product& p : chosen) fmt::print("{} ({})\n", p.name(), p.what);
    return 0;
  }
  tell_libraries(o);
  const auto backend = make_cpu_backend(o.threads);
  const Call call = open_library(o, *backend);
  require_correct(call);
  for (const Product& p : chosen) {
    Arena arena(*backend);
    const Tensor a = arena.take({p.m, p.k}), b = arena.take({p.k, p.n}), c = arena.take({p.m, p.n});
    backend->fill(a, 0.5f);
    backend->fill(b, 0.25f);
    backend->fill(c, 0.0f);
    const double before = cpu::measure_core_rate(o.threads).flops_per_second;
    const double seconds = time_of(p, call, o.threads, o.seconds, a.f32(), b.f32(), c.f32());
    const double cores = std::max(before, cpu::measure_core_rate(o.threads).flops_per_second);
    const double rate = op_work::gemm(p.m, p.n, p.k).flops / seconds;
    fmt::print(
        "{{\"shape\": \"{}\", \"what\": \"{}\", \"threads\": {}, \"us\": {:.2f}, \"gflops\": {:.2f}, \"core_gflops\": {:.2f}, \"share\": {:.3f}}}\n",
        p.name(), p.what, o.threads, 1e6 * seconds, 1e-9 * rate, 1e-9 * cores, rate / cores);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace smoe::bench

int main(int argc, char** argv) {
  try {
    return smoe::bench::run(smoe::bench::parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "product_bench: %s\n", error.what());
    return 1;
  }
}
