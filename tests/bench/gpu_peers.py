#!/usr/bin/env python3
"""What PyTorch and transformers do on the same card, beside smoe's own benchmarks: JSON lines, each as soon as it is known.

    gpu_peers.py ops --from FILE     each op of FILE (what op_bench --json printed), in every way that torch offers
    gpu_peers.py block --model 8x7b --sequences 2 --routing even    a layer of transformers' Mixtral, forward and backward
    gpu_peers.py step --model 8x7b --layers 1                       its whole training step
    gpu_peers.py --self-test         what needs no torch

What fails is a line with "error", and the next is tried. --limit SECONDS ends it: the last line says what was left out.
"""

import argparse
import gc
import json
import re
import sys

from peers.forms import MODELS, WITHOUT_EQUIVALENT
from peers.report import Deadline, Measurement, Report, run_all

WORKING_SET = {"cuda": 192 << 20, "cpu": 1 << 20}  # bytes, more than the last cache; on a CPU it is tried, not measured


def parser():
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    shared.add_argument("--limit", type=float, default=600, help="seconds, after which nothing more is begun")
    shared.add_argument("--rounds", type=int, default=5, help="the median of these is told")
    shared.add_argument("--round-ms", type=float, help="of a round's calls: 20 of an op, 100 of a layer, 500 of a step")
    shared.add_argument("--compile", action="store_true", help="torch.compile too, where it changes something")
    shared.add_argument("--threads", type=int, help="of a CPU")

    whole = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole.add_argument("--self-test", action="store_true", help="check what needs no torch, and end")
    commands = whole.add_subparsers(dest="command")
    ops = commands.add_parser("ops", parents=[shared], help="single ops, at the shapes of op_bench --json")
    ops.add_argument("--from", dest="file", required=True, help="what op_bench --json printed")
    ops.add_argument("--filter", default=".", help='only where this is found in "op/shape"')
    for name, what in (("block", "a layer, forward and backward"), ("step", "a training step")):
        command = commands.add_parser(name, parents=[shared], help=what)
        command.add_argument("--model", choices=list(MODELS), default="8x7b")
        command.add_argument("--sequences", type=int, default=1)
        command.add_argument("--seq", type=int, default=4096, help="tokens a sequence")
        if name == "block":
            command.add_argument("--routing", choices=["even", "skewed", "drawn"], default="even")
        else:
            command.add_argument("--layers", type=int, default=1)
            command.add_argument("--checkpoint", action="store_true", help="with gradient checkpointing too")
    return whole


def lines_of(file, wanted):
    """The ops of op_bench's lines that are wanted, each once; a Measurement that fails for a line that is none."""
    seen = set()
    for number, text in enumerate(file, 1):
        if not text.lstrip().startswith("{"):
            continue
        try:
            line = json.loads(text)
            key = (line["op"], line["shape"], line.get("dtype"))
        except (ValueError, KeyError, TypeError) as error:
            yield refused(dict(line=number), error)
            continue
        if key not in seen and re.search(wanted, f"{key[0]}/{key[1]}"):
            seen.add(key)
            yield line


def refused(label, error):
    def measure():
        raise error

    return Measurement(dict(who="torch", **label), measure)


def ops_measurements(options, meter):
    from peers.ops import of_line

    import torch

    measurements, without = [], set()
    with open(options.file, encoding="utf-8") as file:
        for line in lines_of(file, options.filter):
            if isinstance(line, Measurement):
                measurements.append(line)
            elif line["op"] in WITHOUT_EQUIVALENT:
                without.add(line["op"])
            elif " documents " in line["shape"]:
                without.add(line["op"] + " over documents")
            else:
                try:
                    measurements += of_line(line, meter, options.compile, WORKING_SET[options.device])
                except ValueError as error:
                    label = {key: line[key] for key in ("op", "shape", "dtype") if key in line}
                    measurements.append(refused(label, error))
    return measurements, dict(without_equivalent=sorted(without), device=meter.name(), torch=torch.__version__)


def main():
    options = parser().parse_args()
    if options.self_test:
        from peers.self_test import self_test

        self_test()
        print("gpu_peers.py: the self-test passed")
        return 0
    if not options.command:
        print(__doc__, file=sys.stderr)
        return 2
    if options.round_ms is None:
        options.round_ms = {"ops": 20, "block": 100, "step": 500}[options.command]
    if options.rounds < 1 or options.round_ms <= 0:
        sys.exit("gpu_peers.py: --rounds and --round-ms must be positive")
    deadline = Deadline(options.limit)  # with what Python takes to read torch
    try:
        import torch

        if options.command != "ops":
            import transformers  # noqa: F401
    except ImportError as error:
        sys.exit(f"gpu_peers.py: {error}; it needs torch and transformers (tests/goldens/requirements.txt)")
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_peers.py: this torch sees no GPU; --device cpu tries the program at small sizes")
    if options.command == "ops":
        try:
            re.compile(options.filter)
            open(options.file, encoding="utf-8").close()
        except (re.error, OSError) as error:
            sys.exit(f"gpu_peers.py: {error}")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(1)

    from peers.meter import Meter

    meter = Meter(torch.device(options.device), options.rounds, 1e-3 * options.round_ms, deadline, options.compile)
    more = {}
    if options.command == "ops":
        measurements, more = ops_measurements(options, meter)
    else:
        from peers import mixtral

        measurements = (mixtral.block if options.command == "block" else mixtral.step)(options, meter)
    gc.collect()
    gc.freeze()  # what was imported need not be looked through after every measurement
    report = Report()
    run_all(measurements, report, deadline, meter.free, **more)
    return 0


if __name__ == "__main__":
    sys.exit(main())
