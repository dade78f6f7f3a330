#include "trainer/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <stdexcept>
#include <utility>

#include "data/files/files.h"
#include "data/files/json.h"
#include "data/files/sha256.h"
#include "data/files/tensor_directory.h"
#include "parallel/comm/agreement.h"
#include "trainer/checkpoint/peft.h"
#include "trainer/checkpoint/weights.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {
constexpr std::int64_t format_version = 1;
constexpr std::uint64_t max_text_bytes = 1 << 20;
constexpr std::int64_t any = std::numeric_limits<std::int64_t>::max();
const std::string first_moment_prefix = "exp_avg.", second_moment_prefix = "exp_avg_sq.";  // torch's names
const std::string master_prefix = "master.";  // what the weights of model/ are rounded from, where those are bf16

// "step-000500" -> 500; nothing for any other name.
std::optional<std::int64_t> step_of(const std::string& name) {
  if (!name.starts_with("step-") || name.size() < 6) return std::nullopt;
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || checkpoint_name(step) != name) return std::nullopt;
  return step;
}

// Complete checkpoints, newest first.
std::vector<std::pair<std::int64_t, fs::path>> complete_checkpoints(const fs::path& directory) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error))
    if (const auto step = step_of(it->path().filename().string()); step && fs::exists(it->path() / "manifest.json"))
      found.emplace_back(*step, it->path());
  std::sort(found.rbegin(), found.rend());
  return found;
}

// Tensors of one kind that a checkpoint holds, one a parameter: what it is made of is a list of these.
struct TensorGroup {
  std::string folder;               // of the checkpoint
  std::string prefix;               // before the parameter's name
  std::vector<TensorSpec> tensors;  // of the whole model
  PartsOf parts;                    // this rank's, in memory
};

std::vector<TensorGroup> tensor_groups(const CheckpointContent& content) {
  const AdamW& optimizer = content.optimizer;
  const Shards& shards = optimizer.shards();
  const auto moments = [&](const std::string& prefix, PartsOf parts) {
    return TensorGroup{"optimizer", prefix, tensor_specs(content.whole, prefix, Members::trained), std::move(parts)};
  };
  const bool adapters = content.adapters != nullptr;
  PartsOf of_adapters = [masters = master_parts(shards)](const Parameter& p) {
    return p.adapter ? masters(p) : std::vector<SlicePart>();
  };
  std::vector<TensorGroup> groups{
      adapters ? TensorGroup{adapter_folder, kPeftPrefix, tensor_specs(content.whole, kPeftPrefix, Members::adapters),
                             std::move(of_adapters)}
               : TensorGroup{"model", "", tensor_specs(content.whole, "", Members::all, content.config.weights),
                             master_parts(shards)},
      moments(first_moment_prefix,
              shard_parts(shards, [&optimizer](std::size_t flat) { return optimizer.first_moments(flat); })),
      moments(second_moment_prefix,
              shard_parts(shards, [&optimizer](std::size_t flat) { return optimizer.second_moments(flat); }))};
  // Where model/ is rounded. What is frozen and computes in bf16 is no more than that.
  const bool computes_in_f32 = std::all_of(content.parameters.begin(), content.parameters.end(),
                                           [](const Parameter& p) { return p.type == DType::f32; });
  if (!adapters && content.config.weights != DType::f32) {
    const Members kept = computes_in_f32 ? Members::all : Members::trained;
    PartsOf parts = [masters = master_parts(shards), kept](const Parameter& p) {
      return p.trainable || kept == Members::all ? masters(p) : std::vector<SlicePart>();
    };
    groups.push_back({"optimizer", master_prefix, tensor_specs(content.whole, master_prefix, kept), std::move(parts)});
  }
  return groups;
}

// By folder, the tensors of all its groups; in model/ also the selection bias, which is no parameter.
std::map<std::string, std::vector<TensorSpec>> tensors_by_folder(const CheckpointContent& content,
                                                                 const std::vector<TensorGroup>& groups) {
  std::map<std::string, std::vector<TensorSpec>> folders;
  for (const TensorGroup& group : groups) {
    auto& tensors = folders[group.folder];
    tensors.insert(tensors.end(), group.tensors.begin(), group.tensors.end());
  }
  if (!content.selection_bias.empty() && !content.adapters)
    for (TensorSpec& bias : selection_bias_specs(content.config.model)) folders["model"].push_back(std::move(bias));
  return folders;
}

