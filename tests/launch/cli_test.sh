#!/usr/bin/env bash
# The command line itself: help, version, the configuration as it is read, and what a dry run tells.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"

configs=$root/configs

case_help_lists_every_command() {
  expect 0 prepare train eval generate logits report 'sweep.*not available yet' -- "$smoe" --help
  expect 0 CONFIG key=value --print-config --dry-run -- "$smoe" train --help
}
case_version() { expect 0 '^smoe [0-9]+\.[0-9]+\.[0-9]+$' -- "$smoe" --version; }
case_commands_to_come() {
  local command
  for command in sweep analyze upcycle merge plan verify; do
    expect 2 "smoe: error: the command '$command' is not available yet" -- "$smoe" "$command" anything --option value
  done
}
case_unknown_command_has_a_suggestion() {
  expect 2 "smoe: error: unknown command 'trian', expected one of .*did you mean 'train'" -- "$smoe" trian config.yaml
}
case_missing_argument() { expect 2 'smoe: error: CONFIG is required; smoe train --help' -- "$smoe" train; }
case_flags_that_exclude_each_other() {
  expect 2 'smoe: error: .*excludes' -- "$smoe" train "$configs/quickstart.yaml" --print-config --dry-run
}
case_all_problems_are_reported() {
  printf 'train:\n  stepz: 1\n  seed: -1\nmodel:\n  hidden_size: wide\n' >bad.yaml
  expect 2 'smoe: error: bad.yaml:2:3: train.stepz: .*train.steps' 'bad.yaml:3:9: train.seed' 'bad.yaml:5:16: model.hidden' \
    'command line: log.interval: found 0' -- "$smoe" train bad.yaml log.interval=0
}

# The printed configuration reads back to itself, overrides included.
case_print_config_reads_back() {
  "$smoe" train "$configs/quickstart.yaml" optimizer.learning_rate=1.25e-3 data.train.0.weight=3 --print-config >first.yaml
  "$smoe" train first.yaml --print-config >second.yaml
  cmp first.yaml second.yaml || fail "the second print differs from the first"
  grep -q '^  learning_rate: 0.00125$' first.yaml || fail "the override is not there"
  grep -q '^  output_dir: runs/quickstart$' first.yaml || fail "the run is not named after its configuration"
  absent runs
}

dry_run() { expect 0 "${@:2}" -- "$smoe" train "$configs/$1" --dry-run; absent runs; }
case_dry_run_counts_8x7b() { dry_run mixtral-8x7b.yaml '46,702,792,704 total, 12,879,925,248 active' '1,048,576 tokens'; }
case_dry_run_counts_8x22b() { dry_run mixtral-8x22b.yaml '140,620,634,112 total, 39,152,031,744 active'; }
case_dry_run_of_the_quickstart() {
  dry_run quickstart.yaml '12,200,192 total' '1,024 tokens: 4 sequences of 256' 'GiB a rank for weights, gradients and moments'
}
case_warm_up_longer_than_the_run() {
  expect 0 'smoe: warning: schedule.warmup_steps is 100 of 20 steps' -- \
    "$smoe" train "$configs/quickstart.yaml" train.steps=20 --print-config
}

run_case "$@"
