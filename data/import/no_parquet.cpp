// In place of parquet.cpp where a build has no Apache Arrow.
#include <fmt/format.h>

#include <stdexcept>

#include "data/import/parquet.h"

namespace smoe {

bool parquet_is_available() { return false; }

std::unique_ptr<ParquetInput> open_parquet(const CorpusFile& file, const std::string&) {
  throw std::runtime_error(fmt::format(
      "{}: Parquet is not available in this build, which was made without Apache Arrow (docs/installing.md says how to have "
      "it). Write its texts as JSON lines first, in Python: pandas.read_parquet('{}').to_json('texts.jsonl', "
      "orient='records', lines=True)",
      file.name(), file.path.string()));
}

}  // namespace smoe
