#!/usr/bin/env bash
# Jobs of ranks that cannot begin, or go on: each ends by itself, soon, on all ranks, with one message that says what is
# wrong and the status of that kind of failure, and leaves what was there as it was. Nothing may hang.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../launch/cases.sh"
. "$root/tests/faults/common.sh"

limit=30  # seconds for a job that takes one or two

# Two ranks, or as many as $ranks says; arguments as of mpirun.
job() { timeout -k 5 "$limit" mpirun --oversubscribe --bind-to none "$@"; }
ranks() { job -n "${ranks:-2}" "$@"; }
train() { ranks "$smoe" train config.yaml "$@"; }

# refuses STATUS PIECE... -- COMMAND...: as expect, and exactly one rank speaks.
refuses() {
  local said
  said=$(expect "$@") || { printf '%s\n' "$said"; exit 1; }
  printf '%s\n' "$said"
  [ "$(grep -c 'smoe: error' <<<"$said")" = 1 ] || fail "expected one message from one rank"
}

prepared() {
  export OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  make_fault_run "$smoe" "$PWD"
}
# A run of two ranks with checkpoints of step 1 and 2.
trained() {
  prepared
  train parallel.ep=2 train.steps=2 checkpoint.interval=1
}
fingerprint() { find run -type f -not -name .lock -not -name train.log -exec sha256sum {} + | sort; }
# A refused job leaves a finished run as it was.
unharmed() { [ "$(fingerprint)" = "$before" ] || fail "the refused job changed the run: $(diff <(echo "$before") <(fingerprint))"; }
# A process that has ended may still wait to be collected by its parent.
is_alive() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  [[ "${stat##*) }" != [ZX]* ]]
}
# Of the job last put in the background.
wait_for_step() {
  local waited rows
  for waited in $(seq 600); do
    rows=$(grep -c lm_loss run/metrics.jsonl 2>/dev/null) || rows=0
    [ "$rows" -lt "$1" ] || return 0
    kill -0 $! 2>/dev/null || break
    sleep 0.05
  done
  fail "step $1 did not come: $(cat first.log)"
}

