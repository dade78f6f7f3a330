#!/usr/bin/env bash
# What the commands say and do when given something wrong: the message names what was found, the status is 1 (failed)
# or 2 (wrong usage or configuration), and nothing is left half-written.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/safetensors.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"

# ---- material ---------------------------------------------------------------------------------------------------

latest() { echo "run/checkpoints/$(cat run/checkpoints/latest)"; }
weights() { find "$(latest)/model" -name '*.safetensors' | sort | head -n 1; }

# npy_i32 FILE SHAPE VALUE...: e.g. npy_i32 ids.npy '(1, 3)' 5 6 7
npy_i32() {
  python3 - "$@" <<'END'
import struct, sys
path, shape, values = sys.argv[1], sys.argv[2], [int(v) for v in sys.argv[3:]]
header = "{'descr': '<i4', 'fortran_order': False, 'shape': %s, }" % shape
header += " " * (-(len(header) + 11) % 64) + "\n"
open(path, "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
                       + struct.pack("<%di" % len(values), *values))
END
}

# ---- usage ------------------------------------------------------------------------------------------------------

case_no_command() { expect 2 'prepare' 'train' -- "$smoe"; }
case_unknown_command() { expect 2 'frobnicate' -- "$smoe" frobnicate; }
case_unknown_option() {
  write_config
  expect 2 '--frobnicate' -- "$smoe" train config.yaml --frobnicate
}
# Names come from strangers' archives: what is printed of them moves no cursor and sets no colour.
case_names_are_printed_without_control_characters() {
  local name=$'a\e[31mb\xc2\x9b31m'
  expect 1 'a\\x1b\[31mb\\xc2\\x9b31m' -- "$smoe" prepare "$name" --out shards --tokenizer bytes
  expect 1 'a\\x1b\[31mb' -- "$smoe" generate --model "$name" --prompt x
  expect 2 'a\\x1b\[31mb' -- "$smoe" "$name"
  expect 2 'data\.train\. \[31m' -- "$smoe" train "$root/configs/quickstart.yaml" $'data.train.\e[31m=1'
  printf 'words\n' >words.txt
  "$smoe" prepare words.txt --out "$name" --tokenizer bytes >said 2>&1
  grep -q 'a\\x1b' said || fail "the directory is not named"
  if grep -q $'\e' said; then fail "an escape reached the terminal"; fi
}
case_option_that_the_command_has_not() {
  expect 2 "smoe eval has no option --foo; smoe eval --help" -- "$smoe" eval --foo
  expect 2 "smoe eval has no option --modle; did you mean '--model'" -- "$smoe" eval --modle x --data y
  expect 2 "smoe eval has no option --sequence-length; smoe" -- "$smoe" eval --model x --data y --sequence-length=8
  expect 2 "smoe train has no option --greedy, as smoe generate has;" -- "$smoe" train config.yaml --greedy
  expect 2 "smoe train has no option --model; did you mean 'model\.from'\? .*KEY=VALUE, without dashes" -- "$smoe" train --model x
  expect 2 "smoe train has no option --lr; did you mean 'optimizer\.learning_rate'" -- "$smoe" train config.yaml --lr 1e-3
  expect 2 "smoe train has no option --train\.steps; did you mean 'train\.steps'" -- "$smoe" train config.yaml --train.steps=5
  expect 2 "smoe train has no option --global-batch-size; did you mean 'train\.global_batch_size'" -- "$smoe" train --global-batch-size 4 c.yaml
  expect 2 "smoe train has no option --dryrun; did you mean '--dry-run'" -- "$smoe" train config.yaml --dryrun
  expect 2 "command line: foo\.bar: unknown key, expected one of model, " -- "$smoe" train "$root/configs/quickstart.yaml" foo.bar=1
}
case_home_and_variables_in_paths() {
  # shellcheck disable=SC2088,SC2016
  expect 2 "--data: found '~ann/shards', expected ~/ for your own home" -- "$smoe" eval --model x --data '~ann/shards'
  # shellcheck disable=SC2016
  expect 2 "--model: found '\\\$MODELS/x', expected a path without '\\\$': variables are not expanded; write the path out" -- "$smoe" generate --model '$MODELS/x' --prompt y
  # shellcheck disable=SC2016
  expect 2 "INPUT: found 'b/\\\$c'" -- "$smoe" prepare a.txt 'b/$c' --out o --tokenizer bytes
  # shellcheck disable=SC2088
  expect 2 "--out: found '~/o', but HOME is not set" -- env -u HOME "$smoe" prepare a.txt --out '~/o' --tokenizer bytes
  absent '~'
}
case_output_on_a_full_disk() {
  write_config
  full() { "$smoe" train config.yaml --print-config >/dev/full; }
  expect 1 'standard output' -- full
}