// Every rank has it whole: the root writes.
void write_selection_bias(TensorDirectoryWriter& writer, const CheckpointContent& content) {
  const std::vector<float>& values = content.selection_bias.values();
  if (values.empty() || !content.mesh.is_root()) return;
  const auto experts = static_cast<std::size_t>(content.config.model.num_local_experts);
  for (std::size_t first = 0; first < values.size(); first += experts)
    writer.write_f32(selection_bias_name(static_cast<std::int64_t>(first / experts)), 0,
                     std::span(values).subspan(first, experts));
}

// How many elements of each group this rank has.
std::vector<double> count_owned(const std::vector<TensorGroup>& groups, const ParameterSet& parameters) {
  std::vector<double> owned;
  for (const TensorGroup& group : groups) {
    std::int64_t elements = 0;
    for (const Parameter& p : parameters)
      for (const SlicePart& part : group.parts(p)) elements += part.numbers.elements();
    owned.push_back(static_cast<double>(elements));
  }
  return owned;
}

// owned: of all ranks together.
void require_whole(const std::vector<TensorGroup>& groups, const std::vector<double>& owned) {
  for (std::size_t g = 0; g < groups.size(); ++g) {
    double expected = 0;
    for (const TensorSpec& tensor : groups[g].tensors)
      expected += std::accumulate(tensor.shape.begin(), tensor.shape.end(), 1.0,
                                  [](double n, std::int64_t dim) { return n * static_cast<double>(dim); });
    if (owned[g] != expected)
      throw std::logic_error(fmt::format("checkpoint: the ranks own {} elements of {}/{}* together, expected {}",
                                         owned[g], groups[g].folder, groups[g].prefix, expected));
  }
}

// This rank's part of every folder.
void write_owned(const fs::path& checkpoint, const CheckpointContent& content, const std::vector<TensorGroup>& groups) {
  for (const auto& [folder, tensors] : tensors_by_folder(content, groups)) {
    if (folder == adapter_folder) {
      auto writer = SafetensorsWriter::open_for_slices(checkpoint / folder / kAdapterFile);
      write_parts(writer, content.backend, content.parameters, groups.front().parts, kPeftPrefix);
      writer.finish();
      continue;
    }
    auto writer = TensorDirectoryWriter::open_for_slices(checkpoint / folder, tensors, content.max_shard_bytes);
    for (const TensorGroup& group : groups)
      if (group.folder == folder) write_parts(writer, content.backend, content.parameters, group.parts, group.prefix);
    if (folder == "model") write_selection_bias(writer, content);
    writer.finish();
  }
}

// What stands beside the tensors in model/, or in adapter/.
void write_model_files(const fs::path& checkpoint, const CheckpointContent& content) {
  if (const AdapterRun* adapters = content.adapters)
    return write_peft_config(checkpoint / adapter_folder, adapters->lora, adapters->base.string(),
                             content.config.model);
  const fs::path directory = checkpoint / "model";
  write_hf_config(directory, content.config);
  for (const TokenizerFile& file : content.carried_files) write_file_atomically(directory / file.name, file.bytes);
}

void lay_out_folder(const fs::path& directory, const std::vector<TensorSpec>& tensors, std::uint64_t max_shard_bytes) {
  make_directories(directory);
  if (directory.filename() == adapter_folder)
    SafetensorsWriter::lay_out(directory / kAdapterFile, tensors, {{"format", "pt"}});
  else
    TensorDirectoryWriter::lay_out(directory, tensors, max_shard_bytes);
}

void write_state(const fs::path& path, const TrainingState& s) {
  OrderedJson state{{"format_version", format_version},
                    {"step", s.step},
                    {"updates", s.updates},
                    {"tokens", s.tokens},
                    {"skipped", s.skipped},
                    {"skipped_in_a_row", s.skipped_in_a_row},
                    {"stream", s.stream}};
  if (s.type != DType::f32) state["precision"] = name_of(s.type);
  if (!s.base.empty()) state["base"] = s.base;
  if (!s.recent_losses.empty()) {
    state["recent_losses"] = s.recent_losses;
    state["recent_grad_norms"] = s.recent_grad_norms;
  }
  if (s.controller)
    state["max_vio_controller"] = {
        {"steps", s.controller->steps}, {"smoothed", s.controller->smoothed}, {"integral", s.controller->integral}};
  write_json_file(path, state);
}

