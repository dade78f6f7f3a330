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
case_quickstart_unknown_option() { expect 1 '--frobnicate' -- "$launch/quickstart" --frobnicate; }

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
END
    gzip "package/usr/share/man/de/man1/page$i.1"
  done
  corpus_extract manuals package out 0
  expect 0 'BEZEICHNUNG\\npage[0-9]+ - liest DATEI mit --hilfe\\n\\nSiehe\\npage\(1\),\\nfette Worte\\nund © genug' -- \
    cat out/train.jsonl
  if grep -q 'comment' out/train.jsonl; then fail "a comment is in the text"; fi
}
case_corpus_unknown_layout() {
  mkdir -p package/usr/share/doc/anarchism/markdown
  expect 1 'politics' '0 training' 'layout' -- corpus_extract politics package out 0
}
case_corpus_unknown_domain() { expect 1 'usage' 'politics' -- corpus_extract cooking package out 0; }

run_case "$@"
