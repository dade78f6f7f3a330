"""A layer of transformers' Mixtral, forward and backward; and its whole training step."""

from contextlib import nullcontext
from dataclasses import replace

import torch
import transformers

from peers.forms import SKEWED, model_of, shared_out
from peers.report import Measurement


def config_of(model, length, experts):
    return transformers.MixtralConfig(
        vocab_size=model.vocabulary,
        hidden_size=model.hidden,
        intermediate_size=model.intermediate,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        num_local_experts=model.experts,
        num_experts_per_tok=model.chosen,
        max_position_embeddings=max(length, 4096),
        sliding_window=None,
        output_router_logits=True,
        router_aux_loss_coef=0.02,
        use_cache=False,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
        experts_implementation=experts,
    )


def made(kind, model, length, device, dtype, experts="grouped_mm"):
    """transformers' model with weights as training begins with them, made where it will run."""
    config = config_of(model, length, experts)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            built = kind(config).train()
    finally:
        torch.set_default_dtype(before)
    # transformers falls back without a word where it does not know an implementation.
    for wanted, found in ((experts, built.config._experts_implementation), ("sdpa", built.config._attn_implementation)):
        if wanted != found:
            raise RuntimeError(f"asked for {wanted}, but this transformers runs {found}")
    for name, parameter in built.named_parameters():
        if parameter.dtype != dtype or parameter.device.type != device.type:
            raise RuntimeError(f"{name} is {parameter.dtype} on {parameter.device}")
    return built


class NoFallback:
    """transformers computes the experts in a loop, without a word, where torch's grouped_mm does not take them."""

    def __enter__(self):
        try:
            from transformers.integrations import moe
        except ImportError:
            moe = None
        self.module = moe if hasattr(moe, "_can_use_grouped_mm") else None
        if self.module:
            self.asked = self.module._can_use_grouped_mm
            self.module._can_use_grouped_mm = self.ask
        return self

    def ask(self, *arguments, **more):
        if not self.asked(*arguments, **more):
            raise RuntimeError("this transformers does not run its grouped_mm here, but a loop in its place")
        return True

    def __exit__(self, *_):
        if self.module:
            self.module._can_use_grouped_mm = self.asked


# ---- one layer ----


class Routing:
    """Column 0 of x is the same large number for all tokens and serves the router alone: what the gate has there is a
    preference for each expert."""

    def __init__(self, layer, chosen):
        self.chosen = chosen
        self.gate = layer.mlp.gate
        attention = layer.self_attn
        # Through attention it would come to all columns.
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight[:, 0] = 0

    def gate_input(self, run):
        """What the gate is given by that run of the layer."""
        given = []
        hook = self.gate.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0].detach()))
        try:
            run()
        finally:
            hook.remove()
        return given[0].flatten(0, -2)

    def rows(self, run):
        logits = torch.nn.functional.linear(self.gate_input(run), self.gate.weight)
        return self.counts(logits.float()).tolist()

    def counts(self, logits):
        chosen = logits.topk(self.chosen, dim=-1).indices.flatten()
        return torch.bincount(chosen, minlength=logits.shape[-1])

    def choose(self, routing, run):
        if routing == "drawn":
            return
        self.gate.weight[:, 0] = 0
        if routing == "even":
            return
        x = self.gate_input(run)
        logits = torch.nn.functional.linear(x, self.gate.weight).float()
        wanted = torch.tensor(shared_out(logits.shape[0] * self.chosen, SKEWED), device=x.device).clamp(min=1)
        # An expert's share grows with its preference over the spread of the logits.
        spread = logits.std(dim=0).mean()
        preference = spread * (wanted / wanted.sum()).log() / 2
        nearest, distance = preference, None
        for turn in range(200):
            found = self.counts(logits + preference)
            away = (found - wanted).abs().sum().item()
            if distance is None or away < distance:
                nearest, distance = preference, away
            preference = preference + spread * (wanted.log() - found.clamp(min=1).log()) / (4 + turn / 10)
        self.gate.weight[:, 0] = ((nearest - nearest.mean()) / x[:, 0].float().mean()).to(self.gate.weight.dtype)


