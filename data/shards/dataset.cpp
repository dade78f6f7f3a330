#include "data/shards/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "data/shards/samples.h"
#include "data/shards/token_stream.h"

namespace smoe {

class Dataset::Impl {
 public:
  Impl(const std::string& directory, std::int64_t sequence_length, bool document_masking, const DatasetChecks& checks,
       Tail tail, std::shared_ptr<OpenShards> open_shards, Packing packing)
      : sequence_length_(sequence_length), packing_(packing), manifest_(read_manifest(directory)) {
    if (!open_shards) open_shards = std::make_shared<OpenShards>();
    if (sequence_length_ < 1 || sequence_length_ > std::int64_t{1} << 31)
      throw std::runtime_error(fmt::format("sequence_length is {}, expected 1 to 2^31", sequence_length_));
    if (packing_ == Packing::best_fit && !document_masking)
      throw std::logic_error("whole documents are packed with document masking alone");
    check_fit(directory, checks);
    if (packing_ == Packing::stream) check_size(directory, tail);
    stream_ = std::make_unique<TokenStream>(directory, manifest_, checks.verified, open_shards);
    samples_ = packing_ == Packing::stream ? samples_of_stream(*stream_, sequence_length_, document_masking, tail)
                                           : samples_of_whole_documents(*stream_, sequence_length_);
  }

  void read(std::int64_t sample, std::span<std::int32_t> inputs, std::span<std::int32_t> targets,
            std::span<std::int32_t> document_start) const {
    const bool is_tail = sample == samples().count() && samples().tail() > 0;
    if (sample < 0 || (sample >= samples().count() && !is_tail))
      throw std::logic_error(fmt::format("{}: sample {} of {}", directory(), sample, samples().count()));
    const auto length = static_cast<std::size_t>(is_tail ? samples().tail() : sequence_length_);
    if (inputs.size() != length || targets.size() != length || document_start.size() != length)
      throw std::logic_error(fmt::format("{}: spans of {}, {} and {} for sequences of {}", directory(), inputs.size(),
                                         targets.size(), document_start.size(), length));
    samples().read(sample, inputs, targets, document_start);
  }

  const Samples& samples() const { return *samples_; }
  const TokenStream& stream() const { return *stream_; }
  std::int64_t sequence_length() const { return sequence_length_; }
  Packing packing() const { return packing_; }
  const Manifest& manifest() const { return manifest_; }
  const std::string& directory() const { return stream_->directory(); }

 private:
  // What the manifest alone can refuse, before any shard is read.
  void check_fit(const std::string& directory, const DatasetChecks& checks) const {
    const ShardSetInfo& info = manifest_.info;
    if (!checks.tokenizer_sha256.empty() && !info.tokenizer_sha256.empty() &&
        info.tokenizer_sha256 != checks.tokenizer_sha256)
      throw std::runtime_error(fmt::format(
          "{} was prepared with another tokenizer than the model's: its SHA-256 is {} ({}), the model's is "
          "{}. Prepare the data again with the model's tokenizer (--tokenizer and its directory, which may add "
          "tokens to the file in it)",
          directory, info.tokenizer_sha256, info.tokenizer_name, checks.tokenizer_sha256));
    if (checks.vocab_size > 0 && info.vocab_size > checks.vocab_size)
      throw std::runtime_error(fmt::format(
          "{} has a vocabulary of {} ({}), the model's is {}. Prepare the data with the model's tokenizer; a model "
          "that is yet to be trained may have a model.vocab_size of {}",
          directory, info.vocab_size, info.tokenizer_name, checks.vocab_size, info.vocab_size));
  }
  void check_size(const std::string& directory, Tail tail) const {
    if (tail == Tail::keep && manifest_.tokens() < 2)
      throw std::runtime_error(fmt::format("{} holds one token, and nothing to predict", directory));
    if (tail == Tail::drop && manifest_.tokens() < sequence_length_ + 1)
      throw std::runtime_error(fmt::format(
          "{} holds {} tokens, too few for one sample: a sequence_length of {} needs {}. Prepare more text, "
          "or lower data.sequence_length to at most {}",
          directory, manifest_.tokens(), sequence_length_, sequence_length_ + 1,
          std::max<std::int64_t>(manifest_.tokens() - 1, 0)));
  }

  std::int64_t sequence_length_;
  Packing packing_;
  Manifest manifest_;
  std::unique_ptr<const TokenStream> stream_;
  std::unique_ptr<const Samples> samples_;  // of it
};

Dataset::Dataset(const std::string& directory, std::int64_t sequence_length, bool document_masking,
                 const DatasetChecks& checks, Tail tail, std::shared_ptr<OpenShards> open_shards, Packing packing)
    : impl_(std::make_unique<Impl>(directory, sequence_length, document_masking, checks, tail, std::move(open_shards),
                                   packing)) {}
Dataset::~Dataset() = default;
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset& Dataset::operator=(Dataset&&) noexcept = default;

std::int64_t Dataset::samples() const { return impl_->samples().count(); }
std::int64_t Dataset::tail() const { return impl_->samples().tail(); }
std::int64_t Dataset::tokens() const { return impl_->stream().tokens(); }
std::int64_t Dataset::documents() const { return impl_->manifest().documents(); }
std::int64_t Dataset::sequence_length() const { return impl_->sequence_length(); }
Packing Dataset::packing() const { return impl_->packing(); }
PackedFacts Dataset::packed() const { return impl_->samples().facts(); }
std::int64_t Dataset::cut_documents() const {
  if (packing() == Packing::best_fit) return 0;
  const std::int64_t length = sequence_length();
  std::int64_t cut = 0;
  for (std::int64_t i = 0; i < documents(); ++i) {
    const DocumentPlace place = impl_->stream().document(i);
    // What the first and the last of its targets are predicted from.
    cut += place.tokens() > 2 && place.begin / length != (place.end - 2) / length;
  }
  return cut;
}
bool Dataset::has_loss_mask() const { return impl_->stream().has_loss_mask(); }
std::int64_t Dataset::used(std::int64_t sample) const { return impl_->samples().used(sample); }
const ShardSetInfo& Dataset::info() const { return impl_->manifest().info; }
const std::string& Dataset::directory() const { return impl_->directory(); }

void Dataset::read(std::int64_t sample, std::span<std::int32_t> inputs, std::span<std::int32_t> targets,
                   std::span<std::int32_t> document_start) const {
  impl_->read(sample, inputs, targets, document_start);
}

}  // namespace smoe