# ---- configuration ----------------------------------------------------------------------------------------------

refuses_config() { expect 2 "$@" -- "$smoe" train config.yaml; absent run; }

case_unknown_key() {
  write_config
  replace 'learning_rate:' 'learning_rat:'
  refuses_config 'config\.yaml:16' 'learning_rat' 'learning_rate'
}
case_unknown_section() {
  write_config
  replace '^optimizer:' 'optimiser:'
  refuses_config 'config\.yaml:15' 'optimiser' 'optimizer'
}
case_duplicate_key() {
  write_config
  replace '  steps: 2' '  steps: 2\n  steps: 3'
  refuses_config 'config\.yaml:19' 'steps' 'duplicate|twice|again'
}
case_mistyped_value() {
  write_config
  replace 'hidden_size: 16' 'hidden_size: wide'
  refuses_config 'config\.yaml:3' 'hidden_size' 'wide' 'integer|whole number'
}
case_fraction_for_integer() {
  write_config
  replace 'steps: 2' 'steps: 2.5'
  refuses_config 'steps' '2\.5'
}
case_not_finite() {
  write_config
  replace '1.0e-3' '.nan'
  refuses_config 'learning_rate' 'nan' 'finite|number'
}
case_out_of_range() {
  write_config
  replace 'num_experts_per_tok: 2' 'num_experts_per_tok: 5'
  refuses_config 'num_experts_per_tok' '5' '4'
}
case_heads_do_not_divide() {
  write_config
  replace 'num_attention_heads: 2' 'num_attention_heads: 3'
  refuses_config 'num_attention_heads|hidden_size|num_key_value_heads'
}
case_broken_yaml() {
  write_config
  echo 'log: [1, 2' >>config.yaml
  refuses_config 'config\.yaml'
}
case_key_of_lora_that_is_none() {
  write_config
  echo 'lora: {rank: 16}' >>config.yaml
  refuses_config 'lora.rank' 'unknown key'
}
case_freeze_matches_nothing() {
  write_config
  expect 2 'train\.freeze' "'\*\.mlp\.\*' matches no parameter" 'experts' -- "$smoe" train config.yaml "train.freeze=['*.mlp.*']"
  absent run
}
case_freeze_part_of_a_matrix() {
  write_config
  expect 2 'train\.freeze' 'one matrix' 'k_proj' -- "$smoe" train config.yaml "train.freeze=['*.q_proj.*']" --dry-run
  absent run
}
case_freeze_without_quotes() {
  write_config
  expect 2 'train\.freeze' 'needs quotes' -- "$smoe" train config.yaml 'train.freeze=[*.experts.*]'
  absent run
}
case_override_unknown_key() {
  write_config
  expect 2 'optimizer\.lr|lr' 'optimizer\.' -- "$smoe" train config.yaml optimizer.lr=1e-3
  absent run
}
case_override_without_value() {
  write_config
  expect 2 'steps' -- "$smoe" train config.yaml train.steps
  absent run
}
case_missing_config() { expect '1|2' 'nowhere\.yaml' -- "$smoe" train nowhere.yaml; }
case_config_is_a_directory() {
  mkdir config.yaml
  expect '1|2' 'config\.yaml' -- "$smoe" train config.yaml
}

