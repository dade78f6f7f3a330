#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <stdexcept>
#include <unordered_set>
#include <utility>

#include "data/files/json.h"
#include "data/files/tensor_directory.h"

namespace smoe {
namespace fs = std::filesystem;

std::vector<TensorFilePlan> plan_tensor_files(const std::vector<TensorSpec>& tensors, std::uint64_t max_shard_bytes) {
  std::vector<TensorFilePlan> plan(1);
  std::unordered_set<std::string> names;
  std::uint64_t used = 0;
  for (const TensorSpec& tensor : tensors) {
    if (!names.insert(tensor.name).second)
      throw std::logic_error("two tensors are called " + quote_for_message(tensor.name));
    const std::uint64_t bytes = tensor_bytes(tensor, "tensor " + quote_for_message(tensor.name));
    if (!plan.back().tensors.empty() && (bytes > max_shard_bytes || used > max_shard_bytes - bytes)) {
      plan.emplace_back();
      used = 0;
    }
    plan.back().tensors.push_back(tensor);
    used += bytes;
  }
  plan.front().file = kSingleWeightsFile;
  if (plan.size() > 1)
    for (std::size_t i = 0; i < plan.size(); ++i)
      plan[i].file = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, plan.size());
  return plan;
}

void TensorDirectoryWriter::require_few_files(const std::vector<TensorSpec>& tensors, std::uint64_t max_shard_bytes) {
  rlimit open{};
  if (::getrlimit(RLIMIT_NOFILE, &open) != 0 || open.rlim_cur == RLIM_INFINITY) return;
  const std::uint64_t most = open.rlim_cur - open.rlim_cur / 4;  // the rest is for what else is open
  const std::uint64_t files = plan_tensor_files(tensors, max_shard_bytes).size();
  if (files <= most) return;
  throw std::runtime_error(fmt::format(
      "files of at most {} bytes would be {}, expected at most {}: all are open at once, and this process may have "
      "{} open (ulimit -n). Let files be larger",
      max_shard_bytes, files, most, static_cast<std::uint64_t>(open.rlim_cur)));
}

void TensorDirectoryWriter::lay_out(const fs::path& directory, const std::vector<TensorSpec>& tensors,
                                    std::uint64_t max_shard_bytes) {
  require_few_files(tensors, max_shard_bytes);
  std::vector<fs::path> made;
  try {
    for (const TensorFilePlan& part : plan_tensor_files(tensors, max_shard_bytes)) {
      SafetensorsWriter::lay_out(directory / part.file, part.tensors);
      made.push_back(directory / part.file);
    }
  } catch (...) {
    for (const fs::path& path : made) ::unlink(path.c_str());
    throw;
  }
}

TensorDirectoryWriter TensorDirectoryWriter::create(const fs::path& directory, const std::vector<TensorSpec>& tensors,
                                                    std::uint64_t max_shard_bytes) {
  return TensorDirectoryWriter(directory, tensors, max_shard_bytes, true);
}

TensorDirectoryWriter TensorDirectoryWriter::open_for_slices(const fs::path& directory,
                                                             const std::vector<TensorSpec>& tensors,
                                                             std::uint64_t max_shard_bytes) {
  return TensorDirectoryWriter(directory, tensors, max_shard_bytes, false);
}

TensorDirectoryWriter::TensorDirectoryWriter(fs::path directory, std::vector<TensorSpec> tensors,
                                             std::uint64_t max_shard_bytes, bool whole)
    : directory_(std::move(directory)), tensors_(std::move(tensors)), max_shard_bytes_(max_shard_bytes), whole_(whole) {
  require_few_files(tensors_, max_shard_bytes_);
  for (const TensorFilePlan& part : plan_tensor_files(tensors_, max_shard_bytes_)) {
    const fs::path path = directory_ / part.file;
    for (const TensorSpec& tensor : part.tensors) holder_.emplace(tensor.name, writers_.size());
    writers_.push_back(whole_ ? SafetensorsWriter::create(path, part.tensors)
                              : SafetensorsWriter::open_for_slices(path));
  }
}

void TensorDirectoryWriter::write_index(const fs::path& directory, const std::vector<TensorSpec>& tensors,
                                        std::uint64_t max_shard_bytes) {
  const std::vector<TensorFilePlan> plan = plan_tensor_files(tensors, max_shard_bytes);
  if (plan.size() == 1) return;
  Json weight_map = Json::object();
  std::uint64_t total = 0;
  for (const TensorFilePlan& part : plan)
    for (const TensorSpec& tensor : part.tensors) {
      weight_map[tensor.name] = part.file;
      total += tensor_bytes(tensor, quote_for_message(tensor.name));
    }
  write_json_file(directory / kWeightsIndexFile,
                  Json{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}});
}

SafetensorsWriter& TensorDirectoryWriter::writer_of(const std::string& name) {
  const auto place = holder_.find(name);
  if (place == holder_.end())
    throw std::logic_error(
        fmt::format("no tensor {} was announced for {}", quote_for_message(name), directory_.string()));
  return writers_[place->second];
}

void TensorDirectoryWriter::write_f32(const std::string& name, std::int64_t first_element,
                                      std::span<const float> values) {
  writer_of(name).write_f32(name, first_element, values);
}

void TensorDirectoryWriter::write_raw(const std::string& name, std::uint64_t first_byte,
                                      std::span<const std::byte> bytes) {
  writer_of(name).write_raw(name, first_byte, bytes);
}

void TensorDirectoryWriter::finish() {
  for (SafetensorsWriter& writer : writers_) writer.finish();
  if (whole_) write_index(directory_, tensors_, max_shard_bytes_);
  fsync_directory(directory_);
}

}  // namespace smoe
