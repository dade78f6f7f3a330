"""What launch/finetune-demo tells of its runs, as Markdown.

finetune_table.py questions EXAMPLES.jsonl      a question and what the ontology answers, a line each, with a tab between them
finetune_table.py table RUNS                    what was learned, and what it took
"""

import json
import math
import pathlib
import struct
import sys

SHOWN = 3  # questions
MODELS = {"before": None, "full": "upcycled-full", "lora": "upcycled-lora"}  # and the run that made each


def questions(examples):
    with open(examples, encoding="utf8") as lines:
        for _, line in zip(range(SHOWN), lines):
            question, answer = (message["content"] for message in json.loads(line)["messages"])
            print(" ".join(question.split()), " ".join(answer.split()), sep="\t")


def numbers_in(directory):
    """How many numbers a directory's safetensors hold."""
    count = 0
    for path in directory.glob("*.safetensors"):
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        count += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return count


def cost(run):
    """What training took: rows of every step, and the last checkpoint."""
    with open(run / "metrics.jsonl", encoding="utf8") as lines:
        steps = [row for row in map(json.loads, lines) if "lm_loss" in row]
    checkpoint = run / "checkpoints" / (run / "checkpoints/latest").read_text().strip()
    seconds = sum(row["step_seconds"] for row in steps)
    trained = checkpoint / "adapter"
    return {"numbers that are trained": f"{numbers_in(trained if trained.exists() else checkpoint / 'model') / 1e6:.1f}M",
            "steps": f"{len(steps)}",
            "tokens": f"{steps[-1]['tokens']:,}",
            "time of the steps": f"{seconds:.0f} s",
            "tokens a second": f"{steps[-1]['tokens'] / seconds:.0f}",
            "memory of a rank, at most": f"{steps[-1]['peak_memory_bytes'] / 1e9:.2f} GB",
            "checkpoint": f"{sum(f.stat().st_size for f in checkpoint.rglob('*') if f.is_file()) / 1e9:.2f} GB"}


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def routing(analysis, before):
    """Means over layers. An expert's share of assignments is over 1/E by its MaxVio."""
    chosen, chosen_before = (a["excerpts"][0]["first_choice"] for a in (analysis, before))
    moved = mean(a != b for now, then in zip(chosen, chosen_before) for a, b in zip(now, then))
    layers = analysis["overlap"]["layers"]
    return {"busiest expert over the mean expert": f"{mean(max(s['assignments']) for s in analysis['shares'][0]) * analysis['experts']:.2f}",
            "tokens whose first expert is another than before": "" if analysis is before else f"{moved:.1%}",
            "cosine of two experts' weights": f"{mean(layer['weights']['mean'] for layer in layers):.6f}",
            "cosine of their outputs": f"{mean(layer['outputs']['mean'] for layer in layers):.6f}"}


def table(runs):
    results = runs / "finetune-demo"
    analyses = {name: json.loads((results / name / "analysis.json").read_text(encoding="utf8")) for name in MODELS}
    columns = {}
    for name, run in MODELS.items():
        (held_out,) = json.loads((results / f"{name}.json").read_text())["eval"].values()
        columns[name] = ({"loss on held-out answers": f"{held_out['loss']:.3f}", "perplexity": f"{held_out['perplexity']:.1f}"}
                         | (cost(runs / run) if run else {}) | routing(analyses[name], analyses["before"]))
    print("| | before | all weights | LoRA |\n|---|---:|---:|---:|")
    for row in columns["full"]:
        print("|", row, "|", " | ".join(columns[name].get(row, "") for name in MODELS), "|")


if __name__ == "__main__":
    what, path = sys.argv[1:]
    {"questions": questions, "table": lambda path: table(pathlib.Path(path))}[what](path)
