// metrics.jsonl: rows that were read are written so that they read back, and a resumed run keeps whole rows only.
#include "trainer/record/metrics.h"

#include <string>

#include "tests/fuzz/support.h"
#include "tests/fuzz/targets.h"
#include "trainer/record/metrics_rows.h"

namespace smoe::fuzz {

bool run_metrics(std::string_view input) {
  const auto file = folder("metrics") / "metrics.jsonl", other = folder("metrics") / "again.jsonl";
  put(file, input);
  MetricsLog log;
  if (!reads([&] { log = read_metrics(file); })) {
    reads([&] { keep_rows_to(5, input, file); });
    return false;
  }
  std::string rows;
  for (const StepMetrics& row : log.steps) rows += to_json_line(row);
  for (const EvalMetrics& row : log.evals) rows += to_json_line({&row, 1});
  put(other, rows);
  const MetricsLog again = read_metrics(other);
  require(again.steps.size() == log.steps.size() && again.evals.size() == log.evals.size(),
          "rows read back, every one");
  for (std::size_t i = 0; i < log.steps.size(); ++i)
    require(to_json_line(again.steps[i]) == to_json_line(log.steps[i]), "a row reads back to itself");
  const std::string kept = keep_rows_to(5, input, file);
  require(kept.empty() || kept.back() == '\n', "rows that are kept are whole");
  require(keep_rows_to(5, kept, file) == kept, "what was kept is kept again");
  return true;
}

}  // namespace smoe::fuzz
