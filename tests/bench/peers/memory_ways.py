"""What torch offers for the ops that are bound by memory."""

import torch
import torch.nn.functional as F

from peers.ways import BACKWARD, Prepared, Way, compiled, either, through_graph, ways

# ---- elementwise, reductions, the update ----


@ways("copy", "fill", "add", "sum_of_squares")
def elementwise(on, form):
    def prepare():
        if form.op == "sum_of_squares":
            x = on.f32(form.n)
            return Prepared(lambda: torch.linalg.vector_norm(x), [x])
        a, out = on.normal(form.n), on.empty(form.n)
        if form.op == "fill":
            return Prepared(lambda: out.fill_(0.25), [out])
        if form.op == "copy":
            return Prepared(lambda: out.copy_(a), [a, out])
        b = on.normal(form.n)
        return Prepared(lambda: torch.add(a, b, out=out), [a, b, out])

    how = {"copy": "copy_", "fill": "fill_", "add": "torch.add", "sum_of_squares": "torch.linalg.vector_norm"}
    yield Way(how[form.op], prepare)


@ways("adamw")
def adamw(on, form):
    def prepare(dtype, whole):
        parameter = torch.nn.Parameter(on.normal(form.n, dtype=dtype))
        parameter.grad = on.normal(form.n, dtype=dtype)
        optimizer = torch.optim.AdamW([parameter], lr=1e-4, betas=(0.9, 0.95), fused=True)
        value = on.empty(form.n)

        def call():
            optimizer.step()
            if whole:
                value.copy_(parameter.detach())
                parameter.grad.zero_()

        call()
        moments = [state for state in optimizer.state[parameter].values() if torch.is_tensor(state)]
        return Prepared(call, [parameter, parameter.grad, *moments, *([value] if whole else [])])

    name = str(on.dtype).removeprefix("torch.")
    yield Way(f"torch.optim.AdamW fused of f32, then copy_ to {name} and zero_ of the gradient",
              lambda: prepare(torch.float32, True))
    yield Way("torch.optim.AdamW fused of f32, no copy, gradient left", lambda: prepare(torch.float32, False))
    if on.dtype != torch.float32:
        yield Way(f"torch.optim.AdamW fused, all in {name}, no copy, gradient left", lambda: prepare(on.dtype, False))


# ---- embedding, norm, rotary embedding ----


@ways("embedding_forward", "embedding_backward")
def embedding(on, form):
    def forward():
        ids, table = on.ids(form.T, form.V), on.normal(form.V, form.D)
        return Prepared(lambda: F.embedding(ids, table), [ids, table, table[:form.T]])

    def dense_backward():
        ids, dout = on.ids(form.T, form.V), on.normal(form.T, form.D)
        return Prepared(lambda: torch.ops.aten.embedding_dense_backward(dout, ids, form.V, -1, False), [ids, dout])

    def added():
        ids, dout, dtable = on.ids(form.T, form.V), on.normal(form.T, form.D), on.f32(form.V, form.D)
        return Prepared(lambda: dtable.index_add_(0, ids, dout.float()), [ids, dout, dtable])

    if form.op == "embedding_forward":
        yield Way("F.embedding", forward)
    else:
        yield Way("aten.embedding_dense_backward, a table of the operands' type", dense_backward)
        yield Way("index_add_ onto an f32 table", added)


@ways("rms_norm_forward", "rms_norm_backward")
def rms_norm(on, form):
    def norm(apply, add_residual=False):
        back = form.op == "rms_norm_backward"
        x, weight = on.normal(form.T, form.D, grad=back), on.normal(form.D, grad=back)
        if not back:
            return Prepared(lambda: apply(x, weight), [x, x])
        y, dy, dresidual = apply(x, weight), on.normal(form.T, form.D), on.normal(form.T, form.D)
        prepared = through_graph([y], [x, weight], [dy])
        if not add_residual:
            return prepared
        return Prepared(lambda: prepared.call()[0].add_(dresidual), [*prepared.tensors, dresidual])

    def fused(x, weight):
        return F.rms_norm(x, (form.D,), weight, 1e-5)

    def mixtral():
        from transformers.models.mixtral.modeling_mixtral import MixtralRMSNorm

        module = MixtralRMSNorm(form.D, eps=1e-5)
        del module.weight

        def apply(x, weight):
            module.weight = weight
            return module.forward(x)

        return norm(apply)

    backward = either(form, "", BACKWARD)
    yield Way("F.rms_norm" + backward, lambda: norm(fused))
    if backward:
        yield Way(f"F.rms_norm{backward}, then add_ of the residual's gradient", lambda: norm(fused, True))
    yield Way("transformers' MixtralRMSNorm eager" + backward, mixtral)


