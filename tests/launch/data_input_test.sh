#!/usr/bin/env bash
# What people hand to prepare, train and eval as data: what it is taken for, and what is refused by its name.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

prepare() { "$smoe" prepare "$@" --out shards --tokenizer bytes; }
refuses() {
  expect 1 "$@" --out shards --tokenizer bytes
  absent shards
}

# npy FILE SHAPE COUNT: i32 ids 3, 4, 5, ... of that shape.
npy() {
  python3 - "$@" <<'END'
import struct, sys
path, shape, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
header = "{'descr': '<i4', 'fortran_order': False, 'shape': %s, }" % shape
header += " " * (-(len(header) + 11) % 64) + "\n"
open(path, "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
                       + struct.pack("<%di" % count, *range(3, 3 + count)))
END
}

# A model of 128 ids, trained for a step on the 100 ids of ids/.
trained_on_ids() {
  npy ids.npy '(100,)' 100
  "$smoe" prepare ids.npy --out ids --vocab-size 128 --source ids
  write_config vocab_size=128 train='[{path: ids}]' eval='[]' sequence_length=16 steps=1 global_batch_size=2
  "$smoe" train config.yaml
}
column() {
  npy column.npy '(100, 1)' 100
  "$smoe" prepare column.npy --out column --vocab-size 128 --source column
}

# ---- prepare ----------------------------------------------------------------------------------------------------

case_prepare_says_what_each_file_was_taken_for() {
  printf '{"text": "First document."}\n{"text": "Second document."}\n' >lines.json
  printf '[{"text": "a"},\n {"text": "b", "score": NaN}]\n' >array.json
  printf '{"text": "abc", "score": NaN}\n' >UPPER.JSONL
  printf 'words' >notes
  expect 0 'in 6 documents' 'lines.json as jsonl, array.json as json, UPPER.JSONL as jsonl, notes as text' -- \
    prepare lines.json array.json UPPER.JSONL notes
}
case_prepare_counts_kinds_where_files_are_many() {
  mkdir corpus
  for i in $(seq 12); do echo text >"corpus/$i.txt"; done
  echo '{"text": "a"}' >corpus/a.jsonl
  expect 0 'read 12 file\(s\) as text, 1 as jsonl' -- prepare corpus
}
case_prepare_refuses_packed_and_tabular_files_by_name() {
  echo text >f.txt
  bzip2 f.txt 2>/dev/null || printf 'BZh91AY&SY\001\377' >f.txt.bz2
  printf 'ORC\001\377' >f.orc
  printf 'text,label\na,1\n' >f.csv
  tar -czf f.tar.gz f.csv
  refuses 'f.txt.bz2 is compressed with bzip2: .*bzcat f.txt.bz2 > f.txt' -- "$smoe" prepare f.txt.bz2
  refuses 'f.orc is an Apache ORC table: .*read_orc' -- "$smoe" prepare f.orc
  refuses 'f.csv is a table' -- "$smoe" prepare f.csv
  refuses 'f.tar.gz is gzip-compressed, and what it holds is a tar archive: .*tar -xf f.tar.gz' -- "$smoe" prepare f.tar.gz
  mkdir corpus
  mv f.orc corpus
  echo text >corpus/a.txt
  refuses 'corpus/f.orc is an Apache ORC table' -- "$smoe" prepare corpus
}

# ---- compressed files, pipes, patterns --------------------------------------------------------------------------

# Twelve documents as a.jsonl, and their shards as plain/.
twelve() {
  for i in $(seq 12); do printf '{"text": "document %d", "meta": {"body": "b%d"}}\n' "$i" "$i"; done >a.jsonl
  "$smoe" prepare a.jsonl --out plain --tokenizer bytes --source twelve
}
# the_same DIR: as plain/.
the_same() { diff -r plain "$1" || fail "$1 differs from plain"; }

