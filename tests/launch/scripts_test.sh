#!/usr/bin/env bash
# The scripts of launch/: their options, what they say when something is missing, and the corpus they extract.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"

launch=$root/launch

# fake NAME TEXT: a command of that name, first on the PATH.
fake() {
  mkdir -p bin
  printf '#!/bin/sh\n%s\n' "$2" >"bin/$1"
  chmod +x "bin/$1"
  export PATH=$case/bin:$PATH
}

case_setup_unknown_option() { expect 1 '--frobnicate' -- "$launch/setup" --frobnicate; }
case_test_unknown_option() { expect 1 '--frobnicate' -- "$launch/test" --frobnicate; }
case_test_help() { expect 0 '--quick' '--asan' '--fuzz SECONDS' -- "$launch/test" --help; }
case_quickstart_unknown_option() { expect 1 '--frobnicate' -- "$launch/quickstart" --frobnicate; }

# setup looks for what CUDA is built with where nvcc is, and may fetch some: only the cases that try this let it.
export SMOE_CUDA=OFF

case_setup_names_what_is_missing() {
  # shellcheck disable=SC2016
  fake dpkg-query 'case "$*" in *libhdf5-dev) exit 1;; *) printf installed;; esac'
  expect 1 'missing: libhdf5-dev$' -- "$launch/setup" --check
}
case_setup_installs_only_what_is_missing() {
  # shellcheck disable=SC2016
  fake dpkg-query 'case "$*" in *libhdf5-dev) exit 1;; *) printf installed;; esac'
  # shellcheck disable=SC2016
  fake apt-get 'echo "apt-get called: $*"'
  # shellcheck disable=SC2016
  fake sudo 'exec "$@"'
  expect 0 'apt-get called: update' 'apt-get called: install .* libhdf5-dev$' 'setup: installed' -- "$launch/setup"
}
case_setup_does_nothing_when_complete() {
  fake dpkg-query 'printf installed'
  fake apt-get 'echo "apt-get called"; exit 1'
  expect 0 'every package is here' -- "$launch/setup"
}
case_setup_installs_what_bundles_take_when_asked() {
  # shellcheck disable=SC2016
  fake dpkg-query 'case "$*" in *zstd | *debootstrap) exit 1;; *) printf installed;; esac'
  expect 0 'every package is here' -- "$launch/setup" --check
  expect 1 'missing: zstd debootstrap$' -- "$launch/setup" --bundle --check
}

# fake_toolkit HEADER...: a CUDA toolkit in this folder with these headers, around a setup that finds every package.
fake_toolkit() {
  export SMOE_CUDA=AUTO CUDA_PATH=$case
  local header
  fake dpkg-query 'printf installed'
  fake nvcc ''
  mkdir -p house/launch include
  cp "$launch"/{common.sh,setup,cuda_parts.sh} house/launch/
  sed -i 's|/usr/\(local/\)*include|none|g' house/launch/cuda_parts.sh  # this machine's own are not looked at
  for header; do : >"include/$header"; done
}
case_setup_names_what_cuda_lacks() {
  fake_toolkit
  expect 0 'every package is here' 'nvcc is here and cublasLt\.h is not.* libcublas-dev' -- house/launch/setup
  fake_toolkit cublasLt.h
  expect 0 'nvcc is here and cudnn\.h is not.* libcudnn9-dev' 'nccl\.h is not.* libnccl-dev' -- house/launch/setup --check
  fake_toolkit cublasLt.h cudnn.h nccl.h
  expect 0 'cudnn_frontend\.h is not here.* launch/setup fetches it' -- house/launch/setup --check
  absent house/build
  export SMOE_CUDA=OFF
  house/launch/setup >said
  [ "$(cat said)" = "setup: every package is here" ] || fail "it looked where it should not: $(cat said)"
}
case_setup_fetches_the_frontend_once() {
  fake_toolkit cublasLt.h cudnn.h nccl.h
  # A pip whose wheel has the headers, a program and a licence; anything else is the true python3.
  cat >wheel.py <<'END'
import sys, zipfile
name = sys.argv[sys.argv.index("--dest") + 1] + "/nvidia_cudnn_frontend-1.32.0-cp311-cp311-linux.whl"
with zipfile.ZipFile(name, "w") as wheel:
    for file in ("include/cudnn_frontend.h", "include/cudnn_frontend/graph.h", "cudnn/program.so", "x.dist-info/licenses/LICENSE.txt"):
        wheel.writestr(file, file)
END
  # shellcheck disable=SC2016
  fake python3 'if [ "$2" = pip ]; then echo "pip called: $*" >&2; exec '"$(command -v python3)"' wheel.py "$@"; fi; exec '"$(command -v python3)"' "$@"'
  expect 0 'fetching the headers' 'pip called: .*--no-deps.* nvidia-cudnn-frontend' -- house/launch/setup
  [ -f house/build/cudnn-frontend/include/cudnn_frontend/graph.h ] || fail "the headers are not there"
  [ "$(find house/build -name 'LICENSE*' | wc -l)" = 1 ] || fail "the licence is not with them"
  absent house/build/cudnn-frontend/cudnn
  house/launch/setup >said 2>&1
  [ "$(cat said)" = "setup: every package is here" ] || fail "it fetched again: $(cat said)"
}
case_setup_goes_on_without_the_frontend() {
  fake_toolkit cublasLt.h cudnn.h
  fake python3 'echo "no network" >&2; exit 1'
  expect 0 'no network' 'not to be had here' -- house/launch/setup
  absent house/build
}

