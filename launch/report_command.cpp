// smoe report RUN_DIR... [--out FILE.html]: the HTML report of a run, or of several side by side.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "launch/commands.h"
#include "trainer/record/report.h"

namespace smoe {
namespace {

struct ReportArguments {
  std::vector<std::string> runs;
  std::string out;
};

void report(const ReportArguments& arguments) {
  const std::vector<std::filesystem::path> runs(arguments.runs.begin(), arguments.runs.end());
  std::filesystem::path out = arguments.out;
  if (out.empty()) out = runs.front() / "report.html";
  write_report(runs, out);
  fmt::print("{}\n", out.string());
}

}  // namespace

void add_report_command(CommandLine& line) {
  const auto arguments = std::make_shared<ReportArguments>();
  const Command command = line.command("report", "HTML of one run, or of several side by side");
  command.path("RUN_DIR", arguments->runs, "directories that 'smoe train' wrote (train.output_dir)").required();
  command.path("--out", arguments->out, "file to write; default report.html in the first RUN_DIR");
  command.runs([arguments] { report(*arguments); });
}

}  // namespace smoe
