#!/usr/bin/env python3
"""The tables of docs/scaling.md: what Mixtral 8x7B and 8x22B would take of many GPUs, by the formulas of this software.

  scaling_tables.py                 prints them
  scaling_tables.py --check FILE    whether each stands in FILE as it is printed

Nothing is measured here. Memory is that of training_state_bytes and estimated_activation_bytes (trainer/); bytes sent
are those of tests/ranks/traffic_test.cpp with 2 bytes an element in place of 4, but for gradients.
tests/trainer/scaling_test.cpp holds the document against the functions themselves. Times are quotients by the rates
below.
"""

import sys
from dataclasses import dataclass, replace

GB, GIB = 1e9, 2.0**30
BF16, F32 = 2, 4

# An H100 SXM, of which none was at hand: a data sheet's rate of dense bf16 products, and what is taken of it.
PEAK = 989e12
PRODUCT = 790e12  # of 8192^3, bf16
SHARE = 0.65  # of that, of forward and backward: what is aimed at; and what is not missed by far
LOWER_SHARE = 0.55
MEMORY = 0.8 * 3.35e12  # bytes a second, of what the update reads and writes
NVLINK, INFINIBAND, NODE = 370e9, 45e9, 8  # bytes a second that a GPU sends; GPUs a node
CARDS = {"80 GB": 78.0, "141 GB": 139.0}  # GiB that a process can take of it
MARGIN = 6.0  # GiB: context, libraries' workspaces, NCCL's buffers, the head's logits, what lies in pieces
UNEVEN = 1.2  # times the activations, of the rank whose experts are chosen most


