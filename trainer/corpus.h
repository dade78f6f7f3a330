// The data of a run: its sources opened and held against the model and against each other.
//
// Files are compared with their manifests when a corpus is opened. One that is opened after an earlier one takes over what
// that has compared: a file of the same path, of the same SHA-256 in its manifest, and that has not changed since (by size,
// time and inode) is not read whole again. So runs one after another in a process hash a corpus once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/shards/data_config.h"
#include "data/shards/dataset.h"
#include "data/shards/open_shards.h"
#include "data/shards/sampler.h"
#include "data/text/tokenizer_files.h"

namespace smoe {

struct Source {
  std::string name;  // as the shards call themselves; their directory where that is empty or not unique
  std::shared_ptr<const Dataset> dataset;
  double weight = 1.0;
};

// What sources are called that stand side by side, of how their shards call themselves and of their directories.
std::vector<std::string> source_names(const std::vector<std::string>& own, const std::vector<std::string>& directories);

struct CorpusChecks {
  std::int64_t vocab_size = 0;  // the model's
  std::filesystem::path
      model_directory;     // of model.from, whose tokenizer the shards must have been made with; may be empty
  bool verified = false;   // another process of this job on this node has checked the files' SHA-256
  Tail tail = Tail::drop;  // what becomes of the tokens that fill no sample
  Packing packing = Packing::stream;  // of open_usable_sources; open_corpus goes by the configuration
  bool epochs =
      false;  // training is told in epochs: sources weigh as much as they hold, unless the configuration weighs any
  std::shared_ptr<OpenShards> shards = nullptr;  // of sources opened before; null: none were
};

struct Corpus {
  std::vector<Source> train, eval;
  std::shared_ptr<OpenShards> shards;  // the files that are open, and which were compared
};

// The sources of a configuration. Throws std::runtime_error if one is missing, corrupt, too short, made with another
// tokenizer than the model or another source, training or evaluation, or of a larger vocabulary than the model's; or if
// one is evaluated twice. earlier: a corpus that was opened before, of whatever sources; its shards are used in place of
// those of `checks`.
std::shared_ptr<const Corpus> open_corpus(const DataConfig& data, CorpusChecks checks, const Corpus* earlier = nullptr);

struct RefusedSource {
  std::string path, reason;
};

struct OpenedSources {
  std::vector<Source> sources;
  std::vector<RefusedSource> refused;
};

// As open_corpus, but a source that cannot be used keeps no other from being opened. Of two that were made with different
// tokenizers the later is refused.
OpenedSources open_usable_sources(const std::vector<DataSource>& sources, std::int64_t sequence_length,
                                  bool document_masking, const CorpusChecks& checks);

// Throws std::runtime_error if a source was prepared with another tokenizer than that of a model's directory (its
// tokenizer.model, and the tokens that the directory adds); a directory without one accepts all.
void require_tokenizer_of(const std::filesystem::path& model_directory, const Corpus& corpus);

// What checkpoints carry along, byte for byte: the tokenizer's files of the model that the run starts from, or else of
// the shards, and the generation_config.json of that model. A tokenizer.model that stands alone gets a
// tokenizer_config.json, so that transformers can read it.
std::vector<TokenizerFile> carried_files(const std::vector<Source>& sources,
                                         const std::filesystem::path& model_directory);

// An epoch: the samples of all sources.
std::int64_t sequences_of(const std::vector<Source>& sources);
// So many epochs, to whole steps, upwards. Throws std::runtime_error where that is more than train.steps may be.
std::int64_t steps_of_epochs(double epochs, std::int64_t sequences, std::int64_t global_batch_size);
// Examples of supervised fine-tuning (documents with a loss mask) that a stream cuts: a warning. "" where none is.
std::string describe_cut_examples(const Source& source);
// Of whole documents (data.packing), how they lie in sequences and what was left out: a sentence. Of a stream the warning.
std::string describe_packing(const Source& source);

Sampler make_sampler(const std::vector<Source>& sources, std::uint64_t seed, bool shuffle,
                     std::int64_t global_batch_size);
// Names everything that decides which tokens a step sees: two runs with the same text read the same data.
std::string describe_stream(const std::vector<Source>& sources, std::uint64_t seed, bool shuffle,
                            std::int64_t global_batch_size);

}  // namespace smoe
