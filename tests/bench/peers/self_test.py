"""What of gpu_peers.py can be held against numbers worked out by hand; needs no torch."""

from peers.forms import FORMS, MODELS, SKEWED, WITHOUT_EQUIVALENT, bound, expert_rows, model_of, parse, shared_out
from peers.report import Deadline, Report, first_line

READ = [
    ("gemm", "nt qkv: [8192, 4096] [6144, 4096] to [8192, 6144]",
     dict(kind="nt", name="qkv", a=(8192, 4096), b=(6144, 4096), c=(8192, 6144))),
    ("gemm", "nn qkv: [8192, 6144] [6144, 4096] to [8192, 4096]",
     dict(kind="nn", name="qkv", a=(8192, 6144), b=(6144, 4096), c=(8192, 4096))),
    ("gemm", "tn lm_head_chunk: [256, 32000] [256, 512] to [32000, 512]",
     dict(kind="tn", name="lm_head_chunk", a=(256, 32000), b=(256, 512), c=(32000, 512))),
    ("grouped_gemm", "nt w13: [16384, 4096] [8, 28672, 4096] to [16384, 28672]",
     dict(kind="nt", name="w13", a=(16384, 4096), b=(8, 28672, 4096), c=(16384, 28672))),
    ("grouped_gemm", "nn w13_skewed: [16384, 28672] [8, 28672, 4096] to [16384, 4096]",
     dict(kind="nn", name="w13_skewed", a=(16384, 28672), b=(8, 28672, 4096), c=(16384, 4096))),
    ("grouped_gemm", "tn w2: [16384, 4096] [16384, 14336] to [8, 4096, 14336]",
     dict(kind="tn", name="w2", a=(16384, 4096), b=(16384, 14336), c=(8, 4096, 14336))),
    ("attention_forward", "B1 S4096 H32 G8 C128", dict(B=1, S=4096, H=32, G=8, C=128, window=0)),
    ("attention_backward", "B2 S2048 H8 G2 C64 window 256", dict(B=2, S=2048, H=8, G=2, C=64, window=256)),
    ("rms_norm_forward", "T8192 D4096", dict(T=8192, D=4096)),
    ("rms_norm_backward", "T8192 D4096", dict(T=8192, D=4096)),
    ("swiglu_forward", "R16384 F14336", dict(R=16384, F=14336)),
    ("swiglu_backward", "R16384 F14336", dict(R=16384, F=14336)),
    ("adamw", "n58720256", dict(n=58720256)),
    ("copy", "n1048576", dict(n=1048576)),
    ("fill", "n1048576", dict(n=1048576)),
    ("add", "n1048576", dict(n=1048576)),
    ("sum_of_squares", "n1048576", dict(n=1048576)),
    ("cross_entropy_statistics", "N256 V32000", dict(N=256, V=32000)),
    ("cross_entropy_backward", "N256 V32000", dict(N=256, V=32000)),
    ("embedding_forward", "T2048 V32000 D512", dict(T=2048, V=32000, D=512)),
    ("embedding_backward", "T2048 V32000 D512", dict(T=2048, V=32000, D=512)),
    ("rope_forward", "T8192 heads 40 of 48 C128", dict(T=8192, rotated=40, heads=48, C=128)),
    ("rope_backward", "T2048 heads 10 of 12 C64", dict(T=2048, rotated=10, heads=12, C=64)),
    ("router_forward", "T8192 E8 K2", dict(T=8192, E=8, K=2, sigmoids=False, biased=False)),
    ("router_forward", "T2048 E8 K2 sigmoids biased", dict(T=2048, E=8, K=2, sigmoids=True, biased=True)),
    ("router_backward", "T2048 E8 K2 biased", dict(T=2048, E=8, K=2, sigmoids=False, biased=True)),
    ("routing_map", "T2048 E8 K2 D512", dict(T=2048, E=8, K=2, D=512)),
    ("permute", "T2048 E8 K2 D512", dict(T=2048, E=8, K=2, D=512)),
    ("unpermute", "T2048 E8 K2 D512", dict(T=2048, E=8, K=2, D=512)),
]

