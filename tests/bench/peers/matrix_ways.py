"""What torch offers for products and attention."""

import torch
import torch.nn.functional as F

from peers.forms import expert_rows
from peers.ways import BACKWARD, Prepared, Way, compiled, either, through_graph, ways

# ---- products ----


def gradient_products(on):
    """How torch adds a product to an f32 gradient: (how, function of the gradient and the two factors)."""
    if on.dtype == torch.float32:
        return [("addmm in place", lambda c, a, b: torch.addmm(c, a, b, out=c))]
    f32 = torch.float32
    return [
        ("addmm in place, out_dtype f32", lambda c, a, b: torch.addmm(c, a, b, out_dtype=f32, out=c)),
        ("mm with out_dtype f32, then add_", lambda c, a, b: c.add_(torch.mm(a, b, out_dtype=f32))),
        ("mm of the operands' type, then add_ to f32", lambda c, a, b: c.add_(torch.mm(a, b))),
    ]


@ways("gemm")
def gemm(on, form):
    def prepare():
        a, b, c = on.normal(*form.a), on.normal(*form.b), on.empty(*form.c)
        right = b.t() if form.kind == "nt" else b
        return Prepared(lambda: torch.mm(a, right, out=c), [a, b, c])

    def accumulate(product):
        a, b, c = on.normal(*form.a), on.normal(*form.b), on.f32(*form.c)
        return Prepared(lambda: product(c, a.t(), b), [a, b, c])

    def assign():
        a, b, c = on.normal(*form.a), on.normal(*form.b), on.empty(*form.c)
        return Prepared(lambda: torch.mm(a.t(), b, out=c), [a, b, c])

    if form.kind != "tn":
        yield Way("torch.mm", prepare)
    elif form.name.endswith("_assigned"):
        yield Way("torch.mm", assign)
    else:
        for how, product in gradient_products(on):
            yield Way(how, lambda product=product: accumulate(product))


@ways("grouped_gemm")
def grouped_gemm(on, form):
    rows = expert_rows(form)
    grouped = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
    name = "F.grouped_mm" if hasattr(F, "grouped_mm") else "torch._grouped_mm"

    def offsets():
        return torch.tensor(rows, device=on.device).cumsum(0, dtype=torch.int32)

    def through(*factors, **more):
        if grouped is None:
            raise RuntimeError("this torch has no grouped_mm")
        return grouped(*factors, **more)

    def prepare():
        a, b, offs = on.normal(*form.a), on.normal(*form.b), offsets()
        right = b.transpose(-2, -1) if form.kind == "nt" else b
        return Prepared(lambda: through(a, right, offs=offs), [a, b, on.empty(*form.c)])

    def loop():
        a, b, c = on.normal(*form.a), on.normal(*form.b), on.empty(*form.c)
        parts = [(x, w.t() if form.kind == "nt" else w, y)
                 for x, w, y in zip(a.split(rows), b.unbind(), c.split(rows))]

        def call():
            for x, w, y in parts:
                torch.mm(x, w, out=y)

        return Prepared(call, [a, b, c])

    def accumulate(out_dtype=None, added=True):
        a, b, offs = on.normal(*form.a), on.normal(*form.b), offsets()
        c = on.f32(*form.c) if added else None
        more = {"out_dtype": out_dtype} if out_dtype else {}
        if added:
            return Prepared(lambda: c.add_(through(a.t(), b, offs=offs, **more)), [a, b, c])
        return Prepared(lambda: through(a.t(), b, offs=offs, **more), [a, b])

    def assign_loop():
        a, b, c = on.normal(*form.a), on.normal(*form.b), on.empty(*form.c)
        parts = [(x.t(), y, z) for x, y, z in zip(a.split(rows), b.split(rows), c.unbind())]

        def call():
            for x, y, z in parts:
                torch.mm(x, y, out=z)

        return Prepared(call, [a, b, c])

    def accumulate_loop(product):
        a, b, c = on.normal(*form.a), on.normal(*form.b), on.f32(*form.c)
        parts = [(z, x.t(), y) for z, x, y in zip(c.unbind(), a.split(rows), b.split(rows))]

        def call():
            for part in parts:
                product(*part)

        return Prepared(call, [a, b, c])

    if form.kind != "tn":
        yield Way(name, prepare)
        yield Way("a loop of torch.mm over the experts", loop)
        return
    if form.name.endswith("_assigned"):
        yield Way(name, lambda: accumulate(added=False))
        yield Way("a loop of torch.mm over the experts", assign_loop)
        return
    yield Way(f"{name}, then add_ to f32", accumulate)
    if on.dtype != torch.float32:
        yield Way(f"{name} with out_dtype f32, then add_", lambda: accumulate(torch.float32))
    for how, product in gradient_products(on):
        yield Way(f"a loop over the experts of {how}", lambda product=product: accumulate_loop(product))


# ---- attention ----


@ways("attention_forward", "attention_backward")
def attention(on, form):
    back = form.op == "attention_backward"
    groups = form.H // form.G
    suffix = either(form, "", BACKWARD)

    def prepare(attend):
        # As a projection leaves them.
        q = on.normal(form.B, form.S, form.H, form.C, grad=back)
        k, v = (on.normal(form.B, form.S, form.G, form.C, grad=back) for _ in range(2))
        heads = [x.transpose(1, 2) for x in (q, k, v)]
        if not back:
            return Prepared(lambda: attend(*heads), [q, k, v, q])
        out = attend(*heads)
        return through_graph([out], [q, k, v], [on.normal(form.B, form.S, form.H, form.C).transpose(1, 2)])

    def sdpa(backend, expanded, mask=None):
        from torch.nn.attention import SDPBackend, sdpa_kernel

        chosen = getattr(SDPBackend, backend)
        grouped = {"enable_gqa": True} if groups > 1 and not expanded else {}
        band = mask() if mask else None

        def attend(q, k, v):
            if expanded:
                k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
            with sdpa_kernel(chosen):
                return F.scaled_dot_product_attention(q, k, v, attn_mask=band, is_causal=band is None, **grouped)

        return prepare(attend)

    def band():
        at = torch.arange(form.S, device=on.device)
        behind = at[:, None] - at
        return (behind >= 0) & (behind < form.window)

    def flex():
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        def seen(batch, head, query, key):
            causal = query >= key
            return causal & (query - key < form.window) if form.window else causal

        blocks = create_block_mask(seen, None, None, form.S, form.S, device=on.device)
        fast = compiled(flex_attention)
        return prepare(lambda q, k, v: fast(q, k, v, block_mask=blocks, enable_gqa=groups > 1))

    if form.window:
        yield Way(f"F.scaled_dot_product_attention, efficient, mask of the window, heads expanded{suffix}",
                  lambda: sdpa("EFFICIENT_ATTENTION", True, band))
    else:
        heads = ", enable_gqa" if groups > 1 else ""
        backends = [("FLASH_ATTENTION", "flash"), ("CUDNN_ATTENTION", "cudnn")]
        if on.dtype == torch.float32:  # which those two do not compute on a GPU
            backends = [("EFFICIENT_ATTENTION", "efficient"), *backends[:1]]
        for backend, how in backends:
            way = Way(f"F.scaled_dot_product_attention, {how}{heads}{suffix}",
                      lambda backend=backend: sdpa(backend, False))
            if groups > 1:
                way.instead = Way(f"F.scaled_dot_product_attention, {how}, heads expanded{suffix}",
                                  lambda backend=backend: sdpa(backend, True))
            yield way
    if on.compile_too:
        yield Way("flex_attention compiled" + suffix, flex)
