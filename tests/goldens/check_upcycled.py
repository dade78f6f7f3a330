#!/usr/bin/env python3
"""Upcycles a dense model with smoe and compares the logits of a text with those that transformers computes of the parent.

check_upcycled.py SMOE DENSE_DIR TEXT_FILE       e.g. build/release/smoe, what launch/fetch-smollm2 makes, any text

Prints, for each top-k, the largest difference over the largest logit. Exits 1 where one exceeds the tolerance.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-4


def parents_logits(directory, ids):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager", local_files_only=True)
    with torch.no_grad():
        return model.eval()(input_ids=ids, use_cache=False).logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smoe", type=Path)
    parser.add_argument("dense", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--top-k", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--options", default="", help="more of smoe upcycle's, e.g. '--granularity 2'")
    arguments = parser.parse_args()

    text = arguments.text.read_text(encoding="utf8")[: 20 * arguments.tokens]
    ids = torch.tensor([AutoTokenizer.from_pretrained(arguments.dense)(text)["input_ids"][: arguments.tokens]])
    expected = parents_logits(arguments.dense, ids)
    worst = 0.0
    with tempfile.TemporaryDirectory() as work:
        np.save(f"{work}/ids.npy", ids.numpy().astype(np.int32))
        for k in arguments.top_k:
            subprocess.run([arguments.smoe, "upcycle", "--dense", arguments.dense, "--out", f"{work}/top-{k}", "--experts",
                            str(arguments.experts), "--top-k", str(k)] + arguments.options.split(), check=True, stdout=subprocess.DEVNULL)
            subprocess.run([arguments.smoe, "logits", "--model", f"{work}/top-{k}", "--tokens", f"{work}/ids.npy", "--out",
                            f"{work}/logits.safetensors", "--precision", "fp32"], check=True)
            found = load_file(f"{work}/logits.safetensors")["logits"]
            difference = ((found - expected).abs().max() / expected.abs().max()).item()
            agree = (found.argmax(-1) == expected.argmax(-1)).float().mean().item()
            print(f"top-{k} of {arguments.experts}: largest difference {difference:.2e} of the largest logit, "
                  f"the same first token at {agree:.1%} of {ids.shape[1]} positions")
            worst = max(worst, difference) if difference == difference else float("inf")
    print(f"largest: {worst:.2e}, allowed {TOLERANCE:.0e}")
    sys.exit(0 if worst <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
