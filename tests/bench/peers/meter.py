"""Times on a GPU or a CPU, and beside each what the machine reached in the same moment."""

import gc
import statistics
import time
from dataclasses import dataclass

import torch

MIB = 1 << 20
LEAD = 0.03  # seconds at most by which the host runs ahead of the device


@dataclass
class Timing:
    seconds: list  # a call of each part: the median over the rounds
    product_tflops: float
    copy_gbs: float

    def beside(self):
        return dict(product_tflops=round(self.product_tflops, 3), copy_gbs=round(self.copy_gbs, 2))


class Yardsticks:
    """A bf16 product on random numbers (zeros draw less power, and are faster), and a copy on the device."""

    def __init__(self, device):
        gpu = device.type == "cuda"
        self.size = 8192 if gpu else 256
        self.repetitions = 3 if gpu else 1
        self.left, self.right = torch.randn(2, self.size, self.size, device=device, dtype=torch.bfloat16).unbind()
        self.product = torch.empty_like(self.left)
        self.source = torch.randn((512 if gpu else 4) * MIB // 4, device=device)
        self.copy = torch.empty_like(self.source)
        self.flops = 2.0 * self.size**3 * self.repetitions
        self.copied = 2.0 * self.source.nbytes * self.repetitions  # read and written
        self.bytes = 3 * self.left.nbytes + 2 * self.source.nbytes

    def multiply(self, times):
        for _ in range(times):
            torch.mm(self.left, self.right, out=self.product)

    def move(self, times):
        for _ in range(times):
            self.copy.copy_(self.source)


class Meter:
    def __init__(self, device, rounds, seconds, deadline, compiled):
        self.device, self.rounds, self.seconds, self.deadline = device, rounds, seconds, deadline
        self.compiled = compiled  # whether something may be
        self.gpu = device.type == "cuda"
        self.yardsticks = Yardsticks(device)

    def synchronize(self):
        if self.gpu:
            torch.cuda.synchronize(self.device)

    def stamp(self):
        if not self.gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start, end):
        return 1e-3 * start.elapsed_time(end) if self.gpu else end - start

    def lead(self, seconds):
        """Keeps the device waiting for that long, so that the calls behind are queued before it comes to them: their times
        are the device's then, and not those of the interpreter."""
        if self.gpu and hasattr(torch.cuda, "_sleep"):
            torch.cuda._sleep(int(2e9 * min(seconds, LEAD)))

    def measure(self, *parts, most=64):
        """The parts are called in turn; each has a time of its own."""
        # The first calls choose kernels and take memory.
        for _ in range(2):
            self.call(parts, 1)
        self.synchronize()
        start = time.perf_counter()
        self.call(parts, 1)
        queued = time.perf_counter() - start
        self.synchronize()
        estimate = time.perf_counter() - start
        calls = max(1, min(most, round(self.seconds / max(estimate, 1e-7))))
        products, copies, rounds = [], [], []
        for done in range(self.rounds):
            if done > 0 and self.deadline.passed():
                break
            yardsticks = self.yardsticks
            yardsticks.multiply(1)
            product = self.stamp()
            yardsticks.multiply(yardsticks.repetitions)
            product_end = self.stamp()
            yardsticks.move(1)
            copy = self.stamp()
            yardsticks.move(yardsticks.repetitions)
            copy_end = self.stamp()
            self.lead(1.5 * queued * calls)
            stamps = self.call(parts, calls)
            self.synchronize()
            products.append(yardsticks.flops / self.between(product, product_end))
            copies.append(yardsticks.copied / self.between(copy, copy_end))
            rounds.append([part / calls for part in self.by_part(stamps, len(parts))])
        return Timing([statistics.median(times) for times in zip(*rounds)], 1e-12 * statistics.median(products),
                      1e-9 * statistics.median(copies))

    def call(self, parts, times):
        """Stamps around all calls of a part that is alone, else between the parts."""
        stamps = [self.stamp()]
        for _ in range(times):
            for part in parts:
                part()
                if len(parts) > 1:
                    stamps.append(self.stamp())
        if len(parts) == 1:
            stamps.append(self.stamp())
        return stamps

    def by_part(self, stamps, parts):
        spans = [self.between(start, end) for start, end in zip(stamps, stamps[1:])]
        return [sum(spans[part::parts]) for part in range(parts)]

    def peak_mib(self, action):
        """Of the device while the action runs, what lies there already included, the yardsticks not."""
        if not self.gpu:
            action()
            return None
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        action()
        self.synchronize()
        return round((torch.cuda.max_memory_allocated(self.device) - self.yardsticks.bytes) / MIB)

    def free(self):
        if self.compiled:
            torch.compiler.reset()  # which holds what it compiled
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()

    def name(self):
        return torch.cuda.get_device_name(self.device) if self.gpu else "cpu"
