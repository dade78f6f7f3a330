#!/usr/bin/env python3
"""Writes added_tokens.json: ids that transformers gives to texts under tokenizers whose directory adds tokens.

The vocabulary is a byte pair encoding with byte fallback, learned here from made-up text. It is turned into a tokenizer
as AutoTokenizer turns a Mixtral directory's tokenizer.model and tokenizer_config.json into one:
SpmConverter.build_tokenizer_from_spm_proto and TokenizersBackend. Neither sentencepiece nor protobuf is needed, as the
fields of the model that they would read are stated here.

Seven more have a tokenizer.json, whose steps then count and not the key "legacy": what transformers 5 saves, what its
LlamaTokenizer makes, and what transformers 4 made of a tokenizer.model.

The file holds: "pieces", those after unk, bos, eos and the 256 bytes (piece i has the score -i); "model", the
vocabulary and the merges that every tokenizer.json has; "texts"; and for each of "tokenizers" its tokenizer_config.json,
its tokenizer.json without these two where it has one, and the ids of every text.
"""

import argparse
import json
import random
from pathlib import Path
from types import SimpleNamespace as Fields

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AddedToken, LlamaTokenizer
from transformers.convert_slow_tokenizer import SpmConverter
from transformers.tokenization_utils_tokenizers import TokenizersBackend

BYTES = [f"<0x{b:02X}>" for b in range(256)]
SPECIAL = ["<unk>", "<s>", "</s>"]
WORDS = ("the quick brown fox user assistant system hello world how are you today I am fine thanks tool call "
         "résumé naïve Übung 日本 語 the then there an and").split()


def learn_pieces(count):
    """Characters of the text by frequency, then merges in the order in which they are learned."""
    rng = random.Random(1)
    text = [" ".join(rng.choices(WORDS, k=12)) + rng.choice([".", "\n", "!", " 42"]) for _ in range(400)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(vocab_size=count, show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    pieces = [piece for piece, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    merged = [p for p in pieces if len(p) > 1]
    return merged + ["▁" * n for n in (2, 4)] + [p for p in pieces if len(p) == 1]


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} | flags


def configurations(size):
    restated = {str(i): token(content) for i, content in enumerate(SPECIAL)}
    chat = {str(size): token("<|im_end|>"), str(size + 1): token("<|im_start|>")}
    tools = {str(size + 2): token("<tool>", special=False, normalized=True), str(size + 3): token("<tool_call>", special=False)}
    strips = {str(size): token("<mask>", lstrip=True), str(size + 1): token("[/INST]", rstrip=True),
              str(size + 2): token("<pad>", lstrip=True, rstrip=True), str(size + 3): token("[INST]", special=False)}
    base = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "unk_token": "<unk>"}
    return {
        "chatml": base | {"legacy": True, "eos_token": "<|im_end|>", "added_tokens_decoder": restated | chat},
        "chatml, not legacy": base | {"legacy": False, "eos_token": "<|im_end|>", "added_tokens_decoder": restated | chat},
        "overlapping": base | {"legacy": True, "eos_token": "</s>", "added_tokens_decoder": restated | chat | tools},
        "stripping": base | {"legacy": True, "eos_token": "</s>", "added_tokens_decoder": restated | strips},
        "stripping, not legacy": base | {"legacy": False, "eos_token": "</s>", "added_tokens_decoder": restated | strips},
        "nothing added": base | {"legacy": True, "eos_token": "</s>", "added_tokens_decoder": restated},
        "nothing added, not legacy": base | {"legacy": False, "eos_token": "</s>", "added_tokens_decoder": restated},
    }


def texts(configs):
    contents = sorted({entry["content"] for config in configs.values() for entry in config["added_tokens_decoder"].values()} - set(SPECIAL))
    fixed = [
        "", " ", "  ", "\n", "hello world", " hello", "  hello  world ", "▁hello", "日本語 naïve 😀\t\n", "the42 and",
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nI am fine, thanks!<|im_end|>\n",
        "<|im_start|>system\n\nyou are a tool<|im_end|>", "hello<|im_end|>", "<|im_end|> hello", "<|im_end|>hello",
        "<|im_end|><|im_end|>", " <|im_end|> ", "<|im_end|", "<|im_<|im_end|>", "<tool", "<tool>", "<tool_call>x", "<tool_cal>",
        "<<tool>>", "a <mask> b", "a  \t\n<mask>b", "<mask>  <mask>", "x<pad>\u3000\u00a0 y", "[INST] hello [/INST] \n fine",
        "[/INST]  ", "  <mask>", "[INST][/INST]<mask><pad>",
    ]
    rng = random.Random(2)
    parts = contents + WORDS + [" ", " ", "  ", "\n", "\t", "▁", ".", "<", "|", "<|", "[", "7", "é", "\u2003", "日"]
    drawn = ["".join(rng.choices(parts, k=rng.randint(2, 9))) for _ in range(80)]
    return fixed + drawn


def added_tokens(config):
    """As TokenizersBackend._convert_from_sentencepiece makes them: matched on the raw text."""
    return {int(i): AddedToken(**(entry | {"normalized": False})) for i, entry in config["added_tokens_decoder"].items()}


def build(config, pieces, normalizer=None):
    vocabulary = {piece: i for i, piece in enumerate(SPECIAL + BYTES + pieces)}
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))]
    proto = Fields(
        pieces=[Fields(piece=p, score=s, type=k) for p, s, k in zip(vocabulary, scores, kinds)],
        trainer_spec=Fields(byte_fallback=True, unk_piece="<unk>", unk_id=0),
        normalizer_spec=Fields(precompiled_charsmap=b"", add_dummy_prefix=True, remove_extra_whitespaces=False, escape_whitespaces=True),
    )
    made = SpmConverter.build_tokenizer_from_spm_proto(proto=proto, vocab=vocabulary, legacy=config["legacy"])
    if normalizer:
        made.normalizer = normalizer
        made.pre_tokenizer = pre_tokenizers.Sequence([])
    return TokenizersBackend(tokenizer_object=made, added_tokens_decoder=added_tokens(config), bos_token="<s>", unk_token="<unk>",
                             eos_token=config["eos_token"])


