#!/usr/bin/env python3
"""Times one training step of the Mixtral in transformers on the CPU, at the shape that step_bench times.

    transformers_step.py [--batch 4] [--seq 512] [--threads N] [--steps 7] [--experts grouped_mm|eager]
                         [--compile] [--fused-adamw]

A step is forward, loss with the balance loss, backward, clip to norm 1, AdamW, gradients cleared; float32, attention
through SDPA. Prints one JSON line. The machine's sgemm rate (2048^3) is taken between the steps, as step_bench does.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time

# 123.5M parameters; the defaults of model/model_config.h.
SHAPE = dict(
    vocab_size=32000,
    hidden_size=512,
    intermediate_size=1792,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=2,
    num_local_experts=8,
    num_experts_per_tok=2,
)
GEMM_SIZE = 2048


def parse():
    parser = argparse.ArgumentParser(description="times a training step of transformers' Mixtral")
    parser.add_argument("--batch", type=int, default=4, help="sequences a step")
    parser.add_argument("--seq", type=int, default=512, help="tokens a sequence")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", type=int, default=7, help="timed steps, after two that are not")
    parser.add_argument("--experts", choices=["grouped_mm", "eager"], default="grouped_mm")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model: about a minute before the first step")
    parser.add_argument("--fused-adamw", action="store_true")
    return parser.parse_args()


def forward_flops_per_token(sequence_length):
    """As model/mixtral.cpp counts: products only, attention over the keys that causality leaves."""
    hidden, heads = SHAPE["hidden_size"], SHAPE["num_attention_heads"]
    key_value = hidden // heads * SHAPE["num_key_value_heads"]
    projections = 2 * hidden * (hidden + 2 * key_value) + 2 * hidden * hidden
    attention = 2 * sequence_length * hidden
    router = 2 * hidden * SHAPE["num_local_experts"]
    experts = SHAPE["num_experts_per_tok"] * 6 * hidden * SHAPE["intermediate_size"]
    lm_head = 2 * hidden * SHAPE["vocab_size"]
    return SHAPE["num_hidden_layers"] * (projections + attention + router + experts) + lm_head


def timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main():
    start = time.perf_counter()
    options = parse()
    try:
        import torch
        import transformers
    except ImportError as error:
        sys.exit(f"transformers_step.py: {error}; it needs torch and transformers (tests/goldens/requirements.txt)")

    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    config = transformers.MixtralConfig(
        **SHAPE,
        max_position_embeddings=4096,
        sliding_window=None,
        output_router_logits=True,
        router_aux_loss_coef=0.02,
        use_cache=False,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
        experts_implementation=options.experts,
    )
    model = transformers.MixtralForCausalLM(config).float().train()
    # transformers falls back without a word where it does not know an implementation.
    for wanted, found in ((options.experts, model.config._experts_implementation), ("sdpa", model.config._attn_implementation)):
        if wanted != found:
            sys.exit(f"transformers_step.py: asked for {wanted}, but this transformers runs {found}")
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), fused=options.fused_adamw)
    forward = torch.compile(model) if options.compile else model
    ids, labels = torch.randint(SHAPE["vocab_size"], (2, options.batch, options.seq)).unbind()

    def step():
        forward(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    left, right = torch.rand(2, GEMM_SIZE, GEMM_SIZE).unbind()
    product = torch.empty(GEMM_SIZE, GEMM_SIZE)

    def sgemm_gflops():
        return 2e-9 * GEMM_SIZE**3 / timed(lambda: torch.mm(left, right.T, out=product))

    step()
    first_step = time.perf_counter() - start
    step()
    seconds, rates = [], []
    for _ in range(options.steps):
        sgemm_gflops()  # the first product after a step pays for cold caches
        rates += [sgemm_gflops() for _ in range(3)]
        seconds.append(timed(step))

    tokens = options.batch * options.seq
    median, rate = statistics.median(seconds), statistics.median(rates)
    gflops = 3e-9 * forward_flops_per_token(options.seq) * tokens / median
    result = dict(
        what="transformers",
        experts=options.experts,
        compile=options.compile,
        fused_adamw=options.fused_adamw,
        parameters=sum(parameter.numel() for parameter in parameters),
        batch=options.batch,
        seq=options.seq,
        threads=options.threads,
        tokens_per_sec=round(tokens / median, 1),
        best_tokens_per_sec=round(tokens / min(seconds), 1),
        gflops=round(gflops, 1),
        sgemm_gflops=round(rate, 1),
        share_of_sgemm=round(gflops / rate, 3),
        peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        first_step_s=round(first_step, 2),
        torch=torch.__version__,
        transformers=transformers.__version__,
        python=sys.version.split()[0],
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
