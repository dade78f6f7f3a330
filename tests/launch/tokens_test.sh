#!/usr/bin/env bash
# What the commands make of a model directory's tokenizer and of the ids that end a text.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

# model_of VOCABULARY: a run of one step on byte tokens, or on what is in shards/, whose embedding has that many rows. It
# knows nothing: what it writes is drawn from nearly equal chances.
model_of() {
  [ -d shards ] || write_shards
  write_config vocab_size="$1" max_position_embeddings=256 learning_rate=1.0e-6 steps=1
  "$smoe" train config.yaml
  model=run/checkpoints/step-000001/model
}

# ids ARGUMENT...: the ids that generate prints.
ids() { "$smoe" generate --model run --max-tokens 100 --threads 1 "$@"; }
largest() { tr ',' '\n' | sort -n | tail -n 1; }

case_ids_beyond_the_tokenizer_are_never_drawn() {
  model_of 1024
  [ "$(ids --prompt-ids 5 | largest)" -ge 259 ] || fail "without a tokenizer nothing should be left out"
  [ "$(ids --prompt-ids 5 --tokenizer bytes | largest)" -lt 259 ] || fail "an id that means nothing was drawn"
  expect 0 'document' -- "$smoe" generate --model run --tokenizer bytes --prompt 'document' --max-tokens 100
  expect 0 'document' -- "$smoe" generate --model run --tokenizer bytes --prompt 'document' --max-tokens 100 --greedy
}

# Wider, a model does what it did with the same tokenizer; narrower, it is no model for that or for the data.
case_a_vocabulary_is_resized() {
  model_of 259
  expect 0 'wide: a vocabulary of 320 .61 rows more, each the mean' -- "$smoe" resize --model run --vocab 320 --out wide
  expect 0 'perplexity' -- "$smoe" eval --model wide --data shards --seq 16
  [ "$("$smoe" generate --model wide --tokenizer bytes --prompt-ids 5 --max-tokens 100 --threads 1 | largest)" -lt 259 ] || fail "a padded id was drawn"
  sed -e '/^model:/,/max_position_embeddings/d' -e 's/output_dir: run/output_dir: second/' config.yaml >second.yaml
  printf 'model: {from: wide}\n' >>second.yaml
  expect 0 'saved second' -- "$smoe" train second.yaml
  grep -q '"vocab_size": 320' second/checkpoints/step-000001/model/config.json || fail "the run has another vocabulary"
  expect 1 'wide holds' 'new or empty' -- "$smoe" resize --model run --vocab 320 --out wide
  expect 1 'is what is read' -- "$smoe" resize --model wide --vocab 400 --out wide
  expect 0 '159 rows fewer' -- "$smoe" resize --model run --vocab 100 --out narrow
  expect 1 'tokenizer has 259 ids, the model in narrow only 100' -- "$smoe" generate --model narrow --tokenizer bytes --prompt a
  expect 1 'vocabulary of 259' '100' -- "$smoe" eval --model narrow --data shards --seq 16
  printf '{"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 259}}}' >wide/tokenizer.json
  expect 1 'vocab 259' 'has 260 ids' -- "$smoe" resize --model wide --vocab 259 --out cut
  expect 2 'vocab' -- "$smoe" resize --model wide --vocab 0 --out cut
  absent cut .cut.unfinished
}

