#!/usr/bin/env python3
"""Writes label_smoothing.json: PyTorch's cross-entropy with smoothed labels, and its gradient, on given logits.

"logits" [rows * columns], "targets" [rows], -100 masked, and for each "amount" the sum over rows of
torch.nn.functional.cross_entropy(label_smoothing=amount) and its "gradient" by the logits, in double. The definition, written out in
numpy, is held against both.
"""

import json
from pathlib import Path

import numpy as np
import torch

ROWS, COLUMNS, MASKED = 5, 19, 2


def by_definition(logits, targets, amount):
    largest = logits.max(axis=1, keepdims=True)
    log_p = logits - largest - np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
    labels = np.full_like(logits, amount / COLUMNS)
    labels[np.arange(ROWS), targets.clip(min=0)] += 1 - amount
    counted = (targets >= 0)[:, None]
    return -(counted * labels * log_p).sum(), counted * (np.exp(log_p) - labels)


def case(logits, targets, amount):
    logits = logits.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=amount)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected_loss, expected_gradient = by_definition(logits.detach().numpy(), targets.numpy(), amount)
    np.testing.assert_allclose(loss.item(), expected_loss, rtol=1e-13)
    np.testing.assert_allclose(gradient.numpy(), expected_gradient, atol=1e-14)
    return dict(amount=amount, loss=loss.item(), gradient=gradient.flatten().tolist())


def main():
    torch.manual_seed(5)
    logits = (3 * torch.randn(ROWS, COLUMNS) + 1).double()  # numbers that floats hold
    targets = torch.randint(0, COLUMNS, (ROWS,))
    targets[0], targets[1], targets[MASKED] = 0, COLUMNS - 1, -100
    found = dict(rows=ROWS, columns=COLUMNS, logits=logits.flatten().tolist(), targets=targets.tolist(),
                 cases=[case(logits, targets, amount) for amount in (0.0, 0.1, 0.6)])
    Path(__file__).with_name("label_smoothing.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
