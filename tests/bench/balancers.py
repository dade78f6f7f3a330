#!/usr/bin/env python3
"""What each balancer does to a small router that collapses when it is left alone: one table, a row a balancer.

    launch/fetch-corpus
    tests/bench/balancers.py [--smoe build/release/smoe] [--corpus data/corpus] [--out runs/balancers]
                             [--seeds 3] [--steps 800] [--jobs 2] [--only NAME]

Two layers of eight experts, one a token, weighed by its probability (Switch): what is chosen learns, and what learns is
chosen. Text of four domains as bytes. Runs are kept in OUT by their number of steps and resumed, so a second call only
computes what is missing; after a change of the program or of this script, remove OUT.
Columns are mean and standard deviation over the seeds: the held-out loss (nats a byte, mean of the domains), MaxVio of the
worse layer over ten steps at a time (7 is collapse), mean of the last 100, over all layers the number of experts with under a tenth of their
equal share of those steps, the share of assignments that a capacity dropped in them, and how many of a fixed batch's
assignments changed over the last 10.
"""
import argparse
import concurrent.futures
import json
import pathlib
import statistics
import subprocess
import sys

DOMAINS = ["mathematics", "scripture", "source-code", "manuals"]
LAYERS, EXPERTS, SEQUENCE, SEQUENCES = 2, 8, 128, 8
LAST_STEPS = 100
MODEL = dict(vocab_size=259, hidden_size=64, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
             num_key_value_heads=2, num_local_experts=EXPERTS, num_experts_per_tok=1, norm_topk_prob=False,
             max_position_embeddings=SEQUENCE, rope_theta=1e4)

# name -> what it sets beside `router.aux_loss_coef: 0`; STEPS stands for the run's steps.
BALANCERS = {
    "none": [],
    "balance loss 0.001": ["router.aux_loss_coef=0.001"],
    "balance loss 0.01": ["router.aux_loss_coef=0.01"],
    "balance loss 0.1": ["router.aux_loss_coef=0.1"],
    "balance loss 1": ["router.aux_loss_coef=1"],
    "0.01, sequence": ["router.aux_loss_coef=0.01", "router.aux_loss_scope=sequence"],
    "0.01, micro_batch": ["router.aux_loss_coef=0.01", "router.aux_loss_scope=micro_batch"],
    "0.01, hf": ["router.aux_loss_coef=0.01", "router.aux_loss_scope=hf"],
    "0.01, first layer alone": ["router.aux_loss_coef=[0.01, 0]"],
    "0.1 to 0, linear": ["router.aux_loss_schedule={type: linear, from: 0.1, to: 0, steps: STEPS}"],
    "0 to 0.1, linear": ["router.aux_loss_schedule={type: linear, from: 0, to: 0.1, steps: STEPS}"],
    "target MaxVio 0.5": ["router.aux_loss_coef=0.01", "router.target_max_vio=0.5"],
    "selection bias 0.001": ["router.bias_update_rate=0.001"],
    "selection bias 0.01": ["router.bias_update_rate=0.01"],
    "sigmoids": ["model.scoring_func=sigmoid"],
    "sigmoids, selection bias 0.01": ["model.scoring_func=sigmoid", "router.bias_update_rate=0.01"],
    "z loss 0.001": ["router.z_loss_coef=0.001"],
    "jitter 0.1": ["router.jitter_noise=0.1"],
    "capacity 1.25, by position": ["router.capacity_factor=1.25"],
    "capacity 1.25, by probability": ["router.capacity_factor=1.25", "router.capacity_order=probability"],
    "top 2, none": ["model.num_experts_per_tok=2", "model.norm_topk_prob=true"],
    "top 2, balance loss 0.01": ["model.num_experts_per_tok=2", "model.norm_topk_prob=true",
                                 "router.aux_loss_coef=0.01"],
}