case_a_tokenizer_that_is_not_read_bounds_the_ids_and_takes_no_other_data() {
  model_of 1024
  cp -r "$model" plain
  printf '{"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 398}}, "added_tokens": [{"id": 399, "content": "<x>"}]}' >plain/tokenizer.json
  found=$("$smoe" generate --model plain --prompt-ids 5 --max-tokens 200 --threads 1 | largest)
  [ "$found" -lt 400 ] || fail "id $found was drawn, of a tokenizer.json of 400"
  [ "$found" -ge 259 ] || fail "id $found is the largest of 200: is it the bytes that bound it?"
  expect 1 'plain/tokenizer.json:1:12: model: type: found .WordPiece.' -- "$smoe" generate --model plain --prompt a
  expect 1 'another tokenizer' 'tokenizer.json is not read' 'vocab-size' -- "$smoe" eval --model plain --data shards --seq 16
  sed -e '/^model:/,/max_position_embeddings/d' -e 's/output_dir: run/output_dir: second/' config.yaml >second.yaml
  printf 'model: {from: plain}\n' >>second.yaml
  expect 1 'another tokenizer' 'tokenizer.json is not read' 'vocab-size' -- "$smoe" train second.yaml
  absent second
  printf '{"model": {"vocab": {"a": -1}}}' >plain/tokenizer.json
  expect 1 'plain/tokenizer.json' 'vocab' -- "$smoe" generate --model plain --prompt-ids 5
  printf x >plain/tokenizer.model
  expect 1 'plain/tokenizer.model' 'not a usable SentencePiece model' -- "$smoe" generate --model plain --prompt-ids 5
}

