// TensorBoard event files: what `tensorboard --logdir RUN/tensorboard` reads.
//
// An event file is a sequence of TFRecords (u64 length, masked CRC32C of it, payload, masked CRC32C of that; all
// little-endian), each an `Event` protocol buffer (tensorflow/core/util/event.proto, framework/summary.proto). The
// dozen fields used are encoded here by hand: field numbers stand beside each in tensorboard.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/files/append_file.h"
#include "trainer/record/metrics.h"

namespace smoe {

// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78); of "123456789" it is 0xe3069283.
std::uint32_t crc32c(std::string_view bytes);
// TFRecord's masked form: a CRC of data that holds CRCs is weak, so it is rotated and offset.
std::uint32_t masked_crc32c(std::string_view bytes);
// One framed record.
std::string tfrecord(std::string_view payload);

struct Scalar {
  std::string tag;
  double value;
};

class TensorBoardWriter {
 public:
  // Starts a new event file in `directory` (made if absent), whose name sorts after those already there. For a run
  // that goes on after `resume_step`, it opens with a mark that makes TensorBoard forget later steps of earlier files.
  // Throws std::runtime_error if the file cannot be written.
  explicit TensorBoardWriter(const std::filesystem::path& directory,
                             std::int64_t resume_step = MetricsWriter::fresh_run);

  void write(std::int64_t step, std::span<const Scalar> scalars);
  // Bar i of the histogram is `values[i]`, at the position i: a layer's load by expert, say.
  void write_bars(std::int64_t step, const std::string& tag, std::span<const double> values);

  // The rows of metrics.jsonl: train/*, throughput/*, balance/*, by_layer/*/layer_NN and expert_load/layer_NN; eval/SOURCE/*. A number
  // that was not measured is left out.
  void write(const StepMetrics& row);
  void write(std::span<const EvalMetrics> sources);

  const std::string& file() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace smoe
