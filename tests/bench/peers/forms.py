"""What op_bench writes of a shape, read back; and the operations of Mixtral's products. Plain arithmetic, without torch."""

import re
from dataclasses import dataclass, replace

# Of 4096 rows, those of each of 8 experts that op_bench calls skewed.
SKEWED = (1400, 900, 700, 500, 300, 200, 90, 6)

# As bound_of in kernels/op_work.h: more operations a byte than these, and an op is held against a product.
MATRIX_FLOPS_A_BYTE = 16

_PRODUCT = r"(?P<kind>nt|nn|tn) (?P<name>.*?): \[(?P<a>[\d, ]+)\] \[(?P<b>[\d, ]+)\] to \[(?P<c>[\d, ]+)\]"
_NUMBERS = r"n(?P<n>\d+)"
_ROWS = r"T(?P<T>\d+) D(?P<D>\d+)"
_EMBEDDING = r"T(?P<T>\d+) V(?P<V>\d+) D(?P<D>\d+)"
_ATTENTION = r"B(?P<B>\d+) S(?P<S>\d+) H(?P<H>\d+) G(?P<G>\d+) C(?P<C>\d+)(?: window (?P<window>\d+))?"
_ROPE = r"T(?P<T>\d+) heads (?P<rotated>\d+) of (?P<heads>\d+) C(?P<C>\d+)"
_ROUTER = r"T(?P<T>\d+) E(?P<E>\d+) K(?P<K>\d+)(?P<sigmoids> sigmoids)?(?P<biased> biased)?"
_DISPATCH = r"T(?P<T>\d+) E(?P<E>\d+) K(?P<K>\d+) D(?P<D>\d+)"
_SWIGLU = r"R(?P<R>\d+) F(?P<F>\d+)"
_LOGITS = r"N(?P<N>\d+) V(?P<V>\d+)"

# The ops that have an equivalent in torch, and how their shapes are written (tests/kernels/op_calls_*.cpp).
FORMS = {
    "copy": _NUMBERS,
    "fill": _NUMBERS,
    "add": _NUMBERS,
    "sum_of_squares": _NUMBERS,
    "adamw": _NUMBERS,
    "embedding_forward": _EMBEDDING,
    "embedding_backward": _EMBEDDING,
    "rms_norm_forward": _ROWS,
    "rms_norm_backward": _ROWS,
    "gemm": _PRODUCT,
    "grouped_gemm": _PRODUCT,
    "rope_forward": _ROPE,
    "rope_backward": _ROPE,
    "attention_forward": _ATTENTION,
    "attention_backward": _ATTENTION,
    "router_forward": _ROUTER,
    "router_backward": _ROUTER,
    "routing_map": _DISPATCH,
    "permute": _DISPATCH,
    "unpermute": _DISPATCH,
    "swiglu_forward": _SWIGLU,
    "swiglu_backward": _SWIGLU,
    "cross_entropy_statistics": _LOGITS,
    "cross_entropy_backward": _LOGITS,
}
# Copies to and from the host, parts of an op that torch does whole, tables made once, noise.
WITHOUT_EQUIVALENT = {
    "copy_to_host", "start_copy_to_host", "copy_from_host", "sum", "sum_rows", "rope_table", "attention_cached",
    "balance_statistics", "router_measures", "jitter", "permute_weights", "unpermute_weights", "cross_entropy_merge",
    "cross_entropy_losses", "cross_entropy_uniform_losses", "add_noise", "dropout", "spread_blocks", "gather_blocks",
}
_TEXT = {"kind", "name"}
_SIZES = {"a", "b", "c"}
_SAID = {"sigmoids", "biased"}


@dataclass(frozen=True)
class Form:
    """An op and what its shape says: numbers by their letter, a product's kind, name and operands."""

    op: str
    said: dict

    def __getattr__(self, name):
        try:
            return self.said[name]
        except KeyError:
            raise AttributeError(name) from None


