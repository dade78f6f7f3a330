#!/usr/bin/env bash
# smoe merge as it is typed: what is folded in, and what is refused and leaves nothing.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/safetensors.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

weights() { echo "run/checkpoints/$(cat run/checkpoints/latest)/model/model.safetensors"; }
# adapter DIR COLUMNS: in PEFT's format, of zeros beside q_proj of the tiny run's one layer.
adapter() {
  mkdir -p "$1"
  echo '{"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]}' >"$1/adapter_config.json"
  local name=base_model.model.model.layers.0.self_attn.q_proj.lora_ a=$((4 * $2))
  safetensors "$1/adapter_model.safetensors" "{\"${name}A.weight\": {\"dtype\": \"F32\", \"shape\": [1, $2],
    \"data_offsets\": [0, $a]}, \"${name}B.weight\": {\"dtype\": \"F32\", \"shape\": [16, 1],
    \"data_offsets\": [$a, $((a + 64))]}}" $((a + 64))
}

case_merge_of_what_does_not_fit() {
  trained steps=0
  adapter good 16
  adapter other 8
  expect 1 'other' 'q_proj\.lora_A\.weight: found \[1,8\], expected \[1,16\]' -- "$smoe" merge --model run --adapter good --adapter other --out out
  expect 2 "weight 'half', expected a number" -- "$smoe" merge --model run --adapter good:half --out out
  expect 1 'gone: no adapter found: expected a PEFT directory' -- "$smoe" merge --model run --adapter gone:0.5 --out out
  expect 2 '--adapter' -- "$smoe" merge --model run --out out
  expect 1 'good is what is read' -- "$smoe" merge --model run --adapter good --out good
  absent out .out.unfinished
  expect 0 '1 of 22 tensors changed' -- "$smoe" merge --model run --adapter good --adapter good:-0.5 --out out
  cmp out/model.safetensors "$(weights)" || fail "B is zero, and yet the weights changed"
  expect 1 'out holds .*expected a directory that is new or empty' -- "$smoe" merge --model run --adapter good --out out
}

run_case "$@"
