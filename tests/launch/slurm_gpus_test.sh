#!/usr/bin/env bash
# How launch/train.slurm gives each rank a GPU: Slurm's variables set by hand, and an mpirun that says what it was called with.
#   slurm_gpus_test.sh --list | CASE SMOE
set -u
cases="each_rank_has_one more_ranks_than_gpus fewer_ranks_than_gpus none own_words_win"
if [ "${1:-}" = --list ]; then printf '%s\n' $cases; exit; fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
mkdir bin
printf '#!/bin/sh\necho "mpirun $*"\n' >bin/mpirun
chmod +x bin/mpirun

# run GPUS TASKS_PER_NODE NTASKS ARGUMENT...: what the script says, and its status at the end.
run() {
  env PATH="$folder/bin:$PATH" SMOE=smoe SLURM_JOB_ID=7 SLURM_JOB_NODELIST='n[1-2]' SLURM_GPUS_ON_NODE="$1" \
    SLURM_TASKS_PER_NODE="$2" SLURM_NTASKS="$3" bash "$here/../../launch/train.slurm" "${@:4}" 2>&1
  echo "status $?"
}
expect() { grep -qxF -- "$1" <<<"$output" || { echo "no line: $1"; echo "$output"; exit 1; }; }
expect_not() { ! grep -q -- "$1" <<<"$output" || { echo "a line with: $1"; echo "$output"; exit 1; }; }

case $1 in
  each_rank_has_one)
    output=$(run 8 '8(x2)' 16 my.yaml parallel.ep=8)
    expect "mpirun -n 16 smoe train my.yaml train.device=cuda parallel.transport=nccl parallel.ep=8"
    expect "status 0"
    expect_not note
    ;;
  more_ranks_than_gpus)
    output=$(run 4 '8(x2)' 16 my.yaml)
    expect "train.slurm: 8 ranks and 4 GPU(s) a node; expected a GPU for each rank: sbatch --ntasks-per-node=4, or more --gpus-per-node"
    expect "status 2"
    expect_not mpirun
    ;;
  fewer_ranks_than_gpus)
    output=$(run 8 2,1 3 my.yaml)
    expect "train.slurm: note: 2 ranks use 2 of the 8 GPUs of a node"
    expect "mpirun -n 3 smoe train my.yaml train.device=cuda parallel.transport=nccl"
    ;;
  none)
    output=$(run '' '8(x2)' 16 my.yaml parallel.ep=8)
    expect "mpirun -n 16 smoe train my.yaml parallel.ep=8"
    ;;
  own_words_win)
    output=$(run 2 2 2 my.yaml parallel.transport=mpi)
    expect "mpirun -n 2 smoe train my.yaml train.device=cuda parallel.transport=nccl parallel.transport=mpi"
    ;;
esac