case_corpus_bad_cap() { expect 1 '--cap' 'lots' -- "$launch/fetch-corpus" out --cap lots; }
case_corpus_unwritable() {
  : >file
  expect 1 'file/out' -- "$launch/fetch-corpus" file/out
}
case_corpus_offline() {
  fake apt-get 'echo "Could not resolve host"; exit 100'
  # shellcheck disable=SC2016
  fake sudo 'exec "$@"'
  expect 1 'could not resolve' 'could not download' 'metamath-databases' 'network' -- "$launch/fetch-corpus" out
  [ -z "$(ls -A out/text)" ] || fail "texts without packages"
  [ -z "$(find out -name '.fetch-*')" ] || fail "scratch folder left behind"
}

# The corpus is there already: a term that has no definition is no example.
case_examples_of_a_corpus() {
  mkdir -p out/text/biology
  for side in train eval; do
    printf '%s\n' "{\"text\": \"Term: $side\\nKind: molecular function\\nDefinition: What \\\"it\\\" does.\\nAlso: x\"}" \
      '{"text": "Term: bare"}' >"out/text/biology/$side.jsonl"
  done
  expect 0 'gene-ontology/train.jsonl: 1 examples' 'gene-ontology/eval.jsonl: 1 examples' -- "$launch/fetch-examples" out
  # shellcheck disable=SC2016
  [ "$(cat out/examples/gene-ontology/eval.jsonl)" = '{"messages": [{"role": "user", "content": "What does the molecular function \"eval\" mean?"}, {"role": "assistant", "content": "What \"it\" does."}]}' ] || fail "$(cat out/examples/gene-ontology/eval.jsonl)"
}
# The model is made of what PyPI has: without it nothing is left, and what is there is not made again.
case_smollm2_without_venv() {
  fake python3 'exit 1'
  expect 1 'launch/fetch-smollm2: .*python3-venv' -- "$launch/fetch-smollm2" out
  [ -z "$(ls -A out/models)" ] || fail "scratch folder left behind"
}
case_smollm2_offline() {
  # shellcheck disable=SC2016
  fake python3 'mkdir -p "$3/bin"; printf "#!/bin/sh\\necho no network here; exit 1\\n" >"$3/bin/python"; chmod +x "$3/bin/python"'
  expect 1 'pip install failed: no network here' -- "$launch/fetch-smollm2" out
  [ -z "$(ls -A out/models)" ] || fail "scratch folder left behind"
}
case_smollm2_is_there() {
  fake python3 'exit 1'
  mkdir -p out/models/smollm2-135m-instruct
  : >out/models/smollm2-135m-instruct/config.json
  expect 0 'is there already' -- "$launch/fetch-smollm2" out
  expect 1 'unknown option --again' -- "$launch/fetch-smollm2" --again
  : >file
  expect 1 'cannot write under file' -- "$launch/fetch-smollm2" file
}
case_examples_of_no_ontology() {
  mkdir -p out/text/biology
  for side in train eval; do echo '{"text": "none"}' >"out/text/biology/$side.jsonl"; done
  expect 1 'out/text/biology holds no Gene Ontology' 'launch/fetch-corpus out' -- "$launch/fetch-examples" out
  absent out/examples/gene-ontology/train.jsonl
}

# A package tree of 60 pages, as the reader of politics expects it.
write_pages() {
  local folder=package/usr/share/doc/anarchism/markdown i
  mkdir -p "$folder"
  for i in $(seq 1 60); do
    printf '# Question %d\n\nThe answer to question %d is long enough to be kept, see [there](sec%d.md "Go") and on.\n' \
      "$i" "$i" "$i" >"$folder/sec$i.md"
  done
  gzip "$folder/sec7.md"
}
corpus_extract() { python3 "$launch/corpus_extract.py" "$@"; }

