#!/usr/bin/env python3
"""Numbers from transformers' Mixtral that smoe is held to. See README.md beside this file.

make_goldens.py                   writes mixtral_*.safetensors and rope.safetensors into this folder
make_goldens.py --find-seeds      looks for seeds that pass the checks below, for a new shape
make_goldens.py --hf-dir DIR      writes the first shape as Hugging Face directories: every layout of files, type of
                                  numbers, set of names and scaling of the rotary embedding that is read
"""

import argparse
import copy
import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

HERE = Path(__file__).resolve().parent
STEPS = 10
OPTIMIZER = dict(learning_rate=3e-3, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1, max_grad_norm=1.0)
SCHEDULE = dict(warmup_steps=3, min_lr_ratio=0.1, steps=STEPS)

# A float32 program may choose another expert than float64 where the last chosen and the first not chosen nearly tie,
# and no tolerance would cover that. A shape whose seed comes closer than this is refused.
SMALLEST_GAP = 1e-4

SHAPES = {
    # Mixtral's own proportions: 8 experts, 2 per token, 4 query heads to a key-value head.
    "mixtral_gqa": dict(
        model=dict(vocab_size=96, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=8,
                   num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2, rope_theta=1e6),
        sequences=4, length=16, coefficient=0.02, seed=1),
    # No grouping, one expert per token, and no size that a vector register divides.
    "mixtral_odd": dict(
        model=dict(vocab_size=101, hidden_size=30, intermediate_size=37, num_hidden_layers=2, num_attention_heads=3,
                   num_key_value_heads=3, num_local_experts=4, num_experts_per_tok=1, rope_theta=1e4),
        sequences=3, length=23, coefficient=0.5, seed=1),
    # A window shorter than the sequence, heads that do not add up to the hidden size, most experts chosen.
    "mixtral_window": dict(
        model=dict(vocab_size=64, hidden_size=24, intermediate_size=20, num_hidden_layers=3, num_attention_heads=6,
                   num_key_value_heads=2, head_dim=8, num_local_experts=5, num_experts_per_tok=3, rope_theta=1e4,
                   sliding_window=7),
        sequences=2, length=21, coefficient=0.05, seed=3),
}

# Longer than the 16 positions that the scalings below stretch, shorter than the model's 64.
ROPE_SHAPE = dict(
    model=dict(vocab_size=48, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
               num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, rope_theta=1e4),
    sequences=1, length=48, coefficient=0.02, seed=1)

# Keys of a config.json. Frequencies lie on all sides of the bounds that yarn and llama3 draw.
ROPES = {
    "standard": {"rope_theta": 100.0, "rope_scaling": {"type": "default"}},
    "linear": {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "linear_type_only": {"rope_parameters": {"type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    "linear_without_theta": {"rope_parameters": {"rope_type": "linear", "factor": 3}},
    "dynamic": {"rope_theta": 1e4, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "yarn": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                                 "rope_theta": 1e4}},
    "yarn_mscale": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                                        "rope_theta": 100.0, "mscale": 0.8, "mscale_all_dim": 0.4, "beta_fast": 4,
                                        "beta_slow": 0.05, "truncate": False}},
    # The original length beside the object goes before the one inside; so does rope_scaling before rope_parameters.
    "yarn_beside": {"rope_theta": 1e3, "original_max_position_embeddings": 16,
                    "rope_scaling": {"type": "yarn", "factor": None, "attention_factor": 0.9, "beta_fast": 2,
                                     "beta_slow": 0.1, "original_max_position_embeddings": 32},
                    "rope_parameters": {"rope_type": "default", "rope_theta": 10.0}},
    "llama3": {"rope_theta": 1e4, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0.25,
                                                   "high_freq_factor": 2.0, "original_max_position_embeddings": 16}},
}


class Unsuitable(Exception):
    """These weights would make a fragile or an empty test."""


