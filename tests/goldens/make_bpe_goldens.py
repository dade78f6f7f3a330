#!/usr/bin/env python3
"""Writes bpe_tokenizers.json: ids that the Python package tokenizers gives to texts under tokenizer.json files.

Byte pair encodings are learned here from made-up text, one for each way in which models in use cut and rewrite texts: GPT-2's,
Llama 3's, Qwen's, GPT-4o's, SmolLM's, DeepSeek's and Mixtral's, and added tokens of every kind. Only tokenizers is needed.

The file holds "texts", and for each of "tokenizers" its name, its tokenizer.json and the ids of every text without special
tokens around it (add_special_tokens=False).
"""

import argparse
import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

WORDS = ("the quick brown fox don't I'll WE'VE they're user's assistant hello world how are you 42 2024 1234567 3.14e-8 foo_bar "
         "CamelCase def return self.x += 1; résumé naïve Übung Straße ſtaub İstanbul ΣΟΦΟΣ Привет мир مرحبا بالعالم नमस्ते दुनिया "
         "क्षि ผู้ใหญ่ 日本語 テキスト 你好世界 漢字 한국어 ﬁne ① ² Ⅳ ½ ٣٤٥ १२३ e\u0301 a\u0323\u0307 \u1100\u1161\u11a8 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ☕️ 1️⃣ "
         "... !!! => {} $x^2$ http://a.b/c?d=e ▁ Ġ <s> </s> [INST] <unk>").split()
SPACES = [" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u200b", "\u180e", "\x85", "\x0b", " \n  "]
CONTROL = ["\x00", "\x01", "\x1f", "\x7f", "\xad", "\u200e", "\ufeff", "\ufffd", "\ue000", "\U0010ffff", "\u0378"]
TOKENS = ["<|end|>", "<|im_start|>", "<mask>", "<tool>", "<tool_call>", "foo_bar", "世界", "<x>", "é"]

GPT2 = None  # built into ByteLevel
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
            r"\s*[\r\n]+|\s+(?!\S)|\s+")


def made_up(rng, count, longest):
    parts = WORDS * 4 + CONTROL
    return ["".join(rng.choice(parts) + rng.choice(SPACES + [""] * 6) for _ in range(rng.randint(1, longest))) for _ in range(count)]


def texts():
    rng = random.Random(1)
    fixed = ["", " ", "  ", "\n", " a", "a ", "a  b", "'s", "x's", "I'LL", "▁hello", " ▁", "<|end|>", "x<|end|>y", " <mask>  y", "<tool>", "<tool_call>",
             "<tool_cal", "foo_bar", "xfoo_bar", "foo_bars", "世界", "你好 世界 ", "e\u0301", "é<|im_start|>é"]
    runs = [c * n for n in (2, 3, 60, 120) for c in (" ", "\n", "a", "1", "é", "你", "🙂", " a", "\n ", ".")]
    drawn = made_up(rng, 260, 12)
    pool = WORDS + SPACES + TOKENS * 3
    around = ["".join(rng.choices(pool, k=rng.randint(2, 9))) for _ in range(120)]
    return fixed + runs + drawn + around


def byte_level(normalizer, steps, size=520, ignore_merges=False, added=()):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>", "<|im_start|>"],
                                  show_progress=False)
    tokenizer.train_from_iterator(made_up(random.Random(2), 400, 20), trainer)
    tokenizer.add_tokens(list(added))
    document = json.loads(tokenizer.to_str())
    document["model"]["ignore_merges"] = ignore_merges
    return document


def of_characters(normalizer, pre_tokenizer, decoder, byte_fallback=True):
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    learner.train_from_iterator(made_up(random.Random(3), 400, 20), trainers.BpeTrainer(vocab_size=300, limit_alphabet=90, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    pieces = [p for p, _ in sorted(learned["vocab"].items(), key=lambda item: item[1])]
    ordered = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if byte_fallback else []) + [p for p in pieces if p not in ("<unk>", "<s>", "</s>")]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned["merges"]]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(ordered)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>", "<|end|>")])
    return json.loads(tokenizer.to_str())


def tokenizers():
    split = lambda pattern, behavior="isolated", invert=False: pre_tokenizers.Split(Regex(pattern), behavior, invert)
    bytes_ = lambda **options: pre_tokenizers.ByteLevel(**{"add_prefix_space": False} | options)
    letters = bytes_(use_regex=False)
    metaspace = lambda scheme, cut: pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=cut)
    spaces_back = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    every_kind = [AddedToken("<mask>", lstrip=True, special=True), AddedToken("<tool>", special=False, normalized=False), AddedToken("<tool_call>"),
                  AddedToken("foo_bar", single_word=True), AddedToken("世界", rstrip=True, normalized=False), AddedToken("<x>", lstrip=True, rstrip=True),
                  AddedToken("é", normalized=True)]
    return {
        "gpt2": byte_level(None, [bytes_()]),
        "gpt2, a space in front": byte_level(None, [bytes_(add_prefix_space=True)]),
        "llama3": byte_level(None, [split(LLAMA3), letters], ignore_merges=True),
        "qwen": byte_level(normalizers.NFC(), [split(QWEN), letters]),
        "qwen, added tokens": byte_level(normalizers.NFC(), [split(QWEN), letters], added=every_kind),
        "gpt4o": byte_level(None, [split(GPT4O, "removed", True), letters]),
        "smollm": byte_level(None, [pre_tokenizers.Digits(individual_digits=True), bytes_()], added=every_kind),
        "deepseek": byte_level(None, [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK), letters]),
        "nfkc, digits": byte_level(normalizers.Sequence([normalizers.NFKC()]), [pre_tokenizers.Digits(individual_digits=False), bytes_()]),
        "nfd, punctuation goes with what is before": byte_level(normalizers.NFD(), [split(r"\p{P}", "merged_with_previous"), letters]),
        "nfkd, and with what is behind": byte_level(normalizers.NFKD(), [split(r"\p{P}", "merged_with_next"), split(r"\s", "contiguous"), letters]),
        "mixtral": of_characters(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, spaces_back),
        "mixtral, Metaspace first": of_characters(None, metaspace("first", False), spaces_back),
        "mixtral, Metaspace always": of_characters(None, metaspace("always", False), spaces_back),
        "words, Metaspace": of_characters(None, metaspace("always", True), decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)),
        "no byte fallback": of_characters(None, metaspace("first", True), spaces_back, byte_fallback=False),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "bpe_tokenizers.json")
    out = parser.parse_args().out
    golden = {"texts": texts(), "tokenizers": []}
    for name, document in tokenizers().items():
        tokenizer = Tokenizer.from_str(json.dumps(document))
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in golden["texts"]]
        golden["tokenizers"].append({"name": name, "tokenizer_json": document, "ids": ids})
    out.write_text(json.dumps(golden, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