case_corpus_splits_once_and_for_all() {
  write_pages
  corpus_extract politics package all 0
  corpus_extract politics package again 0
  cmp all/train.jsonl again/train.jsonl && cmp all/eval.jsonl again/eval.jsonl || fail "two runs differ"
  [ "$(cat all/train.jsonl all/eval.jsonl | sort -u | wc -l)" = 60 ] || fail "not every page came out once"
  [ -s all/eval.jsonl ] || fail "nothing was held out"
  corpus_extract politics package capped 4000
  [ "$(cat capped/*.jsonl | wc -l)" -lt 60 ] || fail "the cap did not cap"
  for side in train eval; do
    [ -z "$(comm -23 <(sort "capped/$side.jsonl") <(sort "all/$side.jsonl"))" ] || fail "a document changed sides"
  done
}
case_corpus_cleans_links() {
  write_pages
  corpus_extract politics package out 0
  expect 0 'see \[there\] and on' -- cat out/train.jsonl
  if grep -q 'sec[0-9]*\.md' out/*.jsonl; then fail "a link's target is in the text"; fi
}
case_corpus_strips_roff() {
  mkdir -p package/usr/share/man/de/man1
  for i in $(seq 1 60); do
    cat >"package/usr/share/man/de/man1/page$i.1" <<END
.\\" a comment that must go
.TH PAGE$i 1
.SH "BEZEICHNUNG"
page$i \\- liest \\fIDATEI\\fP mit \\fB\\-\\-hilfe\\fP
.PP
Siehe
.BR page (1),
.B "fette Worte"
und \\(co genug Text, damit die Seite lang genug ist.
.TS
a	table
.TE
.SH ÜBERSETZUNG
Von niemandem.
END
    gzip "package/usr/share/man/de/man1/page$i.1"
  done
  corpus_extract manuals package out 0
  expect 0 'BEZEICHNUNG\\npage[0-9]+ - liest DATEI mit --hilfe\\n\\nSiehe\\npage\(1\),\\nfette Worte\\nund © genug' -- \
    cat out/train.jsonl
  if grep -qE 'comment|table|niemandem' out/train.jsonl; then fail "what is not text is in it"; fi
}
case_corpus_unknown_layout() {
  mkdir -p package/usr/share/doc/anarchism/markdown
  expect 1 'politics' '0 training' 'layout' -- corpus_extract politics package out 0
}
case_corpus_unknown_domain() { expect 1 'usage' 'politics' -- corpus_extract cooking package out 0; }

# A copy of the scripts around a smoe, a cmake and a corpus that only write down how they were called.
fake_house() {
  mkdir -p house/launch house/configs
  cp "$launch"/{quickstart,common.sh,setup,cuda_parts.sh,mpirun} house/launch/
  cp "$root/configs/quickstart.prompts.txt" house/configs/
  fake dpkg-query 'printf installed'
  fake nproc 'echo 2'
  # shellcheck disable=SC2016
  fake cmake 'case "$*" in *--build*) mkdir -p build/release && cp "$FAKE_SMOE" build/release/smoe;; esac'
  cat >house/launch/fetch-corpus <<'END'
#!/bin/sh
for domain in prose code; do
  mkdir -p "$1/text/$domain"
  echo '{"text": "words"}' | tee "$1/text/$domain/train.jsonl" >"$1/text/$domain/eval.jsonl"
  echo "stamp of $domain" >"$1/text/$domain/stamp"
done
END
  cat >smoe <<'END'
#!/bin/sh
echo "$*" >>"$SMOE_CALLS"
[ "$1" != "$SMOE_FAILS" ] || { echo "smoe: no"; exit 1; }
case "$*" in
  *--train-tokenizer*) mkdir -p data/corpus/tokenizer && : >data/corpus/tokenizer/tokenizer.model;;
  prepare*) mkdir -p "$4" && : >"$4/shard-00000.h5";;
esac
END
  chmod +x house/launch/fetch-corpus smoe
  export FAKE_SMOE=$case/smoe SMOE_CALLS=$case/calls SMOE_FAILS=
}
calls() { grep -c -- "^$1" "$SMOE_CALLS" || true; }

case_quickstart_leaves_cuda_out_where_no_driver_is() {
  [ ! -e /proc/driver/nvidia ] && ! command -v nvidia-smi >/dev/null || exit 77
  fake_house
  # shellcheck disable=SC2016
  fake cmake 'echo "cmake $*" >>configured; exit 1'
  unset SMOE_CUDA
  expect 1 'failed in the step "build' -- house/launch/quickstart
  expect 0 'SMOE_CUDA=OFF' -- cat house/configured
  SMOE_CUDA=ON expect 1 -- house/launch/quickstart
  expect 0 'SMOE_CUDA=ON' -- cat house/configured
  fake nvidia-smi ''
  expect 1 -- house/launch/quickstart
  expect 0 'SMOE_CUDA=AUTO' -- cat house/configured
}

case_quickstart_takes_every_step() {
  fake_house
  expect 0 '==> build' '==> pretrain' 'done in [0-9]+ s' 'Done in' 'report\.html' -- house/launch/quickstart
  [ "$(calls 'prepare --train-tokenizer 4096 --out data/corpus/tokenizer data/corpus/text/code/train.jsonl data/corpus/text/prose/train.jsonl')" = 1 ] ||
    fail "the vocabulary was not trained on both domains: $(cat calls)"
  [ "$(calls 'prepare data/corpus/text/prose/eval.jsonl --out data/corpus/shards/prose/eval --tokenizer data/corpus/tokenizer/tokenizer.model --source prose')" = 1 ] ||
    fail "held-out prose was not prepared: $(cat calls)"
  [ "$(calls 'train configs/quickstart.yaml train.output_dir=runs/quickstart parallel.ep=2 train.micro_batch_size=2')" = 2 ] ||
    fail "no training over two ranks: $(cat calls)"
  [ "$(calls 'eval --model runs/quickstart --data data/corpus/shards/code/eval data/corpus/shards/prose/eval')" = 1 ] || fail "no evaluation"
  [ "$(calls 'generate --model runs/quickstart --prompt')" = "$(wc -l <"$root/configs/quickstart.prompts.txt")" ] || fail "it did not write"
  [ "$(calls 'report runs/quickstart')" = 1 ] || fail "no report"
}
case_quickstart_on_one_core_trains_in_one_process() {
  fake_house
  fake nproc 'echo 1'
  expect 0 'Done in' -- house/launch/quickstart
  [ "$(calls train)" = 1 ] && [ "$(calls 'train .*parallel')" = 0 ] || fail "not in one process: $(cat calls)"
}
case_quickstart_skips_what_is_done() {
  fake_house
  house/launch/quickstart >log
  : >house/runs/quickstart/kept
  : >calls
  house/launch/quickstart >log
  [ "$(calls prepare)" = 0 ] || fail "prepared again: $(cat calls)"
  [ -e house/runs/quickstart/kept ] || fail "the run was thrown away"
  house/launch/quickstart --again >log
  [ ! -e house/runs/quickstart/kept ] || fail "--again kept the run"
  [ "$(calls prepare)" = 0 ] || fail "--again prepared again"
}
case_quickstart_names_the_failing_step() {
  fake_house
  SMOE_FAILS=train expect 1 'smoe: no' 'failed in the step "pretrain' -- house/launch/quickstart
  [ "$(calls eval)" = 0 ] || fail "it went on after a failure"
}

# What cmake is asked by launch/quickstart and by launch/test: a difference would compile everything twice.
case_quickstart_and_test_configure_alike() {
  fake_house
  mkdir -p house/tests/data
  printf '#!/bin/sh\n' | tee house/tests/data/fetch_mixtral_tokenizer.sh >/dev/null
  chmod +x house/tests/data/fetch_mixtral_tokenizer.sh
  cp "$launch/test" house/launch/
  fake ctest 'exit 0'
  # shellcheck disable=SC2016
  fake cmake 'echo "$*" >>"$CMAKE_CALLS"; case "$*" in *--build*) mkdir -p build/release && cp "$FAKE_SMOE" build/release/smoe;; esac'
  CMAKE_CALLS=$case/by_quickstart house/launch/quickstart >log
  CMAKE_CALLS=$case/by_test house/launch/test >log
  for script in quickstart test; do grep -v -- --build "$case/by_$script" >"$script.configured"; done
  [ -s test.configured ] || fail "launch/test configured nothing: $(cat by_test)"
  cmp quickstart.configured test.configured ||
    fail "quickstart: cmake $(cat quickstart.configured); test: cmake $(cat test.configured)"
  grep -q -- '--build --preset release' by_quickstart || fail "quickstart built $(cat by_quickstart)"
  grep -q -- '--build --preset release' by_test || fail "test built $(cat by_test)"
}

case_slurm_script_takes_what_a_bundle_has() {
  mkdir bin
  # shellcheck disable=SC2016
  printf '#!/bin/sh\necho "mpirun of the bundle: $*"\n' >bin/mpirun
  : >smoe
  chmod +x bin/mpirun smoe
  local job=(env SLURM_NTASKS=3 SLURM_JOB_ID=1 SLURM_JOB_NODELIST=here)
  expect 0 'mpirun of the bundle: -n 3 \./smoe train x\.yaml$' -- "${job[@]}" bash "$launch/train.slurm" x.yaml
  expect 0 'mpirun of the bundle: -n 3 other train x\.yaml$' -- "${job[@]}" SMOE=other bash "$launch/train.slurm" x.yaml
}

case_slurm_array_runs_a_point_a_task() {
  mkdir bin launch
  cp "$launch/train.slurm" launch/
  # shellcheck disable=SC2016
  printf '#!/bin/sh\necho "called: $*"\n' >bin/mpirun
  : >smoe
  chmod +x bin/mpirun smoe
  local job=(env SLURM_NTASKS=3 SLURM_JOB_ID=1 SLURM_JOB_NODELIST=here)
  expect 0 'called: -n 3 \./smoe sweep x\.yaml --point 7$' -- "${job[@]}" SLURM_ARRAY_TASK_ID=7 bash "$launch/sweep.slurm" x.yaml
  expect 0 'called: -n 3 \./smoe sweep x\.yaml --retry-failed --point 7$' -- \
    "${job[@]}" SLURM_ARRAY_TASK_ID=7 SLURM_GPUS_ON_NODE=3 SLURM_TASKS_PER_NODE=3 bash "$launch/sweep.slurm" x.yaml --retry-failed
  expect 2 'sbatch --array' -- "${job[@]}" bash "$launch/sweep.slurm" x.yaml
  expect 2 'sbatch --array' -- "${job[@]}" SLURM_ARRAY_TASK_ID=7 bash "$launch/sweep.slurm"
}

# A house whose fuzzers are scripts: fuzz_json finds something, fuzz_npy does not.
fake_fuzzers() {
  mkdir -p house/launch house/tests/fuzz/seeds/json house/tests/fuzz/seeds/npy house/tests/fuzz/found/npy
  cp "$launch/test" "$launch/fuzz.sh" "$launch/common.sh" house/launch/
  fake clang++ 'exit 0'
  fake cmake 'mkdir -p build/fuzz/tests/fuzz && cp "$FAKE_FUZZERS"/* build/fuzz/tests/fuzz/'
  mkdir -p fuzzers
  printf '#!/bin/sh\necho "$*" >fuzz_json.called\necho "  what():  ids are ours"\necho "Test unit written to here"\nexit 77\n' >fuzzers/fuzz_json
  printf '#!/bin/sh\necho "$*" >fuzz_npy.called\necho "Done 99 runs in 3 second(s)"\n' >fuzzers/fuzz_npy
  chmod +x fuzzers/*
  export FAKE_FUZZERS=$case/fuzzers
}
case_fuzz_runs_every_fuzzer_and_tells_what_was_found() {
  fake_fuzzers
  expect 1 'ids are ours' 'Test unit written' 'Done 99 runs' 'found something: json.*tests/fuzz/found' -- house/launch/test --fuzz 3
  grep -q -- '-max_total_time=3 .*build/fuzz/corpus/npy tests/fuzz/seeds/npy tests/fuzz/found/npy$' house/fuzz_npy.called ||
    fail "fuzz_npy was called with $(cat house/fuzz_npy.called)"
  [ -d house/build/fuzz/corpus/json ] || fail "no corpus is kept"
}
case_fuzz_takes_names() {
  fake_fuzzers
  expect 0 '1 fuzzers, 3 s each, no finding' -- house/launch/test --fuzz 3 npy
  absent house/fuzz_json.called
  expect 1 "no fuzzer is called csv; there are json npy" -- house/launch/test --fuzz 3 csv
  expect 1 "number of seconds.*found 'soon'" -- house/launch/test --fuzz soon
}
case_fuzz_needs_clang() {
  fake_fuzzers
  rm bin/clang++
  for tool in bash env dirname basename id; do ln -s "$(command -v $tool)" bin/; done
  expect 1 'needs clang' 'apt-get install clang' 'FuzzReplay' -- env "PATH=$case/bin" house/launch/test --fuzz 3
}

run_case "$@"