void write_manifest(const fs::path& checkpoint, std::int64_t step) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(checkpoint))
    if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), checkpoint));
  std::sort(files.begin(), files.end());
  OrderedJson list = OrderedJson::array();
  for (const auto& file : files)
    list.push_back({{"file", file.string()},
                    {"bytes", fs::file_size(checkpoint / file)},
                    {"sha256", sha256_file(checkpoint / file)}});
  write_json_file(checkpoint / "manifest.json",
                  OrderedJson{{"format_version", format_version}, {"step", step}, {"files", list}});
}

// Numbers that are finite; none where there is no such key.
std::vector<double> optional_numbers(const JsonReader& json, const char* key) {
  std::vector<double> numbers;
  if (!json.has(key)) return numbers;
  for (const Json& number : json.require_array(key)) {
    if (!number.is_number())
      throw std::runtime_error(fmt::format("{}: {} must hold numbers, found {}", json.where(), key, number.dump()));
    numbers.push_back(number.get<double>());
  }
  return numbers;
}

std::optional<MaxVioController::State> optional_controller(const JsonReader& json) {
  if (!json.has("max_vio_controller")) return std::nullopt;
  const JsonReader found = json.require_object("max_vio_controller");
  return MaxVioController::State{.steps = found.require_int("steps", 0, any),
                                 .smoothed = found.require_number("smoothed"),
                                 .integral = found.require_number("integral")};
}

// Out of sight first, so that a removal that is interrupted leaves no directory that looks like a checkpoint.
void remove_checkpoint(const fs::path& checkpoint) {
  const fs::path hidden = checkpoint.parent_path() / ("." + checkpoint.filename().string() + ".removed");
  fs::remove_all(hidden);
  rename_durably(checkpoint, hidden);
  fs::remove_all(hidden);
}

std::string advice(const fs::path& bad) {
  for (const auto& [step, path] : complete_checkpoints(bad.parent_path()))
    if (path != bad && path.filename() < bad.filename())
      return fmt::format("; an earlier checkpoint is there: checkpoint.resume={}", path.string());
  return "; there is no earlier checkpoint beside it";
}

class HiddenDirectory {
 public:
  explicit HiddenDirectory(fs::path path) : path_(std::move(path)) {
    fs::remove_all(path_);
    make_directories(path_);
  }
  ~HiddenDirectory() {
    std::error_code ignored;
    if (!kept_) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  // Takes the target's name. A directory that has it already changes places with this one in one step, so that at no
  // moment neither is there, and is then removed as this one would have been.
  void become(const fs::path& target) {
    if (fs::exists(target) && ::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
      fsync_directory(target.parent_path());
      return;
    }
    if (fs::exists(target)) remove_checkpoint(target);  // a file system that cannot exchange
    rename_durably(path_, target);
    kept_ = true;
  }

 private:
  fs::path path_;
  bool kept_ = false;
};

}  // namespace

std::string checkpoint_name(std::int64_t step) { return fmt::format("step-{:06}", step); }

void require_few_files(const CheckpointContent& content) {
  for (const auto& [folder, tensors] : tensors_by_folder(content, tensor_groups(content)))
    if (folder != adapter_folder) try {
        TensorDirectoryWriter::require_few_files(tensors, content.max_shard_bytes);
      } catch (const std::runtime_error& error) {
        throw std::runtime_error(
            fmt::format("checkpoint.max_shard_bytes: of {}/ of a checkpoint {}", folder, error.what()));
      }
}

