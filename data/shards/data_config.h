// Which token shards are read, and how they are cut into samples.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace smoe {

// How documents become sequences of fixed length.
enum class Packing {
  stream,    // one behind the other, cut wherever a sequence ends
  best_fit,  // whole, as many as fit, and padding behind them (best_fit.h)
};

inline constexpr auto choices(Packing) {
  return std::array<std::pair<Packing, std::string_view>, 2>{
      {{Packing::stream, "stream"}, {Packing::best_fit, "best_fit"}}};
}

// "stream" or "best_fit".
inline Packing packing_named(std::string_view wanted) {
  for (const auto& [packing, name] : choices(Packing()))
    if (name == wanted) return packing;
  throw std::logic_error("no packing is called " + std::string(wanted));
}

// A directory of token shards with its manifest. weight: its share of the blend, relative to the other sources. None: 1; or,
// where a run's length is given in epochs and no source has one, as many as it has sequences.
struct DataSource {
  std::string path;
  std::optional<double> weight{};

  bool operator==(const DataSource&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.path("path", self.path);
    visit.number("weight", self.weight, "(0, inf)");
  }
};

struct DataConfig {
  std::vector<DataSource> train;
  std::vector<DataSource> eval;        // each is evaluated by itself; weights play no part
  std::int64_t sequence_length = 512;  // tokens a sample; of a stream, sample i is tokens [i*S, i*S + S] of its source
  bool shuffle = true;                 // false: samples in file order
  bool document_masking = true;        // attention stays inside a document
  Packing packing = Packing::stream;

  // Relations between fields that do not hold: key -> what is wrong.
  std::map<std::string, std::string> problems() const {
    if (packing != Packing::best_fit || document_masking) return {};
    return {{"document_masking",
             "found false beside packing: best_fit, expected true: documents that only share a sequence to fill it "
             "would attend to each other"}};
  }

  bool operator==(const DataConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.list("train", self.train);
    visit.list("eval", self.eval);
    visit.integer("sequence_length", self.sequence_length, "[1, 16777216]");
    visit.flag("shuffle", self.shuffle);
    visit.flag("document_masking", self.document_masking);
    visit.choice("packing", self.packing);
  }
};

}  // namespace smoe
