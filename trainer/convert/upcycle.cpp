#include "trainer/convert/upcycle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "data/files/json.h"
#include "data/text/tokenizer_files.h"
#include "model/mixtral.h"
#include "parallel/initial_values.h"
#include "parallel/mesh.h"
#include "trainer/checkpoint/weights.h"
#include "trainer/convert/carried.h"
#include "trainer/convert/dense_model.h"
#include "trainer/convert/expert_matrix.h"
#include "trainer/convert/mixtral_config.h"
#include "trainer/convert/new_directory.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

using Parents = std::deque<DenseModel>;  // they never move

// What a Mixtral's tensor is: a router, a matrix of an expert, or one that dense models have too.
struct TensorKind {
  enum { shared, router, expert } kind = shared;
  std::int64_t layer = 0, expert_index = 0;
  char matrix = 0;  // '1', '2' or '3' of an expert
};

TensorKind kind_of(std::string_view name) {
  constexpr std::string_view layers = "model.layers.", block = ".block_sparse_moe.";
  const auto at = name.find(block);
  if (at == std::string_view::npos) return {};
  const auto number = [](std::string_view text) { return std::stoll(std::string(text)); };
  TensorKind found{.kind = TensorKind::router, .layer = number(name.substr(layers.size()))};
  const std::string_view rest = name.substr(at + block.size());  // "gate.weight", "experts.3.w1.weight"
  if (!rest.starts_with("experts.")) return found;
  found.kind = TensorKind::expert;
  found.expert_index = number(rest.substr(std::string_view("experts.").size()));
  found.matrix = rest[rest.size() - std::string_view("1.weight").size()];
  return found;
}

// Of w1, w2 or w3 where copies are cut into G.
float scale_of(char matrix, std::int64_t granularity, SplitScale scale) {
  const auto g = static_cast<double>(granularity);
  if (scale == SplitScale::cube_root) return static_cast<float>(std::cbrt(g));
  const double of_w3 = std::exp2(std::floor(std::log2(g) / 2));
  return static_cast<float>(matrix == '1' ? 1.0 : matrix == '3' ? of_w3 : g / of_w3);
}

class Upcycling {
 public:
  Upcycling(const UpcycleOptions& options, const Parents& parents) : options_(options), parents_(parents) {
    shape_ = parents.front().shape();
    shape_.intermediate_size /= options.granularity;
    shape_.num_local_experts = options.experts;
    shape_.num_experts_per_tok = options.top_k;
    for (TensorSpec& spec : tensor_specs(declare_parameters(shape_, Mesh::single()))) {
      spec.type = type_of(spec.name);
      specs_.push_back(std::move(spec));
    }
  }

  const ModelConfig& shape() const { return shape_; }
  const std::vector<TensorSpec>& specs() const { return specs_; }
  // Of the experts, which are most of the model.
  TensorType weights() const { return type_of("model.layers.0.block_sparse_moe.experts.0.w1.weight"); }

  void write(const TensorSpec& spec, TensorDirectoryWriter& writer) const {
    const TensorKind kind = kind_of(spec.name);
    if (kind.kind == TensorKind::router)
      write_router(spec, writer);
    else if (kind.kind == TensorKind::expert)
      write_expert_matrix(expert_matrix(spec.name, kind), writer, spec);
    else
      write_shared(spec, writer);
  }

 private:
  const DenseModel& parent_of(std::int64_t expert) const {
    return parents_[static_cast<std::size_t>(expert / options_.granularity) % parents_.size()];
  }
  TensorType found_type(const DenseModel& parent, const std::string& name) const {
    return parent.tensors().info(parent.source_of(name)).type;
  }

  TensorType type_of(const std::string& name) const {
    if (options_.type == StoredType::f32) return TensorType::f32;
    if (options_.type == StoredType::bf16) return TensorType::bf16;
    const TensorKind kind = kind_of(name);
    if (kind.kind == TensorKind::router)
      return found_type(parents_.front(),
                        fmt::format("model.layers.{}.block_sparse_moe.experts.0.w1.weight", kind.layer));
    if (kind.kind == TensorKind::expert) return found_type(parent_of(kind.expert_index), name);
    const TensorType first = found_type(parents_.front(), name);
    const bool alike = std::all_of(parents_.begin(), parents_.end(),
                                   [&](const DenseModel& parent) { return found_type(parent, name) == first; });
    return alike || options_.shared == SharedWeights::first ? first : TensorType::f32;
  }