def call(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def prepare(options):
    """The shards of every domain, as bytes; what is there is kept."""
    for domain in DOMAINS:
        for split in ("train", "eval"):
            shards = options.out / "shards" / domain / split
            if not (shards / "manifest.json").exists():
                call([options.smoe, "prepare", options.corpus / "text" / domain / f"{split}.jsonl", "--out", shards,
                      "--tokenizer", "bytes", "--source", domain])


def write_config(options):
    def sources(split):
        return [{"path": str((options.out / "shards" / domain / split).resolve())} for domain in DOMAINS]

    config = {
        "model": MODEL,
        "router": {"aux_loss_coef": 0},
        "data": {"sequence_length": SEQUENCE, "train": sources("train"), "eval": sources("eval")},
        "optimizer": {"learning_rate": 3e-3},
        "schedule": {"warmup_steps": 20},
        "train": {"steps": options.steps, "global_batch_size": SEQUENCES, "micro_batch_size": SEQUENCES // 2, "threads": 1},
        "eval": {"interval": options.steps, "batches": 16},
        "checkpoint": {"interval": options.steps},
        "log": {"interval": 10, "tensorboard": False, "probe_sequences": 8},
    }
    path = options.out / "config.yaml"
    path.write_text(json.dumps(config, indent=1))  # which is YAML
    return path


def run(options, config, name, seed):
    out = options.out / f"{options.steps}-steps" / name.replace(" ", "-").replace(",", "") / f"seed-{seed}"
    settings = [setting.replace("STEPS", str(options.steps)) for setting in BALANCERS[name]]
    call([options.smoe, "train", config, *settings, f"train.seed={seed}", f"train.output_dir={out}"])
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "eval" not in row]
    last = [row for row in steps if row["step"] > options.steps - LAST_STEPS]
    losses = next(row["eval"] for row in reversed(rows) if "eval" in row)
    loads = [[statistics.fmean(row["expert_load"][layer][e] for row in last) for e in range(EXPERTS)]
             for layer in range(LAYERS)]
    per_token = 2 if "model.num_experts_per_tok=2" in settings else 1
    assignments = SEQUENCE * SEQUENCES * per_token
    return {
        "loss": statistics.fmean(source["loss"] for source in losses.values()),
        "max_vio": max(statistics.fmean(row["max_vio_interval"][layer] for row in last) for layer in range(LAYERS)),
        "idle": sum(load < 0.1 / EXPERTS for layer in loads for load in layer),
        "dropped": statistics.fmean(statistics.fmean(row.get("dropped_assignments", [0])) for row in last) / assignments,
        "changed": statistics.fmean(statistics.fmean(row["changed_assignments"]) for row in last),
    }


def spread(values, form):
    deviation = statistics.stdev(values) if len(values) > 1 else 0
    return f"{statistics.fmean(values):{form}} ± {deviation:{form}}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoe", type=pathlib.Path, default=pathlib.Path("build/release/smoe"))
    parser.add_argument("--corpus", type=pathlib.Path, default=pathlib.Path("data/corpus"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/balancers"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=list(BALANCERS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    prepare(options)
    config = write_config(options)
    names = [options.only] if options.only else list(BALANCERS)
    print("| balancer | held-out loss | MaxVio | idle experts | dropped | changed in 10 steps |\n|---|---|---|---|---|---|")
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = {name: [pool.submit(run, options, config, name, seed) for seed in range(1, options.seeds + 1)]
                for name in names}
        for name, futures in runs.items():
            try:
                found = [future.result() for future in futures]
            except RuntimeError as error:
                pool.shutdown(cancel_futures=True)
                sys.exit(str(error))

            def column(key):
                return [result[key] for result in found]

            print(f"| {name} | {spread(column('loss'), '.3f')} | {spread(column('max_vio'), '.2f')} | "
                  f"{statistics.fmean(column('idle')):.1f} | {statistics.fmean(column('dropped')):.1%} | "
                  f"{statistics.fmean(column('changed')):.1%} |", flush=True)


if __name__ == "__main__":
    main()
