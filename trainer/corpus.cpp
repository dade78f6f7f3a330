#include "trainer/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <utility>

#include "data/files/directory_place.h"
#include "data/files/files.h"
#include "data/files/json.h"
#include "data/shards/manifest.h"
#include "data/text/sentencepiece_tokenizer.h"
#include "data/files/sha256.h"
#include "data/text/tokenizer.h"

namespace smoe {
namespace fs = std::filesystem;
namespace {

void name_sources(std::vector<Source>& sources) {
  std::vector<std::string> own, directories;
  for (const Source& source : sources) {
    own.push_back(source.dataset->info().source);
    directories.push_back(source.dataset->directory());
  }
  const std::vector<std::string> names = source_names(own, directories);
  for (std::size_t i = 0; i < sources.size(); ++i) sources[i].name = names[i];
}

// Evaluations go by the name of their source. Training may take a directory twice: its weights add up.
class EvaluatedOnce {
 public:
  // Throws std::runtime_error for a directory that was there before, by whatever path.
  void require(const std::string& path) {
    const auto [same, first] = found_.emplace(canonical_directory(path), path);
    if (!first)
      throw std::runtime_error(fmt::format("{} is there twice{}: once is enough", path,
                                           same->second == path ? "" : fmt::format(", also as {}", same->second)));
  }

 private:
  std::map<fs::path, std::string> found_;
};

void require_distinct(const std::vector<DataSource>& sources) try {
  EvaluatedOnce once;
  for (const DataSource& source : sources) once.require(source.path);
} catch (const std::runtime_error& error) {
  throw std::runtime_error(fmt::format("data.eval: {}", error.what()));
}

// The identity that shards which name their tokenizer must have; empty: any. Throws std::runtime_error where the model has
// a tokenizer that is not read, and cannot have been theirs.
std::string required_tokenizer(const fs::path& model_directory, const fs::path& shards) {
  TokenizerIdentity found = tokenizer_identity(model_directory);
  if (!found.unread.empty())
    throw std::runtime_error(fmt::format(
        "{} was prepared with another tokenizer than the model's, whose {} is not read: put the tokenizer.model that belongs to it "
        "beside it and prepare the data with --tokenizer {}, or prepare ready-made ids of it with --vocab-size",
        shards.string(), found.unread.string(), model_directory.string()));
  return std::move(found.sha256);
}

// Opens one source after another. What the model's tokenizer is, is asked once.
class SourceOpener {
 public:
  SourceOpener(std::int64_t sequence_length, bool document_masking, const CorpusChecks& checks)
      : sequence_length_(sequence_length),
        document_masking_(document_masking),
        tail_(checks.tail),
        packing_(checks.packing),
        model_directory_(checks.model_directory),
        shards_(checks.shards ? checks.shards : std::make_shared<OpenShards>()) {
    checks_ = {.tokenizer_sha256 = {}, .vocab_size = checks.vocab_size, .verified = checks.verified};
  }

  std::vector<Source> open_all(const std::vector<DataSource>& wanted) {
    std::vector<Source> sources;
    for (const DataSource& source : wanted) sources.push_back(open(source));
    name_sources(sources);
    return sources;
  }

  // Throws std::runtime_error unless it is fit for the model and of the tokenizer of those opened before.
  Source open(const DataSource& source) {
    // The model's tokenizer matters only to shards that name theirs: ids that came ready-made may be of any.
    if (checks_.tokenizer_sha256.empty() && !model_directory_.empty() &&
        !read_manifest(source.path).info.tokenizer_sha256.empty())
      checks_.tokenizer_sha256 = required_tokenizer(model_directory_, source.path);
    auto dataset = std::make_shared<const Dataset>(source.path, sequence_length_, document_masking_, checks_, tail_,
                                                   shards_, packing_);
    if (const auto& sha = dataset->info().tokenizer_sha256; !sha.empty()) {
      if (!first_) first_ = dataset;
      if (sha != first_->info().tokenizer_sha256)
        throw std::runtime_error(fmt::format(
            "{} and {} were made with different tokenizers (SHA-256 {} and {}): prepare both with the same one",
            first_->directory(), dataset->directory(), first_->info().tokenizer_sha256, sha));
    }
    return {{}, std::move(dataset), source.weight.value_or(1.0)};
  }

  const std::shared_ptr<OpenShards>& shards() const { return shards_; }

