#!/usr/bin/env python3
"""Model directories from transformers through smoe and back: every tensor the same bits, and the same logits there.

round_trip.py --smoe build/release/smoe [--mpirun "mpirun -n 2"] [--other PYTHON] [--keep DIR]

transformers (the one of this Python, 4.57 or 5) writes a random Mixtral in float32, bfloat16 and float16, in one file and in
shards, with the names that it keeps on disk and, from 5 on, with those of its memory. `smoe train` with train.steps=0 reads it,
in one process and with --mpirun in two (parallel.ep=2), and writes it, also in shards. float16 is written as float32, which
holds it exactly. transformers then loads what was written, and so does that of --other, a Python with the other generation.

Prints a row for each case. Exits 1 where a tensor or a logit differs, or transformers finds a tensor missing or unused.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WRITTEN = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float32"}
EXPORT = {"float32": "fp32", "bfloat16": "bf16"}
SHARD_BYTES = 100_000
IDS = torch.arange(48).reshape(2, 24) * 7 % 211


def random_mixtral():
    torch.manual_seed(16)
    config = MixtralConfig(vocab_size=211, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
                           num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64,
                           my_own_key={"kept": [1, 2.5]}, attention_dropout=0.0)
    return MixtralForCausalLM(config)


def tensors_of(directory):
    """Every tensor of a directory, by name."""
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                assert name not in found, f"{name} is in two files"
                found[name] = file.get_tensor(name)
    return found


def released(tensors):
    """transformers 5's names in memory -> the released ones, experts one by one."""
    out = {}
    for name, tensor in tensors.items():
        name = name.replace(".mlp.gate.", ".block_sparse_moe.gate.")
        if name.endswith(".mlp.experts.gate_up_proj"):
            prefix = name.replace(".mlp.experts.gate_up_proj", ".block_sparse_moe.experts")
            for e, both in enumerate(tensor):
                out[f"{prefix}.{e}.w1.weight"], out[f"{prefix}.{e}.w3.weight"] = both.chunk(2)
        elif name.endswith(".mlp.experts.down_proj"):
            prefix = name.replace(".mlp.experts.down_proj", ".block_sparse_moe.experts")
            for e, down in enumerate(tensor):
                out[f"{prefix}.{e}.w2.weight"] = down
        else:
            out[name] = tensor
    return out


def logits_of(directory, dtype):
    """Exits where transformers would fill in or leave out a tensor, which it only warns of."""
    model, report = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", local_files_only=True, output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(problem):
            sys.exit(f"{directory}: transformers {transformers.__version__} reports {problem}: {sorted(report[problem])}")
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def convert(arguments, source, target, dtype, ranks):
    """smoe train with 0 steps; returns the directory that it wrote."""
    configuration = target.with_suffix(".yaml")
    configuration.write_text(json.dumps({"model": {"from": str(source)}, "data": {"train": []}, "train": {"steps": 0}}))
    command = shlex.split(arguments.mpirun) if ranks > 1 else []
    command += [str(arguments.smoe.resolve()), "train", str(configuration), f"train.output_dir={target}", f"parallel.ep={ranks}",
                f"checkpoint.export_dtype={EXPORT[WRITTEN[dtype]]}", f"checkpoint.max_shard_bytes={SHARD_BYTES}",
                "train.global_batch_size=8", "train.micro_batch_size=1", "data.sequence_length=16", "train.device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return target / "checkpoints" / "step-000000" / "model"


def differing(found, expected):
    """Names that are not in both, or whose bits are not the same."""
    bits = lambda tensor: tensor.contiguous().view(torch.uint8)
    return [name for name in sorted(found.keys() | expected.keys())
            if name not in found or name not in expected or found[name].dtype != expected[name].dtype
            or found[name].shape != expected[name].shape or not torch.equal(bits(found[name]), bits(expected[name]))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoe", type=Path, help="the program")
    parser.add_argument("--mpirun", help="what starts two ranks of it, as in 'mpirun -n 2'")
    parser.add_argument("--other", help="a Python with another transformers, which loads what was written too")
    parser.add_argument("--keep", type=Path, help="a new directory in which everything stays")
    parser.add_argument("--logits-of", nargs=3, metavar=("DIR", "DTYPE", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True)
    if arguments.logits_of:
        directory, dtype, file = arguments.logits_of
        torch.save(logits_of(directory, TYPES[dtype]), file)
        return
    if not arguments.smoe:
        parser.error("--smoe is wanted")

    major = int(transformers.__version__.split(".")[0])
    layouts = [("names on disk", {})] + ([("names in memory", {"save_original_format": False})] if major >= 5 else [])
    failed = False
    scratch = tempfile.TemporaryDirectory()
    root = arguments.keep or Path(scratch.name)
    root.mkdir(exist_ok=True)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    print("| written by transformers | read by | tensors | files: theirs, ours | differ | logits here |"
          + (" logits there |" if arguments.other else ""))
    for dtype, torch_type in TYPES.items():
        model = random_mixtral().to(torch_type)
        for label, options in layouts:
            for sharded in (False, True):
                source = root / f"{dtype}-{label.replace(' ', '-')}-{'shards' if sharded else 'whole'}"
                model.save_pretrained(source, max_shard_size="100KB" if sharded else "5GB", **options)
                expected = {name: tensor.to(TYPES[WRITTEN[dtype]]) for name, tensor in released(tensors_of(source)).items()}
                want = logits_of(source, TYPES[WRITTEN[dtype]])
                for ranks in (1, 2) if arguments.mpirun else (1,):
                    target = convert(arguments, source, root / f"{source.name}-{ranks}", dtype, ranks)
                    found = tensors_of(target)
                    wrong = differing(found, expected)
                    kept = json.loads((target / "config.json").read_text()).get("my_own_key") == {"kept": [1, 2.5]}
                    here = torch.equal(logits_of(target, TYPES[WRITTEN[dtype]]), want)
                    failed |= bool(wrong) or not here or not kept
                    row = (f"| {dtype}, {label}, {'shards' if sharded else 'one file'} | {ranks} rank(s) | {len(found)} | "
                           f"{len(list(source.glob('*.safetensors')))}, {len(list(target.glob('*.safetensors')))} | "
                           f"{', '.join(wrong[:3]) or 'none'} | {'equal' if here else 'DIFFER'} |")
                    if arguments.other:
                        file = root / "logits.pt"
                        subprocess.run([arguments.other, __file__, "--logits-of", str(target), WRITTEN[dtype], str(file)],
                                       check=True)
                        theirs = torch.load(file)
                        apart = ((theirs.float() - want.float()).abs().max() / want.float().abs().max()).item()
                        failed |= not apart <= (1e-6 if WRITTEN[dtype] == "float32" else 2e-2)
                        row += f" {apart:.1e} |"
                    print(row + ("" if kept else " my_own_key is lost"), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
