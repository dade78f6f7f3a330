#!/usr/bin/env bash
# Adapters from the command line: trained beside a model's weights, resumed, and used wherever the model is.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

# A model in base/, and a configuration that trains adapters beside it.
adapted() {
  prepared
  "$smoe" train config.yaml train.output_dir=base >/dev/null
  sed -i '/^model:/,/^data:/{/^data:/!d}' config.yaml
  printf 'model:\n  from: base\nlora:\n  r: 4\n  alpha: 16\n  dropout: 0.1\nschedule:\n  warmup_steps: 1\n' >>config.yaml
  replace 'learning_rate: 1.0e-3' 'learning_rate: 3.0e-2'
}

case_adapters_are_trained_resumed_and_used() {
  adapted
  expect 0 'trained +[0-9,]+ parameters, adapters of rank 4 beside q_proj' -- "$smoe" train config.yaml --dry-run
  expect 0 'adapters of rank 4 beside .*, weighed by 4: [0-9]+ parameters are trained, and none of the' \
    'no router is trained' 'saved run/checkpoints/step-000002' -- "$smoe" train config.yaml
  absent run/checkpoints/step-000002/model
  expect 0 'resumed from .*step-000002' 'saved run/checkpoints/step-000004' -- "$smoe" train config.yaml train.steps=4
  local loss_of='s/.*"loss":\([0-9.]*\).*/\1/p' with without
  with=$("$smoe" eval --model base --adapter run --data shards --seq 32 --json | sed -n "$loss_of")
  without=$("$smoe" eval --model base --data shards --seq 32 --json | sed -n "$loss_of")
  awk -v a="$with" -v b="$without" 'BEGIN { exit !(a < b - 0.01) }' || fail "$with with adapters, $without without"
  expect 0 -- "$smoe" generate --model base --adapter run/checkpoints/step-000004/adapter --tokenizer bytes --prompt 'document 3' --max-tokens 4 --greedy
  expect 0 'merged: 16 of 22 tensors changed' -- "$smoe" merge --model base --adapter run --out merged
  local folded beside
  beside=$("$smoe" analyze --model base --adapter run --data shards --seq 32 --out beside | grep cosines)
  folded=$("$smoe" analyze --model merged --data shards --seq 32 --out folded | grep cosines)
  [ "$beside" = "$folded" ] || fail "analyze has experts $beside with an adapter, $folded merged"
  expect 0 'half: 16 of 22 tensors changed' -- \
    "$smoe" merge --model base --adapter run/checkpoints/step-000003:0.5 --out half
  expect 0 'warning: .*adapter: was trained beside other files than those of merged' -- \
    "$smoe" eval --model merged --adapter run --data shards --seq 32
  expect 0 'warning: .*adapter: was trained beside other files than those of merged' -- \
    "$smoe" merge --model merged --adapter run --out twice
  expect 1 'run/checkpoints/step-000004/adapter: holds an adapter and no weights' 'as --adapter' -- \
    "$smoe" eval --model run --data shards
  expect 1 'base: no adapter found: expected a PEFT directory' -- "$smoe" eval --model base --adapter base --data shards
}

case_adapters_to_go_on_from_are_read_by_a_dry_run() {
  adapted
  "$smoe" train config.yaml >/dev/null
  expect 1 'gone: no adapter found' -- "$smoe" train config.yaml --dry-run train.output_dir=next lora.from=gone
  expect 1 'its adapters are others than this run trains' 'lora.r: 4 there, 8 here' -- \
    "$smoe" train config.yaml --dry-run train.output_dir=next lora.from=run lora.r=8
  expect 0 -- "$smoe" train config.yaml --dry-run train.output_dir=next lora.from=run
  expect 0 -- "$smoe" train config.yaml --dry-run lora.from=gone # it goes on from a checkpoint of its own
}

case_adapters_of_another_configuration_are_not_resumed() {
  adapted
  "$smoe" train config.yaml >/dev/null
  expect 1 'step-000002: its adapters are others than this run trains:' 'lora.r: 4 there, 8 here' -- "$smoe" train config.yaml lora.r=8
  expect 1 'step-000002: holds adapters, and this run trains a model' -- "$smoe" train config.yaml lora=null
  expect 2 'lora.target_modules: found up_proj, which matches nothing, expected some of q_proj' -- \
    "$smoe" train config.yaml 'lora.target_modules=[q_proj, up_proj]'
  expect 2 'router.bias_update_rate: found 0.001 with lora' -- "$smoe" train config.yaml router.bias_update_rate=0.001
  expect 0 'nothing left to train' -- "$smoe" train config.yaml
}

case_verify_tries_adapters() {
  adapted
  expect 0 'one rank was held against itself' -- "$smoe" verify config.yaml
}

run_case "$@"
