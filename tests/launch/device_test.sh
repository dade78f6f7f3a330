#!/usr/bin/env bash
# What the commands say of a GPU that is not here, and that one binary runs on machines with and without.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

without_gpu() { if [ -e /proc/driver/nvidia ] || command -v nvidia-smi >/dev/null; then exit 77; fi; }

# refused_device COMMAND...: one line says what is missing, and the status is 1.
refused_device() {
  local said status=0
  "$@" >said 2>&1 </dev/null || status=$?
  printf '$ %s\n%s\n(status %d)\n' "$*" "$(cat said)" "$status"
  [ "$status" = 1 ] || fail "status $status where 1 was expected"
  said=$(grep -v '^smoe: warning: ' said || true)
  [ "$(wc -l <<<"$said")" = 1 ] || fail "not one line"
  grep -qE '^smoe: error: device: (found no NVIDIA driver|cuda is not in this build).*; expected ' <<<"$said" || fail "not what is missing"
}

case_cuda_where_no_driver_is() {
  without_gpu
  prepared
  refused_device "$smoe" train config.yaml train.device=cuda
  refused_device "$smoe" bench config.yaml train.device=cuda --steps 1
  refused_device "$smoe" verify config.yaml train.device=cuda
  refused_device "$smoe" train config.yaml train.device=check
  absent run/checkpoints
  expect 0 'saved run/checkpoints/step-000002' -- "$smoe" train config.yaml train.device=auto
  grep -q '"torch_dtype": "float32"' run/checkpoints/step-000002/model/config.json || fail "without a GPU, auto is not fp32"

  python3 -c 'header = b"{\x27descr\x27: \x27<i4\x27, \x27fortran_order\x27: False, \x27shape\x27: (4,), }".ljust(117) + b"\n"
open("ids.npy", "wb").write(b"\x93NUMPY\x01\x00" + bytes([118, 0]) + header + bytes(16))'
  refused_device "$smoe" eval --model run --data shards --device cuda
  refused_device "$smoe" generate --model run --tokenizer bytes --prompt x --device cuda
  refused_device "$smoe" logits --model run --tokens ids.npy --out logits.safetensors --device cuda
  refused_device "$smoe" eval --model run --data shards --device check
  refused_device "$smoe" generate --model run --tokenizer bytes --prompt x --device check
  refused_device "$smoe" logits --model run --tokens ids.npy --out logits.safetensors --device check
  expect 2 'train.device: found check, expected ' -- "$smoe" bench config.yaml train.device=check --steps 1
  absent logits.safetensors
  local device
  for device in auto cpu; do
    expect 0 '"loss"' -- "$smoe" eval --model run --data shards --seq 32 --device "$device" --json
    expect 0 -- "$smoe" generate --model run --tokenizer bytes --prompt x --max-tokens 2 --greedy --device "$device"
    expect 0 -- "$smoe" logits --model run --tokens ids.npy --out logits.safetensors --device "$device"
  done
  expect 2 '--device' 'gpu' -- "$smoe" eval --model run --data shards --device gpu
}

case_all_ranks_say_it_once() {
  without_gpu
  prepared
  expect 1 'device: ' -- mpirun --oversubscribe --bind-to none -n 2 "$smoe" train config.yaml train.device=cuda parallel.ep=2
  mpirun --oversubscribe --bind-to none -n 2 "$smoe" train config.yaml train.device=cuda parallel.ep=2 >said 2>&1 || true
  [ "$(grep -c 'smoe: error: .*device: ' said)" = 1 ] || fail "told $(grep -c 'device: ' said) times"
}

# NVIDIA's libraries are opened when a GPU is used, and not before.
case_binary_is_linked_with_nothing_of_cuda() {
  ldd "$smoe" >needed
  if grep -iE 'cuda|cublas|cudnn|nccl|nvidia' needed; then fail "it is linked with libraries of CUDA"; fi
}

run_case "$@"
