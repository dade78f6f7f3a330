// smoe prepare INPUT... --out DIR --tokenizer T | --vocab-size V | --train-tokenizer VOCAB
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/prepare.h"
#include "data/tokenizer.h"
#include "data/train_tokenizer.h"
#include "launch/commands.h"
#include "trainer/progress.h"

namespace smoe {
namespace {

struct PrepareArguments {
  PrepareOptions options;
  std::string format = "auto";
  std::int64_t train_vocab_size = 0;
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

// A tokenizer.model that is named itself is taken as it stands, though its directory may add tokens to it.
void warn_of_tokens_left_out(const std::string& tokenizer) {
  const std::filesystem::path file(tokenizer), directory = file.has_parent_path() ? file.parent_path() : ".";
  if (file.filename() != "tokenizer.model" || !std::filesystem::is_regular_file(file)) return;
  const std::string bare = load_tokenizer(tokenizer)->sha256();
  bool leaves_out = true;
  try {
    leaves_out = tokenizer_identity(directory) != bare;
  } catch (const std::runtime_error&) {  // it says something that would be refused, were it named
  }
  if (leaves_out)
    fmt::print(stderr, "smoe: warning: other files in {} add tokens to {} or change it, and are left out: texts hold none of "
                       "these tokens, and the ids are those of the bare file; to have them, name the directory: --tokenizer {}\n",
               directory.string(), file.filename().string(), directory.string());
}

void tokenize(const PrepareArguments& arguments) {
  PrepareOptions options = arguments.options;
  options.format = corpus_format_of(arguments.format);
  std::optional<Progress> progress;
  options.on_progress = [&](const PrepareProgress& now) {
    if (!progress)
      progress.emplace(ProgressOptions{
          .label = "tokenize", .unit = "B", .total = static_cast<std::int64_t>(now.bytes_total)});
    progress->update(static_cast<std::int64_t>(now.bytes_done),
                     fmt::format("{} tokens", format_count(static_cast<double>(now.tokens))));
  };
  if (!options.tokenizer.empty()) warn_of_tokens_left_out(options.tokenizer);
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
      "--tokenizer", options.tokenizer, "a tokenizer.model, a directory that holds one (with the tokens it adds), or 'bytes'");
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
  command.option("--threads", options.threads, "that tokenize; 0: one a core")
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
