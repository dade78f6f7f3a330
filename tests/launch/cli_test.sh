#!/usr/bin/env bash
# The command line itself: help, version, the configuration as it is read, and what a dry run tells.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

configs=$root/configs

case_help_lists_every_command() {
  expect 0 prepare train verify sweep eval generate logits analyze bench units upcycle merge resize report 'plan.*not available yet' -- "$smoe" --help
  expect 0 CONFIG key=value --print-config --dry-run -- "$smoe" train --help
}
case_version() { expect 0 '^smoe [0-9]+\.[0-9]+\.[0-9]+$' -- "$smoe" --version; }
case_commands_to_come() {
  local command
  for command in plan; do
    expect 2 "smoe: error: the command '$command' is not available yet" -- "$smoe" "$command" anything --option value
  done
}
case_units_of_a_coefficient() {
  expect 0 '^smoe +0\.00125 ' '^megatron +0\.00125 ' '^megablocks +0\.04 ' '^deepspeed +0\.00125 ' '^hf +0\.02 ' -- \
    "$smoe" units 0.02 --from hf --layers 32 --top-k 2
  "$smoe" units 0.01 --from megablocks --layers 16 --top-k 8 --json >units.json
  python3 -c 'import json; found = json.load(open("units.json"))
assert found == {"smoe": 6.25e-4, "megatron": 6.25e-4, "megablocks": 0.01, "deepspeed": 6.25e-4, "hf": 1.25e-3}, found'
  expect 2 'hg' 'smoe,megatron,megablocks,deepspeed,hf' -- "$smoe" units 0.01 --from hg --layers 4 --top-k 2
  expect 2 'COEF: found -1, expected a number of 0 or more' -- "$smoe" units --from hf --layers 4 --top-k 2 -- -1
  expect 2 'COEF: found nan' -- "$smoe" units nan --from hf --layers 4 --top-k 2
  expect 2 '--layers' -- "$smoe" units 0.01 --from hf --layers 0 --top-k 2
  expect 2 '--from is required' -- "$smoe" units 0.01
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

# Every path of every command, quoted so that the shell leaves the ~ alone.
case_tilde_is_the_home_directory() {
  export HOME=$case/home
  mkdir -p home/in
  printf 'words and more words\n' >home/in/words.txt
  cp "$configs/quickstart.yaml" home/q.yaml
  # shellcheck disable=SC2088
  {
    expect 0 "$case/home/shards: [0-9]+ tokens" -- "$smoe" prepare '~/in' --out='~/shards' --tokenizer bytes
    [ -f home/shards/manifest.json ] || fail "no shards in the home directory"
    expect 0 "output_dir: $case/home/runs" "path: $case/home/shards" -- "$smoe" train '~/q.yaml' --print-config 'train.output_dir=~/runs' 'data.train=[{path: ~/shards}]'
    expect 0 'one rank was held against itself' -- "$smoe" verify '~/q.yaml'
    expect 1 "$case/home/model" -- "$smoe" generate --model '~/model' --prompt x
    expect 1 "$case/home/model" -- "$smoe" logits --model '~/model' --tokens '~/ids.npy' --out '~/logits.safetensors'
    expect 1 "$case/home/model" -- "$smoe" eval --model '~/model' --data '~/shards'
    expect 1 "$case/home/run" -- "$smoe" report '~/run' --out '~/report.html'
    expect 2 "$case/home/none\.yaml: cannot be read" -- "$smoe" bench '~/none.yaml'
  }
  absent '~'
}

# A run in bf16 from the command line, and the commands that read what it wrote, in either precision.
case_precision_of_each_command() {
  prepared
  python3 -c 'import struct; h = "{\"descr\": \"<i4\", \"fortran_order\": False, \"shape\": (16,), }".replace(chr(34), chr(39)); h += " " * (-(len(h) + 11) % 64) + "\n"
open("ids.npy", "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(h)) + h.encode() + struct.pack("<16i", *range(65, 81)))'
  expect 0 'bf16 on a CPU' 'saved run/checkpoints/step-000002' -- "$smoe" train config.yaml train.precision=bf16
  grep -q '"torch_dtype": "bfloat16"' run/checkpoints/step-000002/model/config.json || fail "config.json does not say bfloat16"
  expect 0 'the checkpoint was trained in bf16, this run computes in f32' 'train +3/3' -- "$smoe" train config.yaml train.precision=fp32 train.steps=3
  local precision
  for precision in fp32 bf16; do
    expect 0 '"loss"' -- "$smoe" eval --model run --data shards --seq 32 --precision "$precision" --json
    expect 0 -- "$smoe" generate --model run --tokenizer bytes --prompt doc --max-tokens 4 --greedy --precision "$precision"
    expect 0 -- "$smoe" logits --model run --tokens ids.npy --out "$precision.safetensors" --precision "$precision"
  done
  python3 - <<'END' || fail "bf16's logits are not fp32's but for rounding"
import json, struct
def logits(name):
    data = open(name + ".safetensors", "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    begin, end = json.loads(data[8:8 + size])["logits"]["data_offsets"]
    return struct.unpack(f"<{(end - begin) // 4}f", data[8 + size + begin:8 + size + end])
a, b = logits("fp32"), logits("bf16")
largest, apart = max(map(abs, a)), max(abs(x - y) for x, y in zip(a, b))
assert 0 < apart < 0.03 * largest, (apart, largest)
END
  expect 2 'precision' -- "$smoe" logits --model run --tokens ids.npy --out x.safetensors --precision half
}

dry_run() { expect 0 "${@:2}" -- "$smoe" train "$configs/$1" --dry-run; absent runs; }
case_dry_run_counts_8x7b() { dry_run mixtral-8x7b.yaml '46,702,792,704 total, 12,879,925,248 active' '1,048,576 tokens'; }
case_dry_run_counts_8x22b() { dry_run mixtral-8x22b.yaml '140,620,634,112 total, 39,152,031,744 active'; }
case_dry_run_of_the_quickstart() {
  dry_run quickstart.yaml '12,200,192 total' '1,024 tokens: 4 sequences of 256' 'GiB a rank for weights, gradients and moments' \
    'measured +0\.0[0-9] GiB a rank for the activations of a micro-batch'
}
# Over ranks. Two may be more than the machine's slots.
ranks() { mpirun --oversubscribe --bind-to none -n "$@"; }
case_verify_on_one_rank_says_what_it_needs() { expect 0 'held against itself' 'mpirun -n 4 smoe verify' -- "$smoe" verify "$configs/quickstart.yaml"; }
case_verify_finds_every_layout_of_four_ranks_equal() {
  expect 0 'dp 4 tp 1 ep 4 .* ok ' 'dp 2 tp 2 ep 4 .* ok ' 'dp 1 tp 4 ep 1 +does not fit the model: model.num_key_value_heads is 2' \
    '6 layout\(s\) of 4 ranks compute what one rank does' -- ranks 4 "$smoe" verify "$configs/quickstart.yaml"
}
case_verify_does_not_take_rounding_of_adapters_for_a_fault() {
  expect 0 '4 layout\(s\) of 2 ranks' -- ranks 2 "$smoe" verify "$configs/quickstart.yaml" optimizer.learning_rate=1e-3 'lora.target_modules=[w2]' lora.r=1
  expect 0 '4 layout\(s\) of 2 ranks' -- ranks 2 "$smoe" verify "$configs/quickstart.yaml" optimizer.learning_rate=1e-3 \
    'lora.target_modules=[w1]' lora.rslora=true lora.dropout=0.3 train.seed=4
}
case_verify_takes_overrides() {
  expect 0 'sequence scope' 'dp 1 tp 2 ep 2 split .* ok ' '4 layout\(s\) of 2 ranks' -- ranks 2 "$smoe" verify "$configs/quickstart.yaml" router.aux_loss_scope=sequence router.z_loss_coef=0.1
}
case_dry_run_over_ranks_speaks_once() {
  expect 0 'dp 4 x tp 1, experts edp 2 x ep 2' 'GiB a rank' 'measured' -- ranks 4 "$smoe" train "$configs/quickstart.yaml" --dry-run parallel.ep=2 train.micro_batch_size=1
  [ "$(ranks 2 "$smoe" train "$configs/quickstart.yaml" --print-config parallel.ep=2 | grep -c '^model:')" = 1 ] || fail "every rank printed the configuration"
}
case_layouts_that_do_not_fit_are_refused_with_those_that_do() {
  expect 2 'parallel.tp=4 parallel.ep=1 do not fit' 'num_key_value_heads is 2, which parallel.tp = 4 does not divide' \
    'layouts of 4 rank\(s\) that fit:' 'parallel.tp=2 parallel.ep=4  \(dp 2 tp 2 ep 4\)' -- \
    ranks 4 "$smoe" train "$configs/quickstart.yaml" parallel.tp=4 train.micro_batch_size=1
  expect 2 'the number of ranks is 1, which parallel.ep = 2 does not divide' 'parallel.tp=1 parallel.ep=1' -- \
    "$smoe" train "$configs/quickstart.yaml" parallel.ep=2
  expect 2 'global_batch_size is 4, expected a multiple of 8: train.micro_batch_size \(4\) times dp' -- ranks 2 "$smoe" train "$configs/quickstart.yaml"
  absent runs
}
# The quickstart's model, small: its data need not be there.
bench() {
  "$smoe" bench "$configs/quickstart.yaml" model.hidden_size=64 model.intermediate_size=64 model.num_hidden_layers=1 model.vocab_size=512 \
    data.sequence_length=64 train.micro_batch_size=2 --threads 1 --steps 1 "$@"
}
case_bench_says_what_bounds_the_step() {
  expect 0 '^device .* 1 thread' '^rates .*cores .* GF/s' '256 tokens: 2 micro-batch\(es\) of 2 x 64 and one update' '^speed .* of the cores \(mfu\)' \
    '^adamw ' '^grouped_gemm +tn E8 R256' 'in no op' 'of the step|bounds the step' '^Generation' -- bench
  absent runs
}
# Kernels that every CPU of today runs and none is given unasked.
case_bench_runs_the_blas_kernels_that_the_user_asked_for() {
  export OPENBLAS_CORETYPE=Sandybridge
  expect 0 'products by OpenBLAS Sandybridge' -- bench
}
case_bench_as_json() {
  bench --json 2>/dev/null >bench.json
  python3 - "$root" <<'END' || fail "bench --json is not what docs/formats.md says"
import json, sys
lines = open("bench.json").read().splitlines()
(row,) = [json.loads(line) for line in lines]
assert row["tokens"] == 256 and row["micro_batches"] == 2 and row["threads"] == 1, row
assert abs(sum(op["seconds"] for op in row["ops"]) + row["outside_seconds"] - row["step_seconds"]) < 1e-9, row
assert 0 < row["mfu"] < 1 and row["generation"]["tokens_per_sec"] > 0 and row["sentence"], row
documented = open(sys.argv[1] + "/docs/formats.md").read().split("## smoe bench --json")[1].split("\n## ")[0]
assert all("`%s`" % key in documented for key in [*row, *row["ops"][0], *row["generation"]])
END
}
# trace_a_step FILE [ARGUMENTS]...
trace_a_step() {
  "${prefix[@]}" "$smoe" bench "$configs/quickstart.yaml" model.hidden_size=64 model.intermediate_size=64 model.num_hidden_layers=1 \
    model.vocab_size=512 data.sequence_length=64 train.micro_batch_size=2 train.threads=1 --trace "$@"
}
case_bench_traces_a_step() {
  prefix=(env)
  expect 0 '^step.json: one step of 1 rank\(s\), dp 1 tp 1 ep 1; https://ui.perfetto.dev' \
    '^rank 0: [0-9.]+ ms, of which [0-9]+% in ops, 0% waiting in collectives' -- trace_a_step step.json
  python3 - <<'END' || fail "a trace that is not as the guide says"
import json
events = json.load(open("step.json"))["traceEvents"]
assert {event["pid"] for event in events} == {0}
assert {"adamw", "grouped_gemm", "layer 0"} <= {event["name"] for event in events}
END
  absent runs
}
case_bench_traces_a_step_over_ranks() {
  prefix=(ranks 2)
  expect 0 'both.json: one step of 2 rank\(s\), dp 2 tp 1 ep 2' 'rank 0: .* waiting in collectives' 'rank 1: ' -- \
    trace_a_step both.json parallel.ep=2
  python3 - <<'END' || fail "a trace without its ranks or collectives"
import json
events = json.load(open("both.json"))["traceEvents"]
for rank in 0, 1:
    of_rank = [event for event in events if event["pid"] == rank]
    collectives = [event for event in of_rank if event.get("cat") == "collective"]
    assert {"gradients.reduce_scatter", "weights.all_gather"} <= {event["name"] for event in collectives}, collectives
    assert any(event["args"]["axis"] == "ep" for event in collectives), collectives
    begun, ended = ([event["id"] for event in of_rank if event["ph"] == phase] for phase in "be")
    assert begun and sorted(begun) == sorted(ended)
END
  [ "$(ls -A)" = both.json ] || fail "something beside the trace is left: $(ls -A)"
}
case_bench_help_says_that_it_needs_no_data() { expect 0 'tokens and weights are random' --json --steps --threads --trace -- "$smoe" bench --help; }

case_other_commands_keep_to_one_process() {
  expect 2 "'eval' runs in one process, found 2" -- ranks 2 "$smoe" eval --model x --data y
  expect 2 "'bench' runs in one process, found 2: start it without mpirun" -- ranks 2 "$smoe" bench "$configs/quickstart.yaml"
}

case_warm_up_longer_than_the_run() {
  expect 0 'smoe: warning: schedule.warmup_steps is 100 of 20 steps' -- \
    "$smoe" train "$configs/quickstart.yaml" train.steps=20 --print-config
}

run_case "$@"
