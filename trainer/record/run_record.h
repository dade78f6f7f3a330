// What a run tells while it goes on: lines to its log and the terminal, rows of metrics, a line of progress.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "trainer/checkpoint/run_directory.h"
#include "trainer/record/metrics.h"
#include "trainer/record/progress.h"
#include "trainer/record/tensorboard.h"

namespace smoe {

struct RunRecordOptions {
  std::string configuration;  // for config.resolved.yaml
  bool tensorboard = true;
  bool terminal = true;                               // false: told to the log alone
  std::int64_t from_step = MetricsWriter::fresh_run;  // of a run that goes on: rows of later steps are dropped
  std::int64_t total_steps = 0;
};

class RunRecord {
 public:
  // Tells nobody anything, as on ranks that are not the root.
  RunRecord() = default;
  // directory: the run's, whose files it opens; null: the terminal alone is told. Throws std::runtime_error where a file
  // cannot be written, here and below.
  RunRecord(RunDirectory* directory, const RunPaths& paths, const RunRecordOptions& options);

  void say(const std::string& line);
  void show_progress(std::int64_t step, const std::string& details);
  void write(const StepMetrics& row);
  void write(std::span<const EvalMetrics> sources);
  void sync();    // the rows so far survive a power cut
  void finish();  // leaves the line of progress on the screen

 private:
  RunDirectory* directory_ = nullptr;
  std::optional<MetricsWriter> metrics_;
  std::optional<TensorBoardWriter> tensorboard_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace smoe
