#!/usr/bin/env python3
"""Logits of a small Llama and a small Mistral by transformers, that smoe's upcycled models are held to. See README.md beside
this file.

make_dense_goldens.py             writes dense.safetensors into this folder
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

HERE = Path(__file__).resolve().parent
SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=64, rms_norm_eps=1e-5, attn_implementation="eager")
MODELS = {
    # One embedding for both ends, and positions past those that the scaling stretches.
    "llama": LlamaForCausalLM(LlamaConfig(
        **SHAPE, num_key_value_heads=2, tie_word_embeddings=True,
        rope_parameters={"rope_theta": 1e4, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0.25,
                         "high_freq_factor": 2.0, "original_max_position_embeddings": 16})),
    # A window shorter than the sequence, and heads that do not add up to the hidden size.
    "mistral": MistralForCausalLM(MistralConfig(
        **SHAPE, num_key_value_heads=1, head_dim=12, sliding_window=5, tie_word_embeddings=False,
        rope_parameters={"rope_theta": 1e3, "rope_type": "default"})),
}


def main():
    random = torch.Generator().manual_seed(16)
    ids = torch.randint(0, SHAPE["vocab_size"], (1, 29), generator=random)
    tensors, configs = {"ids": ids.to(torch.int32)}, {}
    for name, model in MODELS.items():
        for key, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=random)
            weight.data = 1 + 0.1 * noise if "norm" in key else 0.25 * noise
            tensors[f"{name}.weight.{key}"] = weight.data.clone()
        with torch.no_grad():  # in float64, of the float32 weights
            logits = model.double().eval()(input_ids=ids, use_cache=False).logits
        tensors[f"{name}.logits"] = logits.float().contiguous()
        configs[name] = {key: value for key, value in model.config.to_dict().items()
                         if key in {*SHAPE, "model_type", "architectures", "num_key_value_heads", "head_dim", "sliding_window",
                                    "tie_word_embeddings", "rope_parameters", "hidden_act"}}
    save_file(tensors, HERE / "dense.safetensors",
              metadata={"configs": json.dumps(configs, sort_keys=True), "torch": torch.__version__,
                        "transformers": transformers.__version__})
    print({name: round(tensors[f"{name}.logits"].abs().max().item(), 2) for name in MODELS})


if __name__ == "__main__":
    main()
