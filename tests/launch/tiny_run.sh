#!/usr/bin/env bash
# The tiny run of the script tests; sourced behind cases.sh. A model of a few thousand parameters on byte tokens.

# replace PATTERN TEXT: edits config.yaml, and fails if there was nothing to edit.
replace() {
  grep -q -- "$1" config.yaml || fail "config.yaml has no '$1'"
  sed -i "s|$1|$2|" config.yaml
}

# write_config [NAME=VALUE]...: config.yaml, of data in shards/; a name is a key's last part.
write_config() {
  cat >config.yaml <<'END'
model:
  vocab_size: 259
  hidden_size: 16
  intermediate_size: 32
  num_hidden_layers: 1
  num_attention_heads: 2
  num_key_value_heads: 1
  num_local_experts: 4
  num_experts_per_tok: 2
  max_position_embeddings: 64
data:
  train: [{path: shards, weight: 1.0}]
  eval: [{path: shards}]
  sequence_length: 32
optimizer:
  learning_rate: 1.0e-3
train:
  steps: 2
  global_batch_size: 4
  micro_batch_size: 2
  threads: 1
  output_dir: run
checkpoint:
  interval: 1
log:
  interval: 1
END
  local change
  for change; do replace "^\\( *${change%%=*}\\): .*" "\\1: ${change#*=}"; done
}

# write_text [DOCUMENTS]: text.jsonl.
write_text() {
  local i
  for i in $(seq 1 "${1:-60}"); do printf '{"text": "document %d of the corpus, with some words in it"}\n' "$i"; done >text.jsonl
}

write_shards() {
  write_text
  "$smoe" prepare text.jsonl --out shards --tokenizer bytes --source test
}

prepared() {
  write_config "$@"
  write_shards
}

trained() {
  prepared "$@"
  "$smoe" train config.yaml
  [ -f run/checkpoints/latest ] || fail "training left no checkpoint"
}
