#!/usr/bin/env bash
# launch/bundle, of the build that is tested; launch/bundle-check tries what only a bare system can show.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

build=$(dirname "${2:-.}")
bundled() { "$root/launch/bundle" --from "$build" "$@" >bundle.log 2>&1 || fail "$(cat bundle.log)"; }
# bare COMMAND...: nothing of this environment.
bare() { env -i PATH=/usr/bin:/bin HOME="$case" TMPDIR="${TMPDIR:-/tmp}" "$@"; }
# one_line COMMAND...: what it says is a line.
one_line() {
  local said
  said=$("$@" 2>&1 </dev/null) || true
  [ "$(wc -l <<<"$said")" = 1 ] || fail "more than a line: $said"
}

case_a_bundle_travels() {
  bundled --out there/smoe
  mv there/smoe moved
  expect 0 "^smoe [0-9]+\.[0-9]+\.[0-9]+" -- bare moved/smoe --version
  ln -s moved/smoe linked
  expect 0 "^smoe [0-9]" -- bare ./linked --version
  (cd moved && sha256sum --quiet -c MANIFEST) || fail "its files are not those of its manifest"
  [ -z "$(cd moved && find . -type f ! -name MANIFEST -printf '%P\n' | grep -vxFf <(cut -d ' ' -f 3- MANIFEST))" ] || fail "files without a line"
  for file in LICENSE README.md docs/guide.md configs/quickstart.yaml configs/quickstart.prompts.txt launch/train.slurm bin/orted; do
    [ -s "moved/$file" ] || fail "no $file"
  done
  [ -z "$(find moved -name 'libc.so*' -o -name 'libm.so*' -o -name 'libpthread*' -o -name 'ld-linux*' -o -name 'libcuda*')" ] ||
    fail "what must be the system's is in it"

  smoe=$case/moved/smoe
  prepared threads=1
  expect 0 '2 ranks' -- bare moved/launch/mpirun -n 2 "$smoe" train config.yaml parallel.ep=2
  expect 0 'step-000002' -- cat run/checkpoints/latest
  # What was opened is the bundle's, but for glibc.
  # shellcheck disable=SC2016
  bare LD_DEBUG=libs LD_DEBUG_OUTPUT="$case/opened" sh -c 'echo $$ >pid; exec "$0" --version' "$smoe"
  sed -n 's/.*calling init: //p' "opened.$(cat pid)" >opened
  grep -q "^$case/moved/lib/libmpi.so" opened || fail "its libraries were not opened: $(cat opened)"
  local others
  others=$(grep -vE "^$case/moved/lib/|/lib(c|m|pthread|dl|rt|resolv)\.so|ld-linux" opened || true)
  [ -z "$others" ] || fail "libraries of this machine were opened: $others"
}

case_tests_find_their_files_there() {
  [ -x "$build/tests/bench/op_bench" ] && [ -x "$build/tests/goldens/goldens_tests" ] || { echo "skipped: they are not built"; exit 77; }
  bundled --with-tests --out there
  expect 0 'PASSED.* [1-9][0-9]* test' -- bare there/tests/goldens_tests --gtest_filter='*Rope*'
  mv there/tests/goldens/rope.safetensors .
  expect 1 "$case/there/tests/goldens/rope.safetensors" -- bare there/tests/goldens_tests --gtest_filter='*Rope*'
  expect 0 'PASSED.* [1-9][0-9]* test' -- bare there/launch/mpirun -n 2 there/tests/communicator_ranks --gtest_filter='*Gather*'
}

# Two nodes that are names alone: what would be ssh starts the daemon here, under the name of the node.
case_nodes_start_the_bundles_daemon() {
  unshare --uts true 2>/dev/null || { echo "skipped: no host names of its own can be had here"; exit 77; }
  bundled --out there
  # shellcheck disable=SC2016
  printf '#!/bin/sh\nname=$1\nshift\nexec env -i PATH=/usr/bin:/bin unshare --uts sh -c "hostname $name; $*"\n' >agent
  chmod +x agent
  # shellcheck disable=SC2016
  bare OMPI_MCA_plm_rsh_agent="$case/agent" there/launch/mpirun --host one:1,two:1 -n 2 \
    sh -c 'echo "$(hostname) of $(ps -o args= -p "$PPID" | cut -d " " -f 1-6)"' >said 2>error || fail "$(cat said error)"
  for node in one two; do
    grep -q "^$node of .* --argv0 $case/there/bin/orted $case/there/libexec/orted" said || fail "not on $node: $(cat said error)"
  done
}

