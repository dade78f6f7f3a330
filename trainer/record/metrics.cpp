#include "trainer/record/metrics.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <stdexcept>

#include "data/files/files.h"
#include "data/files/json.h"
#include "model/max_vio_controller.h"
#include "trainer/record/metrics_rows.h"

namespace smoe {

namespace {

// Always with a point or an exponent, so that strict readers see a float whatever the value is.
std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string list(const std::vector<double>& values) {
  std::string text = "[";
  for (std::size_t i = 0; i < values.size(); ++i) text += (i == 0 ? "" : ",") + number(values[i]);
  return text + "]";
}

// What was measured, with a comma before each: ,"balance":{"sequence":[...],...},"rank_load":[...]
std::string layers_text(const LayerMetrics& layers) {
  std::string text, open;
  visit_layers(layers, [&](const std::string& object, const char* key, const std::vector<double>& values) {
    if (values.empty()) return;
    const bool goes_on = !object.empty() && object == open;
    if (!open.empty() && !goes_on) text += "}";
    text += ",";
    if (!object.empty() && !goes_on) text += fmt::format("\"{}\":{{", object);
    text += fmt::format("\"{}\":{}", key, list(values));
    open = object;
  });
  return text + (open.empty() ? "" : "}");
}

// Source names come from the user's directories, and files that are read may be anyone's: broken UTF-8 too.
std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

double max_violation(std::span<const std::vector<double>> expert_load) {
  double worst = 0.0;
  for (const double violation : max_violations(expert_load)) worst = std::max(worst, violation);
  return worst;
}

std::vector<double> max_violations(std::span<const std::vector<double>> expert_load) {
  std::vector<double> violations;
  for (const std::vector<double>& layer : expert_load) violations.push_back(max_vio_of_layer(layer));
  return violations;
}

std::uint64_t peak_resident_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;  // Linux counts it in KiB
}

// proc(5): 5 sets the peak to what is resident now; getrusage tells the same number.
void reset_peak_resident_bytes() { std::ofstream("/proc/self/clear_refs") << "5"; }

std::string to_json_line(const StepMetrics& row) {
  std::string line = fmt::format("{{\"step\":{},\"tokens\":{},\"targets\":{}", row.step, row.tokens, row.targets);
  visit_numbers(row, [&line](const char*, const char* key, double value) {
    line += fmt::format(",\"{}\":{}", key, number(value));
  });
  if (!row.aux_loss_coef.empty())
    line += ",\"aux_loss_coef\":" +
            (row.aux_loss_coef.size() == 1 ? number(row.aux_loss_coef.front()) : list(row.aux_loss_coef));
  line += ",\"expert_load\":[";
  for (std::size_t layer = 0; layer < row.expert_load.size(); ++layer) {
    line += (layer == 0 ? "" : ",") + list(row.expert_load[layer]);
  }
  line += "]" + layers_text(row.by_layer) + fmt::format(",\"peak_memory_bytes\":{}", row.peak_memory_bytes);
  if (row.peak_device_memory_bytes > 0)
    line += fmt::format(",\"peak_device_memory_bytes\":{}", row.peak_device_memory_bytes);
  line += fmt::format(",\"skipped_steps\":{}", row.skipped_steps);
  if (!row.forced_routing.empty()) line += ",\"forced_routing\":" + quoted(row.forced_routing);
  if (!row.bytes_sent.empty()) line += ",\"bytes_sent\":" + Json(row.bytes_sent).dump();
  if (!row.warnings.empty()) {
    line += ",\"warnings\":[";
    for (std::size_t i = 0; i < row.warnings.size(); ++i) line += (i == 0 ? "" : ",") + quoted(row.warnings[i]);
    line += "]";
  }
  return line + "}\n";
}

std::string to_json_line(std::span<const EvalMetrics> sources) {
  if (sources.empty()) throw std::logic_error("an evaluation row needs at least one source");
  std::set<std::string> seen;
  std::string line = fmt::format("{{\"step\":{},\"eval\":{{", sources.front().step);
  for (const EvalMetrics& source : sources) {
    if (source.step != sources.front().step) throw std::logic_error("an evaluation row holds one step");
    if (!seen.insert(source.source).second) throw std::logic_error("evaluation source '" + source.source + "' twice");
    line += fmt::format("{}{}:{{\"tokens\":{}", seen.size() == 1 ? "" : ",", quoted(source.source), source.tokens);
    visit_numbers(source, [&line](const char*, const char* key, double value) {
      line += fmt::format(",\"{}\":{}", key, number(value));
    });
    line += "}";
  }
  return line + "}}\n";
}

namespace {

// The file as a run that goes on from `resume_step` wants to find it.
const std::filesystem::path& without_later_rows(const std::filesystem::path& file, std::int64_t resume_step) {
  if (std::filesystem::exists(file)) {
    const std::string before = read_file(file, max_metrics_bytes);
    const std::string kept =
        resume_step == MetricsWriter::fresh_run ? std::string() : keep_rows_to(resume_step, before, file);
    if (kept != before) write_file_atomically(file, kept);
  }
  return file;
}

}  // namespace

MetricsWriter::MetricsWriter(const std::filesystem::path& file, std::int64_t resume_step)
    : file_(without_later_rows(file, resume_step)) {}

void MetricsWriter::write(const StepMetrics& row) { file_.append(to_json_line(row)); }

void MetricsWriter::write(std::span<const EvalMetrics> sources) { file_.append(to_json_line(sources)); }

}  // namespace smoe
