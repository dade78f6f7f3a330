#!/usr/bin/env python3
"""Writes the binary seeds of seeds/ and the binary inputs of found/ whose making is known; text ones are kept by hand.

    tests/fuzz/make_seeds.py        standard library only; what it writes is committed
"""
import gzip
import json
import pathlib
import struct

here = pathlib.Path(__file__).resolve().parent


def write(name, data):
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def part(data):
    return struct.pack("<H", len(data)) + data


# ---- tokenizer.model: protocol buffers by hand ----------------------------------------------------------------------

def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def text(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def real(field, value):
    return varint(field << 3 | 5) + struct.pack("<f", value)


NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
UNIGRAM, BPE = 1, 2


def piece(string, kind=NORMAL, score=0.0):
    return text(1, text(1, string.encode()) + real(2, score) + number(3, kind))


def special_pieces():
    return piece("<unk>", UNKNOWN) + piece("<s>", CONTROL) + piece("</s>", CONTROL)


def byte_pieces():
    return b"".join(piece("<0x%02X>" % b, BYTE) for b in range(256))


def pieces(strings):
    return b"".join(piece(s, NORMAL, -float(i)) for i, s in enumerate(strings))


def trainer_spec(kind, *fields):
    return text(2, number(3, kind) + b"".join(fields))


def normalizer_spec(*fields):
    return text(3, b"".join(fields))


def character_map(replacements):
    """A trie of 256 units (darts-clone) that replaces characters of one ASCII letter each."""
    units = [0] * 256
    strings = b""
    for letter, replacement in replacements.items():
        at = ord(letter)
        units[at] = at | 1 << 8 | 0x80 << 10            # label, has a leaf, and where: at ^ 0x80
        units[at ^ 0x80] = 1 << 31 | len(strings)        # the leaf: where the replacement begins
        strings += replacement + b"\0"
    trie = struct.pack("<256I", *units)
    return struct.pack("<I", len(trie)) + trie + strings


words = ["\u2581", "a", "b", "c", "d", "e", "\u2581a", "ab", "\u2581ab", "cd", "\u2581\u2581", "de", "abcd", "\u2581cd", "\u00e9"]
keeps_spaces = number(4, 0)
byte_fallback = number(35, 1)

bpe_with_bytes = special_pieces() + byte_pieces() + pieces(words) + trainer_spec(BPE, byte_fallback) + normalizer_spec(keeps_spaces)
write("seeds/tokenizer/bpe_with_byte_fallback", part("abcd de\n  \u00e9\u65e5 ab".encode()) + bpe_with_bytes)
user_defined = special_pieces() + byte_pieces() + piece("<|im_end|>", USER_DEFINED) + pieces(words)
write("seeds/tokenizer/bpe_with_user_defined_pieces",
      part(b"ab<|im_end|> cd") + user_defined + trainer_spec(BPE, byte_fallback) + normalizer_spec(keeps_spaces))
mapped = normalizer_spec(text(1, b"fuzz"), text(2, character_map({"A": b"a", "B": b"b", "Z": b""})))
write("seeds/tokenizer/unigram_with_character_map", part(b"ABaZ cd") + special_pieces() + pieces(words) + trainer_spec(UNIGRAM) + mapped)
write("seeds/tokenizer/bpe_with_character_map",
      part(b"AB ab") + special_pieces() + byte_pieces() + pieces(words) + trainer_spec(BPE, byte_fallback) + mapped)
write("seeds/tokenizer/small_unigram", part(b"a b") + special_pieces() + pieces(words) + trainer_spec(UNIGRAM))
write("seeds/tokenizer/suffix_spaces", part(b"a b") + special_pieces() + pieces(words) + trainer_spec(BPE, number(24, 1)))

def tokenizer_json(merges, **parts):
    letters = "abcdef" + "\u0120\u2581 "
    vocab = {letter: i for i, letter in enumerate(letters)}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    model = {"type": "BPE", "vocab": vocab, "merges": [list(merge) for merge in merges]}
    return json.dumps({"added_tokens": [], "normalizer": None, "pre_tokenizer": None, "decoder": None} | parts | {"model": model | parts.get("model", {})}).encode()


joins = [("a", "b"), ("c", "d"), ("ab", "cd"), ("\u2581", "a"), ("\u0120", "a")]
with_bytes = {"byte_fallback": True, "unk_token": "a", "fuse_unk": True}
level = {"type": "ByteLevel", "add_prefix_space": False}
llama3 = {"type": "Split", "pattern": {"Regex": r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+(?!\S)|\s+"}, "behavior": "Isolated", "invert": False}
metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
spaces = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
write("seeds/tokenizer_json/byte_level", part(b"abcd ab") + tokenizer_json(joins, pre_tokenizer=level, decoder=level))
write("seeds/tokenizer_json/split_nfc", part("e\u0301 abcd".encode()) + tokenizer_json(
    joins, normalizer={"type": "NFC"}, pre_tokenizer={"type": "Sequence", "pretokenizers": [llama3, {"type": "Digits", "individual_digits": True}, level]},
    added_tokens=[{"id": 30, "content": "<x>", "special": True, "lstrip": True}, {"id": 31, "content": "ab", "single_word": True}][:1]))
write("seeds/tokenizer_json/metaspace", part(b" ab  cd") + tokenizer_json(joins, pre_tokenizer=metaspace, decoder=metaspace, model=with_bytes))
write("seeds/tokenizer_json/prepend", part(b"ab cd") + tokenizer_json(joins, normalizer=spaces, model=with_bytes | {"ignore_merges": True}))
write("seeds/tokenizer_json/not_one", part(b"a") + b'{"model": {"type": "WordPiece"}}')
write("seeds/tokenizer/not_a_model", part(b"a b") + b"{}\n")

# ---- safetensors ----------------------------------------------------------------------------------------------------


def safetensors(tensors, metadata=None):
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, dtype, shape, values in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + data


several = [("w", "F32", [2, 3], struct.pack("<6f", 1, -2, 3.5, 0, float("inf"), float("nan"))),
           ("h", "F16", [2], struct.pack("<2e", 0.5, -65504)), ("b", "BF16", [1, 1, 2], b"\x80\x3f\x00\xc0"),
           ("d", "F64", [1], struct.pack("<d", 0.1)), ("i", "I64", [], struct.pack("<q", 7)), ("none", "F32", [0, 4], b"")]
index = {"metadata": {"total_size": 24}, "weight_map": {name: "model-00001-of-00001.safetensors" for name, *_ in several}}
write("seeds/safetensors/several_types", b"S" + safetensors(several, {"format": "pt"}))
write("seeds/safetensors/empty", b"S" + safetensors([]))
write("seeds/safetensors/indexed", b"I" + part(json.dumps(index).encode()) + safetensors(several))
index["weight_map"]["gone"] = "../model-00002-of-00002.safetensors"
write("seeds/safetensors/index_that_leads_out", b"I" + part(json.dumps(index).encode()) + safetensors(several))
write("seeds/safetensors/cut_short", b"S" + safetensors(several)[:-3])

# ---- adapters: two layers, D 4, F 3, two experts ---------------------------------------------------------------------------


def adapter(tensors, **config):
    base = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "bias": "none", "task_type": "CAUSAL_LM"}
    floats = [(f"base_model.model.model.layers.{l}.{name}.weight", "F32", shape, struct.pack("<f", 0.5) * (shape[0] * shape[1]))
              for l in range(2) for name, shape in tensors]
    return json.dumps(base | config).encode() + b"\0" + safetensors(floats, {"format": "pt"})


attention = [("self_attn.q_proj.lora_A", [1, 4]), ("self_attn.q_proj.lora_B", [4, 1])]
experts = [(f"block_sparse_moe.experts.{e}.w2.lora_{m}", s) for e in range(2) for m, s in (("A", [1, 3]), ("B", [4, 1]))]
fused = [("mlp.experts.base_layer.lora_A", [2, 4]), ("mlp.experts.base_layer.lora_B", [6, 2]), ("mlp.experts.lora_A", [2, 3]),
         ("mlp.experts.lora_B", [4, 2])]
parameters = ["experts.gate_up_proj", "experts.down_proj"]
write("seeds/adapter/one_by_one", adapter(attention + experts, target_modules=["q_proj", "w2"], lora_dropout=0.1, use_rslora=True))
write("seeds/adapter/by_an_expression", adapter(attention, target_modules=".*q_proj", rank_pattern={".*\\.q_proj$": 1}))
write("seeds/adapter/fused", adapter(fused, target_parameters=parameters, peft_version="0.21.2"))
write("seeds/adapter/fused_in_the_other_order", adapter([(n, s[::-1]) for n, s in
      (("mlp.experts.lora_A", [4, 2]), ("mlp.experts.lora_B", [2, 3]))], target_parameters=parameters[1:], peft_version="0.18.1"))
write("seeds/adapter/of_another_rank", adapter(attention, target_modules=["q_proj"], r=2))
write("seeds/adapter/with_a_trained_head", adapter(attention, target_modules=["q_proj"], modules_to_save=["lm_head"]))
write("seeds/adapter/names_that_match_nothing", adapter(attention, target_modules=["q_proj", "gate_proj"]))
write("seeds/adapter/cut_short", adapter(attention, target_modules=["q_proj"])[:-3])

# ---- npy ------------------------------------------------------------------------------------------------------------


def npy(descr, shape, data, version=1, fortran="False"):
    header = ("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }" % (descr, fortran, shape)).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


for name, descr, form in [("i1", "|i1", "b"), ("u2", "<u2", "H"), ("i4", "<i4", "i"), ("u8", "<u8", "Q")]:
    write("seeds/npy/" + name, npy(descr, "(3,)", struct.pack("<3" + form, 1, 2, 3)))
write("seeds/npy/rows", npy("<i4", "(2, 2)", struct.pack("<4i", 1, -2, 3, 2**31 - 1), version=2))
write("seeds/npy/no_rows", npy("<i8", "(0, 7)", b"", version=3))
write("seeds/npy/fortran_order", npy("<i4", "(2, 2)", struct.pack("<4i", 1, 2, 3, 4), fortran="True"))
write("seeds/npy/floats", npy("<f4", "(1,)", struct.pack("<f", 1.0)))

# ---- Megatron -------------------------------------------------------------------------------------------------------


def megatron(dtype, form, documents, modes=False):
    size = struct.calcsize("<" + form)
    starts, at = [], 0
    for document in documents:
        starts.append(at)
        at += len(document) * size
    idx = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, dtype, len(documents), len(documents) + 1)
    idx += b"".join(struct.pack("<i", len(d)) for d in documents) + b"".join(struct.pack("<q", s) for s in starts)
    idx += b"".join(struct.pack("<q", i) for i in range(len(documents) + 1)) + (bytes(len(documents)) if modes else b"")
    return part(idx) + b"".join(struct.pack("<%d%s" % (len(d), form), *d) for d in documents)


write("seeds/megatron/u16", megatron(8, "H", [[1, 2, 3], [4], []]))
write("seeds/megatron/i32_with_modes", megatron(4, "i", [[1, -2], [3]], modes=True))
write("seeds/megatron/i64", megatron(5, "q", [[2**40]]))
write("seeds/megatron/no_documents", megatron(1, "B", []))
write("seeds/megatron/floats", megatron(6, "f", [[1.0]]))

# ---- files of a corpus: a letter for the name, a letter for --format ---------------------------------------------------

write("seeds/lines/text", b"aawords and\n\n\xc3\xa9 more\0after a zero\n")
write("seeds/lines/text_that_is_not_utf8", b"abcaf\xe9\n")
write("seeds/lines/jsonl", b'ba{"text": "one"}\n\n{"text": "", "id": 3}\r\n{"id": [1, {"a": null}], "text": "\\u00e9\\n"}')
write("seeds/lines/jsonl_without_text", b'ba{"content": "one"}\n')
write("seeds/lines/jsonl_with_nan", b'ba{"text": "one", "score": NaN}\n')
write("seeds/lines/json_array", b'ca[{"text": "one"}, {"text": "two"}]\n')
write("seeds/lines/json_as_jsonl", b'cc{"text": "one"}\n')
write("seeds/lines/npy", b"da" + npy("<u2", "(2, 2)", struct.pack("<4H", 1, 2, 3, 4)))
write("seeds/lines/npy_outside_the_vocabulary", b"da" + npy("<i4", "(1,)", struct.pack("<i", 259)))
write("seeds/lines/gzip", b"ha\x1f\x8b\x08\0\0\0\0\0")
write("seeds/lines/jsonl_in_gzip", b"ba" + gzip.compress(b'{"text": "one"}\n?\n{"text": "two"}\n', mtime=0))
write("seeds/lines/raw_ids", b"ff" + struct.pack("<3H", 1, 2, 258))
write("seeds/lines/raw_ids_of_odd_size", b"fg" + struct.pack("<3H", 1, 2, 258))

# ---- packed ---------------------------------------------------------------------------------------------------------

member = gzip.compress(b"some words, and some words again\n" * 9, mtime=0)
write("seeds/packed/gzip", member)
write("seeds/packed/gzip_members", member + gzip.compress(b"", mtime=0) + member)
write("seeds/packed/gzip_stored", gzip.compress(b"words", 0, mtime=0))
write("seeds/packed/gzip_cut_short", member[:-5])
write("seeds/packed/gzip_and_more", member + b"more")
# By hand, a frame without a checksum: magic, descriptor, window of 1 KiB; a raw block of 5 bytes, and a last one of 9 times 'x'.
frame = b"\x28\xb5\x2f\xfd\x00\x00" + (5 << 3).to_bytes(3, "little") + b"words" + (9 << 3 | 3).to_bytes(3, "little") + b"x"
write("seeds/packed/zstd", frame)
write("seeds/packed/zstd_frames", frame + b"\x50\x2a\x4d\x18\x02\0\0\0ab" + frame)
write("seeds/packed/zstd_cut_short", frame[:-1])
write("seeds/packed/zstd_and_more", frame + b"more words")
write("seeds/packed/zstd_window_of_1_tib", b"\x28\xb5\x2f\xfd\x00\xf0" + frame[6:])

# ---- found ----------------------------------------------------------------------------------------------------------

unnamed_byte = text(1, text(1, b"<\xc8xB6>") + number(3, BYTE))
write("found/tokenizer/byte_piece_whose_name_is_not_utf8", part(b"") + special_pieces() + unnamed_byte + trainer_spec(BPE, byte_fallback))
# A root of the map that leads out of it; fields of another wire type than the
# library takes; a piece that begins with NUL; a character that a map makes 60,000 of.
unknown = bytes.fromhex("0a090a053c756e6b3e1802")
space = bytes.fromhex("0a050a03e29681")
for name, root in [("leads_out_of_its_trie", b"\x00\x00\x00\x80"), ("is_all_ones", b"\xff\xff\xff\xff")]:
    damaged = text(3, text(2, struct.pack("<I", 1024) + root + bytes(1021)))
    write("found/tokenizer/map_whose_root_" + name, part(b"a") + unknown + space + damaged)
mistyped = bytes.fromhex("0a0b0a05e296810161180408001208 18029d0201000000 1a022000")
write("found/tokenizer/piece_that_the_library_reads_otherwise", part(b" a") + unknown + space + mistyped)
write("found/tokenizer/piece_that_is_a_number", part(b" a") + unknown + bytes.fromhex("0800120818029d02010000001a022000"))
write("found/tokenizer/piece_that_begins_with_nul", part(b" a") + unknown + bytes.fromhex("0a030a0100"))
long_map = text(3, text(2, character_map({"a": b"b" * 60_000})))
write("found/tokenizer/map_that_makes_60000_characters_of_one", part(b"a" * 100) + special_pieces() + pieces(words) + trainer_spec(UNIGRAM) + long_map)
write("found/config/control_characters_in_an_override", b"data.train.\x1b[31m=1\0data:\n  train: [{path: shards}]\n")
