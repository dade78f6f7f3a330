#!/usr/bin/env bash
# Whole documents in sequences, and a run's length in epochs, from the command line.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

# 60 documents of some 60 ids in sequences of 64, a few of them with room for a second.
packed() {
  prepared sequence_length=64
  for i in 1 2 3 4 5 6; do printf '{"text": "a"}\n'; done >>text.jsonl
  rm -r shards
  "$smoe" prepare text.jsonl --out shards --tokenizer bytes --source test
}

case_a_packed_run_says_how_full_it_is_and_resumes() {
  packed
  expect 0 'test: 66 whole documents in [0-9]+ sequences of 64, [0-9.]+% of whose positions' -- \
    "$smoe" train config.yaml data.packing=best_fit --dry-run
  expect 0 'test: 66 whole documents in' 'saved run/checkpoints/step-000002' -- "$smoe" train config.yaml data.packing=best_fit
  expect 0 'resumed from .*step-000002' -- "$smoe" train config.yaml data.packing=best_fit train.steps=3
  expect 0 '"tokens":' -- "$smoe" eval --model run --data shards --seq 64 --packing best_fit --json
  # Every target once, whichever way documents are cut.
  for packing in stream best_fit; do
    "$smoe" eval --model run --data shards --seq 64 --packing "$packing" --json | grep -o '"tokens":[0-9]*' >"$packing"
  done
  diff stream best_fit
}

case_documents_that_fit_no_sequence_are_refused() {
  packed
  expect 1 'shards: 60 of its 66 documents are longer than a sequence' 'data.sequence_length to 48 or more' '--max-length' -- \
    "$smoe" train config.yaml data.packing=best_fit data.sequence_length=32
  absent run
  expect 2 'data.document_masking: found false beside packing: best_fit' -- \
    "$smoe" train config.yaml data.packing=best_fit data.document_masking=false
  expect 1 'longer than a sequence' -- "$smoe" train config.yaml data.packing=best_fit data.sequence_length=32 --dry-run
}

case_epochs_are_told_in_steps() {
  packed
  expect 2 'train.epochs: found beside train.steps, expected one of the two' -- \
    "$smoe" train config.yaml train.epochs=2 train.steps=3
  expect 0 'run +2 epochs of data.train' 'train.epochs: 2 of [0-9]+ sequences: [0-9]+ steps' -- \
    "$smoe" train config.yaml data.packing=best_fit train.epochs=2 --dry-run
  steps=$("$smoe" train config.yaml data.packing=best_fit train.epochs=2 --dry-run | grep -o '[0-9]* steps' | tail -n 1)
  expect 0 "sequences of data.train: $steps of 4" "train +${steps% steps}/${steps% steps} 100%" -- \
    "$smoe" train config.yaml data.packing=best_fit train.epochs=2 checkpoint.interval=100
  grep -q "^  epochs: 2.0" run/config.resolved.yaml || fail 'the resolved configuration has no epochs'
  grep -q "^# train.epochs 2 .*: $steps of 4" run/config.resolved.yaml || fail 'the resolved configuration says no steps'
  expect 0 'nothing left to train' -- "$smoe" train run/config.resolved.yaml train.output_dir=run
  expect 0 'epochs: 2.0' -- "$smoe" train config.yaml train.epochs=2 --print-config
}

case_a_sweep_may_set_epochs() {
  packed
  printf 'base: config.yaml\noutput_dir: study\nmethod: grid\nparameters:\n  train.epochs: {values: [0.5, 1]}\n' >sweep.yaml
  sed -i 's/^  sequence_length:/  packing: best_fit\n  sequence_length:/' config.yaml
  expect 0 'point 1 of 2: epochs-0.5' '2 done' -- "$smoe" sweep sweep.yaml
  expect 0 'done' -- "$smoe" sweep sweep.yaml --status
}

case_layouts_agree_on_padded_sequences() {
  packed
  expect 0 -- "$smoe" verify config.yaml data.packing=best_fit
}

run_case "$@"
