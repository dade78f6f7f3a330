#!/usr/bin/env bash
# Small dense models of the script tests; sourced.

# dense DIR [KEY=JSON]...: a small Llama of made-up weights on byte ids; `seed=N` draws others, `bias=1` adds a bias.
dense() {
  python3 - "$@" <<'END'
import array, json, os, random, struct, sys

config = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_act="silu", vocab_size=259, hidden_size=16,
              intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, rope_theta=1e4,
              max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
out, changes = sys.argv[1], dict(change.split("=", 1) for change in sys.argv[2:])
draw = random.Random(int(changes.pop("seed", 1)))
bias = changes.pop("bias", None)
config.update({key: json.loads(value) for key, value in changes.items()})
D, F, V = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
shapes = {"model.embed_tokens.weight": [V, D], "model.norm.weight": [D]}
for name, shape in dict(input_layernorm=[D], post_attention_layernorm=[D], **{
        "self_attn.q_proj": [D, D], "self_attn.k_proj": [D // 2, D], "self_attn.v_proj": [D // 2, D], "self_attn.o_proj": [D, D],
        "mlp.gate_proj": [F, D], "mlp.up_proj": [F, D], "mlp.down_proj": [D, F]}).items():
    shapes[f"model.layers.0.{name}.weight"] = shape
if bias:
    shapes["model.layers.0.self_attn.q_proj.bias"] = [D]
header, data = {}, array.array("f")
for name, shape in shapes.items():
    count = shape[0] * (shape[1] if len(shape) == 2 else 1)
    begin = 4 * len(data)
    data.extend(draw.gauss(0, 0.3) + ("norm" in name) for _ in range(count))
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, 4 * len(data)]}
os.makedirs(out)
text = json.dumps(header).encode()
with open(f"{out}/model.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + data.tobytes())
json.dump(config, open(f"{out}/config.json", "w"))
END
}
