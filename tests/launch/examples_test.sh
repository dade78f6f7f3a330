#!/usr/bin/env bash
# Examples for supervised fine-tuning: from JSON lines over packed training to an answer.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

write_examples() {
  local i
  for i in $(seq 1 40); do
    printf '{"messages": [{"role": "user", "content": "what is %d?"}, {"role": "assistant", "content": "it is %d."}]}\n' "$i" $((i * 3))
  done >examples.jsonl
}
prepare() { "$smoe" prepare examples.jsonl --tokenizer bytes --threads 1 "$@"; }

case_options_of_texts_go_with_no_template() {
  printf '{"prompt": "a", "completion": "b"}\n' >a.jsonl
  expect 2 '--text-field .* examples' -- "$smoe" prepare a.jsonl --out no --tokenizer bytes --chat plain --text-field body
  expect 2 '--append-eos .* examples' -- "$smoe" prepare a.jsonl --out no --tokenizer bytes --chat plain --append-eos false
  absent no
  expect 1 'standard input holds no examples' -- "$smoe" prepare - --out no --tokenizer bytes --chat plain </dev/null
  absent no
}
# Examples read as a stream of text: told, once a source.
case_examples_in_a_stream_are_warned_of() {
  for i in $(seq 40); do printf '{"prompt": "question %s", "completion": "an answer to it"}\n' "$i"; done >a.jsonl
  "$smoe" prepare a.jsonl --out sft --tokenizer bytes --chat plain --show 0
  write_config train='[{path: sft}]' eval='[]' sequence_length=16 steps=1 global_batch_size=2
  expect 0 'data.train.0: warning: a: 40 of its 40 examples .* are cut .*best_fit' -- "$smoe" train config.yaml --dry-run
  expect 0 'data.train: warning: a: 40 of its 40 examples' -- "$smoe" train config.yaml
  expect 0 'smoe: warning: a: [0-9]+ of its 40 examples .* sequence of 16 ends' -- "$smoe" eval --model run --data sft --seq 16
  "$smoe" eval --model run --data sft --packing best_fit 2>&1 | grep -q 'are cut' && fail "whole documents are said to be cut"
  return 0
}
case_examples_are_shown_and_counted() {
  write_examples
  expect 0 'example 1: 20 ids, 9 targets, which are «these»' '<bos>what is 1\?«it is 3.<eos>»' 'example 2:' \
    '40 examples with 404 targets of [0-9]+ tokens; the longest read has 23 ids; read 40 as messages' \
    -- prepare --out out --chat plain
  prepare --out two --chat plain | grep -q 'example 3' && fail "two were to be shown"
  expect 0 'example 1:' 'it is 3.<eos>' -- env NO_COLOR=1 "$smoe" prepare examples.jsonl --tokenizer bytes --out other --chat plain --show 1
  prepare --out third --chat plain --show 0 | grep -q 'example 1:' && fail "none was to be shown"
  return 0
}
case_examples_that_are_too_long() {
  write_examples
  expect 1 'examples.jsonl:10:1' '22 ids' 'the 21 of --max-length' '--too-long truncate or skip' -- prepare --out out --chat plain --max-length 21
  absent out/manifest.json
  expect 0 '31 of them were truncated' -- prepare --out cut --chat plain --max-length 21 --too-long truncate
  expect 0 'left out: 31 too long' -- prepare --out less --chat plain --max-length 21 --too-long skip
  expect 2 '--too-long requires --max-length' -- prepare --out x --chat plain --too-long skip
  expect 2 '--loss-on requires --chat' -- prepare --out x --loss-on last
  expect 2 '--chat' 'llama4' 'mixtral-v1' -- prepare --out x --chat llama4
  expect 1 'chatml needs' 'im_start' -- prepare --out x --chat chatml
  absent x
}
case_examples_of_a_pipe_and_bad_ones() {
  write_examples
  echo '{"messages": [{"role": "tool", "content": "x"}]}' >>examples.jsonl
  expect 1 'standard input:41:1: turn 1 has the role .tool.' -- bash -c "cat examples.jsonl | '$smoe' prepare - --tokenizer bytes --out out --chat plain"
  absent out/manifest.json
  expect 0 'standard input:41:1: turn 1 has the role .tool.' '40 examples' -- \
    bash -c "cat examples.jsonl | '$smoe' prepare - --tokenizer bytes --out out --chat plain --skip-bad 1"
}
# Answers are learned whole: what is asked is answered with what was there to be learned, and nothing else is a target.
case_examples_are_learned_packed() {
  printf '{"prompt": "a:", "completion": "yes"}\n{"prompt": "b:", "completion": "no"}\n' >examples.jsonl
  for _ in 1 2 3 4; do cat examples.jsonl; done >more.jsonl
  mv more.jsonl examples.jsonl
  prepare --out shards --chat plain --show 0
  write_config max_position_embeddings=32 learning_rate=1.0e-2 steps=60 sequence_length=16
  expect 0 '8 whole documents in 4 sequences' -- "$smoe" train config.yaml data.packing=best_fit
  expect 0 '^yes$' -- "$smoe" generate --model run --tokenizer bytes --chat plain --prompt 'a:' --greedy --max-tokens 8
  expect 0 '^no$' -- "$smoe" generate --model run --tokenizer bytes --chat plain --prompt 'b:' --greedy --max-tokens 8
}

run_case "$@"