def parse(op, shape):
    """The form of a line of op_bench, or ValueError."""
    if op not in FORMS:
        raise ValueError(f"no op that is known: {op}")
    match = re.fullmatch(FORMS[op], shape)
    if not match:
        raise ValueError(f"{op} of no form that is known: {shape}")
    said = {}
    for name, text in match.groupdict().items():
        if name in _TEXT:
            said[name] = text
        elif name in _SIZES:
            said[name] = tuple(int(size) for size in text.split(","))
        elif name in _SAID:
            said[name] = text is not None
        else:
            said[name] = int(text or 0)
    form = Form(op, said)
    check = {"gemm": _check_gemm, "grouped_gemm": _check_grouped_gemm, "rope_forward": _check_rope,
             "rope_backward": _check_rope, "attention_forward": _check_attention, "attention_backward": _check_attention}
    if op in check:
        fault = check[op](form)
        if fault:
            raise ValueError(f"{op} {shape}: {fault}")
    return form


def _check_gemm(form):
    if {len(form.a), len(form.b), len(form.c)} != {2}:
        return "not all matrices"
    (a0, a1), (b0, b1) = form.a, form.b
    fits, made = {"nt": (a1 == b1, (a0, b0)), "nn": (a1 == b0, (a0, b1)), "tn": (a0 == b0, (a1, b1))}[form.kind]
    return None if fits and form.c == made else "sizes that do not fit each other"


def _check_grouped_gemm(form):
    ranks = {"nt": (2, 3, 2), "nn": (2, 3, 2), "tn": (2, 2, 3)}[form.kind]
    if (len(form.a), len(form.b), len(form.c)) != ranks:
        return "neither rows through experts' weights nor their gradients"
    if form.kind == "tn":
        fits = form.a[0] == form.b[0] and form.c[1:] == (form.a[1], form.b[1])
    else:
        experts, out, inner = form.b
        fits = (form.a[1], form.c) == ((inner, (form.a[0], out)) if form.kind == "nt" else (out, (form.a[0], inner)))
    return None if fits else "sizes that do not fit each other"


def _check_rope(form):
    # Queries and keys are rotated, values are not, and there are as many of these as of keys.
    values = form.heads - form.rotated
    return None if 0 < values < form.rotated and form.C % 2 == 0 else "not queries and keys beside as many values as keys"


def _check_attention(form):
    return None if form.G and form.H % form.G == 0 else "heads that do not divide into groups"


def expert_rows(form):
    """Rows of each expert of a grouped product: equal ones, or skewed as its name says."""
    experts = form.c[0] if form.kind == "tn" else form.b[0]
    proportions = SKEWED if "skewed" in form.name else (1,) * experts
    if len(proportions) != experts:
        raise ValueError(f"skewed rows of {experts} experts; of {len(SKEWED)} it is known how")
    return shared_out(form.a[0], proportions)


def shared_out(rows, proportions):
    """Whole rows in these proportions; the first get what rounding leaves."""
    whole = sum(proportions)
    parts = [rows * share // whole for share in proportions]
    for i in range(rows - sum(parts)):
        parts[i % len(parts)] += 1
    return parts


def bound(op, flops=None, bytes_=None):
    """Whether an op is held against a product or against a copy."""
    if flops is not None and bytes_:
        return "matrix" if flops > MATRIX_FLOPS_A_BYTE * bytes_ else "memory"
    return "matrix" if op.startswith(("gemm", "grouped_gemm", "attention")) else "memory"


# ---- Mixtral ----


@dataclass(frozen=True)
class Model:
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    layers: int = 1
    experts: int = 8
    chosen: int = 2

    def layer_flops(self, length, attention=2):
        """Of one layer's forward, a token: products only. attention: 2 of the pairs that causality leaves, 4 of all."""
        key_value = self.hidden // self.heads * self.kv_heads
        projections = 2 * self.hidden * (self.hidden + 2 * key_value) + 2 * self.hidden * self.hidden
        router = 2 * self.hidden * self.experts
        experts = self.chosen * 6 * self.hidden * self.intermediate
        return projections + router + experts + attention * length * self.hidden

    def token_flops(self, length, attention=2):
        """Of a training step, a token: forward, and twice as much backward."""
        return 3 * (self.layers * self.layer_flops(length, attention) + 2 * self.hidden * self.vocabulary)


MODELS = {
    "8x7b": Model(4096, 14336, 32, 8, 32000),
    "8x22b": Model(6144, 16384, 48, 8, 32768),
    "tiny": Model(64, 96, 4, 2, 160),
}


def model_of(name, layers=1):
    return replace(MODELS[name], layers=layers)
