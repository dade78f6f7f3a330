#!/usr/bin/env python3
"""Writes the tables of tests/data/parquet/, which parquet_test.cpp reads; needs pyarrow. What it writes is committed.

    tests/data/make_parquet.py
"""
import pathlib

import pyarrow
import pyarrow.parquet

here = pathlib.Path(__file__).resolve().parent / "parquet"
here.mkdir(exist_ok=True)


def write(name, columns, **options):
    pyarrow.parquet.write_table(pyarrow.table(columns), here / name, **options)


texts = ["one", "two\nlines", "", "h\u00e9", None, "six"]
write("texts.parquet", {"id": list(range(6)), "text": texts}, row_group_size=4)
write("large.parquet", {"text": pyarrow.array(texts, pyarrow.large_string())}, compression="zstd")
write("categories.parquet", {"text": pyarrow.array(["a", "b", "a", None]).dictionary_encode()}, compression="gzip")
write("nested.parquet", {"meta": [{"body": "in", "id": 1}, None, {"body": None, "id": 2}, {"body": "side", "id": 3}]})
write("numbers.parquet", {"text": [1, 2, 3]})
write("lists.parquet", {"text": [["a", "b"], []]})
write("empty.parquet", {"text": pyarrow.array([], pyarrow.string())})
