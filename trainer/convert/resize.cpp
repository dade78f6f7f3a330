#include "trainer/convert/resize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <stdexcept>

#include "data/files/json.h"
#include "data/files/tensor_directory.h"
#include "data/text/tokenizer_json.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/hf_config.h"
#include "trainer/checkpoint/tensor_places.h"
#include "trainer/convert/carried.h"
#include "trainer/convert/new_directory.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

// The tensors with a row a token: embedding and head, or the one that stands for both.
std::set<std::string> vocabulary_tensors(const TensorDirectory& files, const HfConfig& config) {
  std::set<std::string> found;
  const std::vector<std::int64_t> shape{config.model.vocab_size, config.model.hidden_size};
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    const std::string tensor = place_in(files, config.model, name, shape, config.tied_head).tensor;
    if (!files.contains(tensor))
      throw std::runtime_error(
          fmt::format("{}: {}: missing, expected {}", files.path().string(), name, shape_text(shape)));
    const TensorInfo& info = files.info(tensor);
    if (info.shape != shape || !reads_as_f32(info.type))
      throw std::runtime_error(fmt::format("{}: {}: found {} {}, expected {} (config.json) of F32, F64, BF16 or F16",
                                           files.file_of(tensor), tensor, name_of(info.type), shape_text(info.shape),
                                           shape_text(shape)));
    found.insert(tensor);
  }
  return found;
}

void require_room(const fs::path& directory, const HfConfig& config, std::int64_t vocabulary) {
  if (const std::int64_t ids = vocabulary_of_directory(directory); vocabulary < ids)
    throw std::runtime_error(fmt::format("--vocab {}: the tokenizer of {} has {} ids, expected at least a row for each",
                                         vocabulary, directory.string(), ids));
  std::vector<std::int32_t> special = read_stop_ids(directory, config);
  special.push_back(config.bos);
  special.push_back(config.pad);
  if (const std::int64_t largest = *std::max_element(special.begin(), special.end()); largest >= vocabulary)
    throw std::runtime_error(fmt::format(
        "--vocab {}: bos, eos or pad of {} is {}, expected a row for it (config.json, generation_config.json)",
        vocabulary, directory.string(), largest));
}

// Rows of a tensor, a few MiB at a time: visit(first row, their numbers).
template <class Visit>
void for_each_rows(const TensorDirectory& files, const std::string& name, std::int64_t rows, std::int64_t columns,
                   Visit&& visit) {
  const std::int64_t at_once = std::max<std::int64_t>(1, (1 << 20) / columns);
  std::vector<float> numbers(static_cast<std::size_t>(std::min(at_once, rows) * columns));
  for (std::int64_t first = 0; first < rows; first += at_once) {
    const std::int64_t n = std::min(at_once, rows - first);
    files.read_f32(name, numbers.data(), first * columns, n * columns);
    visit(first, std::span<const float>(numbers).first(static_cast<std::size_t>(n * columns)));
  }
}

std::vector<float> mean_row(const TensorDirectory& files, const std::string& name) {
  const std::vector<std::int64_t>& shape = files.info(name).shape;
  const auto columns = static_cast<std::size_t>(shape[1]);
  std::vector<double> sums(columns, 0.0);
  for_each_rows(files, name, shape[0], shape[1], [&](std::int64_t, std::span<const float> numbers) {
    for (std::size_t i = 0; i < numbers.size(); ++i) sums[i % columns] += numbers[i];
  });
  std::vector<float> mean(columns);
  std::transform(sums.begin(), sums.end(), mean.begin(),
                 [&](double sum) { return static_cast<float>(sum / static_cast<double>(shape[0])); });
  return mean;
}

// Old rows keep their bits.
void write_rows(const TensorDirectory& files, const std::string& name, std::int64_t vocabulary,
                TensorDirectoryWriter& writer) {
  const std::vector<std::int64_t>& shape = files.info(name).shape;
  const std::int64_t carried = std::min(shape[0], vocabulary);
  carry_bytes(files, name, static_cast<std::uint64_t>(carried * shape[1]) * bytes_of(files.info(name).type), writer,
              name);
  if (vocabulary <= shape[0]) return;
  const std::vector<float> mean = mean_row(files, name);
  for (std::int64_t row = shape[0]; row < vocabulary; ++row) writer.write_f32(name, row * shape[1], mean);
}

// As it was, but for the one key.
void write_config(const fs::path& from, const fs::path& to, std::int64_t vocabulary) {
  Json config = read_json_file(from);
  config["vocab_size"] = vocabulary;
  write_json_file(to, config);
}

}  // namespace

Resized resize(const ResizeOptions& options) {
  const fs::path directory = find_model_directory(options.model);
  require_config_json(directory);
  verify_model_directory(directory);
  const HfConfig config = read_hf_config(directory);
  const TensorDirectory files(directory);
  const std::set<std::string> of_vocabulary = vocabulary_tensors(files, config);
  require_room(directory, config, options.vocabulary);

  Resized done{.before = config.model.vocab_size, .bytes = 0, .warnings = config.warnings};
  std::vector<TensorSpec> specs;
  for (const std::string& name : files.names()) {
    specs.push_back(files.info(name));
    if (of_vocabulary.contains(name)) specs.back().shape[0] = options.vocabulary;
    done.bytes += tensor_bytes(specs.back(), name);
  }
  NewDirectory out(options.out, {directory});
  auto writer = TensorDirectoryWriter::create(out.path(), specs);
  for (const TensorSpec& spec : specs)
    if (of_vocabulary.contains(spec.name))
      write_rows(files, spec.name, options.vocabulary, writer);
    else
      carry_tensor(files, spec.name, writer, spec.name);
  writer.finish();
  write_config(directory / "config.json", out.path() / "config.json", options.vocabulary);
  carry_text_files(directory, out.path());
  out.commit();
  return done;
}

}  // namespace smoe
