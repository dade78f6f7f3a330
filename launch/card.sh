# Shared by launch/test-gpu and launch/bench-gpu; sourced behind common.sh. Both run out of a bundle (launch/bundle --with-tests) or
# out of a build, make their checks one after the other until their time is up, write what is found as it is found, and end
# with a table. On a machine without a GPU they say so, and their status is 77.

# card_options ARGUMENT...: the options that both have. Sets $limit, $out, $only, $emulated, $build, $data and $list.
limit=
out=
only=.
emulated=
build=$root/build/release
data=
list=
card_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --help)
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '/^set/d'
        exit
        ;;
      --emulated) emulated=1 ;;
      --list) list=1 ;;
      --limit | --out | --only | --build | --data)
        [ -n "${2:-}" ] || die "$1 wants a value; use $usage"
        case $1 in
          --limit) limit=$2 ;;
          --out) out=$2 ;;
          --only) only=$2 ;;
          --build) build=$(realpath -m "$2") ;;
          --data) data=$(realpath -m "$2") ;;
        esac
        shift
        ;;
      *) die "unknown option $1; use $usage" ;;
    esac
    shift
  done
  [[ $limit =~ ^[1-9][0-9]*$ ]] || die "--limit: found '$limit', expected a number of seconds"
  [ -z "$data" ] || [ -d "$data/shards" ] || die "--data: $data has no shards/; expected the data/corpus of launch/quickstart"
  bundled=
  [ ! -e "$root/MANIFEST" ] || bundled=1
  if [ -n "$bundled" ]; then
    if [ -e "$root/bin/emulated" ]; then
      [ -n "$emulated" ] || die "this bundle has an emulation in place of the GPU's kernels: say --emulated, or pack one without"
    else
      [ -z "$emulated" ] || die "this bundle has the GPU's kernels; --emulated is for one that launch/bundle --emulated packs, or a build"
    fi
  fi
}

# program NAME: where it is, of a bundle or of the build; emulated, its twin.
program() {
  local name=$1 found
  if [ -n "$bundled" ]; then
    found=$root/tests/$name
    [ "$name" != smoe ] || found=$root/smoe
  else
    if [ -n "$emulated" ]; then
      case $name in
        *_tests) name=${name%_tests}_on_host_tests ;;
        *_ranks) name=${name%_ranks}_on_host_ranks ;;
        *) name=${name}_on_host ;;
      esac
    fi
    found=$build/$name
    [ -x "$found" ] || found=$(find "$build/tests" -name "$name" -type f -perm -u+x 2>/dev/null | head -1)
  fi
  [ -n "$found" ] && [ -x "$found" ] ||
    die "there is no $name: it comes with launch/bundle --with-tests, or with a build of the preset release (--build DIR)"
  printf '%s\n' "$found"
}