fs::path save_checkpoint(const fs::path& directory, const CheckpointContent& content, const TrainingState& state,
                         std::int64_t keep) {
  Communicator& world = content.mesh.group(Axis::world);
  const bool root = content.mesh.is_root();
  const fs::path target = directory / checkpoint_name(state.step),
                 unfinished = directory / ("." + target.filename().string() + ".unfinished");
  const std::vector<TensorGroup> groups = tensor_groups(content);
  const auto folders = tensors_by_folder(content, groups);
  std::optional<HiddenDirectory> hidden;  // the root's, removed where anything fails

  std::vector<double> owned = count_owned(groups, content.parameters);
  world.all_reduce(owned, Reduce::sum, "checkpoint.owned");
  together(world, "checkpoint.lay_out", [&] {
    if (!root) return;
    require_whole(groups, owned);
    make_directories(directory);
    hidden.emplace(unfinished);
    for (const auto& [folder, tensors] : folders) lay_out_folder(unfinished / folder, tensors, content.max_shard_bytes);
  });
  together(world, "checkpoint.write", [&] { write_owned(unfinished, content, groups); });
  together(world, "checkpoint.commit", [&] {
    if (!root) return;
    for (const auto& [folder, tensors] : folders)
      if (folder != adapter_folder)
        TensorDirectoryWriter::write_index(unfinished / folder, tensors, content.max_shard_bytes);
    write_model_files(unfinished, content);
    write_state(unfinished / "state.json", state);
    write_manifest(unfinished, state.step);
    for (const auto& [folder, tensors] : folders) fsync_directory(unfinished / folder);
    fsync_directory(unfinished);
    hidden->become(target);  // in place of an earlier one, where a run was resumed from before this step
    write_file_atomically(directory / "latest", target.filename().string() + "\n");

    std::int64_t kept = 0;
    for (const auto& [step, path] : complete_checkpoints(directory))
      if (path != target && ++kept >= keep) remove_checkpoint(path);
  });
  return target;
}

std::optional<fs::path> latest_checkpoint(const fs::path& directory) {
  if (fs::exists(directory / "latest")) {
    std::string name = read_file(directory / "latest", max_text_bytes);
    while (!name.empty() && (name.back() == '\n' || name.back() == '\r' || name.back() == ' ')) name.pop_back();
    if (step_of(name) && fs::exists(directory / name / "manifest.json")) return directory / name;
  }
  const auto all = complete_checkpoints(directory);
  if (all.empty()) return std::nullopt;
  return all.front().second;
}

std::vector<fs::path> checkpoints_after(const fs::path& directory, std::int64_t step) {
  std::vector<fs::path> later;
  for (const auto& [each, path] : complete_checkpoints(directory))
    if (each > step) later.push_back(path);
  return later;
}

void remove_unfinished(const fs::path& directory) {
  std::error_code error;
  std::vector<fs::path> stale;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(".step-") && (name.ends_with(".unfinished") || name.ends_with(".removed")))
      stale.push_back(it->path());
  }
  for (const auto& path : stale) fs::remove_all(path);
  remove_temporaries(directory / "latest");
}

namespace {

// The checkpoint whose model/ this is, if it is one's.
std::optional<fs::path> checkpoint_of(const fs::path& directory, const char* folder = "model") {
  const fs::path part = fs::weakly_canonical(directory);
  if (part.filename() != folder || !fs::exists(part.parent_path() / "manifest.json")) return std::nullopt;
  return part.parent_path();
}

// Every file of the manifest whose name begins with `part`.
void verify_files(const fs::path& checkpoint, const std::string& part) {
  const fs::path manifest = checkpoint / "manifest.json";
  const auto bad = [&](const std::string& what) { return std::runtime_error(what + advice(checkpoint)); };
  Json document;
  try {
    document = read_json_file(manifest);
    const JsonReader json(document, manifest.string());
    if (json.require_int("format_version", 0, any) != format_version)
      throw std::runtime_error(fmt::format("{}: format_version is not {}: written by another version of smoe",
                                           manifest.string(), format_version));
    for (const Json& entry : json.require_array("files")) {
      const JsonReader file(entry, manifest.string() + ": files");
      const std::string name = file.require_string("file");
      if (name.starts_with("/") || name.find("..") != std::string::npos)
        throw std::runtime_error(
            fmt::format("{}: {} leads out of the checkpoint", manifest.string(), quote_for_message(name)));
      if (!name.starts_with(part)) continue;
      const fs::path path = checkpoint / name;
      const auto bytes = file.require_u64("bytes");
      if (!fs::is_regular_file(path))
        throw std::runtime_error(fmt::format("{}: missing, expected {} bytes", path.string(), bytes));
      if (fs::file_size(path) != bytes)
        throw std::runtime_error(
            fmt::format("{}: found {} bytes, expected {}", path.string(), fs::file_size(path), bytes));
      if (const auto found = sha256_file(path); found != file.require_string("sha256"))
        throw std::runtime_error(fmt::format("{}: corrupt: its SHA-256 is {}, the manifest has {}", path.string(),
                                             found, file.require_string("sha256")));
    }
  } catch (const std::runtime_error& error) {
    throw bad(error.what());
  }
}

}  // namespace

void verify_checkpoint(const fs::path& checkpoint) { verify_files(checkpoint, ""); }

