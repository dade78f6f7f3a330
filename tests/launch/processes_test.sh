#!/usr/bin/env bash
# Where a process is started: commands of one process where MPI cannot begin, launchers that MPI cannot join, and the
# cores and threads that a command was given by taskset, mpirun and OMP_NUM_THREADS.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

skipped=77
export OMP_WAIT_POLICY=passive  # threads that wait leave the cores to other tests
# Without these, whoever started the tests would be taken for the launcher of each case.
unset $(compgen -v | grep -E '^(SLURM|FLUX|PMI|PMIX|OMPI_COMM|OMPI_MCA)_') OMP_NUM_THREADS OMP_PROC_BIND OMP_PLACES GOMP_CPU_AFFINITY

# trained_with_ids [key=value ...]: config.yaml, which leaves the threads to smoe, shards/, run/ and ids.npy.
trained_with_ids() {
  write_text 200
  write_config
  "$smoe" prepare text.jsonl --out shards --tokenizer bytes >made.log 2>&1
  "$smoe" train config.yaml train.threads=0 data.eval='[]' checkpoint.interval=100 log.tensorboard=false "$@" --print-config >whole.yaml 2>>made.log
  mv whole.yaml config.yaml
  "$smoe" train config.yaml >>made.log 2>&1
  python3 - <<'END'
import struct
header = "{'descr': '<i4', 'fortran_order': False, 'shape': (64, 64), }"
header += " " * (-(len(header) + 11) % 64) + "\n"
open("ids.npy", "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack("<4096i", *(i % 259 for i in range(4096))))
END
}

# ---- where MPI cannot begin -------------------------------------------------------------------------------------

# every_command [VARIABLE=VALUE | -u VARIABLE]...: each command, in that environment, alone.
every_command() {
  trained_with_ids
  rm -rf shards run
  expect 0 'prepare' -- env "$@" "$smoe" --help
  expect 0 '^smoe [0-9]' -- env "$@" "$smoe" --version
  expect 0 'CONFIG' -- env "$@" "$smoe" train --help
  expect 0 'tokens in' -- env "$@" "$smoe" prepare text.jsonl --out shards --tokenizer bytes
  expect 0 -- env "$@" "$smoe" train config.yaml
  expect 0 'resumed|nothing' -- env "$@" "$smoe" train config.yaml train.steps=3
  expect 0 'held against itself' -- env "$@" "$smoe" verify config.yaml
  expect 0 'perplexity' -- env "$@" "$smoe" eval --model run --data shards --seq 32
  expect 0 '^[0-9,]+$' -- env "$@" "$smoe" generate --model run --prompt-ids 1,2,3 --max-tokens 4 --greedy
  expect 0 -- env "$@" "$smoe" logits --model run --tokens ids.npy --out logits.safetensors
  expect 0 'report.html' -- env "$@" "$smoe" report run
  expect 0 '^speed' -- env "$@" "$smoe" bench config.yaml --threads 1 --steps 1
  expect 2 "unknown command 'trian'" -- env "$@" "$smoe" trian
  expect 2 'frobnicate' -- env "$@" "$smoe" train config.yaml --frobnicate
}
step=(SLURM_JOB_ID=7 SLURM_JOBID=7 SLURM_NODELIST=n1 SLURM_STEP_ID=0)
case_alone_in_a_job_step_of_slurm() { every_command "${step[@]}"; }
case_alone_as_one_task_of_srun() { every_command "${step[@]}" SLURM_NTASKS=1 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0; }
case_alone_in_a_script_of_sbatch() { every_command SLURM_JOB_ID=7 SLURM_JOBID=7 SLURM_NODELIST='n[1-2]' SLURM_NTASKS=4 SLURM_PROCID=0; }
case_alone_under_flux() { every_command FLUX_JOB_ID=f1 FLUX_URI=local:///none FLUX_KVS_NAMESPACE=none PMI_RANK=0 PMI_SIZE=1 PMI_FD=99; }
case_alone_without_path() { every_command -u PATH; }
case_alone_with_tmpdir_unwritable() { every_command TMPDIR=/proc/nowhere; }
# No MPI library can begin with these.
no_mpi=(OMPI_MCA_pml=nonsense OMPI_MCA_btl=nonsense)
case_alone_where_mpi_cannot_begin() {
  every_command "${no_mpi[@]}"
  if env "${no_mpi[@]}" mpirun --oversubscribe -n 2 "$smoe" train config.yaml --print-config; then fail "MPI begins all the same: this case shows nothing"; fi
}
case_twice_in_one_rank() {
  trained_with_ids
  # shellcheck disable=SC2016
  expect 0 'done 1' 'done 2' -- mpirun -n 1 sh -c 'for i in 1 2; do "$1" eval --model run --data shards --seq 32 >/dev/null && "$1" train config.yaml checkpoint.resume=never >/dev/null && echo "done $i"; done' - "$smoe"
}

# ---- several processes ------------------------------------------------------------------------------------------

case_commands_of_one_process_are_refused_over_ranks_without_mpi() {
  local command
  for command in 'prepare x --out y' 'eval --model x --data y' 'generate --model x' 'logits --model x' 'report x' 'bench x'; do
    # shellcheck disable=SC2086
    expect 2 "'${command%% *}' runs in one process, found 2: start it without mpirun" -- env "${no_mpi[@]}" mpirun --oversubscribe -n 2 "$smoe" $command 2>&1 | tee said
    [ "$(grep -c 'smoe: error' said)" = 1 ] || fail "more than one rank speaks"
  done
  [ "$(env "${no_mpi[@]}" mpirun --oversubscribe -n 2 "$smoe" --help | grep -c '^Usage')" = 1 ] || fail "help comes from all ranks"
  [ "$(env "${no_mpi[@]}" mpirun --oversubscribe -n 2 "$smoe" train --help | grep -c '^Usage')" = 1 ] || fail "train --help comes from all ranks"
}
# silent STATUS COMMAND...
silent() {
  local said status=0
  said=$("${@:2}" 2>&1 </dev/null) || status=$?
  [ "$status" = "$1" ] || fail "status $status where $1 was expected: ${*:2}"
  [ -z "$said" ] || fail "a rank that is not the first says: $said"
}
case_tasks_of_srun_are_told_what_to_type() {
  local tasks=("${step[@]}" SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=4)
  expect 2 'smoe: error: srun started 4 processes, .*mpirun -n 4 smoe train .*salloc.*sbatch' -- env "${tasks[@]}" SLURM_PROCID=0 "$smoe" train config.yaml
  expect 2 "'eval' runs in one process, found 4: start it without srun, or with srun -n 1" -- env "${tasks[@]}" SLURM_PROCID=0 "$smoe" eval --model x --data y
  silent 2 env "${tasks[@]}" SLURM_PROCID=3 "$smoe" train config.yaml
  silent 2 env "${tasks[@]}" SLURM_PROCID=1 "$smoe" verify config.yaml
  silent 2 env "${tasks[@]}" SLURM_PROCID=1 "$smoe" eval --model x --data y
  [ "$(env "${tasks[@]}" SLURM_PROCID=0 "$smoe" train config.yaml 2>&1 | wc -l)" = 1 ] || fail "it takes more than one line"
}
case_tasks_of_other_launchers_are_told_what_to_type() {
  expect 2 'flux run started 3 processes, .*mpirun -n 3 smoe train .*flux alloc' -- env FLUX_JOB_ID=f1 FLUX_JOB_SIZE=3 FLUX_TASK_RANK=0 "$smoe" train config.yaml
  expect 2 'mpiexec of another MPI started 2 processes, .*mpirun -n 2 smoe train' -- env PMI_RANK=0 PMI_SIZE=2 PMI_FD=99 "$smoe" train config.yaml
  silent 2 env PMI_RANK=1 PMI_SIZE=2 PMI_FD=99 "$smoe" train config.yaml
}
# The daemons of mpirun on other nodes are tasks of a step of their own.
case_mpirun_inside_an_allocation_of_slurm() {
  trained_with_ids
  expect 0 '2 ranks: dp 2' -- mpirun --oversubscribe --bind-to none -n 2 env "${step[@]}" SLURM_NTASKS=2 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1 \
    "$smoe" train config.yaml checkpoint.resume=never train.threads=1
}

# ---- cores and threads ------------------------------------------------------------------------------------------

cores=($(python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))'))
# Two whole ones, of which no container's quota leaves less.
needs_two_cores() {
  python3 - "${cores[@]}" <<'END' || { echo "skipped: fewer than two cores, or a quota"; exit $skipped; }
import glob, sys
whole = {open(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read() for core in sys.argv[1:]}
limits = [open(path).read().split()[0] for path in glob.glob("/sys/fs/cgroup/cpu.max") + glob.glob("/sys/fs/cgroup/cpu*/cpu.cfs_quota_us")]
sys.exit(len(whole) < 2 or any(limit not in ("max", "-1") for limit in limits))
END
}

# watch COMMAND...: looks at the processes of smoe that it starts while they run, and tells of each "threads cores": the
# most threads that it had, and the cores that they might use by then.
watch() {
  python3 - "$smoe" "$@" <<'END' 2>watch.log || fail "$(cat watch.log)"
import os, subprocess, sys
smoe, command = os.path.realpath(sys.argv[1]), sys.argv[2:]
started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)

def read(path):
    with open(path) as file:
        return file.read()

def family(pid):
    yield pid
    for child in read(f"/proc/{pid}/task/{pid}/children").split():
        yield from family(int(child))

def look(pid):
    if os.path.realpath(f"/proc/{pid}/exe") != smoe:
        return None
    masks = [line.split()[1] for task in os.listdir(f"/proc/{pid}/task")
             for line in read(f"/proc/{pid}/task/{task}/status").splitlines() if line.startswith("Cpus_allowed_list:")]
    return len(masks), " and ".join(sorted(set(masks)))

seen = {}
while started.poll() is None:
    try:
        for pid in family(started.pid):
            now = look(pid)
            if now and now[0] >= seen.get(pid, (0,))[0]:
                seen[pid] = now
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass  # it has just ended
for line in sorted({f"{threads} {cores}" for threads, cores in seen.values()}):
    print(line)
sys.exit(started.returncode)
END
}
# expect_watched 'LINE' COMMAND...
expect_watched() {
  local found
  found=$(watch "${@:2}") || exit 1
  [ "$found" = "$1" ] || fail "threads and cores of '$found' where '$1' was expected: ${*:2}: $(cat watch.log)"
}
# trains_with THREADS CORES COMMAND...: threads by its own word, since it has others that compute nothing.
trains_with() {
  local found
  found=$(watch "${@:3}" | cut -d ' ' -f 2- | sort -u) || exit 1
  [ "$found" = "$2" ] || fail "cores '$found' where '$2' was expected: ${*:3}: $(cat watch.log)"
  grep -q ", $1 thread(s) a rank" watch.log || fail "not $1 threads: ${*:3}: $(cat watch.log)"
}
# list_of CORE...: as Linux prints them, "0-2,5".
list_of() { python3 - "$@" <<'END'
import sys
runs = []
for core in map(int, sys.argv[1:]):
    if runs and core == runs[-1][1] + 1: runs[-1][1] = core
    else: runs.append([core, core])
print(",".join(str(a) if a == b else "%d-%d" % (a, b) for a, b in runs))
END
}

# Commands that take long enough to be looked at.
train=(train config.yaml checkpoint.resume=never train.steps=5 train.global_batch_size=8)
eval=(eval --model run --data shards --seq 32)
generate=(generate --model run --prompt-ids 1,2,3 --max-tokens 300 --greedy)
logits=(logits --model run --tokens ids.npy --out logits.safetensors)
bench=(bench config.yaml --steps 1)
prepare=(prepare large.txt --tokenizer bytes --out)
large() {
  trained_with_ids model.hidden_size=64 model.intermediate_size=256 model.max_position_embeddings=1024
  seq 1 1000000 >large.txt
}
# each_command_has THREADS CORES PREFIX...: each command, behind that prefix.
each_command_has() {
  trains_with "$1" "$2" "${@:3}" "$smoe" "${train[@]}"
  expect_watched "$1 $2" "${@:3}" "$smoe" "${eval[@]}"
  expect_watched "$1 $2" "${@:3}" "$smoe" "${generate[@]}"
  expect_watched "$1 $2" "${@:3}" "$smoe" "${logits[@]}"
  expect_watched "$1 $2" "${@:3}" "$smoe" "${bench[@]}"
  expect_watched "$(($1 + 1)) $2" "${@:3}" "$smoe" "${prepare[@]}" "$(mktemp -u tokens.XXXX)"  # and one that stores
}

case_taskset_is_obeyed_by_each_command() {
  needs_two_cores
  large
  each_command_has 1 "${cores[1]}" taskset -c "${cores[1]}"
}
case_each_command_takes_the_cores_it_has() {
  needs_two_cores
  large
  each_command_has 2 "$(list_of "${cores[@]:0:2}")" taskset -c "${cores[0]},${cores[1]}"
}
case_omp_num_threads_means_the_same_in_each_command() {
  needs_two_cores
  large
  each_command_has 1 "$(list_of "${cores[@]}")" env OMP_NUM_THREADS=1
}
case_omp_num_threads_passes_no_taskset_and_options_pass_both() {
  needs_two_cores
  large
  local one=(taskset -c "${cores[1]}" env)
  expect_watched "1 ${cores[1]}" "${one[@]}" OMP_NUM_THREADS=8 "$smoe" "${eval[@]}"
  expect_watched "3 ${cores[1]}" "${one[@]}" OMP_NUM_THREADS=2 "$smoe" "${eval[@]}" --threads 3
  expect_watched "4 ${cores[1]}" "${one[@]}" OMP_NUM_THREADS=2 "$smoe" "${prepare[@]}" tokens --threads 3
  trains_with 3 "${cores[1]}" "${one[@]}" OMP_NUM_THREADS=2 "$smoe" "${train[@]}" train.threads=3
}
case_taskset_of_mpirun_binds_its_ranks() {
  needs_two_cores
  large
  local core
  for core in "${cores[0]}" "${cores[1]}"; do
    trains_with 1 "$core" taskset -c "$core" mpirun --oversubscribe -n 2 "$smoe" "${train[@]}"
    trains_with 1 "$core" taskset -c "$core" mpirun --oversubscribe -n 2 --bind-to core "$smoe" "${train[@]}"
    expect_watched "1 $core" taskset -c "$core" mpirun -n 1 "$smoe" "${eval[@]}"
  done
}
case_what_mpirun_binds_unasked_is_undone() {
  needs_two_cores
  large
  trains_with "${#cores[@]}" "$(list_of "${cores[@]}")" mpirun -n 1 "$smoe" "${train[@]}"
  expect_watched "${#cores[@]} $(list_of "${cores[@]}")" mpirun -n 1 "$smoe" "${eval[@]}"
  # shellcheck disable=SC2016
  expect_watched "${#cores[@]} $(list_of "${cores[@]}")" mpirun -n 1 sh -c '"$@"; exit $?' - "$smoe" "${eval[@]}"
  local part=$((${#cores[@]} / 2))
  trains_with "$part" "$(list_of "${cores[@]:0:part}"; list_of "${cores[@]:part:part}")" mpirun -n 2 "$smoe" "${train[@]}"
}
case_what_mpirun_was_told_is_kept() {
  needs_two_cores
  large
  local all
  all=$(list_of "${cores[@]}")
  trains_with "${#cores[@]}" "$all" mpirun --bind-to none -n 1 "$smoe" "${train[@]}"
  trains_with "$((${#cores[@]} / 2))" "$all" mpirun --bind-to none -n 2 "$smoe" "${train[@]}"
  trains_with 1 "${cores[1]}" mpirun --bind-to none -n 2 taskset -c "${cores[1]}" "$smoe" "${train[@]}"
  trains_with 1 "${cores[1]}" mpirun -n 1 taskset -c "${cores[1]}" "$smoe" "${train[@]}"
  [ "${cores[*]:0:2}" = '0 1' ] || return 0  # elsewhere mpirun numbers them its own way
  trains_with 1 0 mpirun --bind-to hwthread -n 1 "$smoe" "${train[@]}"
  trains_with 1 1 mpirun --cpu-set 1 --bind-to hwthread -n 1 "$smoe" "${train[@]}"
}
# OpenMP binds the first thread to the first of its places before the program begins.
case_threads_that_openmp_places_are_left_to_it() {
  needs_two_cores
  large
  local found
  found=$(OMP_PROC_BIND=true watch "$smoe" "${eval[@]}") || exit 1
  [ "${found%% *}" = "${#cores[@]}" ] || fail "not a thread for each core: $found"
}

run_case "$@"
