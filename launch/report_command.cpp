// smoe report RUN_DIR... [--out FILE.html]: the HTML report of a run, or of several side by side; or that of a sweep.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "launch/commands.h"
#include "launch/sweep_plan.h"
#include "trainer/record/report.h"
#include "trainer/study/study_report.h"

namespace smoe {
namespace {

struct ReportArguments {
  std::vector<std::string> directories;
  std::string out;
  bool markdown = false;
};

void report_study(const ReportArguments& arguments) {
  if (arguments.directories.size() > 1)
    throw UsageError(fmt::format(
        "report: found {} directories with a sweep's among them, expected that alone, or runs (a sweep's are in its points/)",
        arguments.directories.size()));
  const Study study = read_kept_plan(arguments.directories.front()).study;
  if (arguments.markdown) {
    fmt::print("{}", study_markdown(study));
    return;
  }
  const std::filesystem::path out = arguments.out.empty() ? report_of(study) : std::filesystem::path(arguments.out);
  write_study_report(study, out);
  fmt::print("{}\n", out.string());
}

void report(const ReportArguments& arguments) {
  const std::vector<std::filesystem::path> runs(arguments.directories.begin(), arguments.directories.end());
  if (arguments.markdown && !arguments.out.empty())
    throw UsageError("--markdown: found beside --out, expected one of them: it is printed");
  if (std::any_of(runs.begin(), runs.end(), is_study)) return report_study(arguments);
  if (arguments.markdown)
    throw UsageError(fmt::format("--markdown: found no sweep.yaml in {}, expected a sweep's directory (output_dir)",
                                 runs.front().string()));
  std::filesystem::path out = arguments.out;
  if (out.empty()) out = runs.front() / "report.html";
  write_report(runs, out);
  fmt::print("{}\n", out.string());
}

}  // namespace

void add_report_command(CommandLine& line) {
  const auto arguments = std::make_shared<ReportArguments>();
  const Command command = line.command("report", "HTML of one run, of several side by side, or of a sweep");
  command.path("RUN_DIR", arguments->directories, "directories that 'smoe train' wrote, or the one of 'smoe sweep'")
      .required();
  command.path("--out", arguments->out, "file to write; default report.html in the first RUN_DIR");
  command.flag("--markdown", arguments->markdown, "of a sweep: print its tables as Markdown instead");
  command.runs([arguments] { report(*arguments); });
}

}  // namespace smoe