# NVIDIA's libraries of Python's packages, behind all others: a machine may have cuDNN and NCCL nowhere else.
use_pythons_libraries() {
  local folders
  folders=$(python3 -c 'import importlib.util, pathlib
found = importlib.util.find_spec("nvidia").submodule_search_locations
print(":".join(sorted({str(f.parent) for base in found for f in pathlib.Path(base).glob("**/lib/lib*.so.*")})))' 2>/dev/null) || return 0
  [ -z "$folders" ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folders"
}

# require_gpu PROGRAM: ends the script where that program, of tests/gpu, finds none.
require_gpu() {
  local said status=0
  said=$("$1" --gtest_filter=none 2>&1) || status=$?
  [ "$status" = 0 ] || {
    say "launch/$self: $(tail -1 <<<"$said")"
    exit "$status"
  }
}

# choose_checks: with --list, those that --only leaves, and the end. A name that none has is an error, before anything is looked for.
choose_checks() {
  local chosen
  chosen=$(list=1 && checks)
  [ -n "$chosen" ] || die "--only: found '$only', which is in the name of no check; --list names them"
  [ -z "$list" ] || { say "$chosen" && exit; }
}

# hand_over: what the commands of a check see of the script, which run in a shell of their own (limited).
hand_over() {
  local name
  for name in $(compgen -A variable | grep -E '^[a-z_]+$'); do
    [[ $(declare -p "$name" 2>/dev/null) == 'declare -a'* ]] || export "${name?}"
  done
  # shellcheck disable=SC2046
  export -f $(declare -F | sed 's/^declare -f //')
}

# ---- what is found: $out/NAME.json as a whole after each check, $out/NAME.log as it comes ----
names=()
whats=()
results=()
times=()
figures=()   # of each check, lines of NAME: VALUE
reasons=()
facts=()     # of the whole, as JSON members
failures=0

json_string() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "$(tr '\n\t' '  ' <<<"$text" | tr -d '\000-\037' | sed 's/ *$//')"
}

write_json() {
  local i line first separator=
  {
    printf '{"what": "%s", "emulated": %s' "$self" "$([ -n "$emulated" ] && echo true || echo false)"
    printf ', %s' "${facts[@]}"
    printf ', "limit_s": %s, "seconds": %s, "failures": %s, "checks": [' "$limit" "$((SECONDS - began))" "$failures"
    for i in "${!names[@]}"; do
      printf '%s\n  {"name": %s, "what": %s, "result": %s, "seconds": %s' "$separator" "$(json_string "${names[i]}")" \
        "$(json_string "${whats[i]}")" "$(json_string "${results[i]}")" "${times[i]}"
      [ -z "${reasons[i]}" ] || printf ', "why": %s' "$(json_string "${reasons[i]}")"
      printf ', "figures": {'
      first=
      while IFS= read -r line; do
        [ -n "$line" ] || continue
        printf '%s%s: %s' "$first" "$(json_string "${line%%: *}")" "$(json_string "${line#*: }")"
        first=', '
      done <<<"${figures[i]}"
      printf '}}'
      separator=,
    done
    printf '\n]}\n'
  } >"$out/.$self.json"
  mv "$out/.$self.json" "$out/$self.json"
}

# begin: where results go, and when the time is up.
begin() {
  began=$SECONDS
  [ -n "$out" ] || out=$PWD/$self-$(date +%Y%m%d-%H%M%S)
  { mkdir -p "$out" && out=$(realpath "$out") && : >"$out/$self.log"; } 2>/dev/null || die "--out: cannot write to $out"
  scratch=$(mktemp -d)
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  cd "$scratch"
}
left() { echo $((limit - (SECONDS - began))); }
finish() {
  local status=$? group
  trap '' INT TERM HUP
  for group in $(jobs -p); do kill "$group" 2>/dev/null || true; done
  for group in $(jobs -p); do end_group "$group"; done
  cd /
  # Ranks are groups of their own, which mpirun ends, unless it was killed itself.
  for group in /proc/[0-9]*; do [ ! "$group/cwd" -ef "$scratch" ] || kill -KILL "${group#/proc/}" 2>/dev/null || true; done
  rm -rf "$scratch" || true
  exit "$status"
}

# end_group GROUP: waits for what is left of a group of processes that was told to end, and kills what does not: a program that
# saves before it goes may wait for a kernel that never ends.
end_group() {
  local waited
  for waited in {1..50}; do
    kill -0 -- "-$1" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL -- "-$1" 2>/dev/null || true
}

# note NAME WHAT RESULT SECONDS FIGURES REASON
note() {
  names+=("$1") whats+=("$2") results+=("$3") times+=("$4") figures+=("$5") reasons+=("$6")
  [ "$3" != failed ] || failures=$((failures + 1))
  printf '%-14s %-8s %6s s  %s\n' "$1" "$3" "$4" "${6:-$(head -1 <<<"$5")}"
  write_json
}

# check NAME CAP WHAT COMMAND...: runs it for CAP seconds at most, or what is left. 0: passed; 77: skipped, and its last line says
# why. Lines "figure: NAME: VALUE" of its output are kept.
check() {
  local name=$1 cap=$2 what=$3 status=0 start=$EPOCHREALTIME seconds found reason=
  shift 3
  [[ $name =~ $only ]] || return 0
  if [ -n "$list" ]; then
    printf '%-14s %s\n' "$name" "$what"
    return
  fi
  local given
  given=$(left)
  if [ "$given" -lt 3 ]; then
    note "$name" "$what" "not run" 0 "" "the time was up"
    return
  fi
  [ "$cap" -gt "$given" ] || given=$cap
  printf '\n==> %s: %s\n' "$name" "$what" >>"$out/$self.log"
  limited "$given" "$@" >"$scratch/.said" 2>&1 &
  wait $! || status=$?  # where Ctrl-C is heard, as it is not while a command in the foreground runs
  end_group $!
  cat "$scratch/.said" >>"$out/$self.log"
  printf '(status %s)\n' "$status" >>"$out/$self.log"
  seconds=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
  found=$(sed -n 's/^figure: //p' "$scratch/.said")
  # A program that was killed, by a system out of memory say, has the status of one whose time was up.
  case $status in 124 | 137) [ "${seconds%.*}" -lt "$given" ] || status=late ;; esac
  case $status in
    0) note "$name" "$what" passed "$seconds" "$found" "" ;;
    77) note "$name" "$what" skipped "$seconds" "$found" "$(tail -1 "$scratch/.said")" ;;
    late)
      reason=$(grep -a '^\[ RUN ' "$scratch/.said" | tail -1 | sed 's/^[^]]*\] */, in /' || true)
      if [ "$given" = "$cap" ]; then
        note "$name" "$what" failed "$seconds" "$found" "took longer than $cap s$reason"
      else
        note "$name" "$what" "not run" "$seconds" "$found" "the time was up after $given s of it$reason"
      fi
      ;;
    *)
      reason=$(grep -a -m1 '^failed: ' "$scratch/.said" || grep -a -m1 '^\[  FAILED  \] ' "$scratch/.said" || grep -a -m1 -E 'error|Failure|failed' "$scratch/.said" || tail -1 "$scratch/.said")
      note "$name" "$what" failed "$seconds" "$found" "status $status: $reason"
      ;;
  esac
}

check_card() { "$gpu_tests" --gtest_filter='Card.*'; }

# limited SECONDS COMMAND... &: the command may be a function of the script. It leads a group of processes of its own, by which what
# it started is ended.
limited() { exec timeout -k 5 "$1" bash -c 'set -euo pipefail; "$@"' "$self" "${@:2}" </dev/null; }

# table: what was found, the last thing that is printed. Returns what the script ends with: 1 where a check failed, 124 where
# the time was up before all were made.
table() {
  local i line status=0
  printf '\n%-14s %-8s %7s  %s\n' check result seconds found
  for i in "${!names[@]}"; do
    printf '%-14s %-8s %7s  %s\n' "${names[i]}" "${results[i]}" "${times[i]}" "${reasons[i]}"
    while IFS= read -r line; do
      [ -z "$line" ] || printf '%33s%s\n' "" "$line"
    done <<<"${figures[i]}"
    case ${results[i]} in
      failed) status=1 ;;
      "not run") [ "$status" = 1 ] || status=124 ;;
    esac
  done
  return "$status"
}
