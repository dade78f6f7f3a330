#!/usr/bin/env bash
# block_smoke.sh BLOCK_BENCH OPTION...: block_bench --quick prints its line for every routing, and the experts have the rows that
# were asked for. No time is looked at. OPTIONs: where, in which type, of which model.
set -euo pipefail
block_bench=$1
options=("${@:2}")
status=0
fail() { echo "$@"; status=1; }

keys='what who model dtype device threads tokens seq documents recompute routing rows forward_us backward_us tflops tflops_full_attention product_tflops share copy_gbs peak_device_memory_mib'
rows_of() {  # rows_of ROUTING [OPTION...]: the rows of each expert, in one line
  local line
  line=$("$block_bench" "${options[@]}" --quick --json --rounds 2 --routing "$@")
  [ "$(grep -o '"[a-z_]*":' <<<"$line" | tr -d '":' | tr '\n' ' ')" = "$keys " ] || { echo "found $line"; return; }
  ! grep -Eq 'nan|inf|"(forward_us|backward_us|tflops|product_tflops|copy_gbs)": 0[,.]0*[,}]' <<<"$line" || { echo "found $line"; return; }
  sed 's/.*"rows": \[\([0-9, ]*\)\].*/\1/; s/,//g' <<<"$line"
}
sum_of() { local sum=0 row; for row in $1; do ((sum += row)); done; echo "$sum"; }
differ() { tr ' ' '\n' <<<"$1" | sort -u | wc -l; }

even=$(rows_of even) skewed=$(rows_of skewed) drawn=$(rows_of drawn)
[ "$(differ "$even")" = 1 ] || fail "even routing: $even"
largest=${skewed%% *} smallest=${skewed##* }
((largest > 3 * ${even%% *} / 2 && 10 * smallest < ${even%% *})) || fail "skewed routing: $skewed"
[ "$(sum_of "$skewed")" = "$(sum_of "$even")" ] && [ "$(sum_of "$drawn")" = "$(sum_of "$even")" ] ||
  fail "not every assignment has a row: even $even, skewed $skewed, drawn $drawn"
[ "$(rows_of skewed --documents 20 --recompute layer)" = "$skewed" ] || fail "documents and recompute change the routing"
! "$block_bench" "${options[@]}" --quick --routing no_such_routing 2>/dev/null || fail "a routing that there is not succeeds"
exit $status
