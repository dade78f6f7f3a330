// Which token shards are read, and how they are cut into samples.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace smoe {

// A directory of token shards with its manifest. weight: its share of the blend, relative to the other sources.
struct DataSource {
  std::string path;
  double weight = 1.0;

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
  std::int64_t sequence_length = 512;  // tokens a sample; sample i is tokens [i*S, i*S + S] of its source
  bool shuffle = true;                 // false: samples in file order
  bool document_masking = true;        // attention stays inside a document

  bool operator==(const DataConfig&) const = default;

  template <class Self, class Visitor>
  static void visit_fields(Self& self, Visitor& visit) {
    visit.list("train", self.train);
    visit.list("eval", self.eval);
    visit.integer("sequence_length", self.sequence_length, "[1, 16777216]");
    visit.flag("shuffle", self.shuffle);
    visit.flag("document_masking", self.document_masking);
  }
};

}  // namespace smoe
