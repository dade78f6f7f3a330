#!/usr/bin/env python3
"""Writes newer_characters_table.h: the characters of which versions of Unicode say different things.

What the Python package tokenizers does with every code point is measured, not looked up: its patterns (Oniguruma), its Digits (Rust's
own tables) and its normal forms each have a version of their own. It is held against Unicode 14, the oldest that a PCRE2 of ours has (the
tables of this Python, 3.11), and against Unicode 18, the newest (the package unicodedata2). Scripts are fonttools'.
"""

import unicodedata
from pathlib import Path

import tokenizers
import unicodedata2
from fontTools import unicodedata as scripts
from tokenizers import Regex, normalizers, pre_tokenizers

CODES = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()
# Noncharacters, which no version will ever assign, so that a pattern takes them for nothing; of two bytes there are none. The last stands
# for what is a number to Digits alone.
UNASSIGNED = {2: 0x0530, 3: 0xFDD0, 4: 0x1FFFE}
NUMBER_TO_DIGITS = 0x1FFFF
# No character of these stands for one of another script: patterns name them.
NAMED_SCRIPTS = {"Arab", "Beng", "Cyrl", "Deva", "Grek", "Hang", "Hani", "Hebr", "Hira", "Kana", "Latn", "Thai", "Zinh", "Zyyy"}


def matched(pattern):
    """The code points that a pattern of one character matches."""
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    return {ord(c) for i in range(0, len(CODES), 4096) for word, _ in split.pre_tokenize_str("".join(map(chr, CODES[i:i + 4096]))) for c in word}


def numbers():
    digits = pre_tokenizers.Digits(individual_digits=True)
    cut = (digits.pre_tokenize_str("".join(f"a{chr(c)}b" for c in CODES[i:i + 512])) for i in range(0, len(CODES), 512))
    return {ord(word) for words in cut for word, _ in words if len(word) == 1 and word not in "ab"}


def size(c):
    return len(chr(c).encode())


def stand_ins():
    """[first, last, stand-in] of each run."""
    category = {c: name for name in CATEGORIES for c in matched(rf"\p{{{name}}}")}
    agreed = {c for c in CODES if category[c] == unicodedata.category(chr(c)) == unicodedata2.category(chr(c))}
    by_kind = {}
    for c in sorted(agreed):
        script = scripts.script(chr(c))
        by_kind.setdefault((category[c], size(c), script), []).append(c)
        by_kind.setdefault((category[c], size(c), script in NAMED_SCRIPTS), []).append(c)
    assert all(category[c] == "Cn" and c in agreed for c in UNASSIGNED.values())
    only_numbers = numbers() - {c for c in CODES if category[c].startswith("N")}

    def of(c):
        if category[c] == "Cn":
            return NUMBER_TO_DIGITS if c in only_numbers else UNASSIGNED[size(c)]
        kinds = ((category[c], size(c), script) for script in (scripts.script(chr(c)), False, True))
        return min(next(by_kind[kind] for kind in kinds if kind in by_kind), key=lambda s: abs(s - c))

    runs = []
    for c in CODES:
        if c in agreed and c != NUMBER_TO_DIGITS:
            continue
        kind = (category[c], scripts.script(chr(c)) if category[c] != "Cn" else c in only_numbers)
        if runs and runs[-1][1] == c - 1 and runs[-1][3] == kind:
            runs[-1][1] = c
        else:
            runs.append([c, c, of(c), kind])
    other = [c for first, last, s, _ in runs for c in range(first, last + 1) if category[c] != "Cn" and scripts.script(chr(c)) != scripts.script(chr(s))
             and {scripts.script(chr(c)), scripts.script(chr(s))} & NAMED_SCRIPTS]
    print(f"{len(other)} characters have a stand-in of another script:", " ".join(f"{c:X}" for c in other))
    assert all(size(first) == size(last) == size(stand_in) for first, last, stand_in, _ in runs)
    return [run[:3] for run in runs]


def inert():
    """Code points that a normal form of Unicode 18 moves, takes apart or joins, and one of tokenizers leaves alone."""
    nfc, nfd, nfkd = normalizers.NFC(), normalizers.NFD(), normalizers.NFKD()
    pairs = {}
    for c in CODES:
        parts = unicodedata2.decomposition(chr(c)).split()
        # Of other pairs, which are taken apart and never joined, the parts do not matter.
        if len(parts) == 2 and not parts[0].startswith("<") and unicodedata2.normalize("NFC", chr(c)) == chr(c):
            pairs[c] = tuple(int(part, 16) for part in parts)
    joined = {part for c, pair in pairs.items() if len(nfc.normalize_str("".join(map(chr, pair)))) == 1 for part in (c, *pair)}
    touched = {c for c in CODES if unicodedata2.combining(chr(c)) or unicodedata2.decomposition(chr(c))} | {part for pair in pairs.values() for part in pair}

    def stays(c):
        behind, before = f"a{chr(c)}\u0334", f"a\u0345{chr(c)}"  # of the lowest class and the highest
        return (nfkd.normalize_str(chr(c)) == chr(c) and nfd.normalize_str(behind) == behind and nfd.normalize_str(before) == before and c not in joined)

    ranges = []
    for c in sorted(filter(stays, touched)):
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    return ranges


def table(rows):
    cells = ["{" + ", ".join(f"0x{c:X}" for c in row) + "}" for row in rows]
    lines, line = [], ""
    for cell in cells:
        if len(line) + len(cell) + 2 > 118:
            lines.append(line)
            line = ""
        line += (" " if line else "    ") + cell + ","
    return "\n".join(lines + [line])


def main():
    assert unicodedata.unidata_version == "14.0.0" and unicodedata2.unidata_version == "18.0.0", "see above"
    runs, ranges = stand_ins(), inert()
    text = f"""// What newer_characters.h is about, as make_newer_characters.py measured it: tokenizers {tokenizers.__version__}, held against Unicode 14 and 18.
#pragma once

#include "data/text/bpe/newer_characters.h"

namespace smoe {{

// clang-format off
// {sum(last - first + 1 for first, last, _ in runs)} characters, first and last of a run, and what stands for each of the run.
inline constexpr StandIn stand_ins[] = {{
{table(runs)}
}};

// {sum(last - first + 1 for first, last in ranges)} characters, first and last of a run.
inline constexpr CodeRange inert_characters[] = {{
{table(ranges)}
}};
// clang-format on

}}  // namespace smoe
"""
    (Path(__file__).parent / "newer_characters_table.h").write_text(text)


if __name__ == "__main__":
    main()
