# launch/test --fuzz: sourced by it, not run.

# Longest input that a fuzzer makes of its own: what a reader has to be given for every line of it to be reached.
longest_input() {
  case $1 in
    tokenizer) echo 8192 ;;  # 256 byte pieces, or a character map
    *) echo 4096 ;;
  esac
}

# run_fuzzers SECONDS [NAME...]: builds the fuzzers and runs each for so long, or those named. Corpora stay in
# build/fuzz/corpus for the next time; inputs that broke something go to build/fuzz/findings.
run_fuzzers() {
  local seconds=$1 all=() names=("${@:2}") name folder status broken=() folders
  for folder in tests/fuzz/seeds/*/; do all+=("$(basename "$folder")"); done
  for name in ${names[@]+"${names[@]}"}; do
    [ -d "tests/fuzz/seeds/$name" ] || die "no fuzzer is called $name; there are ${all[*]}"
  done
  [ ${#names[@]} != 0 ] || names=("${all[@]}")
  command -v clang++ >/dev/null ||
    die "--fuzz needs clang, whose libFuzzer drives the readers (Debian: apt-get install clang). Without it, ctest -R FuzzReplay runs the seeds and all that was ever found"

  stage "build (build/fuzz)"
  cmake --preset fuzz
  cmake --build --preset fuzz
  stage_end

  # Files that the readers open are made and forgotten by the thousand: in memory where there is room for them.
  local memory=${TMPDIR:-/tmp}
  if [ -w /dev/shm ]; then memory=/dev/shm; fi
  TMPDIR=$(mktemp -d -p "$memory")
  export TMPDIR
  # shellcheck disable=SC2064
  trap "rm -rf '$TMPDIR'; report_failed_stage" EXIT
  mkdir -p build/fuzz/findings
  for name in "${names[@]}"; do
    stage "fuzz_$name for $seconds s"
    mkdir -p "build/fuzz/corpus/$name"
    folders=("build/fuzz/corpus/$name" "tests/fuzz/seeds/$name")
    if [ -d "tests/fuzz/found/$name" ]; then folders+=("tests/fuzz/found/$name"); fi
    status=0
    "build/fuzz/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -max_len="$(longest_input "$name")" -timeout=20 \
      -rss_limit_mb=2048 -malloc_limit_mb=1024 -print_final_stats=1 -artifact_prefix="build/fuzz/findings/$name-" \
      "${folders[@]}" >"build/fuzz/$name.log" 2>&1 || status=$?
    grep -E '^(stat::number_of_executed_units|stat::peak_rss_mb|Done )' "build/fuzz/$name.log" | sed 's/^/    /' || true
    grep -E '^#[0-9]+.*cov: ' "build/fuzz/$name.log" | tail -n 1 | sed 's/^/    /' || true
    if [ "$status" != 0 ]; then
      broken+=("$name")
      grep -E -A 12 '^==.*ERROR|what\(\)|runtime error:|ALARM' "build/fuzz/$name.log" | head -n 30 || true
      grep 'Test unit written to' "build/fuzz/$name.log" || true
    fi
    stage_end
  done
  if [ ${#broken[@]} != 0 ]; then
    die "found something: ${broken[*]}. The whole report of each is in build/fuzz/NAME.log, the input in build/fuzz/findings;" \
      "copy it to tests/fuzz/found/NAME, under a name that says what it is, and ctest -R FuzzReplay runs it ever after"
  fi
  say "launch/test --fuzz: ${#names[@]} fuzzers, $seconds s each, no finding"
}
