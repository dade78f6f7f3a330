#!/usr/bin/env bash
# Shared by the script tests; sourced. A script defines functions named case_NAME and ends with: run_case "$@"
#   SCRIPT --list           the names of the cases
#   SCRIPT NAME SMOE        runs one in an empty folder of its own

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}

# expect STATUS[|STATUS] 'PIECE'... -- COMMAND...
# The command ends with that status, its output (both streams) has every piece (a grep -E pattern, any case), and it
# ends by its own will: no uncaught exception, no sanitizer's report.
expect() {
  local statuses=$1 pieces=() output status=0 piece
  shift
  while [ "$1" != -- ]; do
    pieces+=("$1")
    shift
  done
  shift
  output=$("$@" 2>&1 </dev/null) || status=$?
  printf '$ %s\n%s\n(status %d)\n' "$*" "$output" "$status"
  [[ "|$statuses|" == *"|$status|"* ]] || fail "status $status where $statuses was expected"
  if grep -qE 'terminate called|core dumped|ERROR: AddressSanitizer|runtime error:' <<<"$output"; then
    fail "it crashed instead of refusing"
  fi
  for piece in ${pieces[@]+"${pieces[@]}"}; do
    grep -qiE -- "$piece" <<<"$output" || fail "no /$piece/ in the output"
  done
}

absent() {
  local path
  for path; do [ ! -e "$path" ] || fail "$path was left behind"; done
}

# flip FILE OFFSET: inverts one byte; a negative offset counts from the end.
flip() {
  python3 - "$1" "$2" <<'END'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[int(sys.argv[2])] ^= 0xFF
open(sys.argv[1], "wb").write(data)
END
}

run_case() {
  if [ "${1:-}" = --list ]; then
    declare -F | sed -n 's/^declare -f case_//p'
    return
  fi
  declare -F "case_${1:-}" >/dev/null || fail "no case named '${1:-}'; --list names them"
  smoe=${2:-}
  case=$(mktemp -d)
  trap 'rm -rf "$case"' EXIT
  cd "$case"
  "case_$1"
}
