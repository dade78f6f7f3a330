#include "data/import/parquet.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <fmt/format.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "data/files/json.h"
#include "data/files/utf8.h"

namespace smoe {

namespace {

constexpr std::int64_t rows_at_once = 256;

[[noreturn]] void refuse_table(const std::string& file, const std::string& what) {
  throw std::runtime_error(fmt::format("{}: cannot be read as Parquet: {}", file, what));
}

void check(const arrow::Status& status, const std::string& file) {
  if (!status.ok()) refuse_table(file, quote_for_message(status.message()));
}

template <class Value>
Value value_of(arrow::Result<Value> result, const std::string& file) {
  check(result.status(), file);
  return std::move(result).ValueUnsafe();
}

std::string columns_of(const parquet::SchemaDescriptor& schema) {
  constexpr int most = 12;
  std::string names;
  for (int i = 0; i < std::min(schema.num_columns(), most); ++i)
    names += (i > 0 ? ", " : "") + quote_for_message(schema.Column(i)->path()->ToDotString());
  return names + (schema.num_columns() > most ? ", ..." : "");
}

// The only leaf of a column of which one was chosen. What is null above it is null in it.
std::shared_ptr<arrow::Array> leaf_of(std::shared_ptr<arrow::Array> array, const std::string& file) {
  while (array->type_id() == arrow::Type::STRUCT) {
    const auto inner = std::static_pointer_cast<arrow::StructArray>(array);
    if (inner->num_fields() != 1) refuse_table(file, "a group has not the one field that was asked for");
    array = value_of(inner->GetFlattenedField(0, arrow::default_memory_pool()), file);
  }
  return array;
}

// Why the text of a row is none; null where it is one.
const char* fault_of(std::string_view text) { return is_valid_utf8(text) ? nullptr : "is no UTF-8"; }

template <class Array>
void append_texts(const arrow::Array& array, ParquetRows& rows) {
  const auto& strings = static_cast<const Array&>(array);
  for (std::int64_t i = 0; i < strings.length(); ++i) {
    const std::string_view text = strings.IsNull(i) ? std::string_view() : strings.GetView(i);
    rows.texts.emplace_back(text);
    rows.faults.push_back(strings.IsNull(i) ? "is null, expected a string" : fault_of(text));
  }
}

class ParquetFile final : public ParquetInput {
 public:
  ParquetFile(const CorpusFile& file, const std::string& column) : name_(file.name()), bytes_(file.bytes) {
    auto input = value_of(arrow::io::ReadableFile::Open(file.path.string()), name_);
    parquet::ReaderProperties properties;
    properties.enable_buffered_stream();  // a row group is not held as a whole
    parquet::ArrowReaderProperties arrow_properties(/*use_threads=*/false);
    arrow_properties.set_batch_size(rows_at_once);
    parquet::arrow::FileReaderBuilder builder;
    check(builder.Open(std::move(input), properties), name_);
    builder.properties(arrow_properties);
    reader_ = value_of(builder.Build(), name_);

    const auto metadata = reader_->parquet_reader()->metadata();
    const int index = metadata->schema()->ColumnIndex(column);
    if (index < 0)
      throw std::runtime_error(
          fmt::format("{}: has no column {}; it has {} (--text-field names the column of the text)", name_,
                      quote_for_message(column), columns_of(*metadata->schema())));
    total_rows_ = metadata->num_rows();
    std::vector<int> groups(static_cast<std::size_t>(metadata->num_row_groups()));
    std::iota(groups.begin(), groups.end(), 0);
    batches_ = value_of(reader_->GetRecordBatchReader(groups, {index}), name_);
    column_ = column;
  }

  bool next(std::size_t bytes, ParquetRows& rows) override {
    rows = {};
    rows.file = name_;
    rows.first_row = row_;
    for (std::size_t read = 0; read < bytes;) {
      const std::shared_ptr<arrow::RecordBatch> batch = value_of(batches_->Next(), name_);
      if (!batch) break;
      const std::size_t before = rows.texts.size();
      append(*leaf_of(batch->column(0), name_), rows);
      for (std::size_t i = before; i < rows.texts.size(); ++i) read += rows.texts[i].size() + 1;
      row_ += batch->num_rows();
    }
    const std::uint64_t given =
        total_rows_ == 0 ? bytes_
                         : static_cast<std::uint64_t>(static_cast<double>(bytes_) * static_cast<double>(row_) /
                                                      static_cast<double>(total_rows_));
    rows.bytes = given - std::exchange(given_, given);
    return !rows.texts.empty() || rows.bytes > 0;
  }

 private:
  void append(const arrow::Array& array, ParquetRows& rows) const {
    switch (array.type_id()) {
      case arrow::Type::STRING: return append_texts<arrow::StringArray>(array, rows);
      case arrow::Type::LARGE_STRING: return append_texts<arrow::LargeStringArray>(array, rows);
      case arrow::Type::DICTIONARY: return append_words(static_cast<const arrow::DictionaryArray&>(array), rows);
      default:
        throw std::runtime_error(fmt::format("{}: the column {} is of the type {}, expected strings", name_,
                                             quote_for_message(column_), array.type()->ToString()));
    }
  }

  // Each row is a place in a list of strings, as pandas' categories are.
  void append_words(const arrow::DictionaryArray& array, ParquetRows& rows) const {
    ParquetRows words;
    append(*array.dictionary(), words);
    for (std::int64_t i = 0; i < array.length(); ++i) {
      const std::size_t word = array.IsNull(i) ? words.texts.size() : static_cast<std::size_t>(array.GetValueIndex(i));
      const bool known = word < words.texts.size();
      rows.texts.push_back(known ? words.texts[word] : std::string());
      rows.faults.push_back(known ? words.faults[word] : "is null, expected a string");
    }
  }

  std::string name_, column_;
  std::uint64_t bytes_, given_ = 0;
  std::int64_t total_rows_ = 0, row_ = 0;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::unique_ptr<arrow::RecordBatchReader> batches_;  // uses the reader
};

}  // namespace

bool parquet_is_available() { return true; }

std::unique_ptr<ParquetInput> open_parquet(const CorpusFile& file, const std::string& text_field) {
  try {
    return std::make_unique<ParquetFile>(file, text_field);
  } catch (const parquet::ParquetException& error) {
    refuse_table(file.name(), quote_for_message(error.what()));
  }
}

}  // namespace smoe
