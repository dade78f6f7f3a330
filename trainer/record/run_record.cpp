#include "trainer/record/run_record.h"

#include <algorithm>

namespace smoe {

RunRecord::RunRecord(RunDirectory* directory, const RunPaths& paths, const RunRecordOptions& options)
    : directory_(directory) {
  if (directory_) {
    directory_->write_config(options.configuration);
    metrics_.emplace(paths.metrics(), options.from_step);
    if (options.tensorboard) tensorboard_.emplace(paths.tensorboard(), options.from_step);
  }
  if (!options.terminal) return;
  const std::int64_t done = std::max<std::int64_t>(0, options.from_step);
  progress_ = std::make_unique<Progress>(
      ProgressOptions{.label = "train", .unit = "step", .total = options.total_steps, .done = done});
}

void RunRecord::say(const std::string& line) {
  if (directory_) directory_->log(line);
  if (progress_) progress_->say(line);
}

void RunRecord::show_progress(std::int64_t step, const std::string& details) {
  if (progress_) progress_->update(step, details);
}

void RunRecord::write(const StepMetrics& row) {
  if (metrics_) metrics_->write(row);
  if (tensorboard_) tensorboard_->write(row);
}

void RunRecord::write(std::span<const EvalMetrics> sources) {
  if (metrics_) metrics_->write(sources);
  if (tensorboard_) tensorboard_->write(sources);
}

void RunRecord::sync() {
  if (metrics_) metrics_->sync();
}

void RunRecord::finish() {
  if (progress_) progress_->finish();
}

}  // namespace smoe