def make_config(shape, rope=None):
    model = dict(shape["model"])
    theta = model.pop("rope_theta")
    rope = rope or {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    return MixtralConfig(**model, **copy.deepcopy(rope), rms_norm_eps=1e-5, max_position_embeddings=64,
                         router_aux_loss_coef=shape["coefficient"], output_router_logits=True,
                         attn_implementation="eager", experts_implementation="eager")


def released(name, tensor):
    """(name, tensor) pairs as the released checkpoints have them; transformers 5 fuses experts in memory."""
    if name.endswith("mlp.experts.gate_up_proj"):
        prefix = name.replace("mlp.experts.gate_up_proj", "block_sparse_moe.experts.")
        half = tensor.shape[1] // 2
        for e in range(tensor.shape[0]):
            yield f"{prefix}{e}.w1.weight", tensor[e, :half]
            yield f"{prefix}{e}.w3.weight", tensor[e, half:]
    elif name.endswith("mlp.experts.down_proj"):
        prefix = name.replace("mlp.experts.down_proj", "block_sparse_moe.experts.")
        for e in range(tensor.shape[0]):
            yield f"{prefix}{e}.w2.weight", tensor[e]
    else:
        yield name.replace(".mlp.gate.", ".block_sparse_moe.gate."), tensor


def initial_std(name):
    """Large enough that routing and attention are far from uniform; the gradient's norm is then near one."""
    return {"model.embed_tokens.weight": 1.0, "lm_head.weight": 0.05}.get(name, 0.2)


def make_model(shape, rope=None):
    model = MixtralForCausalLM(make_config(shape, rope))
    random = np.random.default_rng(shape["seed"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            normal = torch.from_numpy(random.standard_normal(tuple(parameter.shape), dtype=np.float32))
            parameter.copy_(1 + 0.1 * normal if "norm" in name else initial_std(name) * normal)
    return model, random


def make_batches(shape, random):
    """ids and targets [STEPS, B, S]. A target is the id that follows, or masked.

    Most targets of every third step are: a mean over few has a large gradient, so that clipping has something to do.
    """
    size = (STEPS, shape["sequences"], shape["length"] + 1)
    tokens = torch.from_numpy(random.integers(0, shape["model"]["vocab_size"], size))
    share = np.where(np.arange(STEPS) % 3 == 1, 0.9, 0.1)[:, None, None]
    masked = torch.from_numpy(random.random(size) < share)
    targets = torch.where(masked, -100, tokens)
    return tokens[:, :, :-1].contiguous(), targets[:, :, 1:].contiguous()


def losses(model, ids, targets):
    output = model(input_ids=ids, use_cache=False, output_router_logits=True)
    lm = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    config = model.config
    aux = load_balancing_loss_func(output.router_logits, config.num_local_experts, config.num_experts_per_tok)
    return output, lm, aux


def check_routing(output, config):
    """Smallest gap between the last expert chosen and the first not chosen; every expert must have been chosen."""
    gap, k = math.inf, config.num_experts_per_tok
    for layer, logits in enumerate(output.router_logits):
        ordered, experts = torch.softmax(logits.double(), dim=-1).sort(dim=-1, descending=True)
        gap = min(gap, (ordered[:, k - 1] - ordered[:, k]).min().item())
        unused = set(range(config.num_local_experts)) - set(experts[:, :k].flatten().tolist())
        if unused:
            raise Unsuitable(f"layer {layer} never chooses experts {unused}: take another seed")
    if gap <= SMALLEST_GAP:
        raise Unsuitable(f"two experts are only {gap:.1e} apart: take another seed")
    return gap


def learning_rate(step):
    """Steps count from 1."""
    warmup, low = SCHEDULE["warmup_steps"], SCHEDULE["min_lr_ratio"]
    if step <= warmup:
        return OPTIMIZER["learning_rate"] * step / warmup
    p = (step - warmup) / (STEPS - warmup)
    return OPTIMIZER["learning_rate"] * (low + (1 - low) * (1 + math.cos(math.pi * p)) / 2)


def make_optimizer(model):
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": OPTIMIZER["weight_decay"]}, {"params": norms, "weight_decay": 0.0}],
        lr=0.0, betas=(OPTIMIZER["beta1"], OPTIMIZER["beta2"]), eps=OPTIMIZER["epsilon"], foreach=False)


def make_golden(shape):
    model, random = make_model(shape)
    ids, targets = make_batches(shape, random)
    tensors = {"ids": ids.int(), "targets": targets.int()}
    for name, parameter in model.named_parameters():
        tensors.update({f"weight.{n}": t for n, t in released(name, parameter.detach())})

    model = copy.deepcopy(model).double()
    optimizer = make_optimizer(model)
    history = {"lm_loss": [], "aux_loss": [], "grad_norm": [], "learning_rate": []}
    gap = math.inf
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        output, lm, aux = losses(model, ids[step - 1], targets[step - 1])
        (lm + shape["coefficient"] * aux).backward()
        gap = min(gap, check_routing(output, model.config))
        if step == 1:
            tensors["logits"] = output.logits.detach()
            tensors.update({f"router_logits.{l}": r.detach() for l, r in enumerate(output.router_logits)})
            for name, parameter in model.named_parameters():
                # A copy: clipping scales gradients in place.
                tensors.update({f"grad.{n}": t.clone() for n, t in released(name, parameter.grad)})
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        history["learning_rate"].append(learning_rate(step))
        history["lm_loss"].append(lm.item())
        history["aux_loss"].append(aux.item())
        history["grad_norm"].append(
            torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER["max_grad_norm"]).item())
        optimizer.step()
    for name, parameter in model.named_parameters():
        tensors.update({f"after.{n}": t for n, t in released(name, parameter.detach())})
    norms = history["grad_norm"]
    if not min(norms) < OPTIMIZER["max_grad_norm"] < max(norms):
        raise Unsuitable(f"clipping must bite in some steps and not in others, norms are {norms}")

    rounded = {n: (t.float() if t.is_floating_point() else t).contiguous().clone() for n, t in tensors.items()}
    rounded.update({f"step.{n}": torch.tensor(v, dtype=torch.float64) for n, v in history.items()})
    config = {"model": shape["model"] | {"rms_norm_eps": 1e-5}, "aux_loss_coef": shape["coefficient"],
              "optimizer": OPTIMIZER, "schedule": SCHEDULE,
              "made_with": {"torch": torch.__version__, "transformers": transformers.__version__}}
    return rounded, {"config": json.dumps(config)}, gap, history


def make_rope_golden(shape):
    """One step's logits under every scaling, and the gradients of the first layer's queries and keys."""
    tensors, gap = {}, math.inf
    for kind, rope in ROPES.items():
        model, random = make_model(shape, rope)
        ids, targets = (batch[:1] for batch in make_batches(shape, random))
        if not tensors:
            tensors = {"ids": ids.int(), "targets": targets.int()}
            for name, parameter in model.named_parameters():
                tensors.update({f"weight.{n}": t for n, t in released(name, parameter.detach())})
        rotary = model.model.rotary_emb
        tensors[f"inv_freq.{kind}"] = rotary.inv_freq.clone()
        tensors[f"scale.{kind}"] = torch.tensor([rotary.attention_scaling])
        model = model.double()
        output, lm, aux = losses(model, ids[0], targets[0])
        (lm + shape["coefficient"] * aux).backward()
        gap = min(gap, check_routing(output, model.config))
        tensors[f"logits.{kind}"] = output.logits.detach()
        for name, parameter in model.model.layers[0].self_attn.named_parameters():
            if name in ("q_proj.weight", "k_proj.weight"):
                tensors[f"grad.{kind}.model.layers.0.self_attn.{name}"] = parameter.grad
    rounded = {n: (t.float() if t.is_floating_point() else t).contiguous().clone() for n, t in tensors.items()}
    config = {"model": shape["model"] | {"rms_norm_eps": 1e-5}, "aux_loss_coef": shape["coefficient"],
              "optimizer": OPTIMIZER, "schedule": SCHEDULE | {"steps": 1}, "ropes": ROPES,
              "made_with": {"torch": torch.__version__, "transformers": transformers.__version__}}
    return rounded, {"config": json.dumps(config)}, gap


def write_rope_golden(folder):
    tensors, metadata, gap = make_rope_golden(ROPE_SHAPE)
    path = folder / "rope.safetensors"
    save_file(tensors, path, metadata)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, smallest router gap {gap:.1e}")


def write_goldens(folder):
    for name, shape in SHAPES.items():
        tensors, metadata, gap, history = make_golden(shape)
        path = folder / f"{name}.safetensors"
        save_file(tensors, path, metadata)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, smallest router gap {gap:.1e}, "
              f"gradient norms {min(history['grad_norm']):.2f} to {max(history['grad_norm']):.2f}, "
              f"loss {history['lm_loss'][0]:.3f} to {history['lm_loss'][-1]:.3f}")


