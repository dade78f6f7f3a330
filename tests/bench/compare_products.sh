#!/usr/bin/env bash
# Times the matrix products of a training step with every library that is here, in turns, and prints the medians beside
# the cores' own rate. What is absent is skipped, and said so: none of it is needed to build or test smoe.
#   compare_products.sh [ROUNDS] [SHAPES]   3 rounds by default: about half a minute a library and round
#                                           SHAPES: a regular expression, as in 'rows w' or '^tn'; product_bench --list
#   SMOE_BUILD             build folder that has product_bench (build/release)
#   SMOE_BENCH_THREADS     threads of each product (1)
#   SMOE_ORACLE_PYTHON     a Python: its packages scipy_openblas32 and torch (MKL) are timed too, where it has them
#   SMOE_BENCH_LIBRARIES   more of them, as "title=file.so:symbol ..."
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
die() {
  printf 'compare_products.sh: %s\n' "$*" >&2
  exit 1
}

rounds=${1:-3}
shapes=${2:-.}
[[ $rounds =~ ^[1-9][0-9]?$ ]] || die "$rounds is no number of rounds; use compare_products.sh [ROUNDS] [SHAPES]"
product_bench=${SMOE_BUILD:-$here/../../build/release}/tests/bench/product_bench
[ -x "$product_bench" ] || die "no $product_bench; build it (cmake --preset release && cmake --build --preset release), or set SMOE_BUILD"
threads=${SMOE_BENCH_THREADS:-1}

titles=() commands=()
add() {  # add TITLE FILE [OPTION...]: a library, if it is there and computes products
  local title=$1 file=$2 reason
  shift 2
  if [ "$file" != smoe ] && [ ! -e "$file" ]; then
    printf 'skipped %s: no %s\n' "$title" "${file:-such library}" >&2
  elif ! reason=$("$product_bench" --library "$file" "$@" --shapes 'nn 64x128x64' --seconds 0.001 2>&1 >/dev/null); then
    printf 'skipped %s: %s\n' "$title" "${reason#product_bench: }" >&2
  else
    titles+=("$title")
    commands+=("$(printf '%q ' --library "$file" "$@")")
  fi
}
libraries=/usr/lib/$(gcc -dumpmachine 2>/dev/null || echo x86_64-linux-gnu)
python_file() {  # python_file CODE: the path that it prints, or nothing
  [ -z "${SMOE_ORACLE_PYTHON:-}" ] || "$SMOE_ORACLE_PYTHON" -c "$1" 2>/dev/null || true
}

add smoe smoe
add openblas "$libraries/openblas-openmp/libopenblas.so.0" --coretype chosen
add openblas-own "$libraries/openblas-openmp/libopenblas.so.0"
add onednn "$libraries/libdnnl.so.2" --symbol dnnl_sgemm
add blis "$libraries/blis-openmp/libblis.so.4"
add scipy "$(python_file 'import glob, scipy_openblas32 as s; print(glob.glob(s.get_lib_dir() + "/libscipy_openblas*.so")[0])')" --symbol scipy_cblas_sgemm
add mkl "$(python_file 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))')" --symbol sgemm_
for extra in ${SMOE_BENCH_LIBRARIES:-}; do
  file=${extra#*=}
  add "${extra%%=*}" "${file%:*}" --symbol "${file##*:}"
done

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
for ((round = 1; round <= rounds; ++round)); do
  printf 'round %d of %d\n' "$round" "$rounds" >&2
  for i in "${!titles[@]}"; do
    eval "options=(${commands[i]})"
    "$product_bench" "${options[@]}" --threads "$threads" --shapes "$shapes" >>"$results/${titles[i]}" || die "failed: $product_bench ${commands[i]}"
  done
done

printf 'medians of %d round(s), %d thread(s): GF/s, and share of the cores'"'"' own rate, taken beside each product\n' "$rounds" "$threads"
awk -v titles="${titles[*]}" -v folder="$results" '
  function field(line, name) { match(line, "\"" name "\": \"?[^\",}]*"); line = substr(line, RSTART, RLENGTH); sub(/^"[^"]*": "?/, "", line); return line }
  function what_of(line) { match(line, /"what": "[^"]*"/); return substr(line, RSTART + 9, RLENGTH - 10) }
  function median(list,   v, n, i, j, t) {
    n = split(list, v, " ")
    for (i = 2; i <= n; ++i) for (j = i; j > 1 && v[j - 1] + 0 > v[j] + 0; --j) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
  }
  BEGIN {
    count = split(titles, title, " ")
    for (t = 1; t <= count; ++t)
      while ((getline line < (folder "/" title[t])) > 0) {
        key = field(line, "shape") "|" what_of(line)
        if (!(key in seen)) { seen[key] = 1; order[++rows] = key }
        rate[key, t] = rate[key, t] " " field(line, "gflops")
        share[key, t] = share[key, t] " " field(line, "share")
        cores[key] = cores[key] " " field(line, "core_gflops")
      }
    printf "%-20s%-22s%8s", "product", "of", "cores"
    for (t = 1; t <= count; ++t) printf "%16s", title[t]
    print ""
    for (r = 1; r <= rows; ++r) {
      split(order[r], part, "|")
      printf "%-20s%-22s%8.1f", part[1], part[2], median(cores[order[r]])
      for (t = 1; t <= count; ++t) printf "%9.1f (%3.0f%%)", median(rate[order[r], t]), 100 * median(share[order[r], t])
      print ""
    }
  }'
