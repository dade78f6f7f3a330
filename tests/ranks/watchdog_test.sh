#!/bin/bash
# Commits a fault in a job of ranks and judges how the job ends: named, in time, non-zero, and nothing left behind.
#   watchdog_test.sh MPIRUN PROGRAM RANKS CASE
set -u
mpirun=$1 program=$2 ranks=$3 case=$4
limit=1
last=$((ranks - 1))
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

now() { date +%s.%N; }
seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", b - a }'; }
fail() {
  echo "FAILED: $*"
  echo "--- output of the job (status ${status:-none yet})"
  cat "$folder/output"
  [ -n "${job:-}" ] && kill -9 "$job" 2>/dev/null
  cat "$folder"/pid.* 2>/dev/null | xargs -r kill -9 2>/dev/null
  exit 1
}
expect() { grep -Eq -- "$1" "$folder/output" || fail "no line matches: $1"; }
expect_not() { ! grep -Eq -- "$1" "$folder/output" || fail "a line matches: $1"; }
pid_of() { cat "$folder/pid.$1"; }
time_of_fault() { date -r "$folder/pid.$last" +%s.%N; }
# A process that has ended may still wait to be collected by its parent.
is_alive() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  [[ "${stat##*) }" != [ZX]* ]]
}
count_alive() {
  local alive=0 r
  for r in $(seq 0 "$last"); do is_alive "$(pid_of "$r")" && alive=$((alive + 1)); done
  echo "$alive"
}

start() {
  "$mpirun" --oversubscribe --bind-to none -n "$ranks" "$program" "$1" "$limit" "$folder" >"$folder/output" 2>&1 &
  job=$!
  for _ in $(seq 400); do
    [ "$(ls "$folder" | grep -c '^pid\.[0-9]*$')" = "$ranks" ] && return
    sleep 0.05
  done
  fail "the job did not start"
}

# Waits for the job: for its ranks, then for mpirun. Nothing of it may be left after that.
finish() {
  while is_alive "$job" && [ "$(count_alive)" != 0 ]; do sleep 0.02; done
  ranks_ended=$(now)
  wait "$job"
  status=$?
  ended=$(now)
  [ "$(count_alive)" = 0 ] || fail "$(count_alive) ranks are still there"
  ! ls /dev/shm | grep -q "^smoe-$(pid_of 0)-" || fail "shared memory is left behind: $(ls /dev/shm)"
}

# Every rank has ended within the limit + 1 s of the given moment. mpirun itself then sleeps for up to 2 s.
expect_stalled() {
  [ "$status" -ne 0 ] || fail "the job ended with status 0"
  took=$(seconds "$1" "$ranks_ended")
  echo "limit $limit s: the ranks ended $took s after the fault, mpirun $(seconds "$1" "$ended") s, status $status"
  awk -v t="$took" -v l="$limit" 'BEGIN { exit !(t >= l - 0.2 && t <= l + 1) }' || fail "the ranks took $took s to end"
  [ "$(grep -c 'smoe: no progress on node' "$folder/output")" = 1 ] || fail "not one report"
  for r in $(seq 0 "$last"); do expect "^    rank $r: number [0-9]+: [a-z_ ]+ '[a-z.]+' over world"; done
}
expect_unharmed() {
  [ "$status" -eq 0 ] || fail "the job ended with status $status"
  expect_not 'no progress'
}
others=$([ "$ranks" = 2 ] && echo 'rank 0 waits' || echo "ranks 0[0-9, ]* and $((last - 1)) wait")

