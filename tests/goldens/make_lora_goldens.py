#!/usr/bin/env python3
"""Twenty steps of supervised fine-tuning of adapters by transformers and PEFT, that smoe's are held to. See README.md
beside this file.

make_lora_goldens.py              writes lora.safetensors into this folder

Weights, examples, masks and batches are those of sft.safetensors (make_sft_goldens.py). It takes a transformers whose experts
are modules of their own (4.x), for PEFT then gives each expert's matrices adapters of their own. Adapters begin as random
numbers, B too: from zero, the gradient of A would say nothing in the first step.
"""

import json
import math

import peft
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

from make_goldens import HERE
from make_sft_goldens import batch_of, pack

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate", "w1", "w2", "w3"]
R, ALPHA, SEED = 4, 6, 16
MAX_GRAD_NORM = 0.28
SMALLEST_GAP = 1e-6  # between the last expert chosen and the first not chosen: closer ones are decided by rounding


def main():
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    with safe_open(HERE / "sft.safetensors", "pt") as file:
        sft = {name: file.get_tensor(name) for name in file.keys()}
        config = json.loads(file.metadata()["config"])
    shape = config["model"] | {"attn_implementation": "eager"}
    base = transformers.MixtralForCausalLM(transformers.MixtralConfig(**shape, output_router_logits=True)).double()
    base.load_state_dict({n.removeprefix("weight."): t.double() for n, t in sft.items() if n.startswith("weight.")})
    model = peft.get_peft_model(base, peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=TARGETS, lora_dropout=0.0,
                                                      init_lora_weights=False, task_type="CAUSAL_LM"))
    trained = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in n for n in trained)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.copy_((torch.randn(parameter.shape, dtype=torch.float64) * 0.15).float().double())
    tensors = {f"adapter.{n}": p.detach().float().clone() for n, p in trained.items()}

    offsets = sft["offsets"].tolist()
    examples = [(sft["ids"][a:b].tolist(), sft["mask"][a:b].tolist()) for a, b in zip(offsets, offsets[1:])]
    packs = pack([len(ids) - 1 for ids, _ in examples], config["sequence_length"])
    optimizer, schedule, per_step = config["optimizer"], config["schedule"], config["global_batch_size"]
    adamw = torch.optim.AdamW(trained.values(), lr=0.0, betas=(optimizer["beta1"], optimizer["beta2"]),
                              eps=optimizer["epsilon"], weight_decay=optimizer["weight_decay"], foreach=False)
    history = {name: [] for name in ("lm_loss", "grad_norm", "learning_rate")}
    gap = math.inf
    for step in range(1, schedule["steps"] + 1):
        of_step = [packs[((step - 1) * per_step + p) % len(packs)] for p in range(per_step)]
        inputs, targets, attention = batch_of([examples[i] for one in of_step for i in one])
        adamw.zero_grad()
        output = model(input_ids=inputs, attention_mask=attention, use_cache=False)
        lm = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), targets.flatten(), ignore_index=-100,
                                               reduction="sum") / (targets != -100).sum()
        lm.backward()
        k, real = base.config.num_experts_per_tok, attention.flatten() == 1
        for logits in output.router_logits:
            ordered = torch.softmax(logits.double(), dim=-1)[real].sort(dim=-1, descending=True)[0]
            gap = min(gap, (ordered[:, k - 1] - ordered[:, k]).min().item())
        warmup, low = schedule["warmup_steps"], schedule["min_lr_ratio"]
        p = (step - warmup) / (schedule["steps"] - warmup)
        rate = optimizer["learning_rate"] * (step / warmup if step <= warmup else low + (1 - low) * (1 + math.cos(math.pi * p)) / 2)
        for group in adamw.param_groups:
            group["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), MAX_GRAD_NORM)
        for name, value in (("lm_loss", lm.item()), ("grad_norm", norm.item()), ("learning_rate", rate)):
            history[name].append(value)
        adamw.step()
    if gap < SMALLEST_GAP:
        raise SystemExit(f"two experts are only {gap:.1e} apart: take another seed")
    norms = history["grad_norm"]
    if not min(norms) < MAX_GRAD_NORM < max(norms):
        raise SystemExit(f"clipping must bite in some steps and not in others, norms are {norms}")
    tensors.update({f"after.{n}": p.detach().float().clone() for n, p in trained.items()})
    tensors.update({f"step.{n}": torch.tensor(v, dtype=torch.float64) for n, v in history.items()})
    saved = {"r": R, "alpha": ALPHA, "target_modules": TARGETS, "max_grad_norm": MAX_GRAD_NORM,
             "made_with": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}}
    save_file({n: t.contiguous() for n, t in tensors.items()}, HERE / "lora.safetensors", {"config": json.dumps(saved)})
    print(f"lora.safetensors: {len(trained)} adapters' matrices, experts at least {gap:.1e} apart, norms {min(norms):.2f} to {max(norms):.2f}, "
          f"loss {history['lm_loss'][0]:.4f} to {history['lm_loss'][-1]:.4f}")


if __name__ == "__main__":
    main()
