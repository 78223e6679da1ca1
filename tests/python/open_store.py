"""Opens a store's tables from outside, as a user would: Polars on the Delta tables, DuckDB on the same.

    .venv/bin/python tests/python/open_store.py STORE [FIRST]

Prints JSON: for each store version from FIRST on, read back in time by the Delta versions that `versions` names, counts
that tests/open_outside.rs holds against `vaplan query --version`; and for the latest the same counts by pandas, and by
DuckDB on pyarrow's data set and by its own reader of Delta tables.
"""
import importlib.util
import json
import sys
from pathlib import Path

import duckdb
import polars as pl
from deltalake import DeltaTable

store = Path(sys.argv[1])
first = int(sys.argv[2]) if len(sys.argv) > 2 else 1


def counts(labels, scores, videos):
    labels, scores = labels.explode("label", "rule", "score"), scores.explode("cosine", "score")
    return {
        "rows": labels.height,
        "set": {m: labels.filter(pl.col("label") & (pl.col("modality") == m)).height for m in ("audio", "visual")},
        "videos": videos.height,
        "weak_labels": int(videos["weak_labels"].list.len().sum()),
        "scores": scores.height,
        "score_sum": scores["score"].sum(),
    }


answer = {"polars": {}}
for row in pl.read_delta(str(store / "versions")).sort("version").iter_rows(named=True):
    if row["version"] < first:
        continue
    # A map is a list of pairs, or of structs, from one Polars to the next.
    pairs = row["tables"]
    tables = dict(pairs.items() if isinstance(pairs, dict) else (tuple(p.values()) if isinstance(p, dict) else p for p in pairs))
    read = {name: pl.read_delta(str(store / name), version=tables[name]) for name in ("labels", "scores", "videos")}
    answer["polars"][str(row["version"])] = counts(**read)

# pandas and pyarrow know no deletion vectors. A store whose changes were small has none.
labels = DeltaTable(str(store / "labels")).to_pyarrow_dataset()
changes = DeltaTable(str(store / "label_changes")).to_pyarrow_dataset()
segments = duckdb.sql("SELECT modality, unnest(label) AS label FROM labels")
answer["duckdb"] = {
    "rows": duckdb.sql("SELECT count(*) FROM segments").fetchall()[0][0],
    "set": dict(duckdb.sql("SELECT modality, count(*) FROM segments WHERE label GROUP BY modality").fetchall()),
    "changes_add_up": int(duckdb.sql('SELECT sum(CASE WHEN "to" THEN 1 ELSE -1 END * len(segments)) FROM changes').fetchall()[0][0]),
}
# `INSTALL delta` would ask a server; PyPI's package has the extension as a file.
package = Path(importlib.util.find_spec("duckdb_extension_delta").origin).parent
extension = package / "extensions" / f"v{duckdb.__version__}" / "delta.duckdb_extension"
duckdb.sql(f"LOAD '{extension}'")
scanned = f"(SELECT modality, unnest(label) AS label FROM delta_scan('{store / 'labels'}'))"
answer["delta_scan"] = {
    "rows": duckdb.sql(f"SELECT count(*) FROM {scanned}").fetchall()[0][0],
    "set": dict(duckdb.sql(f"SELECT modality, count(*) FROM {scanned} WHERE label GROUP BY modality").fetchall()),
}
frame = DeltaTable(str(store / "labels")).to_pandas().explode(["label", "rule", "score"])
answer["pandas"] = {
    "rows": len(frame),
    "set": {m: int(frame.loc[frame["modality"] == m, "label"].astype(bool).sum()) for m in ("audio", "visual")},
}
print(json.dumps(answer, default=int))

# Threads of these packages may abort the interpreter on its way out: all is said, so leave without them.
import os, sys  # noqa: E402
sys.stdout.flush()
os._exit(0)