# A byte-level vocabulary whose letters are bytes and nothing else: 256 pieces, <|end|> behind them.
case_a_tokenizer_json_is_a_tokenizer() {
  mkdir letters
  python3 - <<'END'
import json
prints = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
others = [b for b in range(256) if b not in prints]
letter = {b: chr(b) for b in prints} | {b: chr(256 + i) for i, b in enumerate(others)}
vocab = {letter[b]: b for b in range(256)}
level = {"type": "ByteLevel", "add_prefix_space": False}
json.dump({"added_tokens": [{"id": 256, "content": "<|end|>", "special": True}], "normalizer": None, "pre_tokenizer": level, "decoder": level,
           "model": {"type": "BPE", "vocab": vocab, "merges": []}}, open("letters/tokenizer.json", "w"))
json.dump({"eos_token": "<|end|>"}, open("letters/tokenizer_config.json", "w"))
END
  write_config vocab_size=257
  write_text
  expect 0 '2931 tokens in 60 documents' -- "$smoe" prepare text.jsonl --out shards --tokenizer letters --source test
  "$smoe" train config.yaml >/dev/null 2>&1
  local made=run/checkpoints/step-000002/model
  cmp letters/tokenizer.json "$made/tokenizer.json"
  cmp letters/tokenizer_config.json "$made/tokenizer_config.json"
  expect 0 'document' -- "$smoe" generate --model run --prompt document --max-tokens 20
  expect 0 'test' -- "$smoe" eval --model run --data shards --seq 16
  # The file alone has no eos, so the documents of its shards would end nowhere.
  expect '0|1' 'eos|tokens in 60 documents' -- "$smoe" prepare text.jsonl --out other --tokenizer letters/tokenizer.json --source test
  sed -i 's/<|end|>/<|fin|>/' letters/tokenizer_config.json
  expect 1 'letters/tokenizer_config.json: eos_token: found "<|fin|>", which is no token' -- \
    "$smoe" prepare text.jsonl --out third --tokenizer letters --source test
  absent third
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
  model_of 259
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

# chat/: a tokenizer of 300 pieces, to which a tokenizer_config.json adds "<|im_end|>" (300, the eos) and "<|im_start|>".
chat_tokenizer() {
  write_text
  "$smoe" prepare text.jsonl --out chat --train-tokenizer 300
  cat >chat/tokenizer_config.json <<'END'
{"tokenizer_class": "LlamaTokenizer", "legacy": true, "bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>",
 "model_max_length": 1000000000000000019884624838656,
 "added_tokens_decoder": {"0": {"content": "<unk>", "special": true}, "1": {"content": "<s>", "special": true},
   "2": {"content": "</s>", "special": true}, "300": {"content": "<|im_end|>", "special": true},
   "301": {"content": "<|im_start|>", "special": true}}}
END
  printf '%s\n' '{{ messages }}' >chat/chat_template.jinja
  python3 - <<'END'
import json
with open("chat.jsonl", "w") as out:
    for i in range(60):
        print(json.dumps({"text": f"<|im_start|>user\ndocument {i}?<|im_end|>\n<|im_start|>assistant\nof the corpus"}), file=out)
END
}

case_a_directory_with_added_tokens_goes_in_and_comes_out() {
  chat_tokenizer
  "$smoe" prepare chat.jsonl --out shards --tokenizer chat --source test
  grep -q '"vocab_size": 302' shards/manifest.json && grep -q '"eos": 300' shards/manifest.json || fail "the added tokens are not counted"
  model_of 320
  for file in tokenizer.model tokenizer_config.json chat_template.jinja; do
    cmp "chat/$file" "$model/$file" || fail "the checkpoint has another $file"
  done
  grep -q '"eos_token_id": 300' "$model/config.json" || fail "the eos is not the configuration's"
  # Read as one id, not as characters; special tokens are silent in what is printed.
  expect 0 '^user' -- "$smoe" generate --model run --prompt '<|im_start|>user' --max-tokens 3
  "$smoe" generate --model run --prompt '<|im_start|>user' --max-tokens 0 >shown
  [ "$(cat shown)" = user ] || fail "found $(cat shown)"
  [ "$(ids --prompt-ids 301 | largest)" -lt 302 ] || fail "an id beyond the added tokens was drawn"
  expect 0 'warning: .*model add tokens' -- "$smoe" generate --model run --tokenizer "$model/tokenizer.model" --prompt a --max-tokens 1
  "$smoe" generate --model run --tokenizer "$model" --prompt a --max-tokens 1 2>&1 | grep warning && fail "nothing is left out here"
  # What a tokenizer's files leave to be guessed is told by whoever encodes with it, once.
  cp -r "$model" guessed
  sed -i 's/"legacy": true, //' guessed/tokenizer_config.json
  for options in '--prompt a' '--chat plain --prompt a'; do
    "$smoe" generate --model guessed $options --max-tokens 1 >/dev/null 2>said
    [ "$(grep -c 'smoe: warning: guessed/tokenizer_config.json has no key "legacy"' said)" = 1 ] || fail "generate $options: $(cat said)"
  done
  # From it, with lists: kept as they are.
  cp -r "$model" plain
  printf '{"eos_token_id": [300,  2], "temperature": 0.5}' >plain/generation_config.json
  sed -i 's/"eos_token_id": 300/"eos_token_id": [300, 2, 5]/' plain/config.json
  sed -e '/^model:/,/max_position_embeddings/d' -e 's/output_dir: run/output_dir: second/' config.yaml >second.yaml
  printf 'model: {from: plain}\n' >>second.yaml
  "$smoe" train second.yaml
  for file in generation_config.json tokenizer_config.json chat_template.jinja; do
    cmp "plain/$file" "second/checkpoints/step-000001/model/$file" || fail "the second checkpoint has another $file"
  done
  tr -d ' \n' <second/checkpoints/step-000001/model/config.json | grep -q '"eos_token_id":\[300,2,5\]' || fail "config.json lost the list"
  # Shards of the same tokenizer.model without the tokens are of another tokenizer.
  expect 0 'warning: .*chat add tokens.* --tokenizer chat' -- "$smoe" prepare chat.jsonl --out bare --tokenizer chat/tokenizer.model --source test
  expect 1 'another tokenizer' -- "$smoe" train second.yaml data.train.0.path=bare train.output_dir=third
  absent third
}

case_added_tokens_that_cannot_be_honoured_are_refused() {
  chat_tokenizer
  sed -i 's/"300": {/"300": {"single_word": true, /' chat/tokenizer_config.json
  expect 1 'chat/tokenizer_config.json' '300' 'single_word' -- "$smoe" prepare chat.jsonl --out shards --tokenizer chat
  absent shards
  expect 0 'warning: .*chat add tokens' -- "$smoe" prepare chat.jsonl --out shards --tokenizer chat/tokenizer.model
  rm chat/tokenizer_config.json
  "$smoe" prepare chat.jsonl --out quiet --tokenizer chat/tokenizer.model 2>&1 | grep warning && fail "nothing is left out here"
  return 0
}

run_case "$@"