def llama(config, pieces):
    made = json.loads(build(config, pieces).backend_tokenizer.to_str())["model"]
    return LlamaTokenizer(vocab=made["vocab"], merges=[tuple(m) for m in made["merges"]], legacy=config["legacy"],
                          added_tokens_decoder=added_tokens(config), bos_token="<s>", unk_token="<unk>", eos_token=config["eos_token"])


def with_tokenizer_json(configs, pieces):
    """(name, tokenizer_config.json as transformers 5 saves it, tokenizer) of the directories that have a tokenizer.json."""
    saved = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "bos_token": "<s>", "unk_token": "<unk>"}
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    for name, of, make in [("saved by transformers 5", "chatml", build), ("saved by transformers 5, not legacy", "stripping, not legacy", build),
                           ("LlamaTokenizer of transformers 5", "chatml", llama), ("LlamaTokenizer of transformers 5, not legacy", "chatml, not legacy", llama),
                           ("saved by transformers 5, nothing added", "nothing added", build),
                           ("saved by transformers 5, nothing added, not legacy", "nothing added, not legacy", build),
                           ("saved by transformers 4", "stripping", lambda config, made_of: build(config, made_of, prepend))]:
        yield name, saved | {"eos_token": configs[of]["eos_token"]}, make(configs[of], pieces)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("added_tokens.json"))
    arguments = parser.parse_args()

    pieces = learn_pieces(220)
    assert len(set(pieces)) == len(pieces)
    size = 259 + len(pieces)
    configs = configurations(size)
    samples = texts(configs)
    tokenizers, model = [], None
    cases = [(name, config, build(config, pieces), False) for name, config in configs.items()]
    cases += [(*case, True) for case in with_tokenizer_json(configs, pieces)]
    for name, config, tokenizer, has_json in cases:
        for i, entry in config.get("added_tokens_decoder", {}).items():
            assert tokenizer.convert_tokens_to_ids(entry["content"]) == int(i), (name, i, entry)
        whole = json.loads(tokenizer.backend_tokenizer.to_str())
        large = {key: whole["model"].pop(key) for key in ("vocab", "merges")}
        assert model in (None, large), name
        model = large
        steps = {key: whole[key] for key in ("version", "added_tokens", "normalizer", "pre_tokenizer", "model")}
        tokenizers.append({"name": name, "config": config, "tokenizer_json": steps if has_json else None, "vocab_size": len(tokenizer),
                           "eos": tokenizer.eos_token_id, "ids": [tokenizer.encode(text, add_special_tokens=False) for text in samples]})
    lines = ['{"pieces": ' + json.dumps(pieces) + ',', ' "model": ' + json.dumps(model) + ',', ' "texts": [']
    lines += ["  " + json.dumps(text) + ("," if i + 1 < len(samples) else "],") for i, text in enumerate(samples)]
    lines.append(' "tokenizers": [')
    for i, entry in enumerate(tokenizers):
        head = {key: value for key, value in entry.items() if key != "ids"}
        lines.append("  " + json.dumps(head)[:-1] + ', "ids": [')
        lines += ["   " + json.dumps(ids) + ("," if j + 1 < len(samples) else "]}" + ("," if i + 1 < len(tokenizers) else "]}"))
                  for j, ids in enumerate(entry["ids"])]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    json.loads(arguments.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
