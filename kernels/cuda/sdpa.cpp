// Compiled as C++: the frontend's headers take nvcc two minutes.
#include "kernels/cuda/sdpa.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/cuda/error.h"
#include "kernels/shared_library.h"
#include "kernels/cuda/swap_outer.h"

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // where the headers look functions up
}

namespace smoe::cuda {
namespace {

namespace fe = cudnn_frontend;

// A backward that gives the same bits each time keeps S x S numbers of every head, or, on Hopper from cuDNN 9.25 on, takes turns:
// slower, in memory that grows with S alone. Above so many bytes of the first, the second; above twice as many in
// all, our own kernels.
constexpr const char* score_bytes = "1073741824";
constexpr std::int64_t most_workspace_bytes = std::int64_t{2} << 30;

enum Uid : std::int64_t { q_uid = 1, k_uid, v_uid, out_uid, lse_uid, dout_uid, dq_uid, dk_uid, dv_uid };

void check(const fe::error_t& error) {
  if (error.is_bad()) throw std::runtime_error(error.err_msg);
}

void set_by_default(const char* variable, const std::string& value) { setenv(variable, value.c_str(), 0); }

struct Plan {
  std::shared_ptr<fe::graph::Graph> graph;  // none: the library does not take the shape
  std::size_t workspace_bytes = 0;
  std::unordered_map<std::int64_t, void*> pointers;
};

}  // namespace

struct Sdpa::Library {
  explicit Library(const Stream& stream_) : stream(stream_) {}
  ~Library() {
    cudaStreamSynchronize(stream);  // plans in use are not unloaded
    if (handle) fe::detail::destroy_handle(handle);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  using Key = std::array<std::int64_t, 7>;
  static Key key_of(Pass pass, const AttentionShape& s) {
    return {static_cast<std::int64_t>(pass), s.sequences, s.sequence_length, s.heads, s.kv_heads, s.head_dim, s.window};
  }

  bool load();
  Plan& plan_of(Pass pass, const AttentionShape& shape);
  Plan build(Pass pass, const AttentionShape& shape);
  void refuse(const std::string& reason);
  // Room for the plan's workspace and, behind it, for the log-sum-exps.
  float* take_room(const Plan& plan, std::int64_t numbers);
  void run(Plan& plan, const char* op);

  const Stream& stream;
  bool tried = false, told = false;
  cudnnHandle_t handle = nullptr;
  std::map<Key, Plan> plans;
  Workspace room{stream};
};

void Sdpa::Library::refuse(const std::string& reason) {
  if (!told) std::fprintf(stderr, "smoe: attention without cuDNN, by slower kernels of our own: %s\n", reason.c_str());
  told = true;
}

bool Sdpa::Library::load() {
  if (tried) return handle != nullptr;
  tried = true;
  try {
    if (!fe::cudnn_dlhandle) fe::cudnn_dlhandle = SharedLibrary("libcudnn.so.9", "NVIDIA's cuDNN 9").handle();
    // The headers look for a runtime by name, an older one first: it is opened here, wherever it is, and named to them.
    const SharedLibrary runtime("libcudart.so." + std::to_string(CUDART_VERSION / 1000), "NVIDIA's CUDA runtime");
    set_by_default("CUDNN_FRONTEND_CUDART_LIB_NAME", runtime.path());
    set_by_default("CUDNN_FRONTEND_ATTN_DP_WORKSPACE_LIMIT", score_bytes);
    if (const cudnnStatus_t status = fe::detail::create_handle(&handle); status != CUDNN_STATUS_SUCCESS) {
      handle = nullptr;
      throw std::runtime_error(std::string("cudnnCreate: ") + fe::detail::get_error_string(status));
    }
    if (const cudnnStatus_t status = fe::detail::set_stream(handle, stream); status != CUDNN_STATUS_SUCCESS)
      throw std::runtime_error(std::string("cudnnSetStream: ") + fe::detail::get_error_string(status));
  } catch (const std::exception& error) {
    refuse(error.what());
    if (handle) fe::detail::destroy_handle(handle);
    handle = nullptr;
  }
  return handle != nullptr;
}

Plan Sdpa::Library::build(Pass pass, const AttentionShape& shape) {
  const auto [B, S, H, G, C, window] = shape;
  const std::int64_t width = (H + 2 * G) * C;
  auto graph = std::make_shared<fe::graph::Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);

  // The library's order of dimensions is [B, heads, S, C], whatever lies where.
  using Lengths = std::vector<std::int64_t>;
  const Lengths queries{B, H, S, C}, keys{B, G, S, C}, of_qkv{S * width, C, width, 1}, of_out{S * H * C, C, H * C, 1};
  const Lengths numbers{B, H, S, 1}, of_numbers{H * S, S, 1, 1};
  const auto input = [&](const char* name, Uid uid, const Lengths& lengths, const Lengths& strides) {
    return graph->tensor(
        fe::graph::Tensor_attributes().set_name(name).set_uid(uid).set_dim(lengths).set_stride(strides));
  };
  const auto output = [](const std::shared_ptr<fe::graph::Tensor_attributes>& tensor, Uid uid, const Lengths& lengths,
                         const Lengths& strides) {
    tensor->set_output(true).set_uid(uid).set_dim(lengths).set_stride(strides);
  };
  // Query i sees keys j <= i, and those where i - j < left bound.
  const auto masked = [&](auto attributes) {
    attributes.set_attn_scale(1.0f / std::sqrt(static_cast<float>(shape.head_dim)))
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    if (shape.window > 0 && shape.window < shape.sequence_length)
      attributes.set_diagonal_band_left_bound(static_cast<int>(shape.window));
    return attributes;
  };