def find_seeds():
    for name, shape in SHAPES.items() | {"rope": ROPE_SHAPE}.items():
        make = make_rope_golden if shape is ROPE_SHAPE else make_golden
        for seed in range(1, 1000):
            try:
                gap = make(shape | {"seed": seed})[2]
            except Unsuitable:
                continue
            print(f"{name}: seed {seed}, gap {gap:.1e}")
            break


def rewrite(folder, new, names=lambda name: name, index_only=(), file_only=(), config=lambda keys: None):
    """A copy of a directory with tensors renamed, inv_freq in the index or the files alone, or config.json changed."""
    shutil.copytree(folder, new, dirs_exist_ok=True)
    keys = json.loads((new / "config.json").read_text())
    config(keys)
    (new / "config.json").write_text(json.dumps(keys, indent=2))
    for path in new.glob("*.safetensors"):
        tensors = {names(n): t for n, t in load_file(path).items()}
        tensors.update({name: torch.ones(4) for name, file in file_only if file == path.name})
        save_file(tensors, path, {"format": "pt"})
    index = new / "model.safetensors.index.json"
    if index.exists():
        listed = json.loads(index.read_text())
        listed["weight_map"] = {names(n): file for n, file in listed["weight_map"].items()} | dict(index_only)
        index.write_text(json.dumps(listed))


