// The directory that a run writes into: one job at a time, and nothing of an earlier run is overwritten. All ranks know
// where things are; one of them, the root, holds the directory and writes everything but the tensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "data/files/append_file.h"
#include "trainer/checkpoint/directory_lock.h"

namespace smoe {

struct RunPaths {
  std::filesystem::path root;

  std::filesystem::path checkpoints() const { return root / "checkpoints"; }
  std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
  std::filesystem::path tensorboard() const { return root / "tensorboard"; }
  std::filesystem::path dumps() const { return root / "dumps"; }
};

class RunDirectory {
 public:
  // Makes the directory and takes its lock. Throws std::runtime_error if it cannot be written, or another process
  // holds it (named in the message).
  explicit RunDirectory(const std::filesystem::path& path);

  // For a fresh start where an earlier run left results: they move to previous-1, previous-2, ... Returns where to.
  std::optional<std::filesystem::path> set_aside_earlier_results();
  // For a run that goes on from `step` though it once came further: the checkpoints behind it belong to the other history.
  // They move to previous-N/checkpoints, with a copy of metrics.jsonl, whose later rows will be replaced. Returns where to.
  std::optional<std::filesystem::path> set_aside_results_after(std::int64_t step);
  void write_config(const std::string& yaml);  // config.resolved.yaml
  void log(const std::string& line);           // train.log, with the time of day

 private:
  std::filesystem::path make_place_for_earlier_results();

  std::filesystem::path path_;
  DirectoryLock lock_;
  std::optional<AppendFile> log_;
};

}  // namespace smoe
