#!/usr/bin/env bash
# launch/mpirun, which turns a request to stop into one that the ranks can meet, and the options of launch/soak.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../launch/cases.sh"

wrapper=$root/launch/mpirun
soak=$root/launch/soak

case_mpirun_passes_arguments_and_status_on() {
  # shellcheck disable=SC2016
  expect 7 '<two words>' -- "$wrapper" --oversubscribe -n 1 bash -c 'echo "<$1>"; exit 7' - 'two words'
  expect 0 -- "$wrapper" --oversubscribe -n 2 true
}
case_mpirun_first_on_the_path_finds_the_real_one() {
  PATH=$root/launch:$PATH expect 0 '^hello$' -- mpirun --oversubscribe -n 1 echo hello
}
case_mpirun_that_is_not_installed() {
  mkdir bin
  ln -s "$(command -v bash)" "$(command -v id)" bin/
  expect 127 'no mpirun' 'launch/setup' -- env PATH="$case/bin" "$BASH" "$wrapper" -n 1 true
}

# Starts a job that only tells of the signals it gets.
start_deaf() {
  set -m  # else it would be started with SIGINT ignored
  # shellcheck disable=SC2016
  "$wrapper" --oversubscribe -n 1 bash -c 'trap "echo told" USR1; echo up; while :; do sleep 0.1; done' >log 2>&1 &
  job=$!
  set +m
  local waited
  for waited in $(seq 200); do
    if grep -q '^up$' log; then return; fi
    sleep 0.05
  done
  fail "the job did not start: $(cat log)"
}
case_mpirun_asks_first_and_ends_the_job_when_told_again() {
  for signal in TERM INT; do
    start_deaf
    kill -s "$signal" "$job"
    sleep 1
    grep -q '^told$' log || fail "$signal was not passed on as SIGUSR1: $(cat log)"
    kill -0 "$job" || fail "the first $signal ended the job"
    local start=$SECONDS status=0
    kill -s "$signal" "$job"
    wait "$job" || status=$?
    [ "$status" != 0 ] || fail "status 0 from a job that was ended"
    [ $((SECONDS - start)) -le 5 ] || fail "the second $signal took $((SECONDS - start)) s"
  done
}

case_soak_refuses_what_makes_no_sense() {
  expect 1 '--frobnicate' -- "$soak" --frobnicate
  expect 1 '--kills' 'many' -- "$soak" --kills many
  expect 1 '--kills' 'at least 1' -- "$soak" --kills 0
  expect 1 '--layouts' '2x2' -- "$soak" --layouts 2x2
  expect 1 '--only' 'nothing' -- "$soak" --only
  expect 1 'nowhere/smoe' 'build' -- "$soak" --smoe nowhere/smoe
}

run_case "$@"
