#include "data/files/tensor_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>
#include <system_error>

#include "data/files/json.h"

namespace smoe {
namespace fs = std::filesystem;

namespace {

bool present(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// A plain name of a safetensors file: nothing that leads to another directory, whatever the index says.
void check_basename(const std::string& name, const std::string& where) {
  if (name.find('/') != std::string::npos || name.find('\0') != std::string::npos || !name.ends_with(".safetensors"))
    throw std::runtime_error(
        fmt::format("{}: names the file {}, expected a plain name that ends in .safetensors and has no '/'", where,
                    quote_for_message(name)));
}

bool is_pickle(const fs::path& file) {
  const std::string extension = file.extension().string();
  return extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".ckpt";
}

// Says what the directory holds instead of safetensors files, if it is something we know.
[[noreturn]] void refuse_without_weights(const fs::path& directory) {
  std::string pickle, other, dangling;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    std::error_code error;
    if (entry.is_symlink(error) && !entry.exists(error) &&
        (name == kWeightsIndexFile || entry.path().extension() == ".safetensors"))
      dangling = std::max(dangling, name);
    else if (is_pickle(entry.path()))
      pickle = std::max(pickle, name);
    else if (entry.path().extension() == ".safetensors")
      other = std::max(other, name);
  }
  if (!dangling.empty())
    throw std::runtime_error(fmt::format(
        "{}: {} is a link to a file that is not there, as a download that was broken off leaves in a cache: "
        "fetch the model again",
        directory.string(), quote_for_message(dangling)));
  const std::string missing = fmt::format("{} holds neither {} nor {}, nor Mistral's {}", directory.string(),
                                          kSingleWeightsFile, kWeightsIndexFile, kMistralWeightsFile);
  if (!other.empty())
    throw std::runtime_error(
        fmt::format("{}; {} is not part of that layout (a missing index, or another tool's naming). "
                    "Fetch the index or save the model again with save_pretrained()",
                    missing, quote_for_message(other)));
  if (!pickle.empty())
    throw std::runtime_error(
        fmt::format("{}; {} looks like a pickle, which can run code and is never read. Convert it: load the "
                    "model in transformers and save_pretrained(DIR, safe_serialization=True)",
                    missing, quote_for_message(pickle)));
  throw std::runtime_error(missing + ": expected the directory of a model with its weights");
}

// Mistral's files where no index lists them, in the order of their names.
std::vector<fs::path> mistral_files(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("consolidated") && name.ends_with(".safetensors")) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// "a, b, c and 7 more"
std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t most = 5;
  std::vector<std::string> shown;
  for (std::size_t i = 0; i < std::min(most, names.size()); ++i) shown.push_back(quote_for_message(names[i]));
  std::string text = fmt::format("{}", fmt::join(shown, ", "));
  if (names.size() > most) text += fmt::format(" and {} more", names.size() - most);
  return text;
}

// Both directions in one message: what the index promises and the file lacks, what the file has beyond the index.
void check_against_index(const SafetensorsReader& reader, const std::set<std::string>& promised,
                         const char* index_file) {
  std::vector<std::string> missing, unlisted;
  for (const std::string& name : promised)
    if (reader.find(name) == nullptr && !is_computed_buffer(name)) missing.push_back(name);
  for (const TensorInfo& tensor : reader.tensors())
    if (!promised.contains(tensor.name) && !is_computed_buffer(tensor.name)) unlisted.push_back(tensor.name);
  if (missing.empty() && unlisted.empty()) return;
  std::string message = fmt::format("{} and {} disagree", reader.path(), index_file);
  if (!missing.empty()) message += "; the file lacks " + listed(missing);
  if (!unlisted.empty()) message += "; the index does not place there " + listed(unlisted);
  throw std::runtime_error(message +
                           ". The files are from different saves, or a download is incomplete: fetch them again");
}

}  // namespace

TensorDirectory::TensorDirectory(const fs::path& directory) : directory_(directory) {
  std::error_code ignored;
  if (!fs::is_directory(directory, ignored))
    throw std::runtime_error(
        fmt::format("{} is not a directory, expected the directory of a model", directory.string()));
  if (open_layout(kSingleWeightsFile, kWeightsIndexFile) || open_layout(kMistralWeightsFile, kMistralIndexFile)) return;
  const std::vector<fs::path> numbered = mistral_files(directory);
  if (numbered.empty()) refuse_without_weights(directory);
  for (const fs::path& file : numbered) add(SafetensorsReader(file));
}

// Whether the directory has one of the two, which is then open.
bool TensorDirectory::open_layout(const char* single_file, const char* index_file) {
  const bool single = present(directory_ / single_file), sharded = present(directory_ / index_file);
  if (single && sharded)
    throw std::runtime_error(
        fmt::format("{} holds both {} and {}: which one is meant cannot be known; remove the stale one",
                    directory_.string(), single_file, index_file));
  if (single) add(SafetensorsReader(directory_ / single_file));
  if (sharded) open_sharded(index_file);
  return single || sharded;
}

void TensorDirectory::open_sharded(const char* index_file) {
  const fs::path index_path = directory_ / index_file;
  const Json index = read_json_file(index_path);
  const JsonReader map = JsonReader(index, index_path.string()).require_object("weight_map");
  std::map<std::string, std::set<std::string>> by_file;
  for (const auto& [tensor, value] : map.object().items()) {
    const std::string where = map.where() + ": " + quote_for_message(tensor);
    const std::string& file = json_string(value, where);
    check_basename(file, where);
    by_file[file].insert(tensor);
  }
  if (by_file.empty()) throw std::runtime_error(map.where() + ": lists no tensors");

  std::vector<std::string> absent;
  for (const auto& [file, tensors] : by_file)
    if (!present(directory_ / file)) absent.push_back(file);
  if (!absent.empty())
    throw std::runtime_error(fmt::format("{} lists {} of {} files that are not there: {}. Fetch them",
                                         index_path.string(), absent.size(), by_file.size(), listed(absent)));
  for (const auto& [file, tensors] : by_file) {
    SafetensorsReader reader(directory_ / file);
    check_against_index(reader, tensors, index_file);
    add(std::move(reader));
  }
}

void TensorDirectory::add(SafetensorsReader reader) {
  for (const TensorInfo& tensor : reader.tensors()) {
    const auto [place, first] = holder_.emplace(tensor.name, readers_.size());
    if (!first && !is_computed_buffer(tensor.name))
      throw std::runtime_error(
          fmt::format("{} and {} both hold {}, expected each tensor in one file: files that hold a slice of every "
                      "tensor each, one for every GPU, are not read; another save's file may be left over",
                      readers_[place->second].path(), reader.path(), quote_for_message(tensor.name)));
    names_.push_back(tensor.name);
  }
  readers_.push_back(std::move(reader));
}

const SafetensorsReader& TensorDirectory::reader_of(const std::string& name) const {
  const auto place = holder_.find(name);
  if (place == holder_.end())
    throw std::runtime_error(
        fmt::format("{}: no tensor {} among its {}", directory_.string(), quote_for_message(name), names_.size()));
  return readers_[place->second];
}

std::vector<fs::path> TensorDirectory::files() const {
  std::vector<fs::path> paths;
  for (const SafetensorsReader& reader : readers_) paths.emplace_back(reader.path());
  return paths;
}

void TensorDirectory::read_f32(const std::string& name, float* out, std::int64_t first, std::int64_t count) const {
  reader_of(name).read_f32(name, out, first, count);
}

}  // namespace smoe