void verify_model_directory(const fs::path& directory) {
  if (const auto checkpoint = checkpoint_of(directory)) verify_files(*checkpoint, "model/");
}

void verify_adapter_directory(const fs::path& directory) {
  if (const auto checkpoint = checkpoint_of(directory, adapter_folder))
    verify_files(*checkpoint, fmt::format("{}/", adapter_folder));
}

std::string fingerprint_model_directory(const fs::path& directory) {
  constexpr std::uint64_t sample = std::uint64_t{1} << 20;
  std::string parts = sha256_file(hf_config_file(directory));
  if (const auto checkpoint = checkpoint_of(directory)) {
    parts += sha256_file(*checkpoint / "manifest.json");
  } else {
    for (const fs::path& path : TensorDirectory(directory).files()) {
      const File file = File::open_to_read(path);
      const std::uint64_t size = file.size(), length = std::min(size, sample);
      std::string bytes(2 * length, '\0');
      file.pread_all(bytes.data(), length, 0);
      file.pread_all(bytes.data() + length, length, size - length);
      parts += fmt::format("{} {} {}", path.filename().string(), size, sha256_hex(bytes));
    }
  }
  return sha256_hex(parts);
}

namespace {

// What a conversion wrote (0 steps from the weights of a directory): moments are zero before the first update, and left away.
bool is_conversion(const TensorDirectory& optimizer, const TrainingState& state) {
  return optimizer.names().empty() && state.updates == 0;
}

TrainingState read_state(const fs::path& checkpoint) {
  const fs::path path = checkpoint / "state.json";
  const Json document = read_json_file(path);
  const JsonReader json(document, path.string());
  return {.step = json.require_int("step", 0, any),
          .updates = json.require_int("updates", 0, any),
          .tokens = json.require_int("tokens", 0, any),
          .skipped = json.require_int("skipped", 0, any),
          .skipped_in_a_row = json.require_int("skipped_in_a_row", 0, any),
          .recent_losses = optional_numbers(json, "recent_losses"),
          .recent_grad_norms = optional_numbers(json, "recent_grad_norms"),
          .controller = optional_controller(json),
          .type = json.has("precision") && json.require_string("precision") == name_of(DType::bf16) ? DType::bf16
                                                                                                    : DType::f32,
          .stream = json.require_string("stream"),
          .base = json.has("base") ? json.require_string("base") : ""};
}

}  // namespace

std::int64_t check_same_trained(const fs::path& checkpoint, const ParameterSet& whole) {
  const TensorDirectory moments(checkpoint / "optimizer");
  if (is_conversion(moments, read_state(checkpoint))) return 0;
  std::vector<std::string> thawed;
  std::int64_t left_behind = 0;
  for (const Parameter& p : whole) {
    const bool has_moments = moments.contains(first_moment_prefix + p.name);
    if (p.trainable && !has_moments) thawed.push_back(p.name);
    if (!p.trainable && has_moments) ++left_behind;
  }
  if (thawed.empty()) return left_behind;
  throw std::runtime_error(fmt::format(
      "{}: {} parameter(s) that are trained now were frozen there and have no moments, {} the first: resume with the router.frozen and "
      "train.freeze it was made with, or begin another run from its weights with model.from",
      checkpoint.string(), thawed.size(), thawed.front()));
}

TrainingState load_checkpoint(const fs::path& checkpoint, const CheckpointContent& content) {
  const TensorDirectory optimizer(checkpoint / "optimizer");
  const TrainingState state = read_state(checkpoint);
  const ShowNumbers masters = content.optimizer.keeps_masters();
  const ModelConfig& model = content.config.model;
  if (content.adapters) {
    const fs::path directory = checkpoint / adapter_folder;
    load_adapter(directory, read_peft_config(directory, model), model, content.backend, content.parameters, masters);
  } else {
    load_weights(checkpoint / "model", content.backend, model, content.parameters, false, masters);
    if (const auto biases = load_selection_bias(checkpoint / "model", model); !biases.empty())
      content.selection_bias.set(biases);
  }
  load_masters(optimizer, content.backend, content.parameters, master_prefix, masters);
  for (const TensorGroup& group : tensor_groups(content))
    if (group.folder == "optimizer" && group.prefix != master_prefix && !is_conversion(optimizer, state))
      read_parts(optimizer, content.backend, content.parameters, group.parts, group.prefix);
  return state;
}

}  // namespace smoe
