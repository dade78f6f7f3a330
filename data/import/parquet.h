// Apache Parquet tables, by Apache Arrow's library, where it was there when this was built: a column of strings (or one in
// nested groups, by its path a.b), a document a row. https://parquet.apache.org/docs/file-format
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/import/corpus_files.h"

namespace smoe {

bool parquet_is_available();

// Some rows of a file.
struct ParquetRows {
  std::string file;
  std::int64_t first_row = 0;  // counted from 0
  std::vector<std::string> texts;
  std::vector<const char*> faults;  // why a row has no text; null where it has one
  std::uint64_t bytes = 0;          // of the file, that they stand for
};

// What is said of a row that has none.
std::string fault_of_row(const ParquetRows& rows, std::size_t row);

class ParquetInput {
 public:
  virtual ~ParquetInput() = default;
  // The next rows, of about `bytes` bytes of text; false at the end.
  virtual bool next(std::size_t bytes, ParquetRows& rows) = 0;
};

// Throws std::runtime_error: a file that is damaged, a column that is not there (with those that are) or of another type;
// and in a build without Arrow, which says what to do instead.
std::unique_ptr<ParquetInput> open_parquet(const CorpusFile& file, const std::string& text_field);

}  // namespace smoe
