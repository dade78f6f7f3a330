"""What torch takes for the ops of op_bench, each way that it offers."""

from contextlib import nullcontext

import torch

import peers.matrix_ways  # noqa: F401, for what it registers
import peers.memory_ways  # noqa: F401
from peers.forms import bound, parse
from peers.report import Measurement
from peers.ways import WAYS, Stage


def rotated(prepare, working_set):
    """One call a set of tensors, of as many sets as fill the working set."""
    sets = [prepare()]
    while len(sets) < 512 and len(sets) * max(1, sets[0].bytes()) < working_set:
        sets.append(prepare())
    if len(sets) == 1:
        return sets[0].call
    turn = 0

    def call():
        nonlocal turn
        turn = (turn + 1) % len(sets)
        return sets[turn].call()

    return call


def of_line(line, meter, compile_too, working_set):
    """The measurements that stand beside a line of op_bench --json; ValueError where its shape is of no known form."""
    op, shape = line["op"], line["shape"]
    name = line.get("dtype", "f32")
    dtypes = {"bf16": torch.bfloat16, "f32": torch.float32}
    if name not in dtypes:
        raise ValueError(f"{op} {shape}: of no type that is known: {name}")
    form = parse(op, shape)
    on = Stage(meter.device, dtypes[name], compile_too)
    flops, bytes_ = line.get("flops"), line.get("bytes")
    held = bound(op, flops, bytes_)
    work = flops if held == "matrix" else bytes_

    def measure(way):
        with nullcontext() if op.endswith("_backward") else torch.no_grad():
            call = rotated(way.prepare, working_set if held == "memory" else 0)
            timing = meter.measure(call)
        seconds = timing.seconds[0]
        result = dict(us=round(1e6 * seconds, 2), bound=held)
        if work:
            scale, ceiling = (1e-12, timing.product_tflops) if held == "matrix" else (1e-9, timing.copy_gbs)
            rate = scale * work / seconds
            result |= dict(rate=round(rate, 3), share=round(rate / ceiling, 3))
        if line.get("us"):
            result |= dict(smoe_us=line["us"])
        return result | timing.beside()

    def measurement(way):
        return Measurement(dict(who="torch", op=op, shape=shape, dtype=name, how=way.how), lambda: measure(way),
                           measurement(way.instead) if way.instead else None)

    return [measurement(way) for way in WAYS[op](on, form)]