# ---- prepare ----------------------------------------------------------------------------------------------------

case_prepare_missing_input() {
  expect 1 'nowhere\.jsonl' -- "$smoe" prepare nowhere.jsonl --out shards --tokenizer bytes
  absent shards/manifest.json
}
case_prepare_bad_json_line() {
  printf '{"text": "fine"}\n{"text": 7}\n' >text.jsonl
  expect 1 'text\.jsonl' '2' -- "$smoe" prepare text.jsonl --out shards --tokenizer bytes
  absent shards/manifest.json
}
case_prepare_no_text_field() {
  printf '{"body": "fine"}\n' >text.jsonl
  expect 1 'text\.jsonl' 'text' -- "$smoe" prepare text.jsonl --out shards --tokenizer bytes
  absent shards/manifest.json
}
case_prepare_empty_corpus() {
  : >text.jsonl
  expect 1 'text\.jsonl|no document|empty' -- "$smoe" prepare text.jsonl --out shards --tokenizer bytes
  absent shards/manifest.json
}
case_prepare_missing_tokenizer() {
  echo '{"text": "fine"}' >text.jsonl
  expect '1|2' 'nowhere\.model' -- "$smoe" prepare text.jsonl --out shards --tokenizer nowhere.model
  absent shards/manifest.json
}
case_prepare_broken_tokenizer() {
  echo '{"text": "fine"}' >text.jsonl
  echo 'not a model' >tokenizer.model
  expect 1 'tokenizer\.model' -- "$smoe" prepare text.jsonl --out shards --tokenizer tokenizer.model
  absent shards/manifest.json
}
case_prepare_unwritable_output() {
  echo '{"text": "fine"}' >text.jsonl
  : >file
  expect 1 'file/shards|file' -- "$smoe" prepare text.jsonl --out file/shards --tokenizer bytes
}
case_prepare_id_outside_vocabulary() {
  npy_i32 ids.npy '(4,)' 1 2 300 3
  expect 1 'ids\.npy' '300' -- "$smoe" prepare ids.npy --out shards --vocab-size 300
  absent shards/manifest.json
}
case_prepare_negative_id() {
  npy_i32 ids.npy '(4,)' 1 2 -1 3
  expect 1 'ids\.npy' '-1' -- "$smoe" prepare ids.npy --out shards --vocab-size 300
  absent shards/manifest.json
}
case_prepare_truncated_npy() {
  npy_i32 ids.npy '(400,)' 1 2 3
  expect 1 'ids\.npy' -- "$smoe" prepare ids.npy --out shards --vocab-size 300
  absent shards/manifest.json
}

# ---- data for training ------------------------------------------------------------------------------------------

refuses_to_train() { expect "$@" -- "$smoe" train config.yaml; absent run/checkpoints/latest; }

