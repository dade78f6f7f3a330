#!/usr/bin/env python3
"""Fine-tuning of LoRA adapters by smoe and by transformers with PEFT, in turns: tokens a second and memory.

    compare_adapters.py --model DIR --shards DIR --peer PYTHON [--peer PYTHON]...

What is trained is one adapter on every projection and every expert of --model, on the examples of --shards (smoe prepare --chat with the
model's tokenizer; launch/finetune-demo makes both). All begin with the same numbers and take the same packs in the same order, so the losses
of every step are compared first. A peer is a Python with torch, transformers, peft and h5py (tests/goldens/requirements.txt): of
transformers 4 the experts are a loop, from 5 on a grouped product whose adapters are fused: their B is not held to the blocks that
w1 and w3 have, so behind the first step it is another training. Each is tried on packs, as smoe is, and on padded rows. Prints
a row a way, medians over the steps behind the first of all --rounds, and ratios of smoe's tokens a second, the median of the rounds' own.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = """\
model: {{from: {model}}}
data:
  train: [{{path: {shards}}}]
  sequence_length: {seq}
  packing: best_fit
  shuffle: false
lora: {{r: 8, alpha: 16, from: {adapter}}}
optimizer: {{learning_rate: 1.0e-3, weight_decay: 0.0}}
schedule: {{warmup_steps: 0, min_lr_ratio: 1.0}}
train: {{steps: {steps}, global_batch_size: {packs}, micro_batch_size: {micro}, threads: {threads}, output_dir: {out}}}
parallel: {{ep: {ranks}}}
log: {{interval: 1, tensorboard: false}}
"""


def by_smoe(options, adapter, scratch, ranks):
    out = tempfile.mkdtemp(dir=scratch)
    path = pathlib.Path(out) / "config.yaml"
    path.write_text(CONFIG.format(model=options.model, shards=options.shards, seq=options.seq, adapter=adapter, steps=options.steps,
                                  packs=options.packs, micro=options.packs // ranks, threads=options.threads // ranks, out=f"{out}/run",
                                  ranks=ranks))
    launcher = [HERE.parent.parent / "launch/mpirun", "-n", str(ranks)] if ranks > 1 else []
    run([*launcher, options.smoe, "train", path])
    rows = [json.loads(line) for line in (pathlib.Path(out) / "run/metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "lm_loss" in row]
    so_far = [0] + [row["tokens"] for row in rows]
    return {"seconds": [row["step_seconds"] for row in rows], "losses": [row["lm_loss"] for row in rows],
            "tokens": [b - a for a, b in zip(so_far, so_far[1:])], "peak_bytes": rows[-1]["peak_memory_bytes"]}


def by_peer(options, adapter, python, arguments):
    command = [python, HERE / "peft_step.py", "--model", options.model, "--shards", options.shards, "--adapter", adapter, "--seq", str(options.seq),
               "--packs", str(options.packs), "--steps", str(options.steps), "--threads", str(options.threads), *arguments]
    output = run(command)
    return json.loads(output.splitlines()[-1]) if output else None


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"compare_adapters.py: failed: {' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def ways(options):
    """What is tried: name -> how."""
    found = {f"smoe, {options.threads} threads": lambda adapter, scratch: by_smoe(options, adapter, scratch, 1)}
    if options.threads % 2 == 0 and options.packs % 2 == 0:
        found["smoe, 2 ranks, ep 2"] = lambda adapter, scratch: by_smoe(options, adapter, scratch, 2)
    for python in options.peer:
        versions = run([python, "-c", "import peft, transformers; print(transformers.__version__, peft.__version__)"]).split()
        grouped = ["--experts", "grouped_mm"] if versions[0].split(".")[0] >= "5" else []
        for layout in options.layouts:
            found[f"transformers {versions[0]}, PEFT {versions[1]}, {layout}"] = (
                lambda adapter, scratch, python=python, arguments=("--layout", layout, *grouped): by_peer(options, adapter, python, arguments))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=os.path.abspath)
    parser.add_argument("--shards", required=True, type=os.path.abspath)
    parser.add_argument("--peer", action="append", required=True, help="a Python; several may be given, and the first makes the adapter")
    parser.add_argument("--smoe", default=HERE.parent.parent / "build/release/smoe")
    parser.add_argument("--seq", type=int, default=320)
    parser.add_argument("--packs", type=int, default=4, help="a step")
    parser.add_argument("--steps", type=int, default=4, help="of which the first is not timed")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layouts", nargs="+", choices=["packed", "padded"], default=["packed", "padded"], help="of peers")
    options = parser.parse_args()
    tried = ways(options)
    results = {name: [] for name in tried}
    with tempfile.TemporaryDirectory() as scratch:
        adapter = f"{scratch}/adapter"
        by_peer(options, adapter, options.peer[0], ["--make"])
        for _ in range(options.rounds):
            for name, way in tried.items():
                results[name].append(way(adapter, scratch))
    ours = next(iter(results))
    first = results[ours][0]
    print("| | first loss off by | any loss off by | tokens a second | smoe's over it | peak memory, GB |\n|---|---:|---:|---:|---:|---:|")
    for name, rounds in results.items():
        if any(one["tokens"] != first["tokens"] for one in rounds):
            sys.exit(f"compare_adapters.py: {name} took steps of {rounds[0]['tokens']} tokens, smoe of {first['tokens']}: these are not the same packs")
        apart = [max(abs(a - b) / a for a, b in zip(first["losses"][:steps], one["losses"])) for one in rounds for steps in (1, None)]
        rates = [statistics.median(t / s for t, s in zip(one["tokens"][1:], one["seconds"][1:])) for one in rounds]
        ratio = statistics.median(a / b for a, b in zip(rates_of_ours, rates)) if name != ours else 1
        if name == ours:
            rates_of_ours = rates
        print(f"| {name} | {max(apart[::2]):.1e} | {max(apart[1::2]):.1e} | {statistics.median(rates):.0f} | {ratio:.2f} | {max(one['peak_bytes'] for one in rounds) / 1e9:.2f} |")


if __name__ == "__main__":
    main()
