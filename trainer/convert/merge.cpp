#include "trainer/convert/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string_view>

#include "data/files/files.h"
#include "data/files/json.h"
#include "trainer/checkpoint/adapters.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/peft_adapter.h"
#include "trainer/convert/carried.h"
#include "trainer/convert/new_directory.h"
#include "trainer/convert/stored_numbers.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t piece_numbers = 1 << 20;  // of W, in memory at a time

// A matrix in a tensor of the base: rows [first_row, + rows) of it, read as [-1,columns].
struct BaseMatrix {
  std::size_t matrix = 0;  // of MatrixNames
  std::int64_t first_row = 0;
};
struct BaseTensor {
  std::string name;
  std::int64_t columns = 0;
  std::vector<BaseMatrix> matrices;  // those that are added to, by ascending rows
};

// The part of one adapter beside one matrix that is added now.
struct Addend {
  const PeftAdapter* adapter = nullptr;
  const AdapterPair* pair = nullptr;
  double factor = 0;     // weight * scale
  std::vector<float> a;  // [rank,in]
};

struct OpenAdapter {
  std::unique_ptr<PeftAdapter> files;
  double weight = 1;
};

// The matrices that a tensor of the base holds; none where no adapter can be beside it. Checks its shape where there are some.
BaseTensor matrices_in(const TensorDirectory& files, const std::string& name, const MatrixNames& names) {
  BaseTensor tensor{.name = name, .columns = 0, .matrices = {}};
  const TensorInfo& info = files.info(name);
  std::vector<std::int64_t> expected;
  const auto add = [&](std::size_t matrix) {
    const NamedMatrix& w = names[matrix];
    tensor.matrices.push_back({matrix, tensor.matrices.empty() ? 0 : tensor.matrices.back().first_row + w.rows});
    tensor.columns = w.columns;
    return w.rows;
  };
  constexpr std::string_view weight = ".weight", gate_up = ".gate_up_proj", down = ".down_proj";
  const std::string_view path = name;
  if (path.ends_with(weight)) {
    if (const auto matrix = names.find(path.substr(0, path.size() - weight.size())))
      expected = {add(*matrix), tensor.columns};
  } else if (path.ends_with(gate_up)) {
    if (const auto layer = names.find_experts(path.substr(0, path.size() - gate_up.size())))
      for (std::int64_t e = 0; e < names.experts(); ++e) {
        const std::int64_t rows = add(names.of_expert(*layer, e, 1)) + add(names.of_expert(*layer, e, 3));
        expected = {names.experts(), rows, tensor.columns};
      }
  } else if (path.ends_with(down)) {
    if (const auto layer = names.find_experts(path.substr(0, path.size() - down.size())))
      for (std::int64_t e = 0; e < names.experts(); ++e)
        expected = {names.experts(), add(names.of_expert(*layer, e, 2)), tensor.columns};
  }
  if (tensor.matrices.empty()) return tensor;
  if (info.shape != expected)
    throw std::runtime_error(fmt::format("{}: {}: found {}, expected {}", files.file_of(name), name,
                                         shape_text(info.shape), shape_text(expected)));
  if (!reads_as_f32(info.type))
    throw std::runtime_error(
        fmt::format("{}: {}: found {}, expected F32, F64, BF16 or F16", files.file_of(name), name, name_of(info.type)));
  return tensor;
}

TensorType type_there(const TensorInfo& info, StoredType wanted) {
  if (wanted == StoredType::keep || !reads_as_f32(info.type) || info.name.ends_with("e_score_correction_bias"))
    return info.type;
  return wanted == StoredType::f32 ? TensorType::f32 : TensorType::bf16;
}

void require_finite(std::span<const float> numbers, const Addend& addend, const MatrixInTensor& where) {
  for (const float x : numbers)
    if (!std::isfinite(x))
      throw std::runtime_error(fmt::format("{}/{}: {}: found {}, expected finite numbers",
                                           addend.adapter->directory().string(), kAdapterFile, where.tensor, x));
}

class Merging {
 public:
  Merging(const MergeOptions& options, const fs::path& out, const ModelConfig& model)
      : options_(options), out_(out), names_(model), files_(options.model) {
    for (const WeightedAdapter& adapter : options.adapters)
      adapters_.push_back({std::make_unique<PeftAdapter>(adapter.directory, model), adapter.weight});
    for (const std::string& name : files_.names()) plan(name);
    require_every_matrix();
  }

