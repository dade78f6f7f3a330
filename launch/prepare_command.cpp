// smoe prepare INPUT... --out DIR --tokenizer T | --vocab-size V | --train-tokenizer VOCAB
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/prepare.h"
#include "data/train_tokenizer.h"
#include "launch/commands.h"
#include "parallel/cores.h"
#include "trainer/progress.h"

namespace smoe {
namespace {

struct PrepareArguments {
  PrepareOptions options;
  std::string format = "auto";
  std::int64_t train_vocab_size = 0, threads = 0;
};

void train_vocabulary(const PrepareArguments& arguments) {
  const TrainTokenizerOptions options{.inputs = arguments.options.inputs,
                                      .format = corpus_format_of(arguments.format),
                                      .text_field = arguments.options.text_field,
                                      .vocab_size = arguments.train_vocab_size,
                                      .out_directory = arguments.options.out_directory};
  const TrainTokenizerSummary summary = train_tokenizer(options);
  fmt::print("{}: {} pieces, learned from {} lines ({:.1f} of {:.1f} MB) in {}\n", summary.file.string(),
             options.vocab_size, summary.lines, static_cast<double>(summary.sampled_bytes) * 1e-6,
             static_cast<double>(summary.corpus_bytes) * 1e-6, format_duration(summary.seconds));
  if (summary.skipped_lines > 0) fmt::print("{} lines were not UTF-8 and passed over\n", summary.skipped_lines);
}

void print_summary(const PrepareOptions& options, const PrepareSummary& summary) {
  fmt::print("{}: {} tokens in {} documents and {} shard(s), from {:.1f} MB in {} file(s), {} ({:.1f} MB/s)\n",
             options.out_directory, summary.tokens, summary.documents, summary.shards,
             static_cast<double>(summary.bytes_done) * 1e-6, summary.files, format_duration(summary.seconds),
             static_cast<double>(summary.bytes_done) * 1e-6 / std::max(summary.seconds, 1e-9));
  if (summary.empty_documents + summary.skipped_binary + summary.skipped_hidden > 0)
    fmt::print("passed over: {} empty documents, {} binary files, {} hidden files\n", summary.empty_documents,
               summary.skipped_binary, summary.skipped_hidden);
}

void tokenize(const PrepareArguments& arguments) {
  PrepareOptions options = arguments.options;
  options.format = corpus_format_of(arguments.format);
  options.threads = claim_threads(arguments.threads);
  std::optional<Progress> progress;
  options.on_progress = [&](const PrepareProgress& now) {
    if (!progress)
      progress.emplace(ProgressOptions{
          .label = "tokenize", .unit = "B", .total = static_cast<std::int64_t>(now.bytes_total)});
    progress->update(static_cast<std::int64_t>(now.bytes_done),
                     fmt::format("{} tokens", format_count(static_cast<double>(now.tokens))));
  };
  const PrepareSummary summary = prepare(options);
  if (progress) progress->finish();
  print_summary(options, summary);
}

}  // namespace

void add_prepare_command(CommandLine& line) {
  const auto arguments = std::make_shared<PrepareArguments>();
  PrepareOptions& options = arguments->options;
  const Command command = line.command(
      "prepare", "turns files into token shards, or trains a SentencePiece vocabulary on them");
  command.option("INPUT", options.inputs, "files, or directories that stand for all files below them").required();
  command.option("--out", options.out_directory, "directory of the shards, or of the trained tokenizer.model")
      .required();
  const Option tokenizer = command.option(
      "--tokenizer", options.tokenizer, "a tokenizer.model, a directory that holds one, or 'bytes'");
  const Option vocab_size =
      command.option("--vocab-size", options.vocab_size, "in place of a tokenizer, for files that hold ids")
          .range(1, 0x7FFFFFFF)
          .excludes(tokenizer);
  const Option train =
      command.option("--train-tokenizer", arguments->train_vocab_size,
                          "train a vocabulary of this size in Mixtral's settings, write OUT/tokenizer.model and end")
          .range(260, 1 << 20)
          .excludes(tokenizer)
          .excludes(vocab_size);
  command.option("--format", arguments->format, "of the input; auto goes by each file's name and first bytes")
      .one_of({"auto", "text", "jsonl", "npy", "megatron"})
      .show_default();
  command.option("--text-field", options.text_field, "key of a JSONL line's text").show_default();
  command.option("--source", options.source, "where the documents come from, for the manifest");
  command.option("--shard-tokens", options.shard_tokens, "most tokens a shard")
      .range(1, std::int64_t{1} << 40)
      .show_default();
  command.option("--append-eos", options.append_eos, "end every text with eos; ids are stored as they are")
      .show_default();
  command.option("--threads", arguments->threads, fmt::format("that tokenize; {}", threads_help))
      .range(0, 4096)
      .show_default();
  command.runs([arguments, tokenizer, vocab_size, train] {
    if (train.given()) return train_vocabulary(*arguments);
    if (!tokenizer.given() && !vocab_size.given())
      throw UsageError("prepare needs --tokenizer (or --vocab-size for files of ids), or --train-tokenizer");
    tokenize(*arguments);
  });
}

}  // namespace smoe
