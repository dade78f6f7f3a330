#!/usr/bin/env bash
# Times the training step of one process with several threads and of as many ranks with one thread each, in turns: the
# same batch, the same cores. Prints medians and each layout's share of the one process's tokens per second.
#   compare_ranks.sh [ROUNDS]     5 rounds by default: about a minute and a half each on two cores
#   SMOE_BUILD            build folder that has step_bench (build/release)
#   SMOE_BENCH_RANKS      ranks, and threads of the one process (2)
#   SMOE_BENCH_LAYOUTS    the layouts of the ranks, as tp:ep ("1:RANKS 1:1 RANKS:RANKS")
#   SMOE_BENCH_STEPS      timed steps a run (5)
set -euo pipefail
export LC_ALL=C OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
die() {
  printf 'compare_ranks.sh: %s\n' "$*" >&2
  exit 1
}

rounds=${1:-5}
[[ $rounds =~ ^[1-9][0-9]?$ ]] || die "$rounds is no number of rounds; use compare_ranks.sh [ROUNDS]"
step_bench=${SMOE_BUILD:-$here/../../build/release}/tests/bench/step_bench
[ -x "$step_bench" ] || die "no $step_bench; build it (cmake --preset release && cmake --build --preset release), or set SMOE_BUILD"
ranks=${SMOE_BENCH_RANKS:-2}
steps=${SMOE_BENCH_STEPS:-5}
layouts=${SMOE_BENCH_LAYOUTS:-1:$ranks 1:1 $ranks:$ranks}

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
run() {
  local name=$1
  shift
  "$@" --steps "$steps" >>"$results/$name" || die "failed: $*"
}
for ((round = 1; round <= rounds; ++round)); do
  printf 'round %d of %d\n' "$round" "$rounds" >&2
  run one "$step_bench" --threads "$ranks"
  for layout in $layouts; do
    run "$layout" mpirun --oversubscribe --bind-to none -n "$ranks" "$step_bench" --threads 1 --tp "${layout%:*}" --ep "${layout#*:}"
  done
done

values() { sed -n 's/.*"'"$2"'": \([0-9.]*\).*/\1/p' "$results/$1"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
median_of() { values "$1" "$2" | median; }
percent() { values "$1" "$2" | awk '{ print 100 * $1 }' | median; }
# Inside each round, since the machine's speed changes between rounds.
ratio() { paste <(values "$1" "$2") <(values one "$2") | awk '{ print $1 / $2 }' | median; }

printf 'medians of %d rounds, %d steps each, 4 x 512 tokens, 123.5M parameters\n' "$rounds" "$steps"
printf '%-28s%10s%10s%8s%9s%8s%9s%10s%10s%10s\n' "" tokens/s of_one cores of_cores sgemm of_sgemm of_share RSS_MiB sent_MB
for name in one $layouts; do
  case $name in
    one) title="1 process, $ranks threads" ;;
    *) title="$ranks ranks, tp ${name%:*} ep ${name#*:}" ;;
  esac
  printf '%-28s%10.1f%10.2f%8.1f%8.0f%%%8.1f%8.0f%%%10.2f%10.0f%10.1f\n' "$title" "$(median_of "$name" tokens_per_sec)" "$(ratio "$name" tokens_per_sec)" \
    "$(median_of "$name" core_gflops)" "$(percent "$name" share_of_cores)" "$(median_of "$name" sgemm_gflops)" "$(percent "$name" share_of_sgemm)" "$(ratio "$name" share_of_cores)" \
    "$(median_of "$name" peak_rss_mib)" "$(values "$name" bytes_sent | awk '{ print $1 / 1e6 }' | median)"
done
