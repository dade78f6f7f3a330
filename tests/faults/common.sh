#!/usr/bin/env bash
# The tiny training run that the fault tests break. Sourced by scripts, or run:
#   common.sh SMOE FOLDER   makes FOLDER/config.yaml and the token shards that it names
# A whole run takes two to four seconds at 4 ranks on 2 cores, and meets what breaks resuming elsewhere: two sources,
# several epochs of each, gradient accumulation on most layouts, evaluations between steps.

# Shards by absolute paths, so that a run may be started from anywhere.
make_fault_run() {
  local smoe=$1 folder=$2
  mkdir -p "$folder"
  python3 - "$folder" <<'END_OF_TEXT'
import json, random, sys
words = random.Random(7)
for source, documents in (("prose", 50), ("verse", 25)):
    with open(f"{sys.argv[1]}/{source}.jsonl", "w") as out:
        for _ in range(documents):
            text = " ".join(f"{source}{words.randrange(90)}" for _ in range(words.randrange(8, 40)))
            out.write(json.dumps({"text": text}) + "\n")
END_OF_TEXT
  for source in prose verse; do
    "$smoe" prepare "$folder/$source.jsonl" --out "$folder/$source" --tokenizer bytes --source "$source" >"$folder/prepare.log" 2>&1 ||
      { cat "$folder/prepare.log" >&2; return 1; }
  done
  cat >"$folder/config.yaml" <<END_OF_CONFIG
model:
  vocab_size: 259
  hidden_size: 64
  intermediate_size: 96
  num_hidden_layers: 2
  num_attention_heads: 4
  num_key_value_heads: 4
  num_local_experts: 8
  num_experts_per_tok: 2
  max_position_embeddings: 64
router: {z_loss_coef: 0.001}
data:
  train:
    - {path: $folder/prose, weight: 2.0}
    - {path: $folder/verse, weight: 1.0}
  eval: [{path: $folder/verse}]
  sequence_length: 64
optimizer: {learning_rate: 3.0e-3}
schedule: {warmup_steps: 5}
train:
  steps: 40
  global_batch_size: 8
  micro_batch_size: 2
  threads: 1
  output_dir: run
checkpoint: {interval: 5, keep: 2}
eval: {interval: 10, batches: 2}
log: {interval: 1}
END_OF_CONFIG
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -euo pipefail
  make_fault_run "$(realpath "$1")" "$(realpath -m "$2")"
fi
