// The run's numbers on disk: metrics.jsonl, one JSON object a line, and the reader of the same file.
//
// A row is written whole by one write(2) and never changed, so a reader that polls the file sees complete rows and at
// most one unfinished line at its end. Floats print in the shortest form that reads back to the same bits; a number
// that is not finite prints as null and reads back as NaN.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "data/files/append_file.h"

namespace smoe {

constexpr double not_measured = std::numeric_limits<double>::quiet_NaN();

// Of one step, a number a layer. Empty: not measured, and absent from the file.
struct LayerMetrics {
  // The balance B of each scope (model/balance_loss.h), whichever is trained. 1 is balance.
  std::vector<double> balance_sequence, balance_micro_batch, balance_global_batch;
  std::vector<double> max_vio, max_vio_interval;  // see max_violation; of the step, and of all steps since the last row
  std::vector<double> mean_entropy;  // of the mean probabilities, over ln E: 1 where all experts are as likely
  std::vector<double> entropy, logit_norm,
      margin;  // means over tokens; the entropy over ln E (model/router_measures.h)
  std::vector<double> gradient_lm, gradient_balance, gradient_z;  // norms of the parts of the gate's gradient
  std::vector<double> cosine_lm_balance, cosine_lm_z, cosine_balance_z;
  std::vector<double> changed;    // share of a fixed batch's assignments that are new since the last row
  std::vector<double> dropped;    // assignments over capacity
  std::vector<double> rank_load;  // rows of the busiest rank over the mean rank's, at the run's layout

  bool operator==(const LayerMetrics&) const = default;
};

// One optimizer step. The differentiated loss is `loss`; the other losses are before their coefficients.
struct StepMetrics {
  std::int64_t step = 0;              // 1 is the first update
  std::int64_t tokens = 0;            // input tokens trained on since the start of the run, over all ranks
  std::int64_t targets = 0;           // of this step, over all ranks: what its lm_loss is divided by
  double lm_loss = not_measured;      // nats, mean over the target tokens of the global batch
  double aux_loss = not_measured;     // balance loss of the trained scope, summed over layers (1.0 a layer is balanced)
  std::vector<double> aux_loss_coef;  // the step's weight of it: one number, or one a layer where layers differ
  double z_loss = not_measured;       // router z-loss (ST-MoE, arXiv 2202.08906 eq. 5), summed over layers
  double loss = not_measured;         // lm_loss + coefficients · (aux_loss, z_loss)
  double grad_norm = not_measured;    // global L2 norm before clipping
  double learning_rate = not_measured;
  double tokens_per_sec = not_measured;
  double mfu = not_measured;               // model_gflops as a share of the arithmetic units' own rate, 0 to 1
  double share_of_product = not_measured;  // model_gflops over the rate of a 2048^3 product, 0 to about 1
  double step_seconds = not_measured;
  double max_vio = not_measured;                 // see max_violation
  std::vector<std::vector<double>> expert_load;  // [layers][experts]: share of the layer's assignments, sums to 1
  LayerMetrics by_layer;
  std::uint64_t peak_memory_bytes = 0;
  std::uint64_t peak_device_memory_bytes = 0;  // of a GPU; absent from the file where the run is on a CPU: 0
  std::int64_t skipped_steps = 0;              // steps refused since the start of the run: not finite, or an outlier
  std::string forced_routing;          // of a benchmark (model/forced_routing.h); absent from the file where empty
  double model_gflops = not_measured;  // 1e9 model floating-point operations a second (no recompute counted)
  std::map<std::string, std::int64_t>
      bytes_sent;                     // by this step from rank 0 to others, by collective; absent with one rank
  std::vector<std::string> warnings;  // since the last row, each a line that says its step; absent where there is none

  bool operator==(const StepMetrics&) const = default;
};

// One evaluation source at one step.
struct EvalMetrics {
  std::int64_t step = 0;
  std::string source;
  double loss = not_measured;        // nats a target token
  double perplexity = not_measured;  // exp(loss)
  std::int64_t tokens = 0;           // target tokens evaluated
  double aux_loss = not_measured;    // as in StepMetrics
  double max_vio = not_measured;

  bool operator==(const EvalMetrics&) const = default;
};

// MaxVio = max_i (load_i - mean) / mean (arXiv 2408.15664 eq. 4), the largest of all layers: 0 is perfect balance,
// experts - 1 is collapse onto one expert. `expert_load` is [layers][experts] in any unit; a layer without load, and
// a model without layers, count as 0.
double max_violation(std::span<const std::vector<double>> expert_load);
// The same by layer.
std::vector<double> max_violations(std::span<const std::vector<double>> expert_load);

// The largest resident set that this process has had since reset_peak_resident_bytes(), or ever, from getrusage.
std::uint64_t peak_resident_bytes();
// Where /proc/self/clear_refs cannot be written, the largest ever stays.
void reset_peak_resident_bytes();

// The rows as they stand in the file, each one line with its newline. Keys are those of interface.md.
std::string to_json_line(const StepMetrics& row);
// All sources of one evaluation: {"step":500,"eval":{"web":{"loss":...},...}}. Throws std::logic_error unless they
// share a step and no source appears twice.
std::string to_json_line(std::span<const EvalMetrics> sources);

class MetricsWriter {
 public:
  static constexpr std::int64_t fresh_run = -1;  // keeps no earlier row

  // Opens `file` for appending, having dropped what a run that goes on from `resume_step` will write again: rows of
  // later steps and an unfinished last line. The file is replaced atomically, and only where something is dropped.
  // Throws std::runtime_error if the file cannot be read or written, or a line before the last is not a row.
  explicit MetricsWriter(const std::filesystem::path& file, std::int64_t resume_step = fresh_run);

  // Throws std::runtime_error if the disk is full or failing; the file then ends with the row before.
  void write(const StepMetrics& row);
  void write(std::span<const EvalMetrics> sources);

  // Makes the rows so far survive a power cut; call it before a checkpoint becomes the latest.
  void sync() { file_.sync(); }

 private:
  AppendFile file_;
};

struct MetricsLog {
  std::vector<StepMetrics> steps;
  std::vector<EvalMetrics> evals;
};

// Reads a metrics.jsonl, a running run's too (an unfinished last line is left out). Keys it does not know are passed
// over, absent ones stay at their defaults. Throws std::runtime_error naming file and line at a line that is no row.
MetricsLog read_metrics(const std::filesystem::path& file);

}  // namespace smoe
