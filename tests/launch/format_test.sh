#!/usr/bin/env bash
# launch/format: this tree is laid out by .clang-format, and a file that is not is named and mended.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"

case_ThisTree() { "$root/launch/format" --check; }

case_NamesAndMendsAFile() {
  mkdir -p house/launch house/kernels
  cp "$root/launch/format" "$root/launch/common.sh" house/launch
  cp "$root/.clang-format" house
  printf 'int  answer( ) {return 42;}\n' >house/kernels/crooked.cpp
  printf 'int answer();\n' >house/kernels/straight.h
  local status=0
  house/launch/format --check >said || status=$?
  [ "$status" != 77 ] || exit 77
  [ "$status" = 1 ] || fail "status $status where 1 was expected"
  grep -q 'kernels/crooked.cpp' said || fail "the crooked file is not named"
  ! grep -q 'straight' said || fail "the straight one is"
  house/launch/format
  expect 0 -- house/launch/format --check
  [ "$(cat house/kernels/crooked.cpp)" = 'int answer() { return 42; }' ] || fail "mended otherwise: $(cat house/kernels/crooked.cpp)"
}

run_case "$@"