case_train_missing_data() {
  write_config
  refuses_to_train '1|2' 'shards'
}
case_train_corrupt_shard() {
  prepared
  flip shards/shard-00000.h5 -40
  refuses_to_train 1 'shard-00000\.h5' 'sha-?256|hash|checksum'
}
case_train_truncated_shard() {
  prepared
  truncate -s -100 shards/shard-00000.h5
  refuses_to_train 1 'shard-00000\.h5'
}
case_train_missing_shard() {
  prepared
  rm shards/shard-00000.h5
  refuses_to_train 1 'shard-00000\.h5'
}
case_train_broken_manifest() {
  prepared
  truncate -s -10 shards/manifest.json
  refuses_to_train 1 'manifest\.json'
}
case_train_other_vocabulary() {
  prepared
  replace 'vocab_size: 259' 'vocab_size: 200'
  refuses_to_train '1|2' '259' '200'
}
case_dry_run_holds_sources_against_each_other() {
  prepared
  expect 0 'data\.train\.0: test: 91 samples' 'data\.eval\.1: test: 91 samples' 'data\.eval\.0: nowhere holds no token shards yet' -- \
    "$smoe" train config.yaml --dry-run 'data.eval=[{path: nowhere}, {path: shards}]'
  expect 1 'data\.eval: \./shards is there twice, also as shards' -- \
    "$smoe" train config.yaml --dry-run 'data.eval=[{path: shards}, {path: ./shards}]'
  absent run
}
case_no_address_space_for_products() {
  prepared
  limited() (
    ulimit -v 4000000
    "$smoe" "$@" train.threads=100
  )
  expect 1 'products on 100 thread' '128 MiB of address space' 'ulimit -v' -- limited train config.yaml
  absent run
}
case_train_too_little_data() {
  write_config
  echo '{"text": "short"}' >text.jsonl
  "$smoe" prepare text.jsonl --out shards --tokenizer bytes
  refuses_to_train '1|2' 'shards' 'sequence'
}
case_train_unwritable_output() {
  prepared
  : >file
  expect 1 'file' -- "$smoe" train config.yaml train.output_dir=file/run
}
case_train_missing_start() {
  prepared
  expect '1|2' 'nowhere' -- "$smoe" train config.yaml model.from=nowhere
}

# ---- checkpoints ------------------------------------------------------------------------------------------------

case_resume_changed_shape() {
  trained
  before=$(cat run/checkpoints/latest)
  expect '1|2' 'hidden_size' '16' '32' -- "$smoe" train config.yaml model.hidden_size=32 train.steps=4
  [ "$(cat run/checkpoints/latest)" = "$before" ] || fail "the earlier checkpoint is no longer the latest"
}
case_resume_corrupt_weights() {
  trained
  flip "$(weights)" -8
  expect 1 'safetensors' 'sha-?256|hash|checksum' -- "$smoe" train config.yaml train.steps=4
}
case_resume_truncated_state() {
  trained
  truncate -s -5 "$(latest)/state.json"
  expect 1 'state\.json' -- "$smoe" train config.yaml train.steps=4
}
case_resume_missing_checkpoint() {
  prepared
  expect '1|2' 'nowhere' -- "$smoe" train config.yaml checkpoint.resume=nowhere
}
case_disk_full_while_saving() {
  local wide=(model.hidden_size=512 model.intermediate_size=512)  # weights of 14 MB
  prepared
  "$smoe" train config.yaml "${wide[@]}"
  before=$(latest)
  # No file may grow past 8 MiB, which is enough for Open MPI: the write of the weights fails as on a full disk.
  full() (
    trap '' XFSZ
    ulimit -f 8192
    "$smoe" train config.yaml "${wide[@]}" train.steps=4
  )
  expect 1 'resum' 'safetensors' 'too large|no space|full' -- full
  [ "$(latest)" = "$before" ] || fail "a checkpoint that was not written whole is the latest"
  [ "$(find run/checkpoints -mindepth 1 -maxdepth 1 -name '.*' | wc -l)" = 0 ] || fail "half a checkpoint was left behind"
  expect 0 -- "$smoe" train config.yaml "${wide[@]}" train.steps=4
}

# ---- models -----------------------------------------------------------------------------------------------------

case_model_missing() {
  expect '1|2' 'nowhere' -- "$smoe" generate --model nowhere --prompt-ids 1,2,3
}
case_model_truncated() {
  trained
  truncate -s -64 "$(weights)"
  expect 1 'safetensors' -- "$smoe" generate --model "$(latest)/model" --prompt-ids 1,2,3 --max-tokens 4 --greedy
}

