#!/usr/bin/env bash
# smoe analyze, from shards and a trained model to what it writes, and what it refuses.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

# A model of two layers, and two domains: shards/ and numbers/.
two_domains() {
  trained num_hidden_layers=2
  seq 1 400 | sed 's/.*/{"text": "&, & and once more &"}/' >numbers.jsonl
  "$smoe" prepare numbers.jsonl --out numbers --tokenizer bytes --source numbers
}
analyze() { "$smoe" analyze --model run --data shards numbers --seq 32 --tokens 1000 --permutations 20 "$@"; }

# found EXPRESSION: of the JSON in out/, called a.
found() { python3 -c 'import json, sys; a = json.load(open("out/analysis.json")); assert eval(sys.argv[1]), sys.argv[1]' "$1"; }

case_analysis_of_two_domains() {
  two_domains
  expect 0 'first choice' '^test ' '^numbers ' '^even +25\.0' 'layer 1: I\(domain; first choice\)' 'out/analysis\.html' -- analyze --out out
  [ "$(find out -type f | wc -l)" = 2 ] || fail "there are other files than the two"
  found 'a["format"] == "smoe-routing-analysis" and a["format_version"] == 1'
  found '[s["name"] for s in a["sources"]] == ["test", "numbers"]'
  found 'all(s["tokens"] == 992 and s["sequences"] == 31 for s in a["sources"])'
  found 'a["tokenizer"] == "bytes" and a["layers"] == 2 and a["experts"] == 4'
  found 'all(abs(sum(l["assignments"]) - 1) < 1e-12 for s in a["shares"] for l in s)'
  found 'all(l["pairs"] <= 31 * 31 for s in a["repetition"]["sources"] for l in s)'
  found '"".join(a["excerpts"][0]["texts"]).startswith("document 1 of the corpus")'
  found 'len(a["excerpts"][0]["first_choice"][1]) == 32'
  grep -q '<title>run: routing analysis</title>' out/analysis.html || fail "the page has no title"
  ! grep -qE 'https?://' <(sed 's|http://www.w3.org/2000/svg||' out/analysis.html) || fail "the page names an address"
}
case_without_texts() {
  two_domains
  analyze --out out --excerpt 0 >/dev/null
  found 'a["excerpts"] == [] and len(a["shares"]) == 2'
  ! grep -q 'document 1 of' out/analysis.html || fail 'the page has text'
  analyze --out out --excerpt 5 >/dev/null
  found '[len(e["ids"]) for e in a["excerpts"]] == [5, 5]'
}
case_json_is_what_is_written_and_the_same_again() {
  two_domains
  analyze --out out --json >printed.json
  cmp printed.json out/analysis.json || fail "what is printed is not what is written"
  cp out/analysis.html first.html
  analyze --out out --json >again.json
  cmp printed.json again.json || fail "the second analysis differs"
  cmp first.html out/analysis.html || fail "the second page differs"
  analyze --out out --json --seed 2 >other.json
  ! cmp -s printed.json other.json || fail "the seed changes nothing"
}
case_any_model_directory() {
  two_domains
  cp -r "run/checkpoints/$(cat run/checkpoints/latest)/model" plain
  expect 0 'sources' -- "$smoe" analyze --model plain --data shards --seq 16 --tokens 100 --out out
  found 'a["sequence_length"] == 16 and a["sources"][0]["sequences"] == 6 and a["information"]["domain"] == []'
  expect 0 -- "$smoe" analyze --model run --data shards --out out
  found 'a["sequence_length"] == 64' # as many as the model has positions
}

# ---- what is refused ----

refuses_to_analyze() {
  expect "$@"
  absent out
}
case_missing_model() {
  write_shards
  refuses_to_analyze 1 'nowhere' -- "$smoe" analyze --model nowhere --data shards --out out
}
case_every_bad_domain_is_told() {
  two_domains
  mkdir empty
  refuses_to_analyze 1 'nowhere' 'empty.*manifest' -- "$smoe" analyze --model run --data nowhere shards empty --out out
}
case_domain_without_tokens() {
  two_domains
  cp -r numbers none
  python3 - <<'END'
import json
manifest = json.load(open("none/manifest.json"))
manifest.update(tokens=0, documents=0, shards=[])
json.dump(manifest, open("none/manifest.json", "w"))
END
  refuses_to_analyze 1 'none.*(tokens|shards)' -- "$smoe" analyze --model run --data shards none --out out
}
case_domain_of_less_than_a_sequence() {
  two_domains
  echo '{"text": "short"}' >short.jsonl
  "$smoe" prepare short.jsonl --out short --tokenizer bytes
  refuses_to_analyze 1 'short holds 6 tokens, too few for one sequence: one of 32 needs 33.*--seq to at most 5' -- \
    "$smoe" analyze --model run --data shards short --seq 32 --out out
  expect 0 -- "$smoe" analyze --model run --data shards short --seq 5 --tokens 50 --out out
  found '[s["sequences"] for s in a["sources"]] == [10, 1]'
}
case_other_vocabulary() {
  two_domains
  python3 - <<'END'
import struct
header = "{'descr': '<i4', 'fortran_order': False, 'shape': (90,), }"
header += " " * (-(len(header) + 11) % 64) + "\n"
open("ids.npy", "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
                            + struct.pack("<90i", *range(90)))
END
  "$smoe" prepare ids.npy --out wide --vocab-size 300
  refuses_to_analyze 1 'wide.*vocabulary of 300.*259' -- "$smoe" analyze --model run --data wide --out out
}
case_model_without_a_choice() {
  prepared num_local_experts=1 num_experts_per_tok=1
  "$smoe" train config.yaml
  refuses_to_analyze 1 'one expert' 'num_local_experts' -- "$smoe" analyze --model run --data shards --out out
}
case_out_is_something_else() {
  two_domains
  expect 1 'run holds .*expected a directory that is new, empty, or a former analysis' -- analyze --out run
  [ ! -e run/analysis.json ] || fail "something was written into the run"
  : >file
  expect 1 'file is not a directory' -- analyze --out file
  expect 1 'file is not a directory' -- analyze --out file/below
}
case_usage() {
  two_domains
  refuses_to_analyze 2 '--out is required' -- "$smoe" analyze --model run --data shards
  refuses_to_analyze 2 'shards more than once' -- "$smoe" analyze --model run --data shards shards --out out
  refuses_to_analyze 2 '--permutations' -- analyze --permutations -1 --out out
  refuses_to_analyze 2 "'analyze' runs in one process, found 2" -- mpirun --oversubscribe -n 2 "$smoe" analyze --model run --data shards --out out
}

run_case "$@"
