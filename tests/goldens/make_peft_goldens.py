#!/usr/bin/env python3
"""Adapters as PEFT writes them, with their logits and merged weights. See README.md beside this file.

make_peft_goldens.py      writes into peft/ those adapters that the installed versions write, and says which others do

The model below them is that of mixtral_gqa.safetensors, at its first weights and its first batch.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import MixtralForCausalLM

from make_goldens import Unsuitable, check_routing, released

HERE = Path(__file__).resolve().parent
BASE = HERE / "mixtral_gqa.safetensors"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate", "w1", "w2", "w3"]
FUSED = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
MERGED_LAYER, MERGED_EXPERTS = 1, (0, 7)

# name: what begins the versions of transformers and of PEFT, and PEFT's options
ADAPTERS = {
    "linear": ("4.", "0.18", dict(r=3, lora_alpha=5, target_modules=ALL)),
    "attention": ("4.", "0.18", dict(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], layers_to_transform=[1])),
    "rslora": ("4.", "0.18", dict(r=4, lora_alpha=3, use_rslora=True, lora_dropout=0.1,
                                  target_modules=["k_proj", "o_proj", "w2"])),
    "expression": ("4.", "0.18", dict(r=2, lora_alpha=8, target_modules=r".*\.(q_proj|w[13])")),
    "patterns": ("4.", "0.18", dict(r=2, lora_alpha=4, target_modules=["q_proj", "o_proj", "w2"],
                                    rank_pattern={"o_proj": 4}, alpha_pattern={"o_proj": 4, "w2": 1})),
    "fused": ("5.", "0.21", dict(r=3, lora_alpha=5, target_modules=ALL)),
    "fused_down": ("5.", "0.21", dict(r=2, lora_alpha=3, target_modules=["v_proj"], target_parameters=FUSED[1:])),
    "fused_swapped": ("5.", "0.18", dict(r=2, lora_alpha=3, target_modules=["v_proj"], target_parameters=FUSED)),
}


def load_base(folder):
    """The golden model by way of a directory, which every version of transformers reads."""
    with safe_open(BASE, "pt") as file:
        config = json.loads(file.metadata()["config"])
    tensors = load_file(BASE)
    keys = config["model"] | {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"],
                              "max_position_embeddings": 64, "hidden_act": "silu", "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(keys))
    save_file({n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")},
              folder / "model.safetensors", {"format": "pt"})
    model, report = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                       output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    if hasattr(model.config, "_experts_implementation"):
        model.config._experts_implementation = "eager"
    return model.eval(), tensors["ids"][0].long()


def draw(model, seed):
    """B too: an adapter that was trained."""
    random = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if ".lora_" in name:
                normal = random.standard_normal(tuple(parameter.shape), dtype=np.float32)
                parameter.copy_(torch.from_numpy(0.2 * normal))


def wanted(name):
    layer = f"model.layers.{MERGED_LAYER}."
    experts = [f".experts.{e}." for e in MERGED_EXPERTS]
    return name.startswith(layer) and "norm" not in name and (".experts." not in name or any(e in name for e in experts))


def write_adapter(name, options, seed):
    with tempfile.TemporaryDirectory() as base:
        model, ids = load_base(Path(base))
        before = {n: p.clone() for n, p in model.named_parameters()}
        with torch.no_grad():
            without = model(input_ids=ids, use_cache=False).logits
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
        draw(adapted, seed)
        folder = HERE / "peft" / name
        shutil.rmtree(folder, ignore_errors=True)
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)

        merged = {}
        with tempfile.TemporaryDirectory() as second:
            again, _ = load_base(Path(second))
            weights = peft.PeftModel.from_pretrained(again, folder).merge_and_unload()
            for n, p in weights.named_parameters():
                merged |= {f"merged.{k}": t for k, t in released(n, p.detach()) if wanted(k)}
        adapted = adapted.double().eval()  # or what is dropped in training would be missing
        with torch.no_grad():
            output = adapted(input_ids=ids, use_cache=False, output_router_logits=True)
    gap = check_routing(output, model.config)
    assert (output.logits - without).abs().max() > 0.05 * without.abs().max(), "the adapter changes next to nothing"
    expected = {"logits": output.logits} | {f"router_logits.{l}": r for l, r in enumerate(output.router_logits)} | merged
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    save_file({n: t.float().contiguous().clone() for n, t in expected.items()}, folder / "expected.safetensors",
              {"made_with": json.dumps(versions)})
    config = json.loads((folder / "adapter_config.json").read_text())
    # Lists that PEFT makes of sets come in another order each time.
    for key in ("target_modules", "target_parameters"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    config["base_model_name_or_path"] = "mixtral_gqa"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    print(f"{name}: smallest router gap {gap:.1e}")


def write_suitable(name, options, seed):
    """Of the first seed under which no router nearly ties."""
    while True:
        try:
            return write_adapter(name, options, seed)
        except Unsuitable:
            seed += 100


def main():
    for seed, (name, (of_transformers, of_peft, options)) in enumerate(ADAPTERS.items(), start=1):
        if transformers.__version__.startswith(of_transformers) and peft.__version__.startswith(of_peft):
            write_suitable(name, options, seed)
        else:
            print(f"{name}: wants transformers {of_transformers}x and peft {of_peft}.x")


if __name__ == "__main__":
    main()