case_one_line_where_it_cannot_run() {
  bundled --out smoe-here
  smoe=$case/smoe-here/smoe
  mkdir alone && cp "$smoe" smoe-here/bin/mpirun alone/
  expect 1 'alone has no other files of it: move the folder as a whole' -- bare alone/smoe --version
  expect 1 'no other files of it: move the folder as a whole' -- bare alone/mpirun -n 1 true
  one_line bare alone/smoe --version

  mv smoe-here/lib/libyaml* .
  expect 1 "^smoe: error: $case/smoe-here/lib/libyaml.* is missing.*moved as a whole" -- bare "$smoe" --version
  expect 1 "^mpirun: error: .*libyaml.* is missing" -- bare smoe-here/launch/mpirun -n 2 "$smoe" --version
  one_line bare "$smoe" --version
  one_line bare smoe-here/launch/mpirun -n 2 "$smoe" --version
  mv libyaml* smoe-here/lib/
  rm smoe-here/docs/guide.md
  expect 0 '^smoe [0-9]' -- bare "$smoe" --version

  local wanted
  wanted=$(cat smoe-here/lib/glibc)
  [[ $wanted =~ ^2\.[0-9]+$ ]] || fail "lib/glibc says '$wanted'"
  echo 2.99 >smoe-here/lib/glibc
  expect 1 '^smoe: error: found glibc 2\.[0-9]+ on this machine, this bundle wants 2\.99 or newer: ' -- bare "$smoe" --version
  one_line bare "$smoe" --version
  echo 3.1 >smoe-here/lib/glibc
  expect 1 'found glibc 2\.[0-9]+ .* wants 3\.1' -- bare "$smoe" --version
  echo "$wanted" >smoe-here/lib/glibc

  cp smoe-here/bin/levels levels
  sed -i 's/$/ avx9000 avx9001/' smoe-here/bin/levels
  expect 1 '^smoe: error: this CPU is older .* it lacks avx9000 avx9001\.' -- bare "$smoe" --version
  one_line bare "$smoe" --version
  { echo "best avx9000" && cat levels; } >smoe-here/bin/levels
  expect 0 '^smoe [0-9]' -- bare "$smoe" --version
  expect 1 "SMOE_LEVEL: found 'old', this bundle has best, " -- bare SMOE_LEVEL=old "$smoe" --version
}

case_an_archive_holds_one_folder() {
  command -v zstd >/dev/null || { echo "skipped: no zstd here"; exit 77; }
  bundled --out here.tar.zst
  tar --zstd -tf here.tar.zst >names
  [ "$(cut -d / -f 1 names | sort -u)" = "$(sed -n 's/^project(smoe VERSION \([0-9.]*\).*/smoe-\1-x86_64/p' "$root/CMakeLists.txt")" ] ||
    fail "it holds $(cut -d / -f 1 names | sort -u)"
  [ -z "$(find . -name '.bundle-*')" ] || fail "scratch was left behind"
}

case_what_cannot_be_packed() {
  expect 1 '--frobnicate' 'use launch/bundle' -- "$root/launch/bundle" --frobnicate
  expect 1 '--out wants a value' -- "$root/launch/bundle" --out
  expect 1 '--arch .* without CUDA' -- "$root/launch/bundle" --without-cuda --arch 80
  expect 1 '--arch .* --from builds nothing' -- "$root/launch/bundle" --from "$build" --arch 80
  expect 1 'nowhere is no folder that smoe was built in' -- "$root/launch/bundle" --from nowhere --out out
  expect 1 "two builds have SMOE_MARCH" -- "$root/launch/bundle" --from "$build" --from "$build" --out out
  expect 1 '--with-nvidia .* without CUDA' -- "$root/launch/bundle" --without-cuda --with-nvidia here
  expect 1 'here has no libcublasLt' -- "$root/launch/bundle" --from "$build" --with-nvidia here --out out
  mkdir there
  expect 1 'there is there already' -- "$root/launch/bundle" --from "$build" --out there
  mkdir fake && printf 'SMOE_MARCH:STRING=znver9\n' >fake/CMakeCache.txt && printf '#!/bin/sh\n' >fake/smoe && chmod +x fake/smoe
  expect 1 'SMOE_MARCH=znver9; a bundle takes' -- "$root/launch/bundle" --from fake --out out
  absent out
  [ -z "$(find . -name '.bundle-*')" ] || fail "scratch was left behind"
}

case_check_says_what_it_wants() {
  expect 1 '--frobnicate' 'use launch/bundle-check' -- "$root/launch/bundle-check" --frobnicate
  expect 1 "found no file 'nothing'; use launch/bundle-check" -- "$root/launch/bundle-check" nothing
  expect 1 "found no file ''; use" -- "$root/launch/bundle-check"
  expect 1 '--deb wants a value' -- "$root/launch/bundle-check" --deb
}

case_install_puts_things_where_they_belong() {
  cmake --install "$build" --prefix "$case/usr" >install.log || fail "$(cat install.log)"
  expect 0 '^smoe [0-9]' -- "$case/usr/bin/smoe" --version
  for file in share/smoe/launch/mpirun share/smoe/configs/quickstart.yaml share/doc/smoe/LICENSE share/doc/smoe/docs/guide.md; do
    [ -s "usr/$file" ] || fail "no $file: $(find usr -type f)"
  done
  [ "$(ls usr usr/bin | xargs)" = "usr: bin share usr/bin: smoe" ] || fail "more than is wanted: $(ls usr usr/bin)"
  if readelf -d usr/bin/smoe | grep -E 'R(UN)?PATH'; then fail "it carries a path of this machine"; fi
  expect 0 '^smoe [0-9]' -- usr/share/smoe/launch/mpirun -n 1 "$case/usr/bin/smoe" --version
}

run_case "$@"
