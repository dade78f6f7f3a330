#!/usr/bin/env python3
"""Texts into ids by `smoe prepare` and by the Python package tokenizers, in turns, on the same threads.

    compare_tokenizers.py --tokenizer DIR... INPUT.jsonl...
    compare_tokenizers.py --tokenizer DIR... --characters

DIR has a tokenizer.json. Both read the JSON lines and encode every text. smoe also writes the token shards, so its figure has
more in it; the ids are compared first (one more eos a document aside). Prints a row a tokenizer: megabytes a second of each, the median
of --rounds, and the ratio, the median of the rounds' own. --characters compares the ids alone, of texts of this script's: all 1,112,064
characters that there can be, each among letters, digits, spaces, a combining mark and itself. A Python with tokenizers and h5py runs this.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def by_smoe(options, tokenizer, threads, out):
    shutil.rmtree(out, ignore_errors=True)
    command = [options.smoe, "prepare", *options.inputs, "--out", out, "--tokenizer", tokenizer, "--append-eos", "false", "--threads", str(threads)]
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


PEER = """
import json, sys, time
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
begin = time.perf_counter()
for path in sys.argv[3:]:
    with open(path, encoding="utf8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    if sys.argv[2]:
        json.dump(ids, open(sys.argv[2], "a"))
        open(sys.argv[2], "a").write("\\n")
print(time.perf_counter() - begin)
"""


def by_peer(options, tokenizer, threads, ids=""):
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
    found = subprocess.run([options.python, "-c", PEER, tokenizer, ids, *options.inputs], check=True, capture_output=True, text=True, env=environment)
    return float(found.stdout)


def differences(options, tokenizer, scratch):
    """The places of documents of which the two give other ids, and how many there are."""
    import h5py
    by_smoe(options, tokenizer, 1, scratch / "shards")
    (scratch / "ids").unlink(missing_ok=True)
    by_peer(options, tokenizer, 1, str(scratch / "ids"))
    expected = [ids for line in (scratch / "ids").read_text().splitlines() for ids in json.loads(line) if ids]
    found = []
    for shard in sorted((scratch / "shards").glob("*.h5")):
        with h5py.File(shard) as file:
            tokens, offsets = file["tokens"][:].tolist(), file["document_offsets"][:].tolist()
            found += [tokens[a:b] for a, b in zip(offsets, offsets[1:])]
    assert len(found) == len(expected), f"{len(found)} documents, {len(expected)} of them in tokenizers"
    return [i for i, (a, b) in enumerate(zip(found, expected)) if a != b], len(expected)


def compare_characters(options):
    print("| tokenizer | characters that differ | the first |\n|---|---|---|")
    codes = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    for tokenizer in options.tokenizers:
        differ = []
        with tempfile.TemporaryDirectory() as scratch:
            options.inputs = [str(pathlib.Path(scratch) / "texts.jsonl")]
            for begin in range(0, len(codes), 1 << 17):
                part = codes[begin:begin + (1 << 17)]
                with open(options.inputs[0], "w", encoding="utf8") as lines:
                    lines.writelines(json.dumps({"text": "a{0}s {0}1{0}{0} A{0}\u0301{0}\n{0}".format(chr(c))}) + "\n" for c in part)
                differ += [part[i] for i in differences(options, tokenizer, pathlib.Path(scratch))[0]]
        print(f"| {pathlib.Path(tokenizer).name} | {len(differ)} of {len(codes)} | {' '.join(f'U+{c:04X}' for c in differ[:8])} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*")
    parser.add_argument("--characters", action="store_true", help="compare the ids of every character in place of files")
    parser.add_argument("--tokenizer", action="append", required=True, dest="tokenizers")
    parser.add_argument("--smoe", default="build/release/smoe")
    parser.add_argument("--python", default=sys.executable, help="of the peer")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if bool(options.inputs) == options.characters:
        parser.error("name files, or give --characters")
    if options.characters:
        return compare_characters(options)
    megabytes = sum(pathlib.Path(path).stat().st_size for path in options.inputs) / 1e6
    print("| tokenizer | documents that differ | threads | smoe MB/s | tokenizers MB/s | ratio |\n|---|---|---|---|---|---|")
    for tokenizer in options.tokenizers:
        with tempfile.TemporaryDirectory() as scratch:
            differ, documents = differences(options, tokenizer, pathlib.Path(scratch))
            for threads in options.threads:
                times = [(by_smoe(options, tokenizer, threads, pathlib.Path(scratch) / "out"), by_peer(options, tokenizer, threads)) for _ in range(options.rounds)]
                ours, theirs = (megabytes / statistics.median(column) for column in zip(*times))
                ratio = statistics.median(peer / own for own, peer in times)
                print(f"| {pathlib.Path(tokenizer).name} | {len(differ)} of {documents} | {threads} | {ours:.1f} | {theirs:.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