@ways("rope_forward", "rope_backward")
def rope(on, form):
    def prepare():
        from transformers.models.mixtral.modeling_mixtral import apply_rotary_pos_emb

        kv_heads = form.heads - form.rotated
        back = form.op == "rope_backward"
        # As a projection leaves them.
        q = on.normal(1, form.T, form.rotated - kv_heads, form.C, grad=back)
        k = on.normal(1, form.T, kv_heads, form.C, grad=back)
        angles = torch.rand(1, form.T, form.C, device=on.device)
        cos, sin = angles.cos().to(on.dtype), angles.sin().to(on.dtype)
        turned = apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), cos, sin)
        if back:
            return through_graph(list(turned), [q, k], [torch.randn_like(t) for t in turned])
        return Prepared(lambda: apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), cos, sin), [q, k, q, k])

    yield Way("transformers' apply_rotary_pos_emb eager" + either(form, "", BACKWARD), prepare)


# ---- router, dispatch, SwiGLU ----


@ways("router_forward", "router_backward")
def router(on, form):
    def route(logits, bias):
        scores = logits.sigmoid() if form.sigmoids else logits.softmax(-1)
        if bias is None:
            weights, experts = scores.topk(form.K)
        else:
            experts = (scores + bias).topk(form.K).indices
            weights = scores.gather(1, experts)
        return weights / weights.sum(-1, keepdim=True), experts

    def prepare():
        logits = on.f32(form.T, form.E, grad=form.op == "router_backward")
        bias = on.f32(form.E) if form.biased else None
        if form.op == "router_forward":
            return Prepared(lambda: route(logits, bias), [logits, logits])
        weights, _ = route(logits, bias)
        return through_graph([weights], [logits], [on.f32(form.T, form.K)])

    scores = "sigmoid" if form.sigmoids else "softmax"
    yield Way(f"{scores}, {'bias, ' if form.biased else ''}topk, divided by the sum{either(form, '', BACKWARD)}", prepare)


@ways("routing_map")
def routing_map(on, form):
    def prepare():
        experts = on.ids(form.T * form.K, form.E)

        def call():
            in_order, rows = torch.sort(experts)
            counted = in_order.int() if experts.is_cuda else in_order.float()  # as torch.histc takes them
            counts = torch.histc(counted, bins=form.E, min=0, max=form.E - 1)
            inverse = torch.empty_like(rows)
            inverse[rows] = torch.arange(rows.numel(), device=rows.device)
            return rows, inverse, counts.cumsum(0, dtype=torch.int32)

        return Prepared(call, [experts])

    yield Way("sort, histc, cumsum, as transformers' grouped_mm", prepare)


@ways("permute", "unpermute")
def dispatch(on, form):
    def permute():
        x, of = on.normal(form.T, form.D), on.assignments(form.T, form.K, form.E) // form.K
        return Prepared(lambda: x.index_select(0, of), [x, *[x] * form.K])

    def index_add():
        rows, of = on.normal(form.T * form.K, form.D), on.assignments(form.T, form.K, form.E) // form.K
        x = on.empty(form.T, form.D)
        return Prepared(lambda: x.zero_().index_add_(0, of, rows), [rows, x])

    def gather_and_sum():
        rows, row_of = on.normal(form.T * form.K, form.D), on.assignments(form.T, form.K, form.E).argsort()
        return Prepared(lambda: rows[row_of].view(form.T, form.K, form.D).sum(1), [rows, rows[:form.T]])

    if form.op == "permute":
        yield Way("index_select", permute)
    else:
        yield Way("zero_, index_add_", index_add)
        yield Way("indexing, sum over the chosen, as transformers' grouped_mm", gather_and_sum)


@ways("swiglu_forward", "swiglu_backward")
def swiglu(on, form):
    def product(h, weights):
        gate, up = h.chunk(2, -1)
        return F.silu(gate) * up * weights

    def prepare(apply):
        back = form.op == "swiglu_backward"
        h, weights = on.normal(form.R, 2 * form.F, grad=back), on.normal(form.R, 1, grad=back)
        if not back:
            return Prepared(lambda: apply(h, weights), [h, h[:, :form.F]])
        return through_graph([apply(h, weights)], [h, weights], [on.normal(form.R, form.F)])

    suffix = either(form, "", BACKWARD)
    yield Way("silu(gate) * up * weight eager" + suffix, lambda: prepare(product))
    if on.compile_too:
        yield Way("silu(gate) * up * weight compiled" + suffix, lambda: prepare(compiled(product)))


# ---- loss ----


@ways("cross_entropy_statistics", "cross_entropy_backward")
def cross_entropy(on, form):
    def prepare():
        back = form.op == "cross_entropy_backward"
        logits, targets = on.f32(form.N, form.V, grad=back), on.ids(form.N, form.V)
        if not back:
            return Prepared(lambda: F.cross_entropy(logits, targets, reduction="none"), [logits, targets])
        loss = F.cross_entropy(logits, targets, reduction="sum")
        return through_graph([loss], [logits], [torch.ones_like(loss)])

    yield Way("F.cross_entropy of f32 logits" + either(form, "", BACKWARD), prepare)