  Merged run() {
    TensorDirectoryWriter writer = TensorDirectoryWriter::create(out_, specs_, options_.max_shard_bytes);
    std::uint64_t done = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const TensorInfo& info = files_.info(tensors_[i].name);
      if (tensors_[i].matrices.empty() && specs_[i].type == info.type)
        carry_tensor(files_, info.name, writer, info.name);
      else
        write(tensors_[i], specs_[i], writer);
      done += tensor_bytes(specs_[i], info.name);
      if (options_.on_progress) options_.on_progress(done, result_.bytes);
    }
    writer.finish();
    for (const OpenAdapter& adapter : adapters_)
      for (const std::string& warning : adapter.files->settings().warnings) result_.warnings.push_back(warning);
    return result_;
  }

 private:
  bool is_added_to(std::size_t matrix) const {
    return std::any_of(adapters_.begin(), adapters_.end(),
                       [&](const OpenAdapter& adapter) { return adapter.weight != 0 && adapter.files->find(matrix); });
  }

  void plan(const std::string& name) {
    BaseTensor tensor = matrices_in(files_, name, names_);
    for (const BaseMatrix& m : tensor.matrices) found_.push_back(m.matrix);
    std::erase_if(tensor.matrices, [&](const BaseMatrix& m) { return !is_added_to(m.matrix); });
    const TensorInfo& info = files_.info(name);
    specs_.push_back({name, type_there(info, options_.type), info.shape});
    result_.changed += tensor.matrices.empty() ? 0 : 1;
    result_.bytes += tensor_bytes(specs_.back(), name);
    ++result_.tensors;
    tensors_.push_back(std::move(tensor));
  }

  void require_every_matrix() {
    std::sort(found_.begin(), found_.end());
    for (std::size_t i = 0; i < names_.all().size(); ++i) {
      const auto [first, last] = std::equal_range(found_.begin(), found_.end(), i);
      if (last - first != 1)
        throw std::runtime_error(fmt::format("{}: {}.weight: found {} tensors, expected one", options_.model.string(),
                                             names_[i].path, last - first));
    }
  }

  std::vector<Addend> addends_of(std::size_t matrix) const {
    std::vector<Addend> addends;
    for (const OpenAdapter& adapter : adapters_) {
      const AdapterPair* pair = adapter.files->find(matrix);
      if (!pair || adapter.weight == 0) continue;
      Addend addend{adapter.files.get(), pair, adapter.weight * pair->scale, {}};
      addend.a.resize(static_cast<std::size_t>(pair->a.rows * pair->a.columns));
      adapter.files->read(pair->a, {0, pair->a.rows, 0, pair->a.columns}, addend.a.data(), pair->a.columns);
      require_finite(addend.a, addend, pair->a);
      addends.push_back(std::move(addend));
    }
    return addends;
  }

  // sum_[rows,columns] of all addends' rows [first, first + rows).
  void add_up(const std::vector<Addend>& addends, std::int64_t first, std::int64_t rows, std::int64_t columns) {
    sum_.assign(static_cast<std::size_t>(rows * columns), 0.0);
    for (const Addend& addend : addends) {
      const std::int64_t rank = addend.pair->rank;
      b_.resize(static_cast<std::size_t>(rows * rank));
      addend.adapter->read(addend.pair->b, {first, rows, 0, rank}, b_.data(), rank);
      require_finite(b_, addend, addend.pair->b);
      for (std::int64_t i = 0; i < rows; ++i) {
        double* const sums = sum_.data() + i * columns;
        for (std::int64_t j = 0; j < rank; ++j) {
          const double factor = addend.factor * static_cast<double>(b_[static_cast<std::size_t>(i * rank + j)]);
          const float* const a = addend.a.data() + j * columns;
          if (factor == 0) continue;
          for (std::int64_t k = 0; k < columns; ++k) sums[k] += factor * static_cast<double>(a[k]);
        }
      }
    }
  }

  // Elements [first, first + count) of a tensor, with `sums` added, or, where there are none, in their new type alone.
  template <class From, class To>
  void write_piece(const std::string& name, std::int64_t first, std::int64_t count, const double* sums,
                   TensorDirectoryWriter& writer) {
    const auto n = static_cast<std::size_t>(count);
    in_.resize(n * sizeof(typename From::Bits));
    out_bytes_.resize(n * sizeof(typename To::Bits));
    const auto at = static_cast<std::uint64_t>(first);
    files_.read_raw(name, at * sizeof(typename From::Bits), in_);
    for (std::size_t i = 0; i < n; ++i) {
      if (std::is_same_v<From, To> && (!sums || sums[i] == 0)) {  // its bits: -0 + 0 would be 0
        std::copy_n(in_.begin() + static_cast<std::ptrdiff_t>(i * sizeof(typename From::Bits)),
                    sizeof(typename From::Bits),
                    out_bytes_.begin() + static_cast<std::ptrdiff_t>(i * sizeof(typename From::Bits)));
        continue;
      }
      const double before = stored_number<From>(in_, i), after = before + (sums ? sums[i] : 0);
      store_number<To>(out_bytes_, i, sums && sums[i] == 0 ? before : after);
      if (std::isfinite(before) && !std::isfinite(stored_number<To>(out_bytes_, i)))
        throw std::runtime_error(
            fmt::format("{}: element {} becomes {}, which is beyond the numbers of its type: --dtype "
                        "fp32 has more",
                        name, first + static_cast<std::int64_t>(i), after));
    }
    writer.write_raw(name, at * sizeof(typename To::Bits), out_bytes_);
  }
  void write_piece_of(const TensorSpec& spec, std::int64_t first, std::int64_t count, const double* sums,
                      TensorDirectoryWriter& writer) {
    visit_stored(files_.info(spec.name).type, [&]<class From>(From) {
      visit_stored(spec.type, [&]<class To>(To) { write_piece<From, To>(spec.name, first, count, sums, writer); });
    });
  }

  void write_unchanged(const TensorSpec& spec, std::int64_t first, std::int64_t end, TensorDirectoryWriter& writer) {
    for (; first < end; first += piece_numbers)
      write_piece_of(spec, first, std::min(piece_numbers, end - first), nullptr, writer);
  }

  void write(const BaseTensor& tensor, const TensorSpec& spec, TensorDirectoryWriter& writer) {
    std::int64_t done = 0;
    for (const BaseMatrix& m : tensor.matrices) {
      const NamedMatrix& w = names_[m.matrix];
      const std::int64_t begin = m.first_row * w.columns;
      write_unchanged(spec, done, begin, writer);
      const std::vector<Addend> addends = addends_of(m.matrix);
      const std::int64_t at_once = std::max<std::int64_t>(1, piece_numbers / w.columns);
      for (std::int64_t row = 0; row < w.rows; row += at_once) {
        const std::int64_t rows = std::min(at_once, w.rows - row);
        add_up(addends, row, rows, w.columns);
        write_piece_of(spec, begin + row * w.columns, rows * w.columns, sum_.data(), writer);
      }
      done = begin + w.rows * w.columns;
    }
    write_unchanged(spec, done, files_.info(spec.name).elements(), writer);
  }

  const MergeOptions& options_;
  const fs::path& out_;
  MatrixNames names_;
  TensorDirectory files_;
  std::vector<OpenAdapter> adapters_;
  std::vector<BaseTensor> tensors_;
  std::vector<TensorSpec> specs_;   // of tensors_, in their order
  std::vector<std::size_t> found_;  // matrices of the base
  std::vector<double> sum_;
  std::vector<float> b_;
  std::vector<std::byte> in_, out_bytes_;
  Merged result_;
};