case $case in
  a_rank_that_stops)
    limit=2
    start loop
    from=$(now)
    kill -STOP "$(pid_of "$last")"
    finish
    expect_stalled "$from"
    expect "rank $last does not answer: its process is stopped \(pid $(pid_of "$last")"
    expect "^  ranks? [0-9, and]+ waits? for ranks? ([0-9, ]+ and )?$last in number [0-9]+: [a-z_ ]+ 'test"
    expect_not 'diverged'
    ;;
  a_rank_that_stops_where_sigterm_is_caught)
    start catches_sigterm
    from=$(now)
    kill -STOP "$(pid_of 0)"
    finish
    expect_stalled "$from"
    expect "rank 0 does not answer: its process is stopped"
    ;;
  a_gpu_that_misses_a_collective)
    start gpu_is_missed
    from=$(time_of_fault)
    finish
    expect_stalled "$from"
    expect "^  the GPUs? of ranks? 0.* (is|are) in number 1: reduce_scatter 'test.gradients' over dp, 3000 of f32$"
    expect "^  the GPU of rank $last is in no collective$"
    expect "^    rank 0: number [0-9]+: .*; its GPU in number 1: reduce_scatter 'test.gradients' over dp, for [0-9.]+ s$"
    ;;
  a_gpu_that_breaks)
    limit=30
    start gpu_breaks
    from=$(time_of_fault)
    finish
    [ "$status" -ne 0 ] || fail "the job ended with status 0"
    awk -v t="$(seconds "$from" "$ranks_ended")" 'BEGIN { exit !(t < 2) }' || fail "not at once"
    expect "^smoe: rank $last: cuda: a collective: unspecified launch failure \(cudaErrorLaunchFailure\); the job ends with status 1$"
    ;;
  a_rank_that_skips_a_collective)
    start skips
    from=$(time_of_fault)
    finish
    expect_stalled "$from"
    expect "rank $last diverged: it is not in all_reduce max 'test.skipped' over world, but in number 41: barrier 'test.next' over world"
    expect "$others for rank $last in number 41: all_reduce max 'test.skipped' over world, 3000 of f32"
    [ "$ranks" = 2 ] || expect_not 'rank [^'"$last"'] diverged'
    expect_not 'does not answer'
    ;;
  a_rank_that_calls_another_collective)
    start calls_another
    from=$(time_of_fault)
    finish
    expect_stalled "$from"
    expect "rank $last diverged: it is not in all_reduce max 'test.expected' over world, but in number 41: broadcast 'test.wrong' over world"
    ;;
  a_rank_that_calls_another_collective_is_refused_at_once)
    export SMOE_CHECK_COLLECTIVES=1
    limit=30
    start calls_another
    from=$(time_of_fault)
    finish
    [ "$status" -ne 0 ] || fail "the job ended with status 0"
    awk -v t="$(seconds "$from" "$ranks_ended")" 'BEGIN { exit !(t < 2) }' || fail "not at once"
    expect 'the ranks of a group called different collectives'
    for r in $(seq 0 $((last - 1))); do expect "^  rank $r: all_reduce max 'test.expected' over world, 3000 of f32"; done
    expect "^  rank $last: broadcast 'test.wrong' over world, 3000 of f32"
    expect_not 'no progress'
    ;;
  a_rank_that_stays_outside)
    start stays_outside
    from=$(time_of_fault)
    finish
    expect_stalled "$from"
    expect "rank $last diverged: it is not in barrier 'test.next' over world, but outside any collective, for 1"
    expect "^    rank $last: number 40: barrier 'test.between' over world, done 1\.[0-9] s ago"
    ;;
  a_rank_that_ends_early)
    start ends_early
    from=$(time_of_fault)
    finish
    expect_stalled "$from"
    expect "rank $last diverged: it is not in barrier 'test.next' over world, but at the end of the program"
    ;;
  long_work_may_pass_the_limit)
    start long_work
    finish
    expect_unharmed
    ;;
  a_rank_that_stops_in_long_work)
    start stopped_in_long_work
    from=$(now)
    kill -STOP "$(pid_of "$last")"
    finish
    expect_stalled "$from"
    expect "rank $last does not answer: its process is stopped"
    expect "^    rank $last: .*, while saving step 7"
    ;;
  all_ranks_stopped_and_continued)
    start slow_steps
    sleep 0.5
    pids=$(cat "$folder"/pid.*)
    kill -STOP $pids
    sleep $((limit + 1))
    kill -CONT $pids
    finish
    expect_unharmed
    ;;
  ranks_that_share_few_cores)
    limit=3
    start busy
    finish
    expect_unharmed
    ;;
  *) fail "no such case: $case" ;;
esac
echo passed
