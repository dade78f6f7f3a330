#!/usr/bin/env python3
"""Loads a model directory with transformers, and an adapter with PEFT, and compares them with what `smoe logits` wrote.

smoe logits --model MODEL_DIR --tokens TOKENS.npy --out LOGITS.safetensors
check_export.py MODEL_DIR TOKENS.npy LOGITS.safetensors [--adapter ADAPTER_DIR]

Prints the largest difference of each tensor over the tensor's largest entry. Exits 1 where one exceeds the tolerance.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4


def with_adapter(model, adapter_dir):
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")  # PEFT would leave their B at zero
        return PeftModel.from_pretrained(model, adapter_dir)


def expected_tensors(model_dir, ids, adapter_dir):
    model, report = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=torch.float32, attn_implementation="eager", local_files_only=True, output_loading_info=True)
    # transformers would fill a missing tensor with random numbers and only warn.
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(problem):
            sys.exit(f"{model_dir}: transformers reports {problem}: {sorted(report[problem])}")
    if adapter_dir:
        model = with_adapter(model, adapter_dir)
    with torch.no_grad():
        output = model.eval()(input_ids=ids, use_cache=False, output_router_logits=True)
    return {"logits": output.logits} | {f"router_logits.{l}": r for l, r in enumerate(output.router_logits)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("tokens", type=Path, help=".npy of [B,S] ids")
    parser.add_argument("logits", type=Path, help="what `smoe logits` wrote")
    parser.add_argument("--adapter", type=Path, help="directory in PEFT's format")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    arguments = parser.parse_args()

    ids = torch.from_numpy(np.atleast_2d(np.load(arguments.tokens)).astype(np.int64))
    found, expected = load_file(arguments.logits), expected_tensors(arguments.model_dir, ids, arguments.adapter)
    if found.keys() != expected.keys():
        sys.exit(f"{arguments.logits}: holds {sorted(found)}, expected {sorted(expected)}")

    worst = 0.0
    for name, want in expected.items():
        if found[name].shape != want.shape:
            sys.exit(f"{arguments.logits}: {name} is {list(found[name].shape)}, expected {list(want.shape)}")
        difference = ((found[name] - want).abs().max() / want.abs().max()).item()
        print(f"{name}: {difference:.2e}")
        worst = max(worst, difference) if difference == difference else float("inf")
    print(f"largest: {worst:.2e}, allowed {arguments.tolerance:.0e}")
    sys.exit(0 if worst <= arguments.tolerance else 1)


if __name__ == "__main__":
    main()
