#!/usr/bin/env python3
"""Three steps of transformers' Mixtral in bfloat16, and what they are an approximation of. See README.md beside this file.

make_bf16_goldens.py              writes bf16_*.safetensors into this folder
"""

import argparse
import copy
import json
import math
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from make_goldens import HERE, OPTIMIZER, SCHEDULE, SHAPES, learning_rate, make_batches, make_model, make_optimizer, released

STEPS = 3
SAMPLE = 256  # numbers kept of a tensor

# Of router logits, between the last expert chosen and the first not chosen. No token of any step comes closer, so that
# rounding sends none elsewhere; a program in bfloat16 has to be within a quarter of it.
SMALLEST_GAP = 0.3


def rounded(tensor):
    return tensor.bfloat16().to(tensor.dtype)


def sample(tensor):
    """Every n-th number; n is prime to the length of the rows, so that all columns have their turn."""
    n = math.ceil(tensor.numel() / SAMPLE)
    while math.gcd(n, tensor.shape[-1]) > 1:
        n += 1
    return tensor.flatten()[::n].clone()


def gaps(router_logits, config):
    """[T], of the layer in which it is smallest."""
    k = config.num_experts_per_tok
    ordered = [logits.double().sort(dim=-1, descending=True).values for logits in router_logits]
    return torch.stack([o[:, k - 1] - o[:, k] for o in ordered]).amin(dim=0)


def chosen(router_logits, config):
    return [logits.topk(config.num_experts_per_tok).indices.sort(dim=-1).values for logits in router_logits]


def choose_ids(model, shape, random):
    """ids [B, S + 1], each drawn from those that no router is undecided about, given the ids before it; the last is free."""
    vocabulary, sequences = shape["model"]["vocab_size"], shape["sequences"]
    ids = torch.empty((sequences, 0), dtype=torch.int64)
    every = torch.arange(vocabulary).repeat(sequences)[:, None]
    for _ in range(shape["length"]):
        tried = torch.cat([ids.repeat_interleave(vocabulary, dim=0), every], dim=1)
        with torch.no_grad():
            logits = model(input_ids=tried, use_cache=False, output_router_logits=True).router_logits
        last = gaps(logits, model.config).unflatten(0, tried.shape)[:, -1].unflatten(0, (sequences, vocabulary))
        picked = [random.choice(torch.nonzero(g > SMALLEST_GAP).flatten().numpy()) for g in last]
        ids = torch.cat([ids, torch.tensor(picked)[:, None]], dim=1)
    return torch.cat([ids, torch.from_numpy(random.integers(0, vocabulary, (sequences, 1)))], dim=1)


class Run:
    """A model whose weights are those of `masters`, in their type, rounded to bfloat16."""

    def __init__(self, model, compute, master):
        self.model, self.masters = copy.deepcopy(model).to(compute), copy.deepcopy(model).to(master)
        self.optimizer = make_optimizer(self.masters)
        self.round_weights()

    def round_weights(self):
        with torch.no_grad():
            for weight, master in zip(self.model.parameters(), self.masters.parameters()):
                weight.copy_(rounded(master))

    def gradients(self, ids, targets, coefficient):
        """Losses are taken in float32 at least, as transformers takes the cross-entropy: noise of theirs is no yardstick."""
        output = self.model(input_ids=ids, use_cache=False, output_router_logits=True)
        widen = lambda logits: logits.to(torch.promote_types(logits.dtype, torch.float32))
        lm = torch.nn.functional.cross_entropy(widen(output.logits).flatten(0, 1), targets.flatten(), ignore_index=-100)
        config = self.model.config
        aux = load_balancing_loss_func(tuple(map(widen, output.router_logits)), config.num_local_experts,
                                       config.num_experts_per_tok)
        self.model.zero_grad()
        (lm + coefficient * aux).backward()
        for weight, master in zip(self.model.parameters(), self.masters.parameters()):
            master.grad = weight.grad.to(master.dtype, copy=True)
        return output, lm.item(), aux.item()

    def update(self, step):
        norm = torch.nn.utils.clip_grad_norm_(self.masters.parameters(), OPTIMIZER["max_grad_norm"]).item()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step)
        self.optimizer.step()
        self.round_weights()
        return norm


