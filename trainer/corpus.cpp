#include "trainer/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "data/manifest.h"
#include "data/sha256.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {
constexpr const char* tokenizer_name = "tokenizer.model";

void name_sources(std::vector<Source>& sources) {
  for (Source& source : sources) source.name = source.dataset->info().source;
  const auto as_made = sources;
  for (Source& source : sources) {
    const auto same = std::count_if(as_made.begin(), as_made.end(), [&](const Source& other) { return other.name == source.name; });
    if (source.name.empty() || same > 1) source.name = source.dataset->directory();
  }
}

void require_one_tokenizer(const std::vector<Source>& sources) {
  const Source* first = nullptr;
  for (const Source& source : sources) {
    const auto& sha = source.dataset->info().tokenizer_sha256;
    if (sha.empty()) continue;
    if (!first) first = &source;
    if (sha != first->dataset->info().tokenizer_sha256)
      throw std::runtime_error(fmt::format(
          "{} and {} were made with different tokenizers (SHA-256 {} and {}): prepare both with the same one",
          first->dataset->directory(), source.dataset->directory(), first->dataset->info().tokenizer_sha256, sha));
  }
}

}  // namespace

std::vector<Source> open_sources(const std::vector<DataSource>& wanted, std::int64_t sequence_length, bool document_masking,
                                 const CorpusChecks& checks) {
  DatasetChecks dataset_checks{.tokenizer_sha256 = {}, .vocab_size = checks.vocab_size, .verified = checks.verified};
  if (const fs::path file = checks.model_directory / tokenizer_name; !checks.model_directory.empty() && fs::exists(file))
    dataset_checks.tokenizer_sha256 = sha256_file(file);
  std::vector<Source> sources;
  for (const DataSource& source : wanted)
    sources.push_back({{}, std::make_shared<const Dataset>(source.path, sequence_length, document_masking, dataset_checks), source.weight});
  require_one_tokenizer(sources);
  name_sources(sources);
  return sources;
}

void require_tokenizer_of(const fs::path& model_directory, const std::vector<Source>& sources) {
  const fs::path file = model_directory / tokenizer_name;
  if (!fs::exists(file)) return;
  const std::string expected = sha256_file(file);
  for (const Source& source : sources)
    if (const auto& info = source.dataset->info(); !info.tokenizer_sha256.empty() && info.tokenizer_sha256 != expected)
      throw std::runtime_error(fmt::format(
          "{} was prepared with another tokenizer than the model's: its SHA-256 is {} ({}), that of {} is {}. Prepare the data "
          "again with the model's tokenizer", source.dataset->directory(), info.tokenizer_sha256, info.tokenizer_name, file.string(), expected));
}

std::vector<fs::path> tokenizer_files(const std::vector<Source>& sources, const fs::path& model_directory) {
  std::vector<fs::path> places;
  if (!model_directory.empty()) places.push_back(model_directory);
  for (const Source& source : sources) places.emplace_back(source.dataset->directory());
  for (const fs::path& place : places)
    if (fs::exists(place / tokenizer_name)) return {place / tokenizer_name};
  return {};
}

Sampler make_sampler(const std::vector<Source>& sources, std::uint64_t seed, bool shuffle, std::int64_t global_batch_size) {
  std::vector<SourceSize> sizes;
  for (const Source& source : sources) sizes.push_back({source.dataset->samples(), source.weight});
  return Sampler(std::move(sizes), seed, shuffle, global_batch_size);
}

std::string describe_stream(const std::vector<Source>& sources, std::uint64_t seed, bool shuffle, std::int64_t global_batch_size) {
  std::string text = fmt::format("seed {} {} batch {}", seed, shuffle ? "shuffled" : "in order", global_batch_size);
  for (const Source& source : sources)
    text += fmt::format("; {} samples of {} tokens weight {} of {}", source.dataset->samples(), source.dataset->sequence_length(),
                        source.weight, sha256_file(manifest_path(source.dataset->directory())));
  return text;
}

}  // namespace smoe
