"""Opens the tables of a patched store from outside: Polars, the deltalake package's SQL, DuckDB's `delta_scan`.

    .venv/bin/python tests/python/open_patched.py STORE

Prints JSON that tests/patched.rs holds against `vaplan query`: for each store version and reader, counts of `labels`
and every row of `scores`, sorted by key.
"""
import importlib.util
import json
import sys
from pathlib import Path

import duckdb
import polars as pl
from deltalake import DeltaTable, QueryBuilder

store = Path(sys.argv[1])
COUNTS = "count(*) AS rows, count(*) FILTER (WHERE label) AS set_, count(DISTINCT video) AS videos"


def segments(tracks, *columns):
    """One row per segment: `columns` are the lists of a track, of which each has one value per segment."""
    numbers = pl.int_ranges(pl.col(columns[0]).list.len()).alias("segment")
    return tracks.with_columns(numbers).explode("segment", *columns)


def answer(labels, scores):
    labels = segments(labels.drop("why"), "label", "rule", "score")
    scores = segments(scores, "cosine", "score").sort("video", "modality", "class", "segment")
    rows = scores.select("video", "modality", "class", "segment", "score").iter_rows()
    return {
        "labels": f"{labels.height},{int(labels['label'].sum())},{labels['video'].n_unique()}",
        "scores": [{"key": ",".join(map(str, row[:4])), "score": repr(row[4])} for row in rows],
    }


def by_polars(name, version):
    return pl.read_delta(str(store / name), version=version)


def by_deltalake(name, version):
    table = DeltaTable(str(store / name), version=version)
    return pl.DataFrame(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())


seen = {"polars": {}, "deltalake": {}}
for row in pl.read_delta(str(store / "versions")).sort("version").iter_rows(named=True):
    # A map is a list of pairs, or of structs, from one Polars to the next.
    pairs = row["tables"]
    tables = dict(pairs.items() if isinstance(pairs, dict) else (tuple(p.values()) if isinstance(p, dict) else p for p in pairs))
    for reader, read in (("polars", by_polars), ("deltalake", by_deltalake)):
        seen[reader][str(row["version"])] = answer(*(read(name, tables[name]) for name in ("labels", "scores")))

package = Path(importlib.util.find_spec("duckdb_extension_delta").origin).parent
extension = package / "extensions" / f"v{duckdb.__version__}" / "delta.duckdb_extension"
duckdb.sql(f"LOAD '{extension}'")
labels = duckdb.sql(f"SELECT video, unnest(label) AS label FROM delta_scan('{store / 'labels'}')")
seen["duckdb"] = ",".join(map(str, duckdb.sql(f"SELECT {COUNTS} FROM labels").fetchall()[0]))
print(json.dumps(seen, default=int))

# Threads of these packages may abort the interpreter on its way out: all is said, so leave without them.
import os, sys  # noqa: E402
sys.stdout.flush()
os._exit(0)
