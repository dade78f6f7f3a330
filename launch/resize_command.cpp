// smoe resize --model DIR --vocab N --out DIR: embedding and head cut to N rows, or filled up.
#include <fmt/format.h>

#include <cstdio>
#include <limits>
#include <memory>
#include <string>

#include "data/files/printable.h"
#include "launch/commands.h"
#include "trainer/convert/resize.h"

namespace smoe {
namespace {

void run_resize(const ResizeOptions& options) {
  const Resized done = resize(options);
  for (const std::string& warning : done.warnings) fmt::print(stderr, "smoe: warning: {}\n", printable(warning));
  const std::int64_t added = options.vocabulary - done.before;
  const std::string change = added > 0   ? fmt::format("{} rows more, each the mean of those before", added)
                             : added < 0 ? fmt::format("{} rows fewer", -added)
                                         : "as many as before";
  fmt::print("{}: a vocabulary of {} ({}); {} bytes of weights\n", printable(options.out.string()), options.vocabulary,
             change, done.bytes);
}

}  // namespace

void add_resize_command(CommandLine& line) {
  struct Arguments {
    std::string model, out;
    std::int64_t vocabulary = 0;
  };
  const auto arguments = std::make_shared<Arguments>();
  const Command command = line.command("resize", "cuts or fills up a model's vocabulary: rows of embedding and head");
  command.path("--model", arguments->model, "Hugging Face directory, checkpoint, or run directory").required();
  command
      .option("--vocab", arguments->vocabulary,
              "rows that are wanted, at least as many as the tokenizer has ids; a new one is the mean of the old")
      .required()
      .range(1, std::numeric_limits<std::int32_t>::max());
  command.path("--out", arguments->out, "directory for the model: a new or an empty one").required();
  command.runs([arguments] {
    run_resize({.model = arguments->model, .vocabulary = arguments->vocabulary, .out = arguments->out});
  });
}

}  // namespace smoe