def aligned(n, unit):
    return -(-n // unit) * unit


@dataclass(frozen=True)
class Model:
    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int = 128
    experts: int = 8
    chosen: int = 2
    vocabulary: int = 32000

    def query(self):
        return self.heads * self.head_size

    def key_value(self):
        return 2 * self.kv_heads * self.head_size

    def dense(self):
        """Elements that tp divides: attention, embedding, head."""
        attention = self.hidden * (self.query() + self.key_value()) + self.query() * self.hidden
        return self.layers * attention + 2 * self.vocabulary * self.hidden

    def whole(self):
        """Elements that every rank has: norms, routers."""
        return self.layers * (2 * self.hidden + self.experts * self.hidden) + self.hidden

    def expert(self):
        return self.layers * self.experts * 3 * self.hidden * self.intermediate

    def total(self):
        return self.dense() + self.whole() + self.expert()

    def active(self):
        return self.total() - self.expert() * (self.experts - self.chosen) // self.experts

    def layer_flops(self, length, attention=2):
        """Of one layer's forward, a token; attention: 2 of the pairs that causality leaves, 4 of all."""
        return (2 * self.hidden * (self.query() + self.key_value()) + 2 * self.query() * self.hidden +
                attention * length * self.query() + 2 * self.hidden * self.experts +
                self.chosen * 6 * self.hidden * self.intermediate)

    def token_flops(self, length, attention=2):
        """Of a training step, a token: forward and twice as much."""
        return 3 * (self.layers * self.layer_flops(length, attention) + 2 * self.hidden * self.vocabulary)


@dataclass(frozen=True)
class Layout:
    model: Model
    ranks: int
    tp: int
    ep: int
    length: int = 4096
    batch: int = 1 << 20  # tokens a step
    recompute: bool = False
    share: float = SHARE

    @property
    def dp(self):
        return self.ranks // self.tp

    @property
    def edp(self):
        return self.ranks // self.ep

    def micro_batches(self):
        """Of one sequence."""
        sequences, rest = divmod(self.batch // self.length, self.dp)
        assert rest == 0 and sequences > 0, self
        return sequences

    def buffers(self):
        """(elements that this rank holds, how many ranks hold the same, how many of those are on its node)."""
        m, line = self.model, 64 // BF16
        return [(aligned(m.dense() // self.tp, line * self.dp), self.dp, max(1, min(self.dp, NODE // self.tp))),
                (aligned(m.whole(), line * self.ranks), self.ranks, min(self.ranks, NODE)),
                (aligned(m.expert() // self.ep, line * self.edp), self.edp, max(1, min(self.edp, NODE // self.ep)))]

    # -- memory

    def state(self):
        """Weight and gradient of all it holds; master and two moments of its part."""
        return sum(n * (BF16 + F32) + n // d * 3 * F32 for n, d, _ in self.buffers())

    def activations(self):
        m = self.model
        norms = BF16 * 3 * m.hidden
        attention = BF16 * (2 * m.query() + m.key_value()) + F32 * m.heads
        router = F32 * (2 * m.experts + 2 * m.chosen)
        experts = m.chosen * (BF16 * (m.hidden + 2 * m.intermediate) + F32 * 3)
        layer = norms + attention + router + experts
        kept = 1 if self.recompute else m.layers
        gathered = BF16 * (kept + 1) * m.hidden if self.tp > 1 else 0
        scratch = max(self.length * layer // self.tp, self.logits())
        return ((BF16 * m.layers * m.hidden + kept * layer) // self.tp + gathered) * self.length + scratch

    def logits(self):
        """A chunk of them, and their gradients (model/lm_head.cpp)."""
        vocabulary = self.model.vocabulary // self.tp
        chunks = -(-self.length // max(16, (512 << 20) // (F32 * vocabulary)))
        return -(-self.length // chunks) * vocabulary * (F32 + BF16)

    def needs(self):
        return (self.state() + UNEVEN * self.activations()) / GIB + MARGIN

    def fits(self, card):
        return self.needs() <= CARDS[card]

    # -- bytes that a rank sends a step

    def replicas_sent(self, bytes_an_element):
        """(bytes, members of the group on the node, whether it leaves the node) of each buffer."""
        return [(n // d * (d - 1) * bytes_an_element, m, d > m) for n, d, m in self.buffers()]

    def gradients_sent(self):
        return sum(sent for sent, _, _ in self.replicas_sent(F32))

    def weights_sent(self):
        return sum(sent for sent, _, _ in self.replicas_sent(BF16))

    def tp_sent(self):
        m, t = self.model, self.tp
        once = self.length // t * (t - 1) * m.hidden * BF16
        statistics = 3 * self.length * (t - 1) * F32
        return self.micro_batches() * (m.layers * (6 if self.recompute else 4) * once + 4 * once + statistics)

    def ep_sent(self):
        m, n = self.model, self.ep
        rows = m.chosen * self.length // self.tp * (n - 1) // n
        ways, weights = (6, 3) if self.recompute else (4, 2)  # rows of `hidden`; their weights, a number each
        return self.micro_batches() * m.layers * rows * (ways * m.hidden * BF16 + weights * F32)

    # -- seconds a step

    def replicas_seconds(self, bytes_an_element):
        return sum(sent / (min(NVLINK, m * INFINIBAND) if leaves else NVLINK)
                   for sent, m, leaves in self.replicas_sent(bytes_an_element))

    def forward_seconds(self):
        """Of one micro-batch."""
        return self.model.token_flops(self.length) / 3 * self.length / self.tp / (self.share * PRODUCT)

    def recompute_seconds(self):
        layers = self.model.layers * self.model.layer_flops(self.length) if self.recompute else 0.0
        return layers * self.length / self.tp / (self.share * PRODUCT)

    def predicted(self):
        m = self.micro_batches()
        forward, again = self.forward_seconds(), self.recompute_seconds()
        compute = m * (3 * forward + again)
        at_once = (self.tp_sent() + self.ep_sent()) / NVLINK
        # The last micro-batch's backward, and the first one's forward, have something on their way beside them.
        gradients, weights = self.replicas_seconds(F32), self.replicas_seconds(BF16)
        gradients_shown = max(0.0, gradients - (2 * forward + again))
        weights_shown = max(0.0, weights - forward)
        # AdamW, and the squares of the gradients, of its part; zeroes over the rest.
        update = sum(n // d * (8 * F32 + BF16 + F32) + (n - n // d) * F32 for n, d, _ in self.buffers()) / MEMORY
        step = compute + at_once + gradients_shown + weights_shown + update
        return Prediction(compute, at_once, gradients, gradients_shown, weights, weights_shown, update, step)

    def tokens_a_second(self):
        return self.batch / self.ranks / self.predicted().step

    def mfu(self, attention=2):
        return self.tokens_a_second() * self.model.token_flops(self.length, attention) / PEAK

    def place(self):
        length = f"{self.length // 1024}k"
        return f"{self.model.name} | {length} | {self.ranks} | {self.dp} x {self.tp} | {self.edp} x {self.ep}"


@dataclass(frozen=True)
class Prediction:
    compute: float
    at_once: float
    gradients: float
    gradients_shown: float
    weights: float
    weights_shown: float
    update: float
    step: float


MODELS = [Model("8x7B", 4096, 14336, 32, 32, 8), Model("8x22B", 6144, 16384, 56, 48, 8)]
SMALL, LARGE = MODELS
LAYOUTS = (
    [Layout(SMALL, ranks, tp, ep) for ranks, tp, ep in
     [(8, 1, 8), (8, 2, 8), (16, 1, 8), (16, 2, 8), (32, 1, 8), (32, 2, 8), (64, 1, 8), (64, 2, 8), (64, 1, 4),
      (128, 1, 8), (128, 2, 8)]] +
    [Layout(SMALL, ranks, tp, 8, length=32768) for ranks, tp in
     [(16, 8), (32, 4), (32, 8), (64, 2), (64, 4), (64, 8), (128, 4), (128, 8)]] +
    [Layout(LARGE, ranks, tp, 8) for ranks, tp in
     [(64, 4), (64, 8), (128, 2), (128, 4), (128, 8), (256, 2), (256, 4), (256, 8)]])
# What others published of the same layout or one near it: (our layout, theirs, their MFU in %).
PUBLISHED = [
    (Layout(SMALL, 64, 1, 8), "Megatron-Core 0.9, TP1 EP8 **PP4**", 47.3),
    (Layout(LARGE, 128, 4, 8), "TP4 EP8 ZeRO-1, no PP", 36.6),
    (Layout(LARGE, 128, 4, 8, batch=1 << 22), "the same", 40.4),
    (Layout(LARGE, 256, 4, 8, batch=1 << 22), "the same", 39.1),
]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def models():
    return table(["model", "parameters", "active", "sequence", "GFLOP a token", "with all pairs of attention"],
                 [[m.name, f"{m.total():,}", f"{m.active():,}", f"{length // 1024}k",
                   f"{m.token_flops(length) / 1e9:.1f}", f"{m.token_flops(length, 4) / 1e9:.1f}"]
                  for m, length in [(SMALL, 4096), (SMALL, 32768), (LARGE, 4096)]])


PLACE = ["model", "sequence", "GPUs", "dp x tp", "edp x ep"]


def verdict(kept, again, card):
    return "all kept" if kept.fits(card) else "recompute" if again.fits(card) else "**no**"


def memory():
    rows = []
    for kept in LAYOUTS:
        again = replace(kept, recompute=True)
        rows.append([kept.place(), f"{kept.state() / GIB:.1f}", f"{kept.activations() / GIB:.1f}",
                     f"{again.activations() / GIB:.1f}", f"{kept.needs():.1f}", f"{again.needs():.1f}",
                     *(verdict(kept, again, card) for card in CARDS)])
    return table(PLACE + ["state, GiB", "predicted activations, all kept", "predicted activations, recompute",
                          "predicted need, all kept", "predicted need, recompute",
                          *(f"predicted: {card}" for card in CARDS)], rows)


def mode_on(card, kept):
    """The layout in the faster mode that fits the card, or none."""
    modes = [mode for mode in (kept, replace(kept, recompute=True)) if mode.fits(card)]
    return modes[0] if modes else None


def sent():
    rows = []
    for kept in LAYOUTS:
        again = replace(kept, recompute=True)
        if not again.fits("141 GB"):
            continue
        p = kept.predicted()
        rows.append([kept.place(), str(kept.micro_batches()), f"{kept.gradients_sent() / GB:.2f}",
                     f"{kept.weights_sent() / GB:.2f}", f"{kept.tp_sent() / GB:.2f}", f"{kept.ep_sent() / GB:.2f}",
                     f"{again.tp_sent() / GB:.2f}", f"{again.ep_sent() / GB:.2f}", f"{1e3 * p.gradients:.0f}",
                     f"{1e3 * p.weights:.0f}", f"{1e3 * kept.tp_sent() / NVLINK:.0f}",
                     f"{1e3 * kept.ep_sent() / NVLINK:.0f}"])
    return table(PLACE + ["micro-batches", "gradients, GB", "weights, GB", "tp, GB", "ep, GB", "tp, recompute, GB",
                          "ep, recompute, GB", "predicted ms: gradients", "predicted ms: weights", "predicted ms: tp",
                          "predicted ms: ep"], rows)


def steps():
    rows = []
    for kept in LAYOUTS:
        by_mode = {}
        for card in CARDS:
            if mode := mode_on(card, kept):
                by_mode.setdefault(mode, []).append(card)
        for mode, cards in by_mode.items():
            p = mode.predicted()
            rows.append([mode.place(), ", ".join(cards), "recompute" if mode.recompute else "all kept",
                         f"{p.compute:.2f}", f"{p.at_once:.2f}", f"{p.gradients_shown:.2f}", f"{p.weights_shown:.2f}",
                         f"{p.update:.2f}", f"{p.step:.2f}", f"{mode.tokens_a_second():,.0f}",
                         f"{100 * mode.mfu():.0f}%"])
    parts = ["compute", "tp and ep", "gradients", "weights", "update", "step"]
    return table(PLACE + ["card", "mode", *(f"predicted s: {part}" for part in parts), "predicted tokens/s/GPU",
                          "predicted MFU"], rows)


def published():
    rows = []
    for ours, theirs, mfu in PUBLISHED:
        lower = replace(ours, share=LOWER_SHARE)
        rows.append([ours.model.name, str(ours.ranks), f"{ours.batch:,}", theirs, f"{mfu:.1f}%",
                     f"dp {ours.dp} tp {ours.tp} ep {ours.ep}", f"{100 * ours.mfu(4):.1f}%",
                     f"{100 * lower.mfu(4):.1f}%"])
    return table(["model", "GPUs", "tokens a step", "theirs", "published MFU", "ours", "predicted MFU",
                  "predicted, lower share"], rows)


def main(arguments):
    tables = [models(), memory(), sent(), steps(), published()]
    if not arguments:
        print("\n".join(tables), end="")
        return 0
    if len(arguments) != 2 or arguments[0] != "--check":
        print(__doc__, file=sys.stderr)
        return 2
    with open(arguments[1], encoding="utf-8") as file:
        text = file.read()
    missing = [one for one in tables if one not in text]
    for one in missing:
        print(f"{arguments[1]}: found no table that is this one:\n{one}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
