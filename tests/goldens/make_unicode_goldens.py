#!/usr/bin/env python3
"""Writes unicode.json: what the Python package tokenizers does with every character, and with those that versions of Unicode disagree over.

"classes": for each pattern of one character the code points that it matches, as "first-last first-last ..." in hexadecimal; "Digits" is the
    step of that name, and "word" what keeps a token that stands alone (single_word) from being found.
"normal_forms": texts with a character of each of the runs of newer_characters_table.h in them, and their NFC, NFD, NFKC and NFKD.
"texts" and "ids": more texts with these characters, and their ids under tokenizers of bpe_tokenizers.json.
"""

import argparse
import json
import random
import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "data/text/bpe/newer_characters_table.h"
CODES = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn L M N P S Z C".split()
SCRIPTS = "Han Hiragana Katakana Hangul Latin Greek Hebrew Thai Kannada".split()
TOKENIZERS = ["llama3", "qwen", "gpt4o", "smollm", "deepseek"]


def matched(step):
    """The code points that a step keeps which takes out all others."""
    return [ord(c) for i in range(0, len(CODES), 4096) for word, _ in step.pre_tokenize_str("".join(map(chr, CODES[i:i + 4096]))) for c in word]


def cut_off_by_digits():
    digits = pre_tokenizers.Digits(individual_digits=True)
    return [ord(word) for i in range(0, len(CODES), 512) for word, _ in digits.pre_tokenize_str("".join(f"a{chr(c)}b" for c in CODES[i:i + 512]))
            if len(word) == 1 and word not in "ab"]


def signs_of_words():
    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.add_tokens([AddedToken("<x>", single_word=True)])
    return [c for c in CODES if "<x>" not in tokenizer.encode("<x>" + chr(c)).tokens]


def as_ranges(codes):
    ranges = []
    for c in codes:
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    return " ".join(f"{first:x}-{last:x}" for first, last in ranges)


def classes():
    patterns = [rf"\p{{{name}}}" for name in CATEGORIES + SCRIPTS] + [r"\s", r"\S", r"\w", r"\W", r"\d", r"\D"]
    found = {pattern: as_ranges(matched(pre_tokenizers.Split(Regex(pattern), "removed", invert=True))) for pattern in patterns}
    return found | {"Digits": as_ranges(cut_off_by_digits()), "word": as_ranges(signs_of_words())}


def runs():
    """A character of each run, in two lists: those with stand-ins, and those that normal forms leave alone."""
    lists = TABLE.read_text().split("inline constexpr ")[1:]
    return [[int(last, 16) for last in re.findall(r"\{0x\w+, 0x(\w+)", part)] for part in lists]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "unicode.json")
    out = parser.parse_args().out
    rng = random.Random(1)
    with_stand_ins, inert = (list(map(chr, codes)) for codes in runs())
    marks = [chr(c) for c in (0x300, 0x334, 0x345, 0x5B0, 0x93C, 0x94D, 0x3099, 0x1D165)]
    texts = [f"a{c}\u0334\u0301a\u0345{c} \u0344{c}" for c in inert]
    texts += ["".join(rng.choices(inert + marks * 8 + list("eé한ﬁ①"), k=12)) for _ in range(100)]
    forms = {name: getattr(normalizers, name)() for name in ("NFC", "NFD", "NFKC", "NFKD")}
    by_name = {of["name"]: of["tokenizer_json"] for of in json.loads((HERE / "bpe_tokenizers.json").read_text())["tokenizers"]}
    encoded = [f"a{c}s {c}1 {c}" for c in with_stand_ins]
    encoded += ["".join(rng.choices(with_stand_ins + list("aA1 .\n'é你"), k=16)) for _ in range(40)]
    read = {name: Tokenizer.from_str(json.dumps(by_name[name])) for name in TOKENIZERS}
    ids = {name: [tokenizer.encode(text, add_special_tokens=False).ids for text in encoded] for name, tokenizer in read.items()}
    golden = {"classes": classes(), "normal_forms": [[text] + [form.normalize_str(text) for form in forms.values()] for text in texts], "texts": encoded,
              "ids": ids}
    out.write_text(json.dumps(golden, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