  const auto q = input("q", q_uid, queries, of_qkv), k = input("k", k_uid, keys, of_qkv),
             v = input("v", v_uid, keys, of_qkv);
  if (pass == Pass::forward) {
    const auto [out, lse] = graph->sdpa(
        q, k, v, masked(fe::graph::SDPA_attributes().set_name("attention_forward").set_generate_stats(true)));
    output(out, out_uid, queries, of_out);
    output(lse, lse_uid, numbers, of_numbers);
    lse->set_data_type(fe::DataType_t::FLOAT);
  } else {
    const auto out = input("out", out_uid, queries, of_out), dout = input("dout", dout_uid, queries, of_out);
    const auto lse = input("lse", lse_uid, numbers, of_numbers);
    lse->set_data_type(fe::DataType_t::FLOAT);
    const auto [dq, dk, dv] = graph->sdpa_backward(
        q, k, v, out, dout, lse,
        masked(fe::graph::SDPA_backward_attributes().set_name("attention_backward").set_deterministic_algorithm(true)));
    output(dq, dq_uid, queries, of_qkv);
    output(dk, dk_uid, keys, of_qkv);
    output(dv, dv_uid, keys, of_qkv);
  }
  check(graph->build(handle, {fe::HeurMode_t::A}));
  std::int64_t bytes = 0;
  check(graph->get_workspace_size(bytes));
  if (bytes > most_workspace_bytes)
    throw std::runtime_error("a workspace of " + std::to_string(bytes >> 20) + " MiB for " + std::to_string(B) +
                             " sequences of " + std::to_string(S) + " tokens; at most " +
                             std::to_string(most_workspace_bytes >> 20) + " MiB are given");
  return {std::move(graph), static_cast<std::size_t>((bytes + 255) / 256 * 256), {}};
}

Plan& Sdpa::Library::plan_of(Pass pass, const AttentionShape& shape) {
  const Key key = key_of(pass, shape);
  if (const auto found = plans.find(key); found != plans.end()) return found->second;
  Plan plan;
  try {
    plan = build(pass, shape);
  } catch (const std::exception& error) {
    refuse(error.what());
  }
  return plans.emplace(key, std::move(plan)).first->second;
}

float* Sdpa::Library::take_room(const Plan& plan, std::int64_t numbers) {
  void* const all = room.bytes(plan.workspace_bytes + static_cast<std::size_t>(numbers) * sizeof(float));
  return reinterpret_cast<float*>(static_cast<std::byte*>(all) + plan.workspace_bytes);
}

void Sdpa::Library::run(Plan& plan, const char* op) {
  const fe::error_t error = plan.graph->execute(handle, plan.pointers, room.bytes(plan.workspace_bytes));
  if (error.is_bad()) throw std::runtime_error(std::string("cuda: ") + op + ": " + error.err_msg);
}

Sdpa::Sdpa(const Stream& stream) : library_(new Library(stream)) {}
Sdpa::~Sdpa() = default;

bool Sdpa::takes(Pass pass, const AttentionShape& shape, DType type, const Tensor& document_start) {
  if (type != DType::bf16 || !document_start.empty() || shape.head_dim % 8 != 0 || shape.head_dim > 256) return false;
  if (shape.sequence_length < 2 || shape.sequences < 1) return false;  // its backward wants two tokens
  return library_->load() && library_->plan_of(pass, shape).graph != nullptr;
}

// Of more than one sequence the library's log-sum-exps are [B, H, S], ours [H, B, S]: versions before 9.26 read no other order.
void Sdpa::forward(const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse) {
  const auto [B, S, H, G, C, window] = shape;
  const std::int64_t numbers = B > 1 ? B * H * S : 0;
  Plan& plan = library_->plan_of(Pass::forward, shape);
  float* packed = library_->take_room(plan, numbers);
  plan.pointers[q_uid] = qkv.bf16();
  plan.pointers[k_uid] = qkv.bf16() + H * C;
  plan.pointers[v_uid] = qkv.bf16() + (H + G) * C;
  plan.pointers[out_uid] = out.bf16();
  plan.pointers[lse_uid] = B > 1 ? packed : lse.f32();
  library_->run(plan, "attention_forward");
  if (B > 1) swap_outer(library_->stream, "attention_forward", packed, B, H, S, lse.f32());
}

void Sdpa::backward(const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse,
                    const Tensor& dout, const Tensor& dqkv) {
  const auto [B, S, H, G, C, window] = shape;
  const std::int64_t numbers = B > 1 ? B * H * S : 0;
  Plan& plan = library_->plan_of(Pass::backward, shape);
  float* packed = library_->take_room(plan, numbers);
  if (B > 1) swap_outer(library_->stream, "attention_backward", lse.f32(), H, B, S, packed);
  plan.pointers[q_uid] = qkv.bf16();
  plan.pointers[k_uid] = qkv.bf16() + H * C;
  plan.pointers[v_uid] = qkv.bf16() + (H + G) * C;
  plan.pointers[out_uid] = out.bf16();
  plan.pointers[dout_uid] = dout.bf16();
  plan.pointers[lse_uid] = B > 1 ? packed : lse.f32();
  plan.pointers[dq_uid] = dqkv.bf16();
  plan.pointers[dk_uid] = dqkv.bf16() + H * C;
  plan.pointers[dv_uid] = dqkv.bf16() + (H + G) * C;
  library_->run(plan, "attention_backward");
}

}  // namespace smoe::cuda
