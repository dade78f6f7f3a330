#!/usr/bin/env bash
# Times the training step of smoe and of transformers in turns, and prints medians and ratios.
#   compare_steps.sh [ROUNDS]              5 rounds by default: about a minute each on two cores
#   compare_steps.sh --compile [ROUNDS]    torch.compile as well; it takes about a minute before its first step
# Shapes: 4 sequences of 512 tokens, 1 of 256; the 123.5M-parameter Mixtral on both sides.
#   SMOE_BUILD            build folder that has step_bench (build/release)
#   SMOE_ORACLE_PYTHON    a Python with torch and transformers; otherwise the first python3 on PATH that has them.
#                         Without one only smoe is timed.
#   SMOE_BENCH_THREADS    threads of both sides (all that this process may use)
#   SMOE_BENCH_STEPS      timed steps a run (5)
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '%s\n' "$*"; }
die() {
  printf 'compare_steps.sh: %s\n' "$*" >&2
  exit 1
}

compile=
rounds=5
for argument in "$@"; do
  case $argument in
    --compile) compile=1 ;;
    [1-9] | [1-9][0-9]) rounds=$argument ;;
    *) die "unknown argument $argument; use compare_steps.sh [--compile] [ROUNDS]" ;;
  esac
done
step_bench=${SMOE_BUILD:-$here/../../build/release}/tests/bench/step_bench
[ -x "$step_bench" ] || die "no $step_bench; build it (cmake --preset release && cmake --build --preset release), or set SMOE_BUILD"
threads=${SMOE_BENCH_THREADS:-$(nproc)}
steps=${SMOE_BENCH_STEPS:-5}

has_peer() { "$1" -c 'import torch, transformers' 2>/dev/null; }
python=
if [ -n "${SMOE_ORACLE_PYTHON:-}" ]; then
  has_peer "$SMOE_ORACLE_PYTHON" || die "SMOE_ORACLE_PYTHON=$SMOE_ORACLE_PYTHON does not import torch and transformers"
  python=$SMOE_ORACLE_PYTHON
else
  while read -r candidate; do
    if has_peer "$candidate"; then
      python=$candidate
      break
    fi
  done < <(type -aP python3 || true)
fi
[ -n "$python" ] || say "No python3 with torch and transformers (set SMOE_ORACLE_PYTHON; packages in tests/goldens/requirements.txt): only smoe is timed."

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# run NAME COMMAND...: appends the JSON line to NAME's results.
run() {
  local name=$1
  shift
  "$@" >>"$results/$name" || die "failed: $*"
}
peer() {
  [ -z "$python" ] || run "$1" "$python" "$here/transformers_step.py" --threads "$threads" --steps "$steps" "${@:2}"
}
smoe() { run "$1" "$step_bench" --threads "$threads" --steps "$steps" "${@:2}"; }

for ((round = 1; round <= rounds; ++round)); do
  say "round $round of $rounds" >&2
  for shape in 4x512 1x256; do
    size=(--batch "${shape%x*}" --seq "${shape#*x}")
    smoe "$shape.smoe" "${size[@]}"
    peer "$shape.transformers" "${size[@]}"
    peer "$shape.transformers-fused" "${size[@]}" --fused-adamw
    [ -z "$compile" ] || peer "$shape.transformers-compile" "${size[@]}" --fused-adamw --compile
  done
done

values() { sed -n 's/.*"'"$2"'": \([0-9.]*\).*/\1/p' "$results/$1"; }  # values NAME FIELD: one a round
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
median_of() { values "$1" "$2" | median; }

# The cores' own rate is what smoe measured in the same round: Python cannot keep numbers in registers.
share_of_cores() { paste <(values "$2" gflops) <(values "$1" core_gflops) | awk '{ print 100 * $1 / $2 }' | median; }

# The ratio is taken inside each round, since the machine's speed changes between rounds; then its median.
ratio() { paste <(values "$1" tokens_per_sec) <(values "$2" tokens_per_sec) | awk '{ print $1 / $2 }' | median; }

[ -z "$python" ] || say "$(sed -n '1s/.*\("torch".*\)}/\1/p' "$results/4x512.transformers")"
say "medians of $rounds rounds, $steps steps each, $threads threads"
printf '%-8s%-24s%10s%8s%8s%9s%8s%9s%10s%9s%10s\n' shape step tokens/s GF/s cores of_cores sgemm of_sgemm RSS_MiB first_s smoe_is
for shape in 4x512 1x256; do
  for name in smoe transformers transformers-fused transformers-compile; do
    key=$shape.$name
    [ -s "$results/$key" ] || continue
    faster=
    [ "$name" = smoe ] || faster=$(printf '%.2fx' "$(ratio "$shape.smoe" "$key")")
    printf '%-8s%-24s%10.1f%8.1f%8.1f%8.0f%%%8.1f%8.0f%%%10.0f%9.1f%10s\n' "$shape" "$name" "$(median_of "$key" tokens_per_sec)" \
      "$(median_of "$key" gflops)" "$(median_of "$shape.smoe" core_gflops)" "$(share_of_cores "$shape.smoe" "$key")" "$(median_of "$key" sgemm_gflops)" \
      "$(values "$key" share_of_sgemm | awk '{ print 100 * $1 }' | median)" "$(median_of "$key" peak_rss_mib)" \
      "$(median_of "$key" first_step_s)" "$faster"
  done
done