def make_golden(name, shape):
    model, random = make_model(shape)
    committed = load_file(HERE / f"{name}.safetensors")
    for key, parameter in model.named_parameters():
        assert all(torch.equal(committed[f"weight.{n}"], t) for n, t in released(key, parameter.detach()))
    _, targets = make_batches(shape, random)
    runs = {"exact": Run(model, torch.float64, torch.float64), "hf": Run(model, torch.bfloat16, torch.float32)}
    exact = runs["exact"].model
    tensors, all_ids, all_targets = {}, [], []
    history = {f"{run}.{n}": [] for run in runs for n in ("lm_loss", "aux_loss", "grad_norm")}
    smallest, farthest = math.inf, 0.0
    for step in range(1, STEPS + 1):
        ids = choose_ids(exact, shape, random)
        all_ids.append(ids[:, :-1])
        all_targets.append(torch.where(targets[step - 1] == -100, -100, ids[:, 1:]))
        routers = {}
        for kind, run in runs.items():
            output, lm, aux = run.gradients(all_ids[-1], all_targets[-1], shape["coefficient"])
            routers[kind] = output.router_logits
            if step == 1:
                tensors[f"{kind}.logits"] = output.logits.detach()
                tensors |= {f"{kind}.router_logits.{l}": r.detach() for l, r in enumerate(output.router_logits)}
                for key, parameter in run.model.named_parameters():
                    tensors |= {f"{kind}.grad.{n}": sample(t) for n, t in released(key, parameter.grad)}
            history[f"{kind}.lm_loss"].append(lm)
            history[f"{kind}.aux_loss"].append(aux)
        smallest = min(smallest, gaps(routers["exact"], exact.config).min().item())
        farthest = max(farthest, *((h.double() - e).abs().max().item() for h, e in zip(routers["hf"], routers["exact"])))
        for mine, theirs in zip(chosen(routers["hf"], exact.config), chosen(routers["exact"], exact.config)):
            assert torch.equal(mine, theirs), "bfloat16 sends a token elsewhere"
            assert mine.unique().numel() == exact.config.num_local_experts, "an expert is never chosen: take another seed"
        for kind, run in runs.items():
            history[f"{kind}.grad_norm"].append(run.update(step))
    assert smallest > SMALLEST_GAP and farthest < SMALLEST_GAP / 4, (smallest, farthest)
    for kind, run in runs.items():
        for key, parameter in run.masters.named_parameters():
            tensors |= {f"{kind}.after.{n}": sample(t) for n, t in released(key, parameter.detach())}
    norms = history["exact.grad_norm"]
    assert min(norms) < OPTIMIZER["max_grad_norm"] < max(norms), f"clipping must bite in some steps only: {norms}"

    tensors = {n: (t.float() if t.dtype == torch.float64 else t).contiguous().clone() for n, t in tensors.items()}
    tensors |= {"ids": torch.stack(all_ids).int(), "targets": torch.stack(all_targets).int()}
    tensors |= {f"step.{n}": torch.tensor(v, dtype=torch.float64) for n, v in history.items()}
    config = {"model": shape["model"] | {"rms_norm_eps": 1e-5}, "aux_loss_coef": shape["coefficient"],
              "optimizer": OPTIMIZER, "schedule": SCHEDULE, "sample": SAMPLE, "smallest_gap": SMALLEST_GAP,
              "made_with": {"torch": torch.__version__, "transformers": transformers.__version__}}
    return tensors, {"config": json.dumps(config)}, smallest, farthest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the golden files")
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # sums in one order
    for name, shape in SHAPES.items():
        tensors, metadata, smallest, farthest = make_golden(name, shape)
        path = arguments.out / f"{name.replace('mixtral', 'bf16')}.safetensors"
        save_file(tensors, path, metadata)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, smallest router gap {smallest:.2f}, bfloat16's router logits "
              f"at most {farthest:.3f} off")
        deviations = {}
        for key, exact in tensors.items():
            if key.startswith("exact."):
                found = tensors[key.replace("exact", "hf")].double()
                deviations.setdefault(key.split(".")[1], []).append(((found - exact).norm() / exact.norm()).item())
        for what, of in deviations.items():
            print(f"  {what}: {min(of):.2e} to {max(of):.2e}")
        for key in ("lm_loss", "aux_loss", "grad_norm"):
            exact, hf = (tensors[f"step.{k}.{key}"] for k in ("exact", "hf"))
            print(f"  {key}: {exact.tolist()} {((hf - exact) / exact).tolist()}")


if __name__ == "__main__":
    main()
