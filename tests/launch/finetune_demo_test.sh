#!/usr/bin/env bash
# launch/finetune-demo from end to end, with a small dense model and a few questions in the places of those that it fetches.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/dense.sh"

# what_is_fetched: data/, as fetch-smollm2 and fetch-corpus leave it.
what_is_fetched() {
  local model=data/models/smollm2-135m-instruct side
  mkdir -p data/models data/text/biology
  dense "$model" max_position_embeddings=512
  python3 - "$model" <<'END'
import json, sys

printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
rest = [b for b in range(256) if b not in printable]
letters = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}  # how byte-level BPE writes bytes
special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
vocab = {token: i for i, token in enumerate(special + [letters[b] for b in range(256)])}
byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
         for i, t in enumerate(special)]
json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "pre_tokenizer": byte_level,
           "post_processor": None, "decoder": byte_level,
           "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                     "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": []}},
          open(f"{sys.argv[1]}/tokenizer.json", "w"))
json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
          open(f"{sys.argv[1]}/tokenizer_config.json", "w"))
END
  for side in train eval; do
    for i in $(seq 60); do
      printf '{"text": "Term: %s %d\\nKind: function\\nDefinition: What number %d does.\\nAlso: x"}\n' "$side" "$i" "$i"
    done >"data/text/biology/$side.jsonl"
  done
}
demo() { DATA=data RUNS=runs SMOE=$smoe "$root/launch/finetune-demo" "$@"; }

case_tells_what_came_of_it() {
  what_is_fetched
  expect 0 '4 experts, 2 a token' 'upcycled-full' 'upcycled-lora' '\*\*What does the function "eval 1" mean\?\*\*' 'the ontology: What number 1 does\.' \
    'before: ' 'full: ' 'lora: ' '\| loss on held-out answers \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \|' '\| steps \|  \| 3 \| 3 \|' 'memory of a rank' \
    'first expert is another than before \|  \| [0-9.]+% \| [0-9.]+% \|' 'Done in' -- demo train.steps=3 schedule.warmup_steps=0
  [ -f runs/finetune-demo/table.md ] && [ -f runs/finetune-demo/lora/analysis.html ] || fail "what is announced is not there"
  # Of the same training nothing is done again; with other options, or told so, it is.
  cp runs/upcycled-lora/metrics.jsonl first
  touch -d '2000-01-01' runs/upcycled-lora/config.resolved.yaml
  expect 0 'is there' 'are there' 'Done in' -- demo train.steps=3 schedule.warmup_steps=0
  cmp first runs/upcycled-lora/metrics.jsonl || fail "trained again"
  expect 0 '\| steps \|  \| 2 \| 2 \|' -- demo train.steps=2 schedule.warmup_steps=0
}
case_names_the_step_that_failed() {
  what_is_fetched
  expect 1\|2 'failed in the step "train all weights' 'optimizer\.learning' -- demo optimizer.learning=1
  absent runs/finetune-demo/table.md
  expect 1 'unknown option --frobnicate' -- demo --frobnicate
  expect 1 'unknown option fast' -- demo fast
}

run_case "$@"