  void write_router(const TensorSpec& spec, TensorDirectoryWriter& writer) const {
    const std::int64_t copies = options_.experts / options_.granularity;
    Parameter rows{.name = spec.name, .shape = {copies, shape_.hidden_size}, .slice = {copies, shape_.hidden_size}};
    rows.initial_std = static_cast<float>(options_.router_std);
    std::vector<float> drawn(static_cast<std::size_t>(rows.shape.elements()));
    fill_initial_values(options_.seed, rows, drawn.data());
    const auto row = static_cast<std::size_t>(shape_.hidden_size);
    for (std::int64_t e = 0; e < options_.experts; ++e)
      writer.write_f32(spec.name, e * shape_.hidden_size,
                       std::span(drawn).subspan(static_cast<std::size_t>(e / options_.granularity) * row, row));
  }

  ExpertMatrix expert_matrix(const std::string& name, const TensorKind& kind) const {
    const DenseModel& parent = parent_of(kind.expert_index);
    const std::int64_t dims = shape_.intermediate_size;
    ExpertMatrix matrix{.parent = &parent.tensors(),
                        .source = parent.source_of(name),
                        .dims_are_columns = kind.matrix == '2',
                        .first = kind.expert_index % options_.granularity * dims,
                        .count = dims,
                        .scale = scale_of(kind.matrix, options_.granularity, options_.scale),
                        .seed = options_.seed};
    if (options_.drop > 0)
      matrix.redrawn = choose_redrawn(options_.seed, kind.layer, kind.expert_index, dims, options_.drop);
    return matrix;
  }

  void write_shared(const TensorSpec& spec, TensorDirectoryWriter& writer) const {
    const DenseModel& first = parents_.front();
    const bool mean = options_.shared == SharedWeights::average && parents_.size() > 1;
    if (!mean && found_type(first, spec.name) == spec.type)
      return carry_tensor(first.tensors(), first.source_of(spec.name), writer, spec.name);
    constexpr std::int64_t piece = 1 << 18;
    const std::size_t terms = mean ? parents_.size() : 1;
    const std::int64_t elements = first.tensors().info(first.source_of(spec.name)).elements();
    std::vector<double> sums;
    std::vector<float> numbers;
    for (std::int64_t done = 0; done < elements; done += piece) {
      const std::int64_t n = std::min(piece, elements - done);
      numbers.resize(static_cast<std::size_t>(n));
      sums.assign(numbers.size(), 0.0);
      for (std::size_t p = 0; p < terms; ++p) {
        parents_[p].tensors().read_f32(parents_[p].source_of(spec.name), numbers.data(), done, n);
        std::transform(sums.begin(), sums.end(), numbers.begin(), sums.begin(), std::plus<double>());
      }
      std::transform(sums.begin(), sums.end(), numbers.begin(),
                     [&](double sum) { return static_cast<float>(sum / static_cast<double>(terms)); });
      writer.write_f32(spec.name, done, numbers);
    }
  }

  const UpcycleOptions& options_;
  const Parents& parents_;
  ModelConfig shape_;
  std::vector<TensorSpec> specs_;
};

// Ids of different tokenizers mean different tokens.
void compare_tokenizers(const Parents& parents, std::vector<std::string>& warnings) {
  const auto files_of = [](const DenseModel& parent) {
    std::vector<TokenizerFile> files;
    for (TokenizerFile& file : read_tokenizer_files(parent.directory()))
      if (file.name == "tokenizer.json" || file.name == "tokenizer.model" || file.name == "added_tokens.json")
        files.push_back(std::move(file));
    return files;
  };
  const auto first = files_of(parents.front());
  for (const DenseModel& parent : parents)
    if (files_of(parent) != first)
      warnings.push_back(
          fmt::format("{} and {} have different tokenizer files: if their ids mean different tokens, the result "
                      "is of no use; it has the first's",
                      parents.front().directory().string(), parent.directory().string()));
}

