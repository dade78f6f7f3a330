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
case_prepare_refuses_compressed_and_tabular_files_by_name() {
  echo '{"text": "a"}' >f.jsonl
  gzip f.jsonl
  printf 'PAR1\025\000PAR1' >f.parquet
  printf 'text,label\na,1\n' >f.csv
  refuses 'f.jsonl.gz is gzip-compressed: .*zcat f.jsonl.gz > f.jsonl' -- "$smoe" prepare f.jsonl.gz
  refuses 'f.parquet is an Apache Parquet table: .*read_parquet' -- "$smoe" prepare f.parquet
  refuses 'f.csv is a table' -- "$smoe" prepare f.csv
  mkdir corpus
  mv f.parquet corpus
  echo text >corpus/a.txt
  refuses 'corpus/f.parquet is an Apache Parquet table' -- "$smoe" prepare corpus
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
