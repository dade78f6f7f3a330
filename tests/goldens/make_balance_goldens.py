#!/usr/bin/env python3
"""Writes balance_units.json: transformers' balance loss and its gradient on given router logits.

For each case: "logits" [layers][tokens * experts], "coefficient" (router_aux_loss_coef), "loss" = coefficient times
load_balancing_loss_func, and "gradient" of that by the logits, in double. In "alike" all layers have the same logits, and so the same
balance; in "unlike" each layer has others, skewed towards other experts.
"""

import json
from pathlib import Path

import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

LAYERS, TOKENS, EXPERTS, TOP_K, COEFFICIENT = 3, 7, 5, 2, 0.02


def case(logits):
    logits = logits.float().double().requires_grad_()  # numbers that floats hold
    loss = COEFFICIENT * load_balancing_loss_func(tuple(logits), EXPERTS, TOP_K)
    (gradient,) = torch.autograd.grad(loss, logits)
    return dict(logits=[layer.flatten().tolist() for layer in logits], coefficient=COEFFICIENT, loss=loss.item(),
                gradient=[layer.flatten().tolist() for layer in gradient])


def main():
    torch.manual_seed(3)
    one = torch.randn(TOKENS, EXPERTS)
    unlike = torch.randn(LAYERS, TOKENS, EXPERTS)
    for layer in range(LAYERS):
        unlike[layer, :, layer] += 1.5
    cases = dict(alike=case(one.expand(LAYERS, -1, -1)), unlike=case(unlike))
    found = dict(tokens=TOKENS, experts=EXPERTS, top_k=TOP_K, cases=cases)
    Path(__file__).with_name("balance_units.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