// config.json as it is, but for the type of the weights.
void write_config(const fs::path& from, const fs::path& to, StoredType type) {
  if (type == StoredType::keep) return copy_file_atomically(from / "config.json", to / "config.json");
  Json config = read_json_file(from / "config.json");
  const char* name = type == StoredType::f32 ? "float32" : "bfloat16";
  // Transformers 5 calls it dtype.
  if (config.contains("dtype")) config["dtype"] = name;
  if (config.contains("torch_dtype") || !config.contains("dtype")) config["torch_dtype"] = name;
  write_json_file(to / "config.json", config);
}

}  // namespace

Merged merge(const MergeOptions& options) {
  require_config_json(options.model);
  const HfConfig config = read_hf_config(options.model);
  std::vector<fs::path> sources{options.model};
  for (const WeightedAdapter& adapter : options.adapters) {
    if (!std::isfinite(adapter.weight))
      throw std::runtime_error(
          fmt::format("{}: found weight {}, expected a finite number", adapter.directory.string(), adapter.weight));
    sources.push_back(adapter.directory);
  }
  NewDirectory out(options.out, sources);
  verify_model_directory(options.model);
  std::vector<std::string> warnings = config.warnings;
  for (const WeightedAdapter& adapter : options.adapters) verify_adapter_directory(adapter.directory);
  Merging merging(options, out.path(), config.model);
  Merged merged = merging.run();
  for (const WeightedAdapter& adapter : options.adapters)
    if (std::string warning = warning_of_another_base(adapter.directory, options.model); !warning.empty())
      warnings.push_back(std::move(warning));
  merged.warnings.insert(merged.warnings.begin(), warnings.begin(), warnings.end());
  write_config(options.model, out.path(), options.type);
  carry_text_files(options.model, out.path());
  out.commit();
  return merged;
}

}  // namespace smoe
