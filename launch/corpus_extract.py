"""Turns one unpacked Debian package into a domain of the quickstart's corpus.

    corpus_extract.py DOMAIN PACKAGE_ROOT OUT_DIR MAX_BYTES

writes OUT_DIR/train.jsonl and OUT_DIR/eval.jsonl, one {"text": ...} a line, and prints
`documents<TAB>bytes<TAB>eval documents<TAB>eval bytes`. MAX_BYTES 0 takes everything.

Each reader below yields the documents of one domain as plain text. Selection is the same for all of them and
depends on nothing but the texts: documents are ordered by the SHA-256 of their text (so a cap takes an even sample
and not the first letters of a dictionary), repeats are dropped, and about one in twenty, chosen by the same hash, is
held out for evaluation. A document stays on its side whatever the cap.
"""

import gzip
import hashlib
import html
import json
import pathlib
import re
import sqlite3
import struct
import sys
import zlib

SHORTEST = 80  # bytes: less is a cross-reference or an empty page
HELD_OUT_ONE_IN = 20


def read_text(path):
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return raw.decode("utf-8", errors="strict")


def files(folder, *patterns):
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern) if path.is_file())
    return [path for path in found if not path.is_symlink()]


def mathematics(root):
    """set.mm, a section a document: theorems with their comments and the lemmas each proof uses.

    The letters of a compressed proof encode steps, not text, and are left out, as is the header's history of renames.
    """
    source = read_text(root / "usr/share/metamath/databases/set.mm")
    source = source[source.index("$( Begin $[ set-pred.mm $] $)"):]
    source = re.sub(r"\$=\s*\(([^)]*)\)[A-Z?\s]*\$\.", lambda m: "$= ( %s ) $." % " ".join(m[1].split()), source)
    source = re.sub(r"\s*\((?:Contributed|Revised|Proof\s+shortened|Proof\s+revised)\s+by[^()]*\)", "", source)
    return re.split(r"\n(?=\$\(\n(?:#\*|#{9}|=-|-\.))", source)


def scripture(root):
    """A SWORD zText module, a chapter a document.

    Each testament is a table of blocks (.bzs: offset, size, unpacked size), the zlib blocks themselves (.bzz), and a
    table of verses (.bzv) that is not needed here: a block is a whole book in reading order.
    """
    folder = next((root / "usr/share/sword/modules/texts/ztext").iterdir())
    for testament in ("ot", "nt"):
        table = (folder / f"{testament}.bzs").read_bytes()
        packed = (folder / f"{testament}.bzz").read_bytes()
        for offset, size, _ in struct.iter_unpack("<III", table):
            book = zlib.decompress(packed[offset:offset + size]).decode("utf-8")
            for chapter in re.split(r"(?=<chapter [^>]*\bsID=)", book):
                chapter = re.sub(r"<note\b.*?</note>", "", chapter, flags=re.S)
                chapter = re.sub(r'<div [^>]*type="x-p"[^>]*/>|<l\b[^>]*eID=[^>]*/>|<lb\b[^>]*/>', "\n", chapter)
                chapter = re.sub(r"</title>", "\n", chapter)
                chapter = html.unescape(re.sub(r"<[^>]*>", "", chapter))
                yield "\n".join(filter(None, (" ".join(line.split()) for line in chapter.splitlines())))


def source_code(root):
    """Python's standard library, a module a document; its embedded copy of the manual is not source."""
    for path in files(root / "usr/lib/python3.11", "*.py"):
        if "pydoc_data" not in path.parts:
            yield read_text(path)


def documentation(root):
    """The reStructuredText of Python's manual, a page a document."""
    for path in files(root / "usr/share/doc/python3.11/html/_sources", "*.rst.txt"):
        yield read_text(path)


def dictionary(root):
    """GCIDE, an entry a document, cut as the dictionary's own index says."""
    folder = root / "usr/share/dictd"
    text = gzip.decompress((folder / "gcide.dict.dz").read_bytes())
    digits = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}

    def number(word):
        value = 0
        for c in word:
            value = value * 64 + digits[c]
        return value

    spans = set()
    for line in read_text(folder / "gcide.index").splitlines():
        headword, offset, size = line.split("\t")[:3]
        if not headword.startswith("00-"):  # the database's own description
            spans.add((number(offset), number(size)))
    for offset, size in sorted(spans):
        entry = text[offset:offset + size].decode("utf-8", errors="replace")
        yield re.sub(r"\n\s*\[(?:1913 Webster|PJC|Century Dict\.|WordNet|RP)[^\]]*\]", "", entry)


ROFF_NAMED = {"(co": "©", "(bu": "•", "(em": "—", "(en": "–", "(aq": "'", "(dq": '"', "(lq": "“", "(rq": "”", "(oq": "‘",
              "(cq": "’", "(Bq": "„", "(Fo": "«", "(Fc": "»", "(ti": "~", "(ha": "^", "(->": "→", "(<-": "←", "(mu": "×",
              "(+-": "±", "(>=": "≥", "(<=": "≤", "(rs": "\\", "(mc": "µ", "(de": "°", "(ss": "ß", "(ga": "`"}
ROFF_HEADINGS = (".SH", ".SS", ".Sh", ".Ss")
ROFF_TEXT_MACROS = (".B", ".I", ".BR", ".RB", ".IR", ".RI", ".BI", ".IB", ".SM", ".SB", ".IP", ".TP", ".TQ", ".UR", ".MT")