case_two_jobs_in_one_output_directory() {
  prepared
  train parallel.ep=2 train.steps=150 checkpoint.interval=1000 >first.log 2>&1 &
  local first=$! status=0
  wait_for_step 3
  refuses 1 'run: another run is writing here \(process [0-9]+ on ' 'train\.output_dir' -- train parallel.ep=2 train.steps=150
  wait "$first" || status=$?
  [ "$status" = 0 ] || fail "the first job was harmed: status $status: $(cat first.log)"
  [ "$(cat run/checkpoints/latest)" = step-000150 ] || fail "the first job did not come to its end"
  [ "$(grep -c lm_loss run/metrics.jsonl)" = 150 ] || fail "the first job's metrics were touched"
  [ "$(find run -name 'previous-*' | wc -l)" = 0 ] || fail "the first job's results were moved"
}
case_directory_of_a_killed_job_is_free() {
  prepared
  train parallel.ep=2 train.steps=2000 checkpoint.interval=5 >first.log 2>&1 &
  wait_for_step 7
  local holder
  holder=$(sed -E 's/process ([0-9]+) .*/\1/' run/.lock)
  kill -9 "$holder"
  wait $! && fail "a job whose rank was killed ended with 0"
  expect 0 'resumed from' -- train parallel.ep=2 train.steps=10
}
case_configurations_that_differ() {
  prepared
  sed 's/learning_rate: 3.0e-3/learning_rate: 1.0e-3/' config.yaml >other.yaml
  refuses 2 'rank 1: ' 'another configuration than rank 0' -- \
    job -n 1 "$smoe" train config.yaml parallel.ep=2 : -n 1 "$smoe" train other.yaml parallel.ep=2
  absent run
}
case_layouts_that_differ() {
  prepared
  refuses 2 'another configuration than rank 0' -- \
    job -n 1 "$smoe" train config.yaml parallel.ep=2 : -n 1 "$smoe" train config.yaml parallel.tp=2
  absent run
}
case_configuration_missing_on_one_rank() {
  prepared
  refuses 2 'rank 1: ' 'nowhere\.yaml' -- job -n 1 "$smoe" train config.yaml parallel.ep=2 : -n 1 "$smoe" train nowhere.yaml
  absent run
}
case_wrong_override_on_one_rank() {
  prepared
  refuses 2 'rank 1: ' 'optimizer\.learning_rat' 'learning_rate' -- \
    job -n 1 "$smoe" train config.yaml parallel.ep=2 : -n 1 "$smoe" train config.yaml parallel.ep=2 optimizer.learning_rat=1
  absent run
}
case_unknown_option_on_one_rank() {
  prepared
  refuses 2 '--frobnicate' -- \
    job -n 1 "$smoe" train config.yaml parallel.ep=2 : -n 1 "$smoe" train config.yaml parallel.ep=2 --frobnicate
  absent run
}
case_unknown_option_on_rank_0() {
  prepared
  refuses 2 '--frobnicate' -- \
    job -n 1 "$smoe" train config.yaml parallel.ep=2 --frobnicate : -n 1 "$smoe" train config.yaml parallel.ep=2
  absent run
}
case_unknown_option_on_all_ranks() {
  prepared
  refuses 2 '--frobnicate' -- train parallel.ep=2 --frobnicate
  absent run
}
case_another_command_on_one_rank() {
  prepared
  refuses 2 'report|one process' -- job -n 1 "$smoe" train config.yaml parallel.ep=2 : -n 1 "$smoe" report run
  absent run
}
case_dry_run_on_one_rank() {
  prepared
  refuses 2 'another configuration than rank 0, or other options' -- \
    job -n 1 "$smoe" train config.yaml parallel.ep=2 : -n 1 "$smoe" train config.yaml parallel.ep=2 --dry-run
  absent run
}
case_print_config_on_one_rank() {
  prepared
  refuses 2 'another configuration than rank 0, or other options' -- \
    job -n 1 "$smoe" train config.yaml parallel.ep=2 : -n 1 "$smoe" train config.yaml parallel.ep=2 --print-config
  absent run
}
case_binaries_that_differ() {
  prepared
  cp "$smoe" smoe-of-another-build
  printf x >>smoe-of-another-build
  refuses 2 'rank 1: ' 'another smoe binary than rank 0' -- \
    job -n 1 "$smoe" train config.yaml parallel.ep=2 : -n 1 ./smoe-of-another-build train config.yaml parallel.ep=2
  absent run
}
case_checkpoint_of_another_model() {
  trained
  before=$(fingerprint)
  refuses 1 'step-000002' 'hidden_size: the checkpoint has 64, the configuration 32' -- \
    train parallel.ep=2 train.steps=4 model.hidden_size=32
  unharmed
}
case_checkpoint_without_a_tensor_file() {
  trained
  mv run/checkpoints/step-000002/optimizer/model.safetensors aside
  before=$(fingerprint)
  refuses 1 'step-000002/optimizer/model\.safetensors: missing' 'checkpoint\.resume=.*step-000001' -- train parallel.ep=2 train.steps=4
  unharmed
  expect 0 'resumed from .*step-000001 at step 1' -- train parallel.ep=2 train.steps=4 checkpoint.resume=run/checkpoints/step-000001
}
case_checkpoint_with_a_flipped_byte() {
  trained
  flip run/checkpoints/step-000002/model/model.safetensors -100
  before=$(fingerprint)
  refuses 1 'step-000002/model/model\.safetensors: corrupt: its SHA-256' 'checkpoint\.resume=.*step-000001' -- \
    train parallel.tp=2 train.steps=4
  unharmed
}
case_checkpoint_without_a_manifest_entry() {
  trained
  rm run/checkpoints/step-000002/state.json
  before=$(fingerprint)
  refuses 1 'state\.json: missing' -- train parallel.ep=2 train.steps=4
  unharmed
}
case_layout_that_does_not_fit() {
  prepared
  ranks=3 refuses 2 '3 rank\(s\)' 'parallel\.tp' -- train parallel.ep=2
  refuses 2 'num_local_experts is 8.*ep = 3|parallel\.ep = 3' 'layouts of 2 rank\(s\) that fit:' 'parallel\.tp=1 parallel\.ep=2' \
    'parallel\.tp=2 parallel\.ep=1' -- train parallel.ep=3
  refuses 2 'train\.global_batch_size is 6' 'parallel\.tp=2' -- train parallel.ep=2 train.global_batch_size=6
  ranks=8 refuses 2 'num_attention_heads is 4, which parallel\.tp = 8' 'layouts of 8 rank\(s\) that fit:' -- \
    train parallel.tp=8 train.micro_batch_size=1
  absent run
}
# Rank 1 works in another folder, where the relative path leads nowhere.
case_start_missing_on_one_rank() {
  trained
  cp -r run/checkpoints/step-000002/model start
  rm -rf run
  mkdir elsewhere
  sed -i -e '/^model:/,/^router:/{/^  /d}' -e 's/^model:/model: {from: start}/' config.yaml
  refuses 1 'rank 1: ' 'start: no model found' -- \
    job -n 1 "$smoe" train "$PWD/config.yaml" parallel.ep=2 : \
    -n 1 --wdir "$PWD/elsewhere" "$smoe" train "$PWD/config.yaml" parallel.ep=2
  absent run
}
case_data_missing_on_one_rank() {
  prepared
  sed -i "s|path: $PWD/|path: |" config.yaml
  mkdir elsewhere
  refuses 1 'rank 1: ' 'prose' -- job -n 1 "$smoe" train "$PWD/config.yaml" parallel.ep=2 : \
    -n 1 --wdir "$PWD/elsewhere" "$smoe" train "$PWD/config.yaml" parallel.ep=2
  absent run/checkpoints run/metrics.jsonl
}
# A disk that only some ranks see is no shared directory: the tensors that they would write are not where rank 0 looks.
case_output_directory_that_is_not_shared() {
  prepared
  mkdir elsewhere
  refuses 1 'rank 1: train.output_dir must be one directory that all ranks see' 'here: +none' 'rank 0: process' -- \
    job -n 1 "$smoe" train "$PWD/config.yaml" parallel.ep=2 train.steps=2 : \
    -n 1 --wdir "$PWD/elsewhere" "$smoe" train "$PWD/config.yaml" parallel.ep=2 train.steps=2
  absent run/checkpoints run/metrics.jsonl
}
# The same name leads to other files on another node: all would train, and nobody would know on what.
case_data_that_differ() {
  prepared
  sed -i "s|path: $PWD/|path: |" config.yaml
  mkdir elsewhere
  cp -r verse elsewhere/
  head -n 40 prose.jsonl >fewer.jsonl
  "$smoe" prepare fewer.jsonl --out elsewhere/prose --tokenizer bytes --source prose
  refuses 1 'rank 1: data.train or data.eval is not what rank 0 sees' 'here: ' 'rank 0: ' -- job -n 1 "$smoe" train "$PWD/config.yaml" parallel.ep=2 : \
    -n 1 --wdir "$PWD/elsewhere" "$smoe" train "$PWD/config.yaml" parallel.ep=2
  absent run/checkpoints run/metrics.jsonl
}
case_starts_that_differ() {
  trained
  mkdir elsewhere
  cp -r run/checkpoints/step-000001/model start
  cp -r run/checkpoints/step-000002/model elsewhere/start
  rm -rf run
  sed -i -e '/^model:/,/^router:/{/^  /d}' -e 's/^model:/model: {from: start}/' config.yaml
  refuses 1 'rank 1: the directory of model.from is not what rank 0 sees' -- \
    job -n 1 "$smoe" train "$PWD/config.yaml" parallel.ep=2 : \
    -n 1 --wdir "$PWD/elsewhere" "$smoe" train "$PWD/config.yaml" parallel.ep=2
  absent run/checkpoints run/metrics.jsonl
}
# Weights of the run that is being set aside are read before they move.
case_start_from_the_run_that_is_set_aside() {
  trained
  sed -i -e '/^model:/,/^router:/{/^  /d}' -e 's/^model:/model: {from: run}/' config.yaml
  expect 0 'earlier results were moved to run/previous-1' 'weights from run/checkpoints/step-000002/model' -- \
    train parallel.ep=2 train.steps=1 checkpoint.resume=never
  [ "$(cat run/checkpoints/latest)" = step-000001 ] || fail "no checkpoint of the new run"
}
case_verified_configurations_that_differ() {
  prepared
  refuses 2 'rank 1: .*another configuration' -- job -n 1 "$smoe" verify config.yaml : -n 1 "$smoe" verify config.yaml router.aux_loss_coef=0.1
  refuses 2 'rank 1: .*another configuration' -- job -n 1 "$smoe" train config.yaml parallel.ep=2 : -n 1 "$smoe" verify config.yaml parallel.ep=2
}
case_too_many_refused_steps() {
  prepared
  refuses 1 '5 steps in a row had a loss or gradient that is not finite' -- train parallel.ep=2 optimizer.learning_rate=1e30 schedule.warmup_steps=0
}
case_rank_that_stops_answering() {
  prepared
  train parallel.ep=2 train.steps=2000 checkpoint.interval=5 parallel.timeout=2 >first.log 2>&1 &
  local first=$! holder status=0
  wait_for_step 7
  holder=$(sed -E 's/process ([0-9]+) .*/\1/' run/.lock)  # rank 0
  kill -STOP "$holder"
  wait "$first" || status=$?
  cat first.log
  [ "$status" = 1 ] || fail "status $status, expected 1"
  grep -qE 'rank 0.*(stopped|no sign of life)' first.log || fail "rank 0 is not named"
  for _ in $(seq 100); do  # mpirun may end before the rank that it has killed
    is_alive "$holder" || break
    sleep 0.05
  done
  ! is_alive "$holder" || fail "the stopped rank is still there"
  expect 0 'resumed from' -- train parallel.ep=2 train.steps=10
}
case_mpirun_killed() {
  prepared
  train parallel.ep=2 train.steps=2000 checkpoint.interval=5 >first.log 2>&1 &
  local start=$! holder mpirun_of_it waited
  wait_for_step 7
  holder=$(sed -E 's/process ([0-9]+) .*/\1/' run/.lock)
  mpirun_of_it=$(sed -E 's/.*\) [A-Z] ([0-9]+) .*/\1/' "/proc/$holder/stat")
  kill -9 "$mpirun_of_it"
  wait "$start" && fail "it ended with 0"
  for waited in $(seq 100); do
    is_alive "$holder" || break
    sleep 0.05
  done
  [ "$waited" -lt 100 ] || fail "rank 0 outlived mpirun by 5 s"
  expect 0 'resumed from' -- train parallel.ep=2 train.steps=10
}

run_case "$@"
