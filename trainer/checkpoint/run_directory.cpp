#include "trainer/checkpoint/run_directory.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <array>
#include <ctime>

#include "data/files/files.h"
#include "data/files/printable.h"
#include "trainer/checkpoint/checkpoint.h"

namespace smoe {
namespace fs = std::filesystem;
RunDirectory::RunDirectory(const fs::path& path) : path_(path), lock_(path, "run", "train.output_dir") {
  for (const char* file : {"config.resolved.yaml", "metrics.jsonl"})
    remove_temporaries(path_ / file);  // of killed runs
  log_.emplace(path_ / "train.log");
}

fs::path RunDirectory::make_place_for_earlier_results() {
  for (int n = 1;; ++n)
    if (const fs::path candidate = path_ / fmt::format("previous-{}", n); !fs::exists(candidate)) {
      make_directories(candidate);
      return candidate;
    }
}

std::optional<fs::path> RunDirectory::set_aside_earlier_results() {
  constexpr std::array results = {"checkpoints", "metrics.jsonl", "tensorboard", "dumps", "report.html"};
  std::optional<fs::path> aside;
  for (const char* name : results) {
    if (!fs::exists(path_ / name)) continue;
    if (!aside) aside = make_place_for_earlier_results();
    rename_durably(path_ / name, *aside / name);
  }
  return aside;
}

std::optional<fs::path> RunDirectory::set_aside_results_after(std::int64_t step) {
  const RunPaths paths{path_};
  const auto later = checkpoints_after(paths.checkpoints(), step);
  if (later.empty()) return std::nullopt;
  const fs::path aside = make_place_for_earlier_results();
  make_directories(aside / "checkpoints");
  if (fs::exists(paths.metrics())) copy_file_atomically(paths.metrics(), aside / paths.metrics().filename());
  for (const fs::path& checkpoint : later) rename_durably(checkpoint, aside / "checkpoints" / checkpoint.filename());
  return aside;
}

void RunDirectory::write_config(const std::string& yaml) {
  write_file_atomically(path_ / "config.resolved.yaml", yaml);
}

void RunDirectory::log(const std::string& line) {
  log_->append(fmt::format("{:%Y-%m-%d %H:%M:%S} {}\n", fmt::localtime(std::time(nullptr)), printable(line)));
}

}  // namespace smoe