case_prepare_reads_what_gzip_and_zstd_packed() {
  twelve
  gzip -k a.jsonl
  expect 0 'read a.jsonl.gz as jsonl' "from $(stat -c %s a.jsonl.gz) bytes in 1 file" -- \
    "$smoe" prepare a.jsonl.gz --out packed --tokenizer bytes --source twelve
  the_same packed
  head -n 5 a.jsonl | gzip >members.gz
  tail -n +6 a.jsonl | gzip >>members.gz
  expect 0 'in 12 documents' -- "$smoe" prepare members.gz --out members --tokenizer bytes --source twelve
  the_same members
  command -v zstd >/dev/null || return 0
  zstd -q a.jsonl
  expect 0 'in 12 documents' -- "$smoe" prepare a.jsonl.zst --out zstd --tokenizer bytes --source twelve
  the_same zstd
}
case_prepare_reads_standard_input_and_pipes() {
  twelve
  "$smoe" prepare - --out in --tokenizer bytes --source twelve <a.jsonl >said
  grep -q 'read standard input as jsonl' said || fail "it does not say what it read"
  the_same in
  gzip -c a.jsonl | "$smoe" prepare - --out packed --tokenizer bytes --source twelve
  the_same packed
  "$smoe" prepare <(head -n 5 a.jsonl) <(tail -n +6 a.jsonl | gzip) --out two --tokenizer bytes --source twelve
  the_same two
  mkfifo pipe
  cat a.jsonl >pipe &
  "$smoe" prepare pipe --out fifo --tokenizer bytes --source twelve
  the_same fifo
  printf '{"text": "a"}\n{"text": 7}\n' | refuses_from_pipe 'standard input:2:1: "text": found 7'
  printf '\223NUMPY...' | refuses_from_pipe 'standard input is read as npy, which is read in place: write it into a file'
  printf 'x' | gzip | head -c 15 | refuses_from_pipe 'standard input: byte 15 of the file: the gzip data end'
  refuses '- is named twice' -- "$smoe" prepare - -
}
refuses_from_pipe() {
  local status=0
  "$smoe" prepare - --out shards --tokenizer bytes >said 2>&1 || status=$?
  cat said
  [ "$status" = 1 ] || fail "status $status where 1 was expected"
  grep -qE -- "$1" said || fail "no /$1/ in the output"
  absent shards
}
# A writer that says nothing more does not keep a refusal from being told.
case_prepare_leaves_a_pipe_that_it_refuses() {
  mkfifo pipe
  { echo '{"text": 7}'; yes '{"text": "some words of a line"}' | head -c 20000000; exec sleep 60; } >pipe &
  local writer=$! status=0
  timeout 30 "$smoe" prepare pipe --threads 1 --out shards --tokenizer bytes >said 2>&1 || status=$?
  kill "$writer" 2>/dev/null || true
  cat said
  [ "$status" = 1 ] || fail "status $status where 1 was expected"
  grep -q 'pipe:1:1' said || fail "the line is not named"
}
# What was made and holds nothing yet goes with the process.
case_prepare_that_is_ended_leaves_no_empty_directory() {
  mkfifo pipe
  { printf '{"text": "a"}\n%.0s' $(seq 7000); exec sleep 60; } >pipe &  # more than prepare looks at first
  local writer=$! reader status=0
  "$smoe" prepare pipe --out shards --tokenizer bytes >said 2>&1 &
  reader=$!
  for _ in $(seq 100); do [ -d shards ] && break || sleep 0.1; done
  [ -d shards ] || fail "nothing was begun: $(cat said)"
  kill -TERM "$reader"
  wait "$reader" || status=$?
  kill "$writer" 2>/dev/null || true
  [ "$status" = 143 ] || fail "status $status where 143 was expected"
  absent shards
}
# So does what has been written of a shard, of a vocabulary and of the list of bad documents, but not what was there before.
case_prepare_that_is_ended_leaves_no_hidden_file() {
  mkfifo pipe
  local writer reader status to='--tokenizer bytes'
  for signal in TERM INT HUP; do
    for what in shards vocabulary kept; do
      [ "$what" = vocabulary ] && to='--train-tokenizer 300' || to='--tokenizer bytes'
      rm -rf out
      [ "$what" = kept ] && mkdir out && touch out/mine
      { printf '?\n%.0s' $(seq 12); yes '{"text": "some words of a line"}' | head -c 20000000 || true; exec sleep 60; } >pipe &
      writer=$!
      python3 -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])' \
        "$smoe" prepare pipe --format jsonl --skip-bad 20 --out out $to --threads 2 >said 2>&1 &
      reader=$! status=0
      for _ in $(seq 200); do [ "$(hidden)" -ge 2 ] && break || sleep 0.1; done
      [ "$(hidden)" -ge 2 ] || fail "$what: nothing was begun: $(cat said)"
      kill "-$signal" "$reader"
      wait "$reader" || status=$?
      kill "$writer" 2>/dev/null || true
      [ "$status" -gt 128 ] || fail "$what: status $status after SIG$signal"
      if [ "$what" = kept ]; then
        [ "$(ls -A out)" = mine ] || fail "$what: left $(ls -A out)"
      else
        absent out
      fi
    done
  done
}
hidden() { find out -name '.*.tmp-*' 2>/dev/null | wc -l; }
# Nothing is held as a whole, however long a document is: 60 million ids would be 240 MB.
case_prepare_takes_a_document_of_any_length() {
  python3 - "$smoe" <<'END'
import gzip, resource, subprocess, sys
with gzip.open("long.txt.gz", "wb", 1) as file:
    for _ in range(60):
        file.write(b"words and words\n" * 62500)
subprocess.run([sys.argv[1], "prepare", "long.txt.gz", "--out", "shards", "--tokenizer", "bytes", "--threads", "2"], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(f"{used:.0f} MiB")
assert used < 150, used
END
}
case_prepare_expands_quoted_patterns() {
  twelve
  mkdir -p deep/er
  head -n 5 a.jsonl >deep/1.jsonl
  tail -n +6 a.jsonl | gzip >deep/er/2.jsonl.gz
  expect 0 'deep/1.jsonl as jsonl, deep/er/2.jsonl.gz as jsonl' -- \
    "$smoe" prepare 'deep/**/*.jsonl*' --out pattern --tokenizer bytes --source twelve
  the_same pattern
  refuses '"deep/\*.zst" matches no file' -- "$smoe" prepare 'deep/*.zst'
}
case_prepare_takes_a_path_into_nested_objects() {
  twelve
  expect 0 'in 12 documents' -- "$smoe" prepare a.jsonl --out nested --tokenizer bytes --text-field meta.body
  refuses 'a.jsonl:1:1: "text": found the string "document 1", expected an object' -- "$smoe" prepare a.jsonl --text-field text.body
}
case_prepare_passes_over_a_few_bad_documents() {
  twelve
  for i in $(seq 12); do printf '?\n'; done >>a.jsonl
  refuses 'a.jsonl:13:1: not valid JSON' -- "$smoe" prepare a.jsonl
  refuses 'a.jsonl:24:1: .*bad document number 12, and --skip-bad allows 11' -- "$smoe" prepare a.jsonl --skip-bad 11
  expect 0 'passed over: a.jsonl:13:1: not valid' 'passed over: a.jsonl:22:1' 'passed over: 12 bad document' 'in 12 documents' -- \
    "$smoe" prepare a.jsonl --out some --tokenizer bytes --source twelve --skip-bad 12
  [ "$(wc -l <some/skipped.txt)" = 12 ] && grep -q '^a.jsonl:24:1: not valid JSON' some/skipped.txt || fail "not all are listed"
  rm some/skipped.txt
  the_same some
  for i in $(seq 200); do printf '{"text": "line %d of what a vocabulary is learned from"}\n' "$i"; done >>a.jsonl
  expect 0 'passed over: 12 bad document.*all of them in vocabulary/skipped.txt' -- \
    "$smoe" prepare a.jsonl --out vocabulary --train-tokenizer 300 --skip-bad 12
  [ "$(wc -l <vocabulary/skipped.txt)" = 12 ] && grep -q '^a.jsonl:24:1: not valid JSON' vocabulary/skipped.txt || fail "the vocabulary's list"
  "$smoe" prepare a.jsonl --out other --tokenizer bytes --skip-bad 99 2>&1 | grep -q 'a.jsonl:23' && fail "more than ten are told"
  return 0
}
case_prepare_reads_bare_ids() {
  printf '\005\000\006\000\001\000\007\000' >ids.bin
  expect 0 '4 tokens in 1 documents' -- "$smoe" prepare ids.bin --format u16 --out one --vocab-size 8
  expect 0 '4 tokens in 2 documents' -- "$smoe" prepare ids.bin --format u16 --out two --vocab-size 8 --document-end 1
  expect 2 'excludes|document-end' -- "$smoe" prepare ids.bin --format u16 --out no --vocab-size 8 --document-end 1 --document-begin 1
  expect 1 'ids.bin: element 3 is 7' -- "$smoe" prepare ids.bin --format u16 --out no --vocab-size 7
  absent no
}
case_prepare_reads_ids_of_hdf5() {
  twelve
  expect 0 'read plain/shard-00000.h5 as hdf5' 'in 12 documents' -- "$smoe" prepare plain/shard-00000.h5 --out again --vocab-size 259
  expect 0 'in 1 documents' -- "$smoe" prepare plain/shard-00000.h5 --out flat --vocab-size 259 --dataset tokens
  expect 1 "has no dataset 'ids'; the file has document_offsets, tokens" -- \
    "$smoe" prepare plain/shard-00000.h5 --out no --vocab-size 259 --dataset ids
  absent no
}
case_prepare_refuses_half_of_a_megatron_dataset() {
  printf '\001\000\002\000' >f.bin
  refuses 'f.bin is half of a Megatron dataset' 'copy f.idx beside it' -- "$smoe" prepare f.bin
  mv f.bin g.bin
  printf 'MMIDIDX\000\000' >f.idx
  refuses 'f.idx is the index of a Megatron dataset without its ids: copy f.bin' -- "$smoe" prepare f.idx
}
case_prepare_names_and_counts_what_a_directory_holds_besides() {
  mkdir corpus
  echo text >corpus/a.txt
  printf '\211PNG\r\n\032\n\000' | tee corpus/a.png >corpus/b.png
  printf '\000\001' >corpus/x.dat
  expect 0 '2 file\(s\), each a PNG image \(the first is corpus/a.png\)' '1 file\(s\), each binary \(.dat\) \(corpus/x.dat\)' -- prepare corpus
}
case_prepare_refuses_bytes_that_are_no_text_unless_told() {
  printf 'one\ncaf\351\n' >latin.txt
  refuses 'latin.txt:2: byte 7 of the text is 0xE9, which is no UTF-8' 'iconv' '--format text' -- "$smoe" prepare latin.txt
  expect 0 '1 bytes were zero or no UTF-8' -- prepare latin.txt --format text
}
case_prepare_positions_are_file_line_and_column() {
  printf '{"text": "a"}\n{"text": "b" "c"}\n' >f.jsonl
  refuses 'f.jsonl:2:16: not valid JSON' -- "$smoe" prepare f.jsonl
  printf '{"text": "a"}\n{"text": NaN}\n' >f.jsonl
  refuses 'f.jsonl:2:1: "text": found NaN, expected a string' -- "$smoe" prepare f.jsonl
  printf '{"data": [{"text": "a"}]}' >f.json
  refuses 'f.json:1:1: the key "text" is missing.* the object has "data"' -- "$smoe" prepare f.json
}
case_prepare_warns_of_ids_in_a_column() {
  npy column.npy '(100, 1)' 100
  expect 0 'smoe: warning: column.npy has the shape \(100, 1\)' 'ravel' -- "$smoe" prepare column.npy --out column --vocab-size 128
}
case_prepare_has_no_rate_for_the_work_of_a_moment() {
  echo '{"text": "a"}' >f.jsonl
  prepare f.jsonl >out.txt 2>&1
  cat out.txt
  ! grep -E 'B/s' out.txt || fail "a rate was told"
  grep -q 'from 14 bytes' out.txt || fail "the size is not told"
}
case_prepare_help_says_that_documents_are_not_split() {
  expect 0 'most tokens a shard; documents are not split' 'text takes any bytes' -- "$smoe" prepare --help
}

# ---- train and eval ---------------------------------------------------------------------------------------------

case_train_and_eval_refuse_data_without_a_target() {
  trained_on_ids
  column
  expect 1 'column has no target in its 100 tokens of 100 documents' 'ravel' -- \
    "$smoe" train config.yaml data.train.0.path=column train.output_dir=other
  absent other
  expect 1 'column has no target' -- "$smoe" eval --model run --data column --seq 16
}
case_eval_keeps_its_good_sources() {
  trained_on_ids
  column
  cp -r ids damaged
  flip damaged/shard-00000.h5 -40
  expect 1 'smoe: error: damaged/shard-00000.h5 is damaged' 'smoe: error: column has no target' \
    'smoe: error: nowhere is no directory of token shards' '^ids +[0-9]' -- \
    "$smoe" eval --model run --data damaged nowhere ids column --seq 16
  local status=0
  "$smoe" eval --model run --data damaged nowhere ids column --seq 16 --json >out.json || status=$?
  [ "$status" = 1 ] || fail "status $status where 1 was expected"
  python3 - <<'END' || fail "eval --json does not say what was evaluated and what was refused"
import json
row = json.load(open("out.json"))
assert list(row["eval"]) == ["ids"] and row["eval"]["ids"]["tokens"] == 99, row
assert sorted(row["refused"]) == ["column", "damaged", "nowhere"] and "SHA-256" in row["refused"]["damaged"], row
END
  expect 1 '"eval":\{\}' '"refused":' -- "$smoe" eval --model run --data nowhere --json
  "$smoe" eval --model run --data ids --seq 16 --json | grep -v refused || fail "something was refused"
  expect 2 '--data names ids more than once' -- "$smoe" eval --model run --data ids ids
}
# 99 targets: six samples of 16 and three more tokens.
case_eval_counts_every_target_once() {
  trained_on_ids
  for length in 1 7 16 64; do
    expect 0 '"tokens":99,' -- "$smoe" eval --model run --data ids --seq $length --json
  done
  npy short.npy '(5,)' 5
  "$smoe" prepare short.npy --out short --vocab-size 128
  expect 0 '"tokens":4,' -- "$smoe" eval --model run --data short --seq 64 --json
}

run_case "$@"
