#!/usr/bin/env bash
# smoe upcycle, from dense directories to models that are trained and that write, and what it refuses.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/cases.sh"
. "$(dirname "${BASH_SOURCE[0]}")/tiny_run.sh"
. "$(dirname "${BASH_SOURCE[0]}")/dense.sh"

upcycle() { "$smoe" upcycle "$@"; }

# logits MODEL: logits.MODEL, of some ids.
logits() {
  [ -f ids.npy ] || python3 - <<'END'
import struct
header = "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 20), }"
header += " " * (-(len(header) + 11) % 64) + "\n"
open("ids.npy", "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
                            + struct.pack("<40i", *(i * 37 % 259 for i in range(40))))
END
  "$smoe" logits --model "$1" --tokens ids.npy --out "logits.$1" 2>/dev/null
}
# same_logits MODEL MODEL: to rounding.
same_logits() {
  logits "$1"
  logits "$2"
  python3 - "logits.$1" "logits.$2" <<'END'
import json, struct, sys

def read(path):
    data = open(path, "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    begin, end = json.loads(data[8:8 + length])["logits"]["data_offsets"]
    return struct.unpack(f"<{(end - begin) // 4}f", data[8 + length + begin:8 + length + end])

a, b = map(read, sys.argv[1:])
worst = max(abs(x - y) for x, y in zip(a, b)) / max(map(abs, a))
print("largest difference", worst)
sys.exit(not worst < 1e-5)
END
}
nothing_left() {
  absent out .out.unfinished
}

case_begins_as_its_parent_and_is_trained() {
  dense parent
  upcycle --dense parent --out one --experts 1 --top-k 1
  expect 0 'four: a Mixtral of 4 experts, 2 a token' 'parameters' -- upcycle --dense parent --out four --experts 4
  [ -z "$(find . -maxdepth 1 -name '.*unfinished')" ] || fail "a hidden directory is left"
  same_logits one four || fail "the new model does not begin as its parent"
  upcycle --dense parent --out cut --experts 8 --top-k 4 --granularity 2
  same_logits one cut || fail "cut copies do not begin as their parent"
  upcycle --dense parent --out drawn --experts 4 --drop 0.5
  ! same_logits one drawn || fail "the comparison sees nothing"

  write_config
  write_shards
  sed -i '/^model:/,/^data:/{/^data:/!d}; s/^data:/model: {from: four}\n&/' config.yaml
  expect 0 -- "$smoe" train config.yaml
  expect 0 -- "$smoe" generate --model four --prompt-ids 1,70,80 --max-tokens 4 --greedy
}
case_several_parents() {
  dense a seed=1
  dense b seed=2
  expect 0 'experts 0, 2 of a; 1, 3 of b' -- upcycle --dense a --dense b --out out --experts 4
  upcycle --dense a b --out again --experts 4
  cmp out/model.safetensors again/model.safetensors || fail "not the same again"
  upcycle --dense a b --out first --experts 4 --attention first
  ! cmp -s out/model.safetensors first/model.safetensors || fail "--attention changes nothing"
  upcycle --dense a b --out seed --experts 4 --seed 2
  ! cmp -s out/model.safetensors seed/model.safetensors || fail "--seed changes nothing"
}
case_types() {
  dense parent
  upcycle --dense parent --out f32 --experts 2
  upcycle --dense parent --out bf16 --experts 2 --dtype bf16
  grep -q bfloat16 bf16/config.json || fail "config.json does not say bf16"
  [ "$(stat -c %s bf16/model.safetensors)" -lt "$(stat -c %s f32/model.safetensors)" ] || fail "bf16 is no smaller"
}

# ---- what is refused ----

refuses() {
  expect "$@"
  nothing_left
}
case_parents_that_will_not_do() {
  dense parent
  dense wide 'intermediate_size=48'
  dense biased bias=1
  dense qwen 'model_type="qwen2"'
  dense experts 'num_local_experts=8' 'model_type="mixtral"'
  refuses 1 'intermediate_size: parent has 32, wide has 48' -- upcycle --dense parent wide --out out --experts 4
  refuses 1 'biased: 1 tensor\(s\) are biases.*q_proj.bias' -- upcycle --dense biased --out out --experts 4
  refuses 1 'qwen/config.json: model_type: found "qwen2"' -- upcycle --dense qwen --out out --experts 4
  refuses 1 'experts/config.json: num_local_experts.*mixture of experts already' -- upcycle --dense experts --out out --experts 4
  refuses 1 'nowhere is not a directory' -- upcycle --dense nowhere --out out --experts 4
  mv parent/model.safetensors parent/pytorch_model.bin
  refuses 1 'pytorch_model.bin.*pickle.*safe_serialization' -- upcycle --dense parent --out out --experts 4
}
case_outputs_that_will_not_do() {
  dense parent
  cp -r parent before
  refuses 1 'parent is what is read' -- upcycle --dense parent --out parent --experts 4
  refuses 1 'parent is what is read' -- upcycle --dense parent/ --out ./parent --experts 4
  diff -r parent before || fail "the parent was changed"
  mkdir full
  : >full/mine
  refuses 1 'full holds mine' -- upcycle --dense parent --out full --experts 4
  refuses 1 'mine' 'not a directory' -- upcycle --dense parent --out full/mine --experts 4
  mkdir out
  expect 0 -- upcycle --dense parent --out out --experts 4 # an empty one
  expect 1 'out holds ' -- upcycle --dense parent --out out --experts 4
}
case_a_full_disk_leaves_nothing() {
  dense parent 'hidden_size=256' 'intermediate_size=1024'
  full() (
    trap '' XFSZ
    ulimit -f 8192
    upcycle --dense parent --out out --experts 4
  )
  refuses 1 'safetensors' 'too large|no space|full' -- full
}
case_what_a_killed_one_left_is_removed() {
  dense parent
  mkdir .out.unfinished
  : >.out.unfinished/model.safetensors
  expect 0 -- upcycle --dense parent --out out --experts 4
  absent .out.unfinished
  [ -f out/config.json ] || fail "nothing was written"
}
case_usage() {
  dense parent
  refuses 2 '--experts is required' -- upcycle --dense parent --out out
  refuses 2 '--dense is required' -- upcycle --out out --experts 4
  refuses 2 '--top-k: found 5, expected 1 to --experts \(4\)' -- upcycle --dense parent --out out --experts 4 --top-k 5
  refuses 2 'multiple of 3: as many copies of each' -- upcycle --dense parent parent parent --out out --experts 4
  refuses 2 '--top-k: found 2, expected a multiple of --granularity \(4\)' -- upcycle --dense parent --out out --experts 4 --granularity 4
  refuses 2 '--drop: found 2' -- upcycle --dense parent --out out --experts 4 --drop 2
  refuses 2 '--dtype' 'fp32' -- upcycle --dense parent --out out --experts 4 --dtype int8
  refuses 2 "'upcycle' runs in one process, found 2" -- mpirun --oversubscribe -n 2 "$smoe" upcycle --dense parent --out out --experts 4
}

# Weights of 150 MB, all zero and so without blocks of their own; the process holds pieces of them.
case_memory_is_of_pieces() {
  python3 - <<'END'
import json, os, struct
D, F, V = 1024, 4096, 32000
shapes = {"model.embed_tokens.weight": [V, D], "lm_head.weight": [V, D], "model.norm.weight": [D]}
for name, shape in dict(input_layernorm=[D], post_attention_layernorm=[D], **{
        "self_attn.q_proj": [D, D], "self_attn.k_proj": [D, D], "self_attn.v_proj": [D, D], "self_attn.o_proj": [D, D],
        "mlp.gate_proj": [F, D], "mlp.up_proj": [F, D], "mlp.down_proj": [D, F]}).items():
    shapes[f"model.layers.0.{name}.weight"] = shape
header, end = {}, 0
for name, shape in shapes.items():
    begin, end = end, end + 2 * shape[0] * (shape[1] if len(shape) == 2 else 1)
    header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
os.makedirs("parent")
text = json.dumps(header).encode()
with open("parent/model.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    file.truncate(8 + len(text) + end)
json.dump(dict(model_type="mistral", vocab_size=V, hidden_size=D, intermediate_size=F, num_hidden_layers=1, num_attention_heads=8,
               num_key_value_heads=8, sliding_window=None, rope_theta=1e4, max_position_embeddings=64), open("parent/config.json", "w"))
END
  peak() {
    python3 - "$smoe" "$@" <<'END'
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
END
  }
  for more in '' '--drop 0.5 --dtype fp32'; do
    # shellcheck disable=SC2086
    megabytes=$(peak upcycle --dense parent --out out --experts 2 $more)
    echo "$megabytes MB at most with '$more'"
    [ "$megabytes" -lt 64 ] || fail "$megabytes MB at the peak"
    rm -r out
  done
}

run_case "$@"
