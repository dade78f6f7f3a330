// smoe prepare INPUT... --out DIR --tokenizer T | --vocab-size V | --train-tokenizer VOCAB
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "data/import/prepare.h"
#include "data/files/live_temporaries.h"
#include "data/files/printable.h"
#include "data/text/tokenizer.h"
#include "data/import/train_tokenizer.h"
#include "launch/commands.h"
#include "launch/example_text.h"
#include "parallel/cores.h"
#include "trainer/record/progress.h"

namespace smoe {
namespace {

struct PrepareArguments {
  PrepareOptions options;
  std::string format = "auto";
  std::int64_t train_vocab_size = 0, threads = 0;
  ExampleSettings examples{.shown = 2};
  std::string loss_on = "completions", too_long = "error";
};

// In MB where that says something.
std::string size_of(std::uint64_t bytes) {
  return bytes < 100'000 ? fmt::format("{} bytes", bytes) : fmt::format("{:.1f} MB", static_cast<double>(bytes) * 1e-6);
}

// "a.txt as text, b.npy as npy", or where there are many "120 files as jsonl, 3 as text".
std::string readings(const std::vector<CorpusFile>& inputs) {
  constexpr std::size_t most_by_name = 8;
  std::vector<std::string> parts;
  if (inputs.size() <= most_by_name) {
    for (const CorpusFile& file : inputs)
      parts.push_back(fmt::format("{} as {}", printable(file.name()), name_of(file.format)));
  } else {
    std::map<CorpusFormat, std::int64_t> counts;
    for (const CorpusFile& file : inputs) ++counts[file.format];
    for (const auto& [format, count] : counts)
      parts.push_back(fmt::format("{}{} as {}", count, parts.empty() ? " file(s)" : "", name_of(format)));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

void print_passed_over(const std::vector<PassedOver>& kinds) {
  for (const PassedOver& kind : kinds)
    fmt::print("passed over: {} file(s), each {} ({}{})\n", kind.files, kind.kind,
               kind.files == 1 ? "" : "the first is ", printable(kind.first.string()));
}

// Of what --skip-bad passes over, the first ten; the rest is counted.
void print_bad_document(const std::string& message, Progress* progress) {
  const std::string line = fmt::format("smoe: passed over: {}", printable(message));
  if (progress)
    progress->say(line);
  else
    fmt::print(stderr, "{}\n", line);
}

// list: the file that has all of them; empty: each was told.
void print_bad_count(std::int64_t bad, const std::string& list = {}) {
  if (bad > 0)
    fmt::print("passed over: {} bad document(s) (--skip-bad){}\n", bad,
               list.empty() ? "" : fmt::format(", all of them in {}", printable(list)));
}

// While one lives, a signal that ends the program takes with it what has a temporary name still, and the directory where that was not
// there before and has nothing else in it.
class OutputUntilKilled {
 public:
  explicit OutputUntilKilled(const std::string& directory) {
    std::error_code ignored;
    if (!std::filesystem::exists(directory, ignored)) {
      path_ = directory;
      place_ = path_.c_str();
    }
    for (const int signal : {SIGTERM, SIGINT, SIGHUP})
      if (std::signal(signal, remove_and_end) == SIG_IGN) std::signal(signal, SIG_IGN);  // nohup's
  }
  ~OutputUntilKilled() {
    for (const int signal : {SIGTERM, SIGINT, SIGHUP})
      if (std::signal(signal, SIG_DFL) == SIG_IGN) std::signal(signal, SIG_IGN);
    place_ = nullptr;
  }
  OutputUntilKilled(const OutputUntilKilled&) = delete;
  OutputUntilKilled& operator=(const OutputUntilKilled&) = delete;

 private:
  static void remove_and_end(int signal) {
    remove_live_temporaries_and_hold();
    if (place_ != nullptr) ::rmdir(place_);  // of one that is not empty it takes nothing
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }

  std::string path_;
  inline static const char* place_ = nullptr;
};

void train_vocabulary(const PrepareArguments& arguments) {
  const OutputUntilKilled out(arguments.options.out_directory);
  const TrainTokenizerOptions options{
      .inputs = arguments.options.inputs,
      .format = corpus_format_of(arguments.format),
      .text_field = arguments.options.text_field,
      .vocab_size = arguments.train_vocab_size,
      .out_directory = arguments.options.out_directory,
      .skip_bad = arguments.options.skip_bad,
      .on_bad = [](const std::string& message) { print_bad_document(message, nullptr); }};
  const TrainTokenizerSummary summary = train_tokenizer(options);
  fmt::print("{}: {} pieces, learned from {} lines ({} of {}) in {}\n", printable(summary.file.string()),
             options.vocab_size, summary.lines, size_of(summary.sampled_bytes), size_of(summary.corpus_bytes),
             format_duration(summary.seconds));
  fmt::print("read {}\n", readings(summary.inputs));
  print_passed_over(summary.passed_over);
  print_bad_count(summary.bad_documents, summary.bad_list);
  if (summary.skipped_lines > 0) fmt::print("{} lines were not UTF-8 and passed over\n", summary.skipped_lines);
}

// Nothing where the work was too short for a rate to mean anything.
std::string rate_of(const PrepareSummary& summary) {
  if (summary.seconds < 0.5 || summary.bytes_done < 1'000'000) return "";
  return fmt::format(" ({:.1f} MB/s)", static_cast<double>(summary.bytes_done) * 1e-6 / summary.seconds);
}

void print_summary(const PrepareOptions& options, const PrepareSummary& summary) {
  fmt::print("{}: {} tokens in {} documents and {} shard(s), from {} in {} file(s), {}{}\n",
             printable(options.out_directory), summary.tokens, summary.documents, summary.shards,
             size_of(summary.bytes_done), summary.files, format_duration(summary.seconds), rate_of(summary));
  fmt::print("read {}\n", readings(summary.inputs));
  if (summary.empty_documents + summary.skipped_hidden > 0)
    fmt::print("passed over: {} empty documents, {} hidden files\n", summary.empty_documents, summary.skipped_hidden);
  print_passed_over(summary.passed_over);
  print_bad_count(summary.bad_documents, summary.bad_list);
  if (summary.foreign_bytes > 0)
    fmt::print("{} bytes were zero or no UTF-8, and taken as they are (--format text)\n", summary.foreign_bytes);
  if (summary.spelled_controls > 0)
    fmt::print(
        "\"<s>\" or \"</s>\" stand {} times in the texts, and are characters there, not bos and eos: rendered chats have them, and are to be "
        "prepared without\n",
        summary.spelled_controls);
  tell_warnings(summary.warnings);
}

LossOn loss_on_named(const std::string& name) {
  return name == "last" ? LossOn::last : name == "all" ? LossOn::all : LossOn::completions;
}

TooLong too_long_named(const std::string& name) {
  return name == "truncate" ? TooLong::truncate : name == "skip" ? TooLong::skip : TooLong::error;
}

// What is trained, before anything is written.
void print_example_counts(const PrepareSummary& summary) {
  const ExampleCounts& counts = summary.examples;
  std::vector<std::string> schemas;
  for (const auto& [schema, count] : counts.schemas) schemas.push_back(fmt::format("{} as {}", count, name_of(schema)));
  fmt::print("{} examples with {} targets of {} tokens; the longest read has {} ids; read {}\n", counts.examples,
             counts.targets, summary.tokens, counts.longest, fmt::join(schemas, ", "));
  if (counts.truncated > 0) fmt::print("{} of them were truncated\n", counts.truncated);
  if (counts.too_long > 0) fmt::print("left out: {} too long\n", counts.too_long);
  if (counts.without_target > 0) fmt::print("left out: {} without a target\n", counts.without_target);
  if (summary.bad_documents > 0) fmt::print("left out: {} bad (--skip-bad)\n", summary.bad_documents);
}

void read_examples(const PrepareArguments& arguments, PrepareOptions& options, std::optional<Progress>& progress) {
  options.examples = arguments.examples;
  options.examples->loss_on = loss_on_named(arguments.loss_on);
  options.examples->too_long = too_long_named(arguments.too_long);
  options.on_example = [number = 0](const Tokenizer& tokenizer, auto ids, auto is_target) mutable {
    const TargetMarks marks = target_marks_of(stdout);
    const auto targets = std::count(is_target.begin(), is_target.end(), 1);
    fmt::print("example {}: {} ids, {} targets, which are {}these{}\n{}\n", ++number, ids.size(), targets, marks.begin,
               marks.end, example_text(tokenizer, ids, is_target, marks));
  };
  options.before_writing = [&progress](const PrepareSummary& summary) {
    if (progress) progress->finish();
    print_example_counts(summary);
  };
}

void tokenize(const PrepareArguments& arguments) {
  const OutputUntilKilled out(arguments.options.out_directory);
  PrepareOptions options = arguments.options;
  options.format = corpus_format_of(arguments.format);
  options.threads = claim_threads(arguments.threads);
  std::optional<Progress> progress;
  options.on_progress = [&](const PrepareProgress& now) {
    if (!progress)
      progress.emplace(
          ProgressOptions{.label = "tokenize", .unit = "B", .total = static_cast<std::int64_t>(now.bytes_total)});
    progress->update(static_cast<std::int64_t>(now.bytes_done),
                     fmt::format("{} tokens", format_count(static_cast<double>(now.tokens))));
  };
  options.on_bad = [&](const std::string& message) { print_bad_document(message, progress ? &*progress : nullptr); };
  if (!options.tokenizer.empty()) warn_of_tokens_left_out(options.tokenizer);
  if (!arguments.examples.chat.empty()) read_examples(arguments, options, progress);
  const PrepareSummary summary = prepare(options);
  if (progress) progress->finish();
  print_summary(options, summary);
}

}  // namespace

void tell_warnings(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) fmt::print(stderr, "smoe: warning: {}\n", printable(warning));
}

void warn_of_tokens_left_out(const std::string& tokenizer) {
  const std::filesystem::path file(tokenizer), directory = file.has_parent_path() ? file.parent_path() : ".";
  if (file.filename() != "tokenizer.model" || !std::filesystem::is_regular_file(file)) return;
  const std::string bare = load_tokenizer(tokenizer)->sha256();
  bool leaves_out = true;
  try {
    leaves_out = tokenizer_identity(directory).sha256 != bare;
  } catch (const std::runtime_error&) {  // it says something that would be refused, were it named
  }
  if (leaves_out)
    fmt::print(
        stderr,
        "smoe: warning: other files in {} add tokens to {} or change it, and are left out: texts hold none of "
        "these tokens, and the ids are those of the bare file; to have them, name the directory: --tokenizer {}\n",
        printable(directory.string()), file.filename().string(), printable(directory.string()));
}

namespace {

Option add_example_options(const Command& command, PrepareArguments& arguments, const Option& tokenizer) {
  const Option chat =
      command
          .option(
              "--chat", arguments.examples.chat,
              "the inputs are examples for supervised fine-tuning (messages; prompt and completion; alpaca; sharegpt), and "
              "this is the template that makes ids of them")
          .one_of({ChatTemplate::names().begin(), ChatTemplate::names().end()})
          .needs(tokenizer);
  command.option("--loss-on", arguments.loss_on, "the targets: the answers, the last of them, or everything")
      .one_of({"completions", "last", "all"})
      .show_default()
      .needs(chat);
  const Option max_length =
      command.option("--max-length", arguments.examples.max_length, "most ids an example may have")
          .range(2, std::int64_t{1} << 31)
          .needs(chat);
  command
      .option("--too-long", arguments.too_long,
              "what becomes of an example that has more: it is cut, left out, or an error")
      .one_of({"truncate", "skip", "error"})
      .show_default()
      .needs(max_length);
  command.option("--show", arguments.examples.shown, "so many examples are shown before anything is written")
      .range(0, 1000)
      .show_default()
      .needs(chat);
  return chat;
}

}  // namespace

void add_prepare_command(CommandLine& line) {
  const auto arguments = std::make_shared<PrepareArguments>();
  PrepareOptions& options = arguments->options;
  const Command command =
      line.command("prepare", "turns files into token shards, or trains a SentencePiece vocabulary on them");
  command
      .path(
          "INPUT", options.inputs,
          "files of text, JSON or ids, as they are or compressed (gzip, zstd); directories, for all files below them; quoted "
          "patterns ('data/**/*.jsonl.gz'); pipes, and - for standard input")
      .required();
  command.path("--out", options.out_directory, "directory of the shards, or of the trained tokenizer.model").required();
  const Option tokenizer = command.path(
      "--tokenizer", options.tokenizer,
      "a tokenizer.model or tokenizer.json, a directory that holds one (with the tokens it adds), or 'bytes'");
  const Option vocab_size =
      command.option("--vocab-size", options.vocab_size, "in place of a tokenizer, for files that hold ids")
          .range(1, 0x7FFFFFFF)
          .excludes(tokenizer);
  const Option train =
      command
          .option("--train-tokenizer", arguments->train_vocab_size,
                  "train a vocabulary of this size in Mixtral's settings, write OUT/tokenizer.model and end")
          .range(260, 1 << 20)
          .excludes(tokenizer)
          .excludes(vocab_size);
  command
      .option(
          "--format", arguments->format,
          "of the input; auto goes by each file's first bytes and name, and refuses tables and what is binary; text takes "
          "any bytes; u16 and u32 are bare ids, little-endian, as nanoGPT and llm.c have them")
      .one_of(corpus_format_names())
      .show_default();
  const Option text_field =
      command
          .option(
              "--text-field", options.text_field,
              "key of the text in a JSON object, or the path to one in nested objects: meta.body; column of a table")
          .show_default();
  command
      .option("--skip-bad", options.skip_bad,
              "at most so many objects that are damaged or have no text are passed over, told and counted")
      .range(0, std::int64_t{1} << 40)
      .show_default();
  command.option("--dataset", options.dataset, "of HDF5 files: the dataset of ids; none is needed for token shards");
  const Option document_end =
      command
          .option(
              "--document-end", options.document_end,
              "id that ends each document of a file of bare ids, of which it stays the last: nanoGPT's is 50256; without, a "
              "1-D array is one document")
          .range(0, 0x7FFFFFFF);
  command.option("--document-begin", options.document_begin, "id that begins each document instead: llm.c's is 50256")
      .range(0, 0x7FFFFFFF)
      .excludes(document_end);
  const Option chat = add_example_options(command, *arguments, tokenizer);
  command.option("--source", options.source, "where the documents come from, for the manifest");
  command
      .option("--shard-tokens", options.shard_tokens,
              "most tokens a shard; documents are not split, so one that is longer has a shard of its own")
      .range(1, std::int64_t{1} << 40)
      .show_default();
  const Option append_eos =
      command.option("--append-eos", options.append_eos, "end every text with eos; ids are stored as they are")
          .show_default();
  command.option("--threads", arguments->threads, fmt::format("that tokenize; {}", threads_help))
      .range(0, 4096)
      .show_default();
  command.runs([=] {
    for (const auto& [option, name] : {std::pair(text_field, "--text-field"), std::pair(append_eos, "--append-eos")})
      if (chat.given() && option.given())
        throw UsageError(
            fmt::format("{} says how texts are read, and with --chat the inputs are examples: their schema and "
                        "the template say that",
                        name));
    if (train.given()) return train_vocabulary(*arguments);
    if (!tokenizer.given() && !vocab_size.given())
      throw UsageError("prepare needs --tokenizer (or --vocab-size for files of ids), or --train-tokenizer");
    tokenize(*arguments);
  });
}

}  // namespace smoe
