#!/usr/bin/env bash
# What the commands make of a model directory's tokenizer and of the ids that end a text.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"

# trained VOCABULARY: a run of one step on byte tokens, whose embedding has that many rows. It knows nothing: what it
# writes is drawn from nearly equal chances.
trained() {
  for i in $(seq 1 40); do printf '{"text": "document %d of the corpus, with some words in it"}\n' "$i"; done >text.jsonl
  [ -d shards ] || "$smoe" prepare text.jsonl --out shards --tokenizer bytes --source test
  cat >config.yaml <<END
model:
  vocab_size: $1
  hidden_size: 16
  intermediate_size: 32
  num_hidden_layers: 1
  num_attention_heads: 2
  num_key_value_heads: 1
  num_local_experts: 4
  num_experts_per_tok: 2
  max_position_embeddings: 256
data: {train: [{path: shards}], sequence_length: 32}
optimizer: {learning_rate: 1.0e-6}
train: {steps: 1, global_batch_size: 4, micro_batch_size: 2, threads: 1, output_dir: run}
END
  "$smoe" train config.yaml
  model=run/checkpoints/step-000001/model
}

# ids ARGUMENT...: the ids that generate prints.
ids() { "$smoe" generate --model run --max-tokens 100 --threads 1 "$@"; }
largest() { tr ',' '\n' | sort -n | tail -n 1; }

case_ids_beyond_the_tokenizer_are_never_drawn() {
  trained 1024
  [ "$(ids --prompt-ids 5 | largest)" -ge 259 ] || fail "without a tokenizer nothing should be left out"
  [ "$(ids --prompt-ids 5 --tokenizer bytes | largest)" -lt 259 ] || fail "an id that means nothing was drawn"
  expect 0 'document' -- "$smoe" generate --model run --tokenizer bytes --prompt 'document' --max-tokens 100
  expect 0 'document' -- "$smoe" generate --model run --tokenizer bytes --prompt 'document' --max-tokens 100 --greedy
}

# stops EOS GENERATION_EOS: puts the two into the directory in plain/, a copy of the model away from its manifest.
stops() {
  rm -rf plain
  cp -r "$model" plain
  python3 - "$@" <<'END'
import json, sys
for name, eos in zip(("plain/config.json", "plain/generation_config.json"), sys.argv[1:]):
    content = json.load(open(name))
    content["eos_token_id"] = json.loads(eos)
    json.dump(content, open(name, "w"))
END
}

case_every_eos_of_both_files_ends_the_text() {
  local all place id
  trained 259
  stops null null
  all=$("$smoe" generate --model plain --prompt-ids 5 --max-tokens 40 --seed 2)
  [ "$(tr ',' '\n' <<<"$all" | wc -l)" = 40 ] || fail "with no eos it should not have ended: $all"
  id=$(cut -d, -f 9 <<<"$all")
  place=$(tr ',' '\n' <<<"$all" | grep -nx "$id" | head -n 1 | cut -d: -f 1)
  expected=$(cut -d, -f "1-$((place - 1))" <<<"$all")
  for eos in "$id null" "[300,$id] null" "300 $id" "null [300,$id]" "[301,300] [299,$id]"; do
    stops ${eos% *} ${eos#* }
    found=$("$smoe" generate --model plain --prompt-ids 5 --max-tokens 40 --seed 2)
    [ "$found" = "$expected" ] || fail "eos $eos: found $found, expected $expected"
  done
}

run_case "$@"