def write_tied(shape, folder):
    config = make_config(shape)
    config.tie_word_embeddings = True
    model = MixtralForCausalLM(config)
    untied, _ = make_model(shape)
    weights = {n: t for n, t in untied.state_dict().items() if n != "lm_head.weight"}
    model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    model.save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")


def write_hf_directories(folder):
    """The same weights in the layouts that people's checkpoints have, and tokens.npy to compare them on."""
    shape = next(iter(SHAPES.values()))
    model, random = make_model(shape)
    ids, _ = make_batches(shape, random)
    model.save_pretrained(folder / "single")
    model.save_pretrained(folder / "sharded", max_shard_size="50KB")
    model.save_pretrained(folder / "fused", save_original_format=False)
    copy.deepcopy(model).bfloat16().save_pretrained(folder / "bf16")
    copy.deepcopy(model).half().save_pretrained(folder / "f16")
    copy.deepcopy(model).double().save_pretrained(folder / "f64")
    write_tied(shape, folder / "tied")
    single, sharded = folder / "single", folder / "sharded"
    rewrite(single, folder / "mlp", names=lambda name: name.replace("block_sparse_moe", "mlp"))
    first = sorted(path.name for path in sharded.glob("*.safetensors"))[0]
    buffer = [("model.layers.0.self_attn.rotary_emb.inv_freq", first)]
    rewrite(sharded, folder / "inv_freq_in_index", index_only=buffer)
    rewrite(sharded, folder / "inv_freq_in_file", file_only=buffer)

    def without(keys):  # those whose default is what this shape has
        for key in ("num_key_value_heads", "num_local_experts", "num_experts_per_tok", "rms_norm_eps", "rope_parameters",
                    "rope_theta", "max_position_embeddings", "sliding_window", "head_dim", "tie_word_embeddings"):
            keys.pop(key, None)

    grouped = shape | {"model": shape["model"] | {"num_attention_heads": 16, "num_key_value_heads": 8}}
    make_model(grouped)[0].save_pretrained(folder / "keys_present")
    rewrite(folder / "keys_present", folder / "keys_absent", config=without)
    np.save(folder / "tokens.npy", ids[0].numpy())

    for kind, rope in ROPES.items():  # with config.json as it is spelled, not as transformers writes it
        model, random = make_model(ROPE_SHAPE, rope)
        model.save_pretrained(folder / "saved" / kind)

        def spelled(keys, rope=rope):
            keys.pop("rope_parameters")
            keys.pop("original_max_position_embeddings", None)
            keys.update(rope)

        rewrite(folder / "saved" / kind, folder / f"rope_{kind}", config=spelled)
    ids, _ = make_batches(ROPE_SHAPE, random)
    np.save(folder / "rope_tokens.npy", ids[0].numpy())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the golden files")
    parser.add_argument("--find-seeds", action="store_true")
    parser.add_argument("--hf-dir", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # sums in one order
    if arguments.find_seeds:
        find_seeds()
    elif arguments.hf_dir:
        write_hf_directories(arguments.hf_dir)
    else:
        write_goldens(arguments.out)
        write_rope_golden(arguments.out)