def roff_words(line):
    """The arguments of a macro line, with the quoting of roff."""
    return [quoted.replace('""', '"') or bare for quoted, bare in re.findall(r'"((?:[^"]|"")*)"|(\S+)', line)]


def roff_text(line):
    line = re.sub(r'\\["#].*', "", line)
    line = re.sub(r"\\f(?:\[[^\]]*\]|\([A-Z]{2}|.)|\\s[-+]?\d+|\\[&%:/,|^ud]|\\[hv]'[^']*'|\\m\[[^\]]*\]", "", line)
    line = re.sub(r"\\(\(..)", lambda m: ROFF_NAMED.get(m[1], ""), line)
    line = re.sub(r"\\\[(\w\w)\]", lambda m: ROFF_NAMED.get("(" + m[1], ""), line)
    line = re.sub(r"\\\[u([0-9A-F]{4,5})\]", lambda m: chr(int(m[1], 16)), line)
    return line.replace("\\-", "-").replace("\\(", "(").replace("\\ ", " ").replace("\\e", "\\").replace("\\~", " ")


def manuals(root):
    """Manual pages, a page a document: headings and paragraphs of the roff source without its markup.

    Tables are left out, and so is the note on the translation that ends every page.
    """
    for path in files(root / "usr/share/man", "*.gz"):
        lines = []
        source = re.sub(r"^\.TS.*?^\.TE", "", read_text(path), flags=re.S | re.M)
        source = re.sub(r'^\.SH "?ÜBERSETZUNG.*', "", source, flags=re.S | re.M)
        for line in source.splitlines():
            if not line.startswith((".", "'")):
                lines.append(roff_text(line))
                continue
            macro, _, rest = line.partition(" ")
            if macro in ROFF_HEADINGS:
                lines += ["", roff_text(" ".join(roff_words(rest)))]
            elif macro in (".PP", ".P", ".LP", ".TP", ".Pp", ".sp"):
                lines.append("")
            elif macro in ROFF_TEXT_MACROS and rest:
                alternates = len(macro) == 3 and macro[1] in "BIR" and macro[2] in "BIR"
                words = roff_words(rest)[:1] if macro == ".IP" else roff_words(rest)  # .IP's second is an indent
                lines.append(roff_text(("" if alternates else " ").join(words)))
        yield re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def politics(root):
    """An Anarchist FAQ, a question a document, in Markdown without the targets of its links."""
    for path in files(root / "usr/share/doc/anarchism/markdown", "*.md", "*.md.gz"):
        text = re.sub(r"\n\[‹.*", "\n", read_text(path), flags=re.S)  # links to the pages before and after
        text = re.sub(r"\]\([^()\s]*(?:\s+\"[^\"]*\")?\)", "]", text)
        yield from re.split(r"\n(?=#+ )", text)


def biology(root):
    """The Gene Ontology, a term a document: its name, its branch, its definition and its synonyms."""
    path = root / "usr/lib/R/site-library/GO.db/extdata/GO.sqlite"
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    synonyms = {}
    for term, synonym in database.execute("SELECT _id, synonym FROM go_synonym ORDER BY rowid"):
        if not synonym.startswith("GO:"):
            synonyms.setdefault(term, []).append(synonym)
    branches = dict(database.execute("SELECT ontology, term_type FROM go_ontology"))
    rows = database.execute("SELECT _id, term, ontology, definition FROM go_term WHERE definition IS NOT NULL")
    for term, name, branch, definition in rows:
        lines = [f"Term: {name}", f"Kind: {branches[branch].replace('_', ' ')}", f"Definition: {definition}"]
        if term in synonyms:
            lines.append("Also: " + "; ".join(synonyms[term]))
        yield "\n".join(lines)


READERS = {reader.__name__.replace("_", "-"): reader
           for reader in (mathematics, scripture, source_code, documentation, dictionary, manuals, politics, biology)}


def write_split(documents, out_dir, max_bytes):
    chosen = {}
    for text in documents:
        text = text.replace("\r\n", "\n").replace("\0", "").strip()
        if len(text.encode()) >= SHORTEST:
            chosen[hashlib.sha256(text.encode()).hexdigest()] = text
    count, size = {"train": 0, "eval": 0}, {"train": 0, "eval": 0}
    out_dir.mkdir(parents=True, exist_ok=True)
    with open(out_dir / "train.jsonl", "w", encoding="utf-8") as train, \
            open(out_dir / "eval.jsonl", "w", encoding="utf-8") as held_out:
        for digest, text in sorted(chosen.items()):
            if max_bytes and sum(size.values()) + len(text.encode()) > max_bytes:
                continue  # a shorter one may still fit
            side = "eval" if int(digest[-8:], 16) % HELD_OUT_ONE_IN == 0 else "train"
            (held_out if side == "eval" else train).write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            count[side] += 1
            size[side] += len(text.encode())
    return count, size


def main():
    if len(sys.argv) != 5 or sys.argv[1] not in READERS:
        sys.exit(f"usage: corpus_extract.py DOMAIN PACKAGE_ROOT OUT_DIR MAX_BYTES\ndomains: {' '.join(READERS)}")
    domain, root, out_dir, max_bytes = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), int(sys.argv[4])
    count, size = write_split(READERS[domain](root), out_dir, max_bytes)
    if not count["train"] or not count["eval"]:
        sys.exit(f"corpus_extract.py: {domain}: {count['train']} training and {count['eval']} held-out documents under "
                 f"{root}; expected some of each: the package's layout is not the one this script knows")
    print(count["train"], size["train"], count["eval"], size["eval"], sep="\t")


if __name__ == "__main__":
    main()