REFUSED = [
    ("convolution", "T8 D8"),
    ("gemm", "tt qkv: [8, 4] [6, 4] to [8, 6]"),
    ("gemm", "nt qkv: [8, 4] [6, 5] to [8, 6]"),
    ("gemm", "nn qkv: [8, 4] [6, 4] to [8, 6]"),
    ("gemm", "tn qkv: [8, 4] [8, 6] to [6, 4]"),
    ("gemm", "nt qkv: [8, 4] [2, 6, 4] to [8, 6]"),
    ("gemm", "nt qkv: [8, 4] [6, 4]"),
    ("grouped_gemm", "nt w13: [8, 4] [6, 4] to [8, 6]"),
    ("grouped_gemm", "nt w13: [8, 4] [2, 6, 5] to [8, 6]"),
    ("grouped_gemm", "tn w13: [8, 4] [8, 6] to [2, 6, 4]"),
    ("attention_forward", "B1 S4096 H32 G8"),
    ("attention_forward", "B1 S4096 H32 G5 C128"),
    ("attention_forward", "B1 S4096 H32 G8 C128 window"),
    ("attention_forward", "B1 S4096 H32 G8 C128 sinks"),
    ("rms_norm_forward", "D4096 T8192"),
    ("rope_forward", "T8 heads 8 of 8 C16"),
    ("rope_forward", "T8 heads 6 of 8 C15"),
    ("adamw", "n"),
    ("router_forward", "T8 E8 K2 biased sigmoids"),
    ("swiglu_forward", ""),
]


def self_test():
    """None, or AssertionError with what is wrong."""
    for op, shape, said in READ:
        form = parse(op, shape)
        assert form.op == op and form.said == said, (op, shape, form.said)
    assert {op for op, _, _ in READ} == set(FORMS), "a form that is read nowhere here"
    assert not WITHOUT_EQUIVALENT & set(FORMS)
    for op, shape in REFUSED:
        try:
            form = parse(op, shape)
        except ValueError as error:
            assert op in str(error), (op, shape, str(error))
        else:
            raise AssertionError((op, shape, "was read as", form.said))

    # Rows of the experts.
    skewed = parse("grouped_gemm", "nn w13_skewed: [16384, 28672] [8, 28672, 4096] to [16384, 4096]")
    assert expert_rows(skewed) == [5600, 3600, 2800, 2000, 1200, 800, 360, 24], expert_rows(skewed)
    gradient = parse("grouped_gemm", "tn w13_skewed: [4096, 3584] [4096, 512] to [8, 3584, 512]")
    assert expert_rows(gradient) == list(SKEWED)
    assert expert_rows(parse("grouped_gemm", "tn w2: [10, 4] [10, 6] to [4, 4, 6]")) == [3, 3, 2, 2]
    assert sum(shared_out(97, SKEWED)) == 97
    try:
        expert_rows(parse("grouped_gemm", "nt w13_skewed: [8, 4] [4, 6, 4] to [8, 6]"))
    except ValueError:
        pass
    else:
        raise AssertionError("skewed rows of four experts")

    # What an op is held against: by its work where that is said, else by its name.
    assert bound("gemm", 2.0 * 8192 * 4096 * 8, 2.0 * (8192 * 4096 + 8 * 4096 + 8192 * 8)) == "memory"  # the router's
    assert bound("gemm") == bound("attention_backward") == bound("grouped_gemm", 1700.0, 100.0) == "matrix"
    assert bound("rms_norm_forward") == bound("adamw", 14.0, 32.0) == bound("swiglu_forward", 16.0, 1.0) == "memory"

    # Operations of a token of Mixtral 8x7B at 4096, term by term: h 4096, kv 1024, ff 14336, E 8, k 2, V 32000.
    layer = 50_331_648 + 33_554_432 + 65_536 + 704_643_072  # 2h(h+2kv) + 2h^2 + 2hE + k*6*h*ff
    causal, pairs = 33_554_432, 67_108_864  # 2*S*h, 4*S*h
    model = MODELS["8x7b"]
    assert model.layer_flops(4096) == layer + causal == 822_149_120
    assert model.layer_flops(4096, 4) == layer + pairs
    assert model.token_flops(4096) == 3 * (layer + causal + 262_144_000)
    assert model_of("8x7b", 32).token_flops(4096) == 3 * (32 * (layer + causal) + 262_144_000)  # docs/scaling.md: 79.7 G
    assert round(model_of("8x7b", 32).token_flops(4096) / 1e9, 1) == 79.7
    assert round(model_of("8x22b", 56).layer_flops(4096) / 1e9, 3) == 1.435

    # What is left out is said, once; an error's first line is all of it.
    lines = []
    report = Report(lines.append)
    report.line({"op": "gemm"})
    report.close(3)
    report.close(5)
    assert lines == ['{"op": "gemm"}', '{"left_out": 3}'], lines
    assert first_line(ValueError("\n  one\ntwo")) == "ValueError: one"
    assert first_line(KeyError()) == "KeyError"
    assert Deadline(0).passed() and not Deadline(1000).passed()
