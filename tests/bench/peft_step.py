#!/usr/bin/env python3
"""Times fine-tuning steps of LoRA adapters by transformers and PEFT on the CPU, on the examples, packs and batches that smoe
takes (compare_adapters.py).

    peft_step.py --model DIR --shards DIR --adapter DIR [--make] [--layout packed|padded] [--steps 4] [--threads N] ...

--make writes an adapter that has not learned anything into --adapter, and ends. Otherwise training goes on from that one, and one
JSON line tells seconds and loss of every step. `packed` gives the model whole packs, whose attention a mask keeps inside
each example; `padded` a row an example, as most give them. Whether experts are modules with an adapter each or fused
parameters is decided by the version of transformers.
"""

import argparse
import json
import pathlib
import resource
import sys
import time

import h5py
import peft
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "goldens"))
from make_sft_goldens import batch_of, pack  # best fit decreasing, in the order of their first examples

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"]


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--make", action="store_true")
    parser.add_argument("--layout", choices=["packed", "padded"], default="packed")
    parser.add_argument("--experts", choices=["grouped_mm", "eager"], help="how transformers from 5 on computes them")
    parser.add_argument("--r", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seq", type=int, default=320)
    parser.add_argument("--packs", type=int, default=4, help="a step")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def read_examples(shards):
    examples = []
    for path in sorted(pathlib.Path(shards).glob("*.h5")):
        with h5py.File(path) as file:
            ids, mask, offsets = (file[name][:].tolist() for name in ("tokens", "loss_mask", "document_offsets"))
        examples += [(ids[a:b], mask[a:b]) for a, b in zip(offsets, offsets[1:])]
    return examples


def packed(packs, room):
    """Inputs, targets, positions [pack, room], and which keys a query sees [pack, 1, room, room]."""
    inputs, positions = torch.zeros(2, len(packs), room, dtype=torch.long).unbind()
    targets = torch.full((len(packs), room), -100)
    sees = torch.eye(room, dtype=torch.bool).repeat(len(packs), 1, 1, 1)  # padding sees itself: a softmax over nothing is none
    for row, examples in enumerate(packs):
        begin = 0
        for ids, mask in examples:
            n = len(ids) - 1
            own = slice(begin, begin + n)
            inputs[row, own] = torch.tensor(ids[:-1])
            targets[row, own] = torch.where(torch.tensor(mask[1:]) == 1, torch.tensor(ids[1:]), -100)
            positions[row, own] = torch.arange(n)
            sees[row, 0, own, own] = torch.ones(n, n).tril().bool()
            begin += n
    return inputs, targets, {"position_ids": positions, "attention_mask": sees}


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    experts = {"experts_implementation": options.experts} if options.experts else {}
    base = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, attn_implementation="sdpa", **experts)
    # transformers falls back without a word where it does not know an implementation.
    if options.experts and base.config._experts_implementation != options.experts:
        sys.exit(f"peft_step.py: asked for {options.experts}, but this transformers runs {base.config._experts_implementation}")
    if options.make:
        config = peft.LoraConfig(r=options.r, lora_alpha=options.alpha, target_modules=TARGETS, task_type="CAUSAL_LM")
        peft.get_peft_model(base, config).save_pretrained(options.adapter)
        return
    model = peft.PeftModel.from_pretrained(base, options.adapter, is_trainable=True).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=options.learning_rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)

    examples = read_examples(options.shards)
    packs = pack([len(ids) - 1 for ids, _ in examples], options.seq)
    seconds, losses, tokens = [], [], []
    for step in range(options.steps):
        of_step = [[examples[i] for i in packs[step * options.packs + p]] for p in range(options.packs)]
        begin = time.perf_counter()
        if options.layout == "packed":
            inputs, targets, masks = packed(of_step, options.seq)
        else:
            inputs, targets, attention = batch_of([example for one in of_step for example in one])
            masks = {"attention_mask": attention}
        logits = model(input_ids=inputs, use_cache=False, **masks).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - begin)
        losses.append(loss.item())
        tokens.append(sum(len(ids) - 1 for one in of_step for ids, _ in one))
    print(json.dumps({"seconds": seconds, "losses": losses, "tokens": tokens, "trained": sum(p.numel() for p in trained),
                      "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "torch": torch.__version__,
                      "transformers": transformers.__version__, "peft": peft.__version__}))


if __name__ == "__main__":
    main()
