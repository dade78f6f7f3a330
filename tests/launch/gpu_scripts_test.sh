#!/usr/bin/env bash
# launch/test-gpu and launch/bench-gpu, over the emulation of a GPU: what they find, on a GPU that is right and on one that is not, and
# what they say where there is none.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"

build=$(dirname "${2:-.}")
test_gpu=("$root/launch/test-gpu" --build "$build")
bench_gpu=("$root/launch/bench-gpu" --build "$build")
emulated() { [ -x "$build/tests/cuda_on_host/smoe_on_host" ] || { echo "skipped: the emulation is not built" && exit 77; }; }

# json FILE EXPRESSION: whether it holds of what the file has, as `found`.
json() { python3 -c 'import json, sys; found = json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$1" "$2" || fail "$2 does not hold of $(cat "$1")"; }

case_right_gpu_passes() {
  emulated
  expect 0 'curve +passed' 'collectives +passed' 'memcheck +skipped .*no compute-sanitizer' 'bit for bit' -- "${test_gpu[@]}" --emulated --out found
  json found/test-gpu.json 'found["emulated"] and found["failures"] == 0 and len(found["checks"]) >= 14'
  json found/test-gpu.json '[c["name"] for c in found["checks"][:4]] == ["card", "ops", "edges", "goldens"]'
  json found/test-gpu.json 'all(c["result"] in ("passed", "skipped") for c in found["checks"])'
  json found/test-gpu.json '"emulated" in found["checks"][0]["figures"]["card"]'
  grep -q '^==> curve' found/test-gpu.log || fail "no log of a check"
}

case_wrong_gpu_is_seen() {
  emulated
  export CUDA_ON_HOST_IDLE_THREAD=5
  expect 1 'ops +failed .*rope_odd_heads' 'both +failed .*differs at' -- "${test_gpu[@]}" --emulated --only '^(ops|both)$' --out found
  json found/test-gpu.json 'found["failures"] == 2 and all("status 1" in c["why"] for c in found["checks"])'
  grep -q 'deviation .* allowed' found/test-gpu.log || fail "the log does not have what failed"
}

case_time_that_is_up() {
  emulated
  expect 124 'goldens +not run .*the time was up after' 'curve +not run .*the time was up$' -- "${test_gpu[@]}" --emulated --limit 4 --only '^(goldens|curve)$' --out found
  json found/test-gpu.json '[c["result"] for c in found["checks"]] == ["not run", "not run"]'
}

# Ctrl-C does the same; a test cannot send it to what it runs in the background.
case_told_to_end() {
  emulated
  local status=0 process
  mkdir tmp
  TMPDIR=$case/tmp "${test_gpu[@]}" --emulated --only '^(ranks|goldens|curve)$' --out found >said 2>&1 &
  sleep 3
  kill -TERM $!
  wait $! || status=$?
  [ "$status" = 143 ] || fail "status $status where 143 was expected: $(cat said)"
  [ -z "$(ls -A tmp)" ] || fail "left behind: $(ls -A tmp)"
  for process in /proc/[0-9]*/cwd; do
    [[ $(readlink "$process" || true) != "$case/tmp"* ]] || fail "still running: $process"
  done
}

case_results_that_cannot_be_kept() {
  emulated
  : >taken
  expect 1 '--out: cannot write to taken/found' -- "${test_gpu[@]}" --emulated --only '^edges$' --out taken/found
}

case_bench_tries_every_measurement() {
  emulated
  expect 0 'block +passed' 'A layer, forward and backward' 'A step, optimizer included' 'grouped_gemm' 'attention_backward' -- \
    "${bench_gpu[@]}" --emulated --out found
  json found/bench-gpu.json 'found["failures"] == 0 and all(c["result"] in ("passed", "skipped") for c in found["checks"])'
  python3 -c 'import json; [json.loads(line) for line in open("found/bench-gpu.jsonl")]' || fail "a line is no JSON"
  [ -s found/step.trace.json ] || fail "no timeline"
}

# Numbers are written as 1234.50 and as 91234.567891, and some lines lack some.
case_bench_table_of_numbers() {
  cat >lines.jsonl <<'END'
{"what": "block", "who": "smoe", "model": "8x7b", "routing": "even", "forward_us": 1234.50, "backward_us": 2469.123456, "tflops": 510.25, "share": 0.640, "product_tflops": 790.10, "copy_gbs": 2900.1}
{"what": "block", "who": "transformers", "how": "grouped_mm", "model": "8x7b", "routing": "even", "forward_us": 2234.567891, "backward_us": 5172.7, "tflops": 310.2}
{"what": "block", "who": "transformers", "how": "compiled", "model": "8x7b", "routing": "even", "error": "OutOfMemoryError: too much"}
{"what": "step", "who": "smoe", "config": "mixtral-8x7b", "layers": 1, "sequence_length": 4096, "tokens_per_sec": 66890.123456, "model_gflops": 412345.678901, "share_of_product": 0.5219, "ops": [{"op": "gemm"}], "queued_step_seconds": 0.0610123456, "peak_device_memory_bytes": 34567890123}
{"what": "step", "who": "transformers", "model": "8x7b", "layers": 1, "seq": 4096, "step_us": 122024.70, "tokens_per_sec": 33566.9}
{"op": "gemm", "shape": "R8 C4", "model": "8x7b", "us": 123.40, "gflops": 700000.00, "ceiling_of": "product", "share": 0.886}
{"who": "torch", "op": "gemm", "shape": "R8 C4", "how": "mm", "us": 246.800000001}
{"left_out": 0}
END
  expect 0 'smoe +1.23 ms +2.47 ms +510 +64% +- *$' 'grouped_mm +2.23 ms +5.17 ms +310 +-% +- +2.00x' 'compiled: OutOfMemoryError' \
    'smoe +61.0 +66890 +412 +52% +32967' 'transformers +122.0 +33567 +- +-% +- +2.00x' 'R8 C4 +123.4 +700 TF/s +89% of product +246.8 +2.00x +mm' -- \
    awk -f "$root/launch/bench_gpu.awk" lines.jsonl
}

case_no_gpu_is_said_and_skipped() {
  if [ -e /proc/driver/nvidia ] || command -v nvidia-smi >/dev/null; then exit 77; fi
  [ -x "$build/tests/gpu/gpu_tests" ] && [ -x "$build/tests/bench/block_bench" ] && [ -x "$build/tests/ranks/equivalence_ranks" ] || { echo "skipped: they are not built" && exit 77; }
  expect 77 'no GPU to test: (found no NVIDIA driver|cuda is not in this build)' -- "${test_gpu[@]}"
  expect 77 'no GPU to test: ' -- "${bench_gpu[@]}"
  absent test-gpu-* bench-gpu-*
}

case_options() {
  local script
  for script in test-gpu bench-gpu; do
    expect 1 'unknown option --frobnicate' "launch/$script \[--limit" -- "$root/launch/$script" --frobnicate
    expect 1 "--limit: found 'soon', expected a number of seconds" -- "$root/launch/$script" --limit soon
    expect 1 '--only wants a value' -- "$root/launch/$script" --only
    expect 1 "--only: found 'nothing', .* no check; --list" -- "$root/launch/$script" --only nothing
    expect 1 "--only: found '\(', " -- "$root/launch/$script" --only '('
    expect 1 "$case/nowhere|there is no smoe" -- "$root/launch/$script" --build "$case/nowhere"
    expect 0 '--limit SECONDS' 'Status: 0' -- "$root/launch/$script" --help
    expect 0 '^card ' -- "$root/launch/$script" --list
  done
  expect 1 'has no shards/' -- "$root/launch/test-gpu" --data .
}

run_case "$@"