 private:
  std::int64_t sequence_length_;
  bool document_masking_;
  Tail tail_;
  Packing packing_;
  fs::path model_directory_;
  std::shared_ptr<OpenShards> shards_;
  DatasetChecks checks_;
  std::shared_ptr<const Dataset> first_;  // that names a tokenizer
};

}  // namespace

std::vector<std::string> source_names(const std::vector<std::string>& own,
                                      const std::vector<std::string>& directories) {
  std::vector<std::string> names = own;
  for (std::size_t i = 0; i < own.size(); ++i)
    if (own[i].empty() || std::count(own.begin(), own.end(), own[i]) > 1) names[i] = directories[i];
  // A directory that is another source's name. Two of them are never the same.
  const auto clashes = [&](const std::string& name) { return std::count(names.begin(), names.end(), name) > 1; };
  return std::any_of(names.begin(), names.end(), clashes) ? directories : names;
}

std::shared_ptr<const Corpus> open_corpus(const DataConfig& data, CorpusChecks checks, const Corpus* earlier) {
  if (earlier) checks.shards = earlier->shards;
  checks.packing = data.packing;
  require_distinct(data.eval);
  SourceOpener opener(data.sequence_length, data.document_masking, checks);
  Corpus corpus;
  corpus.train = opener.open_all(data.train);
  const bool weighed = std::any_of(data.train.begin(), data.train.end(),
                                   [](const DataSource& source) { return source.weight.has_value(); });
  if (checks.epochs && !weighed)
    for (Source& source : corpus.train) source.weight = static_cast<double>(source.dataset->samples());
  corpus.eval = opener.open_all(data.eval);
  corpus.shards = opener.shards();
  return std::make_shared<const Corpus>(std::move(corpus));
}

OpenedSources open_usable_sources(const std::vector<DataSource>& wanted, std::int64_t sequence_length,
                                  bool document_masking, const CorpusChecks& checks) {
  SourceOpener opener(sequence_length, document_masking, checks);
  OpenedSources opened;
  EvaluatedOnce once;
  for (const DataSource& source : wanted) try {
      once.require(source.path);
      opened.sources.push_back(opener.open(source));
    } catch (const std::runtime_error& error) {
      opened.refused.push_back({source.path, error.what()});
    }
  name_sources(opened.sources);
  return opened;
}

void require_tokenizer_of(const fs::path& model_directory, const Corpus& corpus) {
  std::optional<std::string> expected;
  for (const std::vector<Source>* sources : {&corpus.train, &corpus.eval})
    for (const Source& source : *sources) {
      const ShardSetInfo& info = source.dataset->info();
      if (info.tokenizer_sha256.empty()) continue;
      if (!expected) expected = required_tokenizer(model_directory, source.dataset->directory());
      if (expected->empty() || info.tokenizer_sha256 == *expected) continue;
      throw std::runtime_error(fmt::format(
          "{} was prepared with another tokenizer than the model's: its SHA-256 is {} ({}), that of {} is {}. Prepare the data "
          "again with the model's tokenizer (--tokenizer {})",
          source.dataset->directory(), info.tokenizer_sha256, info.tokenizer_name,
          (model_directory / "tokenizer.model").string(), *expected, model_directory.string()));
    }
}

namespace {

// Enough for transformers' AutoTokenizer to read a tokenizer.model as Mixtral's.
TokenizerFile config_of_lone_model(const fs::path& file) {
  const SentencePieceTokenizer model(file);
  const auto name_of = [&](std::int32_t id) { return id < 0 ? OrderedJson(nullptr) : OrderedJson(model.piece(id)); };
  const OrderedJson config = {{"tokenizer_class", "LlamaTokenizer"},
                              {"add_bos_token", true},
                              {"add_eos_token", false},
                              {"legacy", true},
                              {"unk_token", name_of(model.unk())},
                              {"bos_token", name_of(model.bos())},
                              {"eos_token", name_of(model.eos())}};
  return {"tokenizer_config.json", dump_json(config, 2) + "\n"};
}

}  // namespace

std::vector<TokenizerFile> carried_files(const std::vector<Source>& sources, const fs::path& model_directory) {
  constexpr const char* generation = "generation_config.json";
  constexpr std::uint64_t max_bytes = 1 << 20;
  std::vector<fs::path> places;
  if (!model_directory.empty()) places.push_back(model_directory);
  for (const Source& source : sources) places.emplace_back(source.dataset->directory());
  const auto place = std::find_if(places.begin(), places.end(), [](const fs::path& directory) {
    return fs::exists(directory / "tokenizer.model") || fs::exists(directory / "tokenizer.json");
  });
  std::vector<TokenizerFile> files;
  if (place != places.end()) files = read_tokenizer_files(*place);
  const bool alone =
      std::none_of(files.begin(), files.end(), [](const TokenizerFile& file) { return changes_tokenizer(file.name); });
  if (!files.empty() && alone) files.push_back(config_of_lone_model(*place / "tokenizer.model"));
  // A model whose tokenizer is the shards' may have a chat template of its own; its settings would be another tokenizer's.
  if (!model_directory.empty() && place != places.begin())
    for (TokenizerFile& file : read_tokenizer_files(model_directory)) {
      if (place != places.end() && !file.name.starts_with("chat_template")) continue;
      std::erase_if(files, [&](const TokenizerFile& other) { return other.name == file.name; });
      files.push_back(std::move(file));
    }
  if (const fs::path path = model_directory / generation; !model_directory.empty() && fs::exists(path))
    files.push_back({generation, read_file(path, max_bytes)});
  return files;
}

std::int64_t sequences_of(const std::vector<Source>& sources) {
  std::int64_t sequences = 0;
  for (const Source& source : sources) sequences += source.dataset->samples();
  return sequences;
}

std::int64_t steps_of_epochs(double epochs, std::int64_t sequences, std::int64_t global_batch_size) {
  constexpr double most = 1e9;
  // A product that is a whole number but for its rounding is that number.
  const double steps =
      std::ceil(epochs * static_cast<double>(sequences) / static_cast<double>(global_batch_size) * (1 - 1e-12));
  if (!(steps <= most))
    throw std::runtime_error(fmt::format(
        "train.epochs: found {}, which of {} sequences, {} a step, are {:.0f} steps, expected at most {:.0f}", epochs,
        sequences, global_batch_size, steps, most));
  return static_cast<std::int64_t>(steps);
}

std::string describe_cut_examples(const Source& source) {
  const Dataset& dataset = *source.dataset;
  if (dataset.packing() != Packing::stream || !dataset.has_loss_mask()) return {};
  const std::int64_t cut = dataset.cut_documents();
  if (cut == 0) return {};
  return fmt::format(
      "warning: {}: {} of its {} examples (documents with a loss mask) are cut where a sequence of {} ends, and "
      "what follows has lost its beginning; packing best_fit (data.packing) keeps each whole",
      source.name, cut, dataset.documents(), dataset.sequence_length());
}

std::string describe_packing(const Source& source) {
  const Dataset& dataset = *source.dataset;
  if (dataset.packing() == Packing::stream) return describe_cut_examples(source);
  const PackedFacts facts = dataset.packed();
  const double room = static_cast<double>(dataset.samples() * dataset.sequence_length());
  std::string text = fmt::format("{}: {} whole documents in {} sequences of {}, {:.2f}% of whose positions they fill",
                                 source.name, facts.documents, dataset.samples(), dataset.sequence_length(),
                                 100 * static_cast<double>(facts.positions) / room);
  if (facts.without_target > 0) text += fmt::format("; left out: {} without a target", facts.without_target);
  if (facts.too_short > 0)
    text += fmt::format("{} {} of one id or none", facts.without_target > 0 ? "," : "; left out:", facts.too_short);
  return text;
}

Sampler make_sampler(const std::vector<Source>& sources, std::uint64_t seed, bool shuffle,
                     std::int64_t global_batch_size) {
  std::vector<SourceSize> sizes;
  for (const Source& source : sources) sizes.push_back({source.dataset->samples(), source.weight});
  return Sampler(std::move(sizes), seed, shuffle, global_batch_size);
}

std::string describe_stream(const std::vector<Source>& sources, std::uint64_t seed, bool shuffle,
                            std::int64_t global_batch_size) {
  std::string text = fmt::format("seed {} {} batch {}", seed, shuffle ? "shuffled" : "in order", global_batch_size);
  for (const Source& source : sources)
    text += fmt::format("; {} samples of {} tokens{} weight {} of {}", source.dataset->samples(),
                        source.dataset->sequence_length(),
                        source.dataset->packing() == Packing::best_fit ? " packed by best fit" : "", source.weight,
                        sha256_file(manifest_path(source.dataset->directory())));
  return text;
}

}  // namespace smoe