// Throws where a parent does not go with the first, or cannot be cut.
void require_alike(const Parents& parents, std::int64_t granularity, std::vector<std::string>& warnings) {
  const ModelConfig& first = parents.front().shape();
  if (first.intermediate_size % granularity != 0)
    throw std::runtime_error(fmt::format("{}: intermediate_size is {}, expected a multiple of the granularity {}",
                                         parents.front().directory().string(), first.intermediate_size, granularity));
  for (const DenseModel& parent : parents) {
    if (const std::string difference = difference_in_shape(parents.front(), parent); !difference.empty())
      throw std::runtime_error(
          fmt::format("the dense models differ in {}: only models of one shape become one", difference));
    if (parent.shape().max_position_embeddings != first.max_position_embeddings)
      warnings.push_back(fmt::format("max_position_embeddings: {} has {}, {} has {}: the first's is taken",
                                     parents.front().directory().string(), first.max_position_embeddings,
                                     parent.directory().string(), parent.shape().max_position_embeddings));
  }
}

}  // namespace

std::string problem_with(const UpcycleOptions& o) {
  const auto parents = static_cast<std::int64_t>(o.dense.size());
  if (parents == 0) return "--dense: none given, expected the directory of a dense model";
  if (o.experts < 1 || o.experts > 4096) return fmt::format("--experts: found {}, expected 1 to 4096", o.experts);
  if (o.granularity < 1) return fmt::format("--granularity: found {}, expected 1 or more", o.granularity);
  if (o.experts % o.granularity != 0)
    return fmt::format("--experts: found {}, expected a multiple of --granularity ({})", o.experts, o.granularity);
  if (o.top_k < 1 || o.top_k > o.experts)
    return fmt::format("--top-k: found {}, expected 1 to --experts ({})", o.top_k, o.experts);
  if (o.top_k % o.granularity != 0)
    return fmt::format("--top-k: found {}, expected a multiple of --granularity ({}): a token chooses whole copies",
                       o.top_k, o.granularity);
  if (o.experts / o.granularity % parents != 0)
    return fmt::format("--experts: found {}, expected a multiple of {}: as many copies of each of {} dense models",
                       o.experts, parents * o.granularity, parents);
  if (!(o.router_std >= 0 && std::isfinite(o.router_std)))
    return fmt::format("--router-std: found {}, expected a number of 0 or more", o.router_std);
  if (!(o.drop >= 0 && o.drop <= 1)) return fmt::format("--drop: found {}, expected a share in [0, 1]", o.drop);
  return {};
}

Upcycled upcycle(const UpcycleOptions& options) {
  if (const std::string problem = problem_with(options); !problem.empty()) throw std::runtime_error(problem);
  Upcycled result;
  Parents parents;
  for (const fs::path& directory : options.dense) {
    parents.emplace_back(directory);
    for (const std::string& warning : parents.back().warnings()) result.warnings.push_back(warning);
  }
  require_alike(parents, options.granularity, result.warnings);
  compare_tokenizers(parents, result.warnings);
  const Upcycling upcycling(options, parents);
  result.shape = upcycling.shape();
  for (const TensorSpec& spec : upcycling.specs()) result.bytes += tensor_bytes(spec, spec.name);

  NewDirectory out(options.out, options.dense);
  write_json_file(out.path() / "config.json",
                  mixtral_config(parents.front().config(), upcycling.shape(), upcycling.weights()));
  carry_text_files(parents.front().directory(), out.path());
  auto writer = TensorDirectoryWriter::create(out.path(), upcycling.specs(), options.max_shard_bytes);
  std::uint64_t done = 0;
  for (const TensorSpec& spec : upcycling.specs()) {
    upcycling.write(spec, writer);
    done += tensor_bytes(spec, spec.name);
    if (options.on_progress) options.on_progress(done, result.bytes);
  }
  writer.finish();
  out.commit();
  return result;
}

}  // namespace smoe