# refuses_weights HEADER BYTES PIECE...: generation from weights with that header and so much data is refused.
refuses_weights() {
  trained
  local file
  file=$(weights)
  rm -f "$(latest)/manifest.json"
  safetensors "$file" "$1" "${2:-0}"
  shift 2
  expect 1 "$@" -- "$smoe" generate --model "$(latest)/model" --prompt-ids 1,2,3 --max-tokens 4 --greedy
}
case_model_overlapping_tensors() {
  refuses_weights '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}' 24 \
    'model\.safetensors' 'overlap'
}
case_model_shape_overflows() {
  refuses_weights '{"a":{"dtype":"F32","shape":[4194305,4194305,211106198978564],"data_offsets":[0,16]}}' 16 \
    'model\.safetensors' 'shape' '4194305'
}
case_model_duplicate_tensor() {
  refuses_weights '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}' 16 \
    'model\.safetensors' '"a"' 'twice'
}
case_model_header_longer_than_file() {
  trained
  cp -r "$(latest)/model" plain  # away from the manifest, which would refuse the file first
  printf '\377\377\377\377\377\000\000\000{}' >plain/model.safetensors
  expect 1 model.safetensors 'header' -- "$smoe" generate --model plain --prompt-ids 1,2,3 --max-tokens 4 --greedy
}
case_model_missing_tensor() {
  refuses_weights '{"lm_head.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8 \
    'model\.embed_tokens\.weight: missing' 'experts\.0\.w1\.weight: missing'
}
# Pickles, quantised weights, and a directory that would be written into.
case_model_directories_that_are_refused_by_name() {
  trained
  cp -r run/checkpoints/step-000002/model model
  expect 1 'model.safetensors: is a file' -- "$smoe" eval --model model/model.safetensors --data shards
  sed -e '/^model:/,/max_position_embeddings/d' config.yaml >from.yaml
  printf 'model: {from: model}\n' >>from.yaml
  expect 1 'train.output_dir: model is itself the directory of model.from' -- "$smoe" train from.yaml train.output_dir=model
  expect 1 'train.output_dir: model/new is inside the directory of model.from' -- "$smoe" train from.yaml model.from=model/ train.output_dir=model/new
  absent model/train.log model/checkpoints model/new
  sed -i 's/"vocab_size"/"quantization_config": {"quant_method": "gptq", "bits": 4}, "vocab_size"/' model/config.json
  expect '1|2' 'quantization_config' 'gptq' '4 bits' -- "$smoe" train from.yaml train.output_dir=out
  rm model/*.safetensors
  cp run/checkpoints/step-000002/model/config.json model
  printf x >model/pytorch_model.bin
  expect 1 'pytorch_model.bin' 'pickle' 'safe_serialization' -- "$smoe" eval --model model --data shards
}
case_generate_id_outside_vocabulary() {
  trained
  expect '1|2' '259' -- "$smoe" generate --model run --prompt-ids 1,259 --max-tokens 2
}
case_generate_text_without_tokenizer() {
  trained
  expect 1 'tokenizer' 'bytes' -- "$smoe" generate --model run --prompt "Once" --max-tokens 4
}
case_generate_two_prompts() {
  trained
  expect 2 '--prompt' '--prompt-ids' -- "$smoe" generate --model run --prompt "Once" --prompt-ids 1,2 --max-tokens 4
}
case_generate_prompt_ids_that_are_none() {
  local ids
  for ids in '' ' ' '1,2,' ',1' '1,,2' '1,two' '1 2' '-1' '1,99999999999' '0x5' '1.5'; do
    expect 2 '--prompt-ids' 'commas' -- "$smoe" generate --model nowhere --prompt-ids "$ids"
  done
  expect 2 '--prompt-ids' 'found nothing where id 2' -- "$smoe" generate --model nowhere --prompt-ids '1,2,'
  expect 2 '--prompt-ids' 'found "2" where a comma behind id 0' -- "$smoe" generate --model nowhere --prompt-ids '1 2'
  expect 1 'nowhere: no model' -- "$smoe" generate --model nowhere --prompt-ids ' 1, 2 ,3'
}
case_generate_temperature_not_a_number() {
  trained
  expect 2 'temperature' 'nan' -- "$smoe" generate --model run --prompt-ids 1,2 --max-tokens 4 --temperature nan
}
case_generate_past_the_longest_sequence() {
  trained
  expect '1|2' '64' 'max_position_embeddings' -- "$smoe" generate --model run --prompt-ids 1,2,3 --max-tokens 100
}
case_logits_not_npy() {
  trained
  echo 'not numbers' >ids.npy
  expect 1 'ids\.npy' -- "$smoe" logits --model run --tokens ids.npy --out out.safetensors
  absent out.safetensors
}
case_logits_id_outside_vocabulary() {
  trained
  npy_i32 ids.npy '(1, 3)' 1 2 259
  expect 1 'ids\.npy|259' '259' -- "$smoe" logits --model run --tokens ids.npy --out out.safetensors
  absent out.safetensors
}
case_eval_missing_data() {
  trained
  expect '1|2' 'nowhere' -- "$smoe" eval --model run --data nowhere
}
case_eval_corrupt_shard() {
  trained
  flip shards/shard-00000.h5 -40
  expect 1 'shard-00000\.h5' -- "$smoe" eval --model run --data shards
}
case_bench_bad_configuration() {
  write_config
  replace 'hidden_size: 16' 'hidden_size: wide'
  expect 2 'config\.yaml:3' 'hidden_size' 'wide' -- "$smoe" bench config.yaml
}
case_bench_unknown_override() {
  write_config
  expect 2 'optimizer\.lr' -- "$smoe" bench config.yaml optimizer.lr=1
}
case_bench_missing_config() { expect '1|2' 'nowhere\.yaml' -- "$smoe" bench nowhere.yaml; }
case_bench_no_steps() {
  write_config
  expect 2 '--steps' '0' -- "$smoe" bench config.yaml --steps 0
}
# Each is told before anything is computed.
case_bench_trace_where_nothing_can_be_written() {
  write_config
  mkdir folder
  expect 1 'nowhere' -- "$smoe" bench config.yaml --trace nowhere/step.json
  expect 1 'folder: it is a directory' -- "$smoe" bench config.yaml --trace folder
  expect 1 'nowhere' -- mpirun --oversubscribe -n 2 "$smoe" bench config.yaml --trace nowhere/step.json
  [ -z "$(ls -A folder)" ] || fail "something was written"
}
case_bench_trace_with_options_of_the_other_bench() {
  write_config
  expect 2 '--json' '--trace' -- "$smoe" bench config.yaml --trace step.json --json
  expect 2 '--steps' '--trace' -- "$smoe" bench config.yaml --trace step.json --steps 3
  expect 2 'train.device: found check' -- "$smoe" bench config.yaml --trace step.json train.device=check
  absent step.json
}
case_bench_trace_of_a_layout_that_does_not_fit() {
  write_config
  expect 2 'parallel.ep = 2' 'parallel.tp=1 parallel.ep=1' -- "$smoe" bench config.yaml --trace step.json parallel.ep=2
  expect 2 'num_key_value_heads is 1, which parallel.tp = 2 does not divide' -- \
    mpirun --oversubscribe -n 2 "$smoe" bench config.yaml --trace step.json parallel.tp=2
  absent step.json
}
case_bench_missing_start() {
  write_config
  expect '1|2' 'nowhere' -- "$smoe" bench config.yaml model.from=nowhere
}
case_bench_more_than_the_machine_has() {
  write_config
  expect 1 'the model needs .* GiB here for .*activations' 'this machine has' 'train\.micro_batch_size' -- \
    "$smoe" bench config.yaml model.hidden_size=65536 model.intermediate_size=262144 model.num_local_experts=64
  expect 1 'this machine has' -- "$smoe" bench config.yaml train.micro_batch_size=16777216 train.global_batch_size=16777216
}
case_report_missing_run() {
  expect '1|2' 'nowhere' -- "$smoe" report nowhere
}
case_report_corrupt_metrics() {
  trained
  sed -i '1s/.*/{"step": /' run/metrics.jsonl
  rm -f run/report.html
  expect 1 'metrics\.jsonl:1' -- "$smoe" report run
  absent run/report.html
}

run_case "$@"
