#!/usr/bin/env bash
# launch/train.slurm on a Slurm of two nodes: training to the end, and what follows each way to be interrupted.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../launch/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

skipped=77

# A cluster, and a model that trains some fifty steps a second.
prepare_case() {
  if ! has_slurm; then
    echo "skipped: no slurmctld here (Debian: apt-get install slurm-wlm)"
    exit $skipped
  fi
  trap 'trap "" TERM INT; stop_cluster; rm -rf "$case"' EXIT
  export TMPDIR=$case
  # Ranks of two nodes that are one machine must not take each other for neighbours.
  export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo
  export OMPI_MCA_odls_base_sigkill_timeout=1  # the script's ten seconds, made short
  export SMOE=$case/smoe_on_node TRUE_SMOE=$smoe
  # shellcheck disable=SC2016
  printf '#!/bin/sh\necho "$SLURMD_NODENAME" >>nodes\nexec "$TRUE_SMOE" "$@"\n' >"$SMOE"
  chmod +x "$SMOE"
  awk 'BEGIN { srand(1); for (i = 0; i < 4000; ++i) print "line " i ": " int(1000 * rand()) " of " int(1000 * rand()) " and so on" }' >text.txt
  "$smoe" prepare text.txt --out data --tokenizer bytes >prepare.log 2>&1 || fail "$(cat prepare.log)"
  cat >tiny.yaml <<END
model: {vocab_size: 259, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, num_local_experts: 4}
data: {train: [{path: data}], sequence_length: 64}
parallel: {tp: 2, ep: 2}
train: {global_batch_size: 8, micro_batch_size: 2}
log: {interval: 1, tensorboard: false}
checkpoint: {interval: 100000}
END
  start_cluster "$case/cluster"
}

# submit STEPS RUN [option of sbatch ...]: sets job.
submit() {
  job=$(sbatch --parsable --nodes=2 --ntasks-per-node=2 "${@:3}" "$root/launch/train.slurm" tiny.yaml "train.steps=$1" "train.output_dir=$2")
}

job_is() { scontrol show job "$job" | grep -qE -- "$1"; }
output() { cat "smoe-$job.out" 2>/dev/null; }
output_has() { output | grep -qE -- "$1"; }
steps_done() { if [ -e "$1/metrics.jsonl" ]; then wc -l <"$1/metrics.jsonl"; else echo 0; fi; }
trains_in() { [ "$(steps_done "$1")" -ge 20 ]; }

# within SECONDS COMMAND...: until it succeeds.
within() {
  local deadline=$((SECONDS + $1))
  while ! "${@:2}"; do
    if [ $SECONDS -ge $deadline ]; then
      scontrol show job "$job"
      output
      fail "not within $1 s: ${*:2}"
    fi
    sleep 0.2
  done
}

# The job ends so, status included, after so many restarts.
expect_end() {
  within 40 job_is "JobState=$1 "
  if job_is "ExitCode=$2( |\$)" && job_is "Restarts=$3 "; then return; fi
  scontrol show job "$job"
  output
  fail "not status $2 after $3 restarts"
}

# The last step that was trained is the last that was saved.
expect_all_saved() {
  [ "$(basename "$1"/checkpoints/step-*)" = "$(printf 'step-%06d' "$(steps_done "$1")")" ] ||
    fail "$(steps_done "$1") steps trained, saved are $(ls "$1/checkpoints")"
}

# What a run computed, without what tells of its speed.
results() {
  sed -E 's/"(tokens_per_sec|mfu|share_of_product|step_seconds|model_gflops|peak_memory_bytes)":[^,}]*,?//g' "$1/metrics.jsonl"
}

case_trains_over_two_nodes_and_resumes_after_usr1() {
  prepare_case
  submit 300 whole
  expect_end COMPLETED 0:0 0
  [ "$(steps_done whole)" = 300 ] || fail "not every step is in the metrics"
  [ "$(sort nodes | uniq -c | tr -s ' \n' ' ')" = ' 2 n1 2 n2 ' ] || fail "not two ranks on each node: $(cat nodes)"
  output_has '^4 ranks: dp 2 tp 2 ep 2$' || fail "$(output)"

  submit 300 interrupted
  within 30 trains_in interrupted
  scancel --signal=USR1 --batch "$job"
  within 15 output_has 'status 18; requeueing the job'
  expect_all_saved interrupted
  [ "$(steps_done interrupted)" -lt 300 ] || fail "the signal came too late to interrupt"
  expect_end COMPLETED 0:0 1
  output_has '^resumed from interrupted/checkpoints/step-' || fail "$(output)"
  cmp <(results whole) <(results interrupted) || fail "the metrics differ from the uninterrupted run's"
  diff -r whole/checkpoints/step-000300/model interrupted/checkpoints/step-000300/model || fail "the weights differ"
}

case_requeues_before_its_time_is_up() {
  prepare_case
  submit 100000 run --time=2
  within 30 trains_in run
  within 70 output_has 'status 18; requeueing the job'  # due at once, but Slurm looks twice a minute
  expect_all_saved run
  within 15 job_is 'Restarts=1 '
}

# By a job of a higher partition. Slurm sends TERM, past the script.
case_requeues_when_preempted() {
  prepare_case
  export OMPI_MCA_odls_base_sigkill_timeout=3
  submit 100000 run
  within 30 trains_in run
  sbatch -p urgent --nodes=2 --exclusive --output=/dev/null --wrap 'sleep 1' >urgent.log
  within 30 output_has 'requeueing the job'
  expect_all_saved run
  within 30 output_has '^resumed from run/checkpoints/step-'
  job_is 'Restarts=1 ' || fail "$(scontrol show job "$job")"
}

case_is_not_requeued_after_scancel_or_term() {
  prepare_case
  export OMPI_MCA_odls_base_sigkill_timeout=3
  submit 100000 cancelled
  within 30 trains_in cancelled
  scancel "$job"
  expect_end CANCELLED '[0-9]+:[0-9]+' 0
  within 15 output_has 'TERM came'
  within 15 output_has 'train.slurm: status'
  expect_all_saved cancelled

  export OMPI_MCA_odls_base_sigkill_timeout=1
  submit 100000 terminated
  within 30 trains_in terminated
  scancel --signal=TERM --batch "$job"
  expect_end FAILED 18:0 0
  expect_all_saved terminated
}

case_failures_end_the_job_with_their_status() {
  prepare_case
  job=$(sbatch --parsable "$root/launch/train.slurm" tiny.yaml train.stepz=10)
  expect_end FAILED 2:0 0
  output_has "train.stepz" || fail "$(output)"
  job=$(sbatch --parsable "$root/launch/train.slurm")
  expect_end FAILED 2:0 0
  output_has 'run it as: sbatch' || fail "$(output)"

  submit 100000 run
  within 30 trains_in run
  local ranks
  ranks=$(for process in $(cluster_processes); do [ "$(readlink "/proc/$process/exe")" != "$(realpath "$smoe")" ] || echo "$process"; done)
  kill -KILL "$(tail -n 1 <<<"$ranks")"
  expect_end FAILED 137:0 0
}

run_case "$@"