def block(options, meter):
    model = model_of(options.model)
    tokens = options.sequences * options.seq
    label = dict(what="block", who="transformers", model=options.model, dtype="bf16", device=meter.name(), tokens=tokens,
                 sequences=options.sequences, seq=options.seq, routing=options.routing)

    def measure(compiled):
        torch.manual_seed(1)
        # With a vocabulary that takes no memory: only the layer is run.
        small = replace(model, vocabulary=16)
        whole = made(transformers.MixtralModel, small, options.seq, meter.device, torch.bfloat16)
        layer, rotary = whole.layers[0], whole.rotary_emb
        x = torch.randn(options.sequences, options.seq, model.hidden, device=meter.device, dtype=torch.bfloat16)
        x[:, :, 0] = model.hidden**0.5 / 2
        x.requires_grad_()
        dy = torch.randn_like(x)
        positions = torch.arange(options.seq, device=meter.device).unsqueeze(0)
        with torch.no_grad():
            angles = rotary(x, positions)
        call = torch.compile(layer) if compiled else layer

        def run(layer):
            out = layer(x, position_embeddings=angles, attention_mask=None, position_ids=positions)
            return out[0] if isinstance(out, tuple) else out

        with torch.no_grad(), NoFallback():
            routing = Routing(layer, model.chosen)
            routing.choose(options.routing, lambda: run(layer))
            rows = routing.rows(lambda: run(layer))
        out = None

        def forward():
            nonlocal out
            x.grad = None
            out = run(call)

        def backward():
            nonlocal out
            out.backward(dy)
            out = None

        def both():
            forward()
            backward()

        both()  # makes the gradients, to which the others add
        peak = meter.peak_mib(both)
        timing = meter.measure(forward, backward)
        seconds = sum(timing.seconds)
        tflops = 3e-12 * tokens * model.layer_flops(options.seq) / seconds
        full = 3e-12 * tokens * model.layer_flops(options.seq, 4) / seconds
        return dict(
            rows=rows,
            forward_us=round(1e6 * timing.seconds[0], 1),
            backward_us=round(1e6 * timing.seconds[1], 1),
            tflops=round(tflops, 3),
            tflops_full_attention=round(full, 3),
            share=round(tflops / timing.product_tflops, 3),
            **timing.beside(),
            peak_device_memory_mib=peak,
            **versions(),
        )

    measurements = [Measurement(label | dict(how="grouped_mm, sdpa, eager"), lambda: measure(False))]
    if options.compile:
        measurements.append(Measurement(label | dict(how="grouped_mm, sdpa, compiled"), lambda: measure(True)))
    return measurements


# ---- a training step ----


def step(options, meter):
    model = model_of(options.model, options.layers)
    tokens = options.sequences * options.seq
    label = dict(what="step", who="transformers", model=options.model, layers=options.layers, device=meter.name(),
                 tokens=tokens, sequences=options.sequences, seq=options.seq)

    def measure(dtype, experts, compiled, checkpoint):
        torch.manual_seed(1)
        built = made(transformers.MixtralForCausalLM, model, options.seq, meter.device, dtype, experts)
        if checkpoint:
            built.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        parameters = list(built.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), fused=True)
        forward = torch.compile(built) if compiled else built
        ids, labels = torch.randint(model.vocabulary, (2, options.sequences, options.seq), device=meter.device).unbind()

        def once():
            mixed = dtype == torch.float32
            with torch.autocast(meter.device.type, torch.bfloat16) if mixed else nullcontext():
                loss = forward(input_ids=ids, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        with nullcontext() if compiled else NoFallback():
            once()  # makes the moments
        peak = meter.peak_mib(once)
        timing = meter.measure(once)
        seconds = timing.seconds[0]
        tflops = 1e-12 * tokens * model.token_flops(options.seq) / seconds
        return dict(
            parameters=sum(parameter.numel() for parameter in parameters),
            step_us=round(1e6 * seconds, 1),
            tokens_per_sec=round(tokens / seconds, 1),
            tflops=round(tflops, 3),
            tflops_full_attention=round(1e-12 * tokens * model.token_flops(options.seq, 4) / seconds, 3),
            share=round(tflops / timing.product_tflops, 3),
            **timing.beside(),
            peak_device_memory_mib=peak,
            **versions(),
        )

    measurements = []

    def add(how, *arguments):
        measurements.append(Measurement(label | dict(how=how), lambda: measure(*arguments)))

    # Under autocast torch.nn.functional.linear computes in bf16. Whether grouped_mm does is a matter of torch's version:
    # where it does not, the experts of the loop are the fast ones.
    kinds = [("bf16 weights and moments, grouped_mm", torch.bfloat16, "grouped_mm"),
             ("f32 weights under autocast to bf16, grouped_mm", torch.float32, "grouped_mm"),
             ("f32 weights under autocast to bf16, experts in a loop", torch.float32, "eager")]
    for how, dtype, experts in kinds:
        add(how, dtype, experts, False, False)
    if options.checkpoint:
        for how, dtype, experts in kinds[:2]:
            add(how + ", gradient checkpointing", dtype, experts, False, True)
    if options.compile:
        add(kinds[0][0] + ", compiled", *kinds[0][1:], True, False)
    return measurements


def versions():
    return dict(torch=torch.__version__, transformers=transformers.__version__)
