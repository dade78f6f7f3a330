// The report's tables in Markdown, for documents that are kept beside their data.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "trainer/study/study_report.h"
#include "trainer/study/study_settings.h"

namespace smoe {
namespace {

constexpr int loss_digits = 4, balance_digits = 3;

// A name as text of one cell: neither its end nor markup.
std::string cell_text(const std::string& text) {
  std::string cell;
  for (const char c : text) cell += c == '|' ? "\\|" : c == '<' ? "&lt;" : c == '\n' ? " " : std::string(1, c);
  return cell;
}

std::string row(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += " " + cell + " |";
  return line + "\n";
}

std::string rule(std::size_t columns) {
  std::string line = "|---|";
  for (std::size_t i = 1; i < columns; ++i) line += "---:|";
  return line + "\n";
}

std::string value_text(const Summary& summary, int digits) {
  if (summary.n == 0) return "–";
  return fmt::format("{:.{}f}", summary.mean, digits) +
         (summary.n > 1 ? fmt::format(" ± {:.{}f}", summary.sd, digits) : "");
}

std::string interval_text(const Summary& summary, int digits) {
  return summary.n > 1 ? fmt::format("{:.{}f} to {:.{}f}", summary.low(), digits, summary.high(), digits) : "–";
}

// In bold where the interval leaves 0 out; with a dagger where it is unpaired; with the pairs where `values`, the setting's own, are more.
std::string difference_text(const Difference& difference, std::size_t values, int digits) {
  if (std::isnan(difference.mean)) return "–";
  const std::string mark = !difference.paired      ? "†"
                           : difference.n < values ? fmt::format(" ({} of {} paired)", difference.n, values)
                                                   : "";
  if (!difference.has_interval()) return fmt::format("{:+.{}f}{}", difference.mean, digits, mark);
  const std::string text = fmt::format("{:+.{}f} ± {:.{}f}", difference.mean, digits, difference.half, digits);
  return (difference.within_noise() ? text : "**" + text + "**") + mark;
}

bool is_measured(const StudyView& view, const std::string& measure) {
  return std::any_of(view.runs.begin(), view.runs.end(),
                     [&](const StudyRun& run) { return run.values.contains(measure); });
}

std::string settings_table(const StudyView& view) {
  struct Column {
    const char *measure, *title;
    int digits;
  };
  std::vector<Column> columns;
  for (const Column& one : {Column{"max_vio", "MaxVio", balance_digits}, Column{"idle_experts", "idle experts", 1},
                            Column{"dropped", "dropped", 1}})
    if (is_measured(view, one.measure)) columns.push_back(one);
  std::vector<std::string> head = {"setting", "n", view.sources.empty() ? "training loss" : "held-out loss"};
  if (view.repeated) head.push_back("95% interval");
  head.push_back("difference to " + cell_text(view.settings.front().name));
  for (const Column& one : columns) head.push_back(one.title);
  head.push_back("tokens/s");
  std::string table = row(head) + rule(head.size());
  for (const StudySetting& setting : view.settings) {
    const Summary quality = summary_of(view, setting, "quality");
    std::vector<std::string> cells = {cell_text(setting.name), std::to_string(quality.n),
                                      value_text(quality, loss_digits)};
    if (view.repeated) cells.push_back(interval_text(quality, loss_digits));
    const bool is_base = &setting == &view.settings.front();
    const Comparison found = compare(view, setting, view.settings.front(), "quality");
    cells.push_back(is_base ? "the base" : difference_text(found.difference, quality.n, loss_digits));
    for (const Column& one : columns) cells.push_back(value_text(summary_of(view, setting, one.measure), one.digits));
    const Summary speed = summary_of(view, setting, "tokens_per_sec");
    cells.push_back(speed.n ? fmt::format("{:.0f}", speed.mean) : "–");
    table += row(cells);
  }
  return table;
}

std::string sources_table(const StudyView& view) {
  std::vector<std::string> head = {"setting"};
  for (const std::string& source : view.sources) head.push_back(cell_text(source));
  std::string table = row(head) + rule(head.size());
  for (const StudySetting& setting : view.settings) {
    const bool is_base = &setting == &view.settings.front();
    std::vector<std::string> cells = {cell_text(setting.name) + (is_base ? " (its loss)" : "")};
    for (const std::string& source : view.sources)
      cells.push_back(is_base
                          ? value_text(summary_of(view, setting, "eval." + source), loss_digits)
                          : difference_text(compare(view, setting, view.settings.front(), "eval." + source).difference,
                                            summary_of(view, setting, "eval." + source).n, loss_digits));
    table += row(cells);
  }
  return table;
}

// What the reader of the differences must know of them.
std::string notes_on_differences(const StudyView& view) {
  bool unpaired = false, incomparable = false;
  for (const StudySetting& setting : view.settings) {
    const Comparison found = compare(view, setting, view.settings.front(), "quality");
    if (found.unpaired_because.empty()) continue;
    (found.difference.n > 0 ? unpaired : incomparable) = true;
  }
  std::string notes;
  if (unpaired) notes += "\n† unpaired (Welch): other initial weights or data, or no seed in common.\n";
  if (incomparable) notes += "\nNo difference is given where settings were evaluated on different texts.\n";
  return notes;
}

}  // namespace

std::string study_markdown(const Study& study) {
  const StudyView view = read_study_view(study);
  if (view.settings.empty()) return "";
  const std::string loss = view.sources.empty() ? "loss of training, mean of the last tenth of the steps"
                                                : fmt::format("held-out loss after the last step{}",
                                                              view.sources.size() > 1 ? ", mean of the sources" : "");
  std::string text = fmt::format(
      "Nats a token: {}. MaxVio and idle experts: of the worst layer and of all layers, over the last tenth of the steps.{}\n\n",
      loss,
      view.repeated
          ? " n: seeds; ±: their standard deviation, and for a difference half of its 95% interval, same seed "
            "against same seed; bold where that leaves 0 out."
          : "");
  text += settings_table(view);
  if (view.sources.size() > 1)
    text += "\nBy source, difference to " + cell_text(view.settings.front().name) + ":\n\n" + sources_table(view);
  text += notes_on_differences(view);
  return text;
}

}  // namespace smoe
