#!/usr/bin/env bash
# bench_smoke.sh OP_BENCH BACKEND_H [OPTION...]: op_bench --quick succeeds, and prints a line for every op of the op table. No
# time is looked at. OPTIONs: where, in which type, of which model.
set -euo pipefail
op_bench=$1 backend_h=$2
options=("${@:3}")
bench() { "$op_bench" ${options[@]+"${options[@]}"} "$@"; }

# Every checked function; those that only manage memory and order, or measure, are virtual or return a value.
ops=$(sed -n 's|^  void \([a-z_]*\)(.*|\1|p' "$backend_h")
[ "$(wc -l <<<"$ops")" -ge 30 ] || { echo "only these ops were found in $backend_h:" "$ops"; exit 1; }

output=$(bench --quick --json)
status=0
timed=$(sed -n 's/^{"op": "\([a-z_]*\)", .*"us": [0-9.]*, .*"share": [0-9.]*}$/\1/p' <<<"$output")
[ "$(wc -l <<<"$timed")" = "$(wc -l <<<"$output")" ] || { echo "lines that are not results:"; grep -v '"share": [0-9.]*}$' <<<"$output"; status=1; }
missing=$(comm -23 <(sort -u <<<"$ops") <(sort -u <<<"$timed"))
[ -z "$missing" ] || { echo "not timed:" "$missing"; status=1; }
unknown=$(comm -13 <(sort -u <<<"$ops") <(sort -u <<<"$timed"))
[ -z "$unknown" ] || { echo "timed, but not in $backend_h:" "$unknown"; status=1; }
lines=$(bench --quick | tail -n +2 | wc -l)
[ "$lines" = "$(wc -l <<<"$timed")" ] || { echo "the table has $lines lines, --json $(wc -l <<<"$timed")"; status=1; }
repeated=$(bench --quick --json --repetitions 3 --seconds 0.0001 --filter '^balance_statistics' | wc -l)
[ "$repeated" = 1 ] || { echo "an op that was repeated has $repeated lines"; status=1; }
! bench --quick --filter no_such_op 2>/dev/null || { echo "a filter that matches nothing succeeds"; status=1; }
! bench --quick --model no_such_model 2>/dev/null || { echo "a model that there is not succeeds"; status=1; }
late=$(bench --quick --json --limit 0.000001)
[ "$late" = "{\"left_out\": $(wc -l <<<"$timed")}" ] || { echo "where the time was over before the first op:" "$late"; status=1; }
# What does not fit is said, and what comes after it is timed; here the memory that the process may have is little.
short_of_memory() { (ulimit -v 3000000 && bench --quick --json --model 8x7b --filter "^($1)"); }
if [ ${#options[@]} = 0 ] && few=$(short_of_memory balance_statistics 2>/dev/null); then
  few=$(short_of_memory 'balance_statistics|grouped_gemm/tn w13:')
  grep -q '"op": "grouped_gemm", .*"skipped": "[^"]*"}$' <<<"$few" && grep -q '"op": "balance_statistics", .*"share"' <<<"$few" ||
    { echo "an op that does not fit is not skipped:" "$few"; status=1; }
fi
exit $status
