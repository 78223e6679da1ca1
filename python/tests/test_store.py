"""Reading a store from Python."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import vaplan
from vaplan import _native


def test_a_store_names_its_versions(store, own):
    assert store.version == 1 and repr(store).endswith("store', version=1)")
    assert own.relabel(thresholds={"visual": 1.05}).version == 2 == own.version
    assert own.versions()["version"].to_pylist() == [1, 2]
    assert own.at(1).version == 1 and own.at(1).latest().version == 2
    assert own.at(1).refresh().version == 2


def test_tables_are_arrow_tables_that_other_libraries_take(store):
    table = store.table("labels", columns=["video", "class", "segment", "label"], where="modality = 'visual' AND label")
    assert isinstance(table, pa.Table) and table.column_names == ["video", "class", "segment", "label"]
    count = store.sql("SELECT count(*) AS n FROM labels WHERE modality = 'visual' AND label")["n"].to_pylist()
    assert [table.num_rows] == count
    assert pl.from_arrow(table).height == table.num_rows
    assert len(table.to_pandas()) == table.num_rows
    assert duckdb.from_arrow(table).count("*").fetchall() == [(table.num_rows,)]
    stream = store._native.sql("SELECT video, modality FROM labels")
    assert pl.DataFrame(stream).columns == ["video", "modality"]
    assert pd.DataFrame(pa.table(stream).to_pandas()).shape[1] == 2
    assert pa.schema(stream) == pa.table(stream).schema
    with pytest.raises(ValueError, match="^name is 'label', expected one of 'settings', 'classes'"):
        store.table("label")
    with pytest.raises(ValueError, match="^a column of table 'labels' is 'clas', expected one of 'video'"):
        store.table("labels", columns=["clas"])


def test_numbers_cross_without_a_copy(store):
    stream = store._native.sql("SELECT segment, score FROM scores ORDER BY video, segment")
    first, second = pa.table(stream), pa.table(stream)
    for column in ("segment", "score"):
        chunks = zip(first[column].chunks, second[column].chunks)
        assert all(a.buffers()[1].address == b.buffers()[1].address for a, b in chunks)
    assert first.num_rows > 0


def test_sql_only_reads(store):
    for statement in ("DELETE FROM labels", "CREATE TABLE x AS SELECT 1", "SET a = 1"):
        with pytest.raises(ValueError, match="is refused, expected a statement that only reads"):
            store.sql(statement)
    for statement in ("SELEC 1", "SELECT nothing FROM labels", "SELECT 1; SELECT 2", ""):
        with pytest.raises(ValueError):
            store.sql(statement)


@pytest.mark.parametrize("modality", ["audio", "visual"])
@pytest.mark.parametrize("split", [None, "train", "test"])
def test_arrays_hold_the_rows_of_the_tables(store, modality, split):
    arrays, scores = store.labels(split, modality), store.scores(split, modality)
    weak = store.weak_labels(split)
    assert arrays.names == sorted(arrays.names) == scores.names == weak.names
    assert arrays.values.dtype == np.uint8 and scores.values.dtype == np.float64
    assert arrays.values.shape == (len(arrays.names), 10, 25) and (arrays.lengths == 10).all()
    condition = "" if split is None else f" AND split = '{split}'"
    rows = store.sql(
        "SELECT labels.video, class, segment, label, score FROM labels JOIN videos ON labels.video = videos.video "
        f"WHERE modality = '{modality}'{condition}"
    ).to_pylist()
    expected, expected_scores = np.zeros_like(arrays.values), np.full_like(scores.values, np.nan)
    for row in rows:
        place = arrays.names.index(row["video"]), row["segment"], arrays.classes.index(row["class"])
        expected[place], expected_scores[place] = row["label"], row["score"]
    assert (arrays.values == expected).all() and expected.any()
    assert np.array_equal(scores.values, expected_scores, equal_nan=True)
    assert ((~np.isnan(scores.values)).any(1) == weak.values).all()


def test_labels_can_be_scored(store):
    truth = {name: np.zeros((len(store.labels("test").names), 10, 25), bool) for name in ("audio", "visual")}
    names, classes = store.labels("test").names, store.labels("test").classes
    for row in store.table("truth").to_pylist():
        if row["video"] in names:
            place = names.index(row["video"]), slice(row["onset"], row["offset"]), classes.index(row["class"])
            truth[row["modality"]][place] = True
    labels = [store.labels("test", modality).values for modality in ("audio", "visual")]
    scores = vaplan.evaluate(*labels, truth["audio"], truth["visual"])
    assert 30 < scores["segment"]["type_av"] < 100


def test_show_is_text_and_a_picture(store):
    name = store.labels("test").names[0]
    timeline = store.show(name)
    assert str(timeline).startswith(name) or name in str(timeline)
    assert timeline.segments == 10 and len(timeline.tracks[0]["labels"]) == 10
    picture = timeline._repr_html_()
    assert name in picture and picture.count("<td ") == 10 * len(timeline.tracks)
    timeline.tracks[0]["class"] = "<script>"
    assert "<script>" not in timeline._repr_html_()
    assert store.show(name[:11]).video == name
    with pytest.raises(LookupError, match="no video `nobody` \\(nearest: "):
        store.show("nobody")


def test_errors_have_the_type_of_their_cause(store, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no store: it has no `versions` table"):
        vaplan.open(tmp_path)
    with pytest.raises(LookupError, match="store has no version 9, expected 1 to 1"):
        store.at(9)
    with pytest.raises(ValueError, match="split is `dev`, expected `train`, `val` or `test`"):
        store.labels("dev")
    with pytest.raises(ValueError, match="modality is 'both', expected one of 'audio', 'visual'"):
        store.labels("train", "both")
    with pytest.raises(ValueError, match="store version 1 has no predictions of epoch 3"):
        store.predictions(3)
    with pytest.raises(OverflowError):
        store.at(-1)
    with pytest.raises(TypeError):
        vaplan.open(3)


def test_a_damaged_file_is_an_error_of_the_package(own):
    for file in Path(own.path, "labels").glob("*.parquet"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(_native.VaplanError, match="labels"):
        own.labels("train")


def test_a_folder_to_write_is_a_path_or_a_file_url(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert store.export("valor", (tmp_path / "valor").as_uri(), splits=["test"]) == (24, [])
    with pytest.raises(ValueError, match="^`s3://bucket/a` is a URL, expected a folder of the local disk"):
        store.export("valor", "s3://bucket/a")
    with pytest.raises(ValueError, match="no path of this machine"):
        vaplan.sample("file://host/a")
    assert [path.name for path in tmp_path.iterdir()] == ["valor"]


def test_exports_hold_the_labels(store, tmp_path):
    assert store.export("valor", tmp_path / "valor", splits=["test"]) == (24, [])
    for modality in ("audio", "visual"):
        names, values, _, classes = store.labels("test", modality)
        assert len(list((tmp_path / "valor" / modality).iterdir())) == 24
        for name, labels in zip(names, values):
            found = np.load(tmp_path / "valor" / modality / f"{name[:11]}.npy")
            assert found.dtype == np.int64 and (found == labels).all()
    assert (tmp_path / "valor/classes.txt").read_text().splitlines() == classes
    assert store.export("huggingface", tmp_path / "hf") == (80, [])
    frame = pl.read_parquet(tmp_path / "hf/data/train-00000-of-00001.parquet")
    names, values, _, _ = store.labels("train", "visual")
    assert frame["video"].to_list() == names
    assert (np.array(frame["visual_labels"].to_list()) == values).all()
    with pytest.raises(FileExistsError, match="is not empty, expected a folder that is new or empty"):
        store.export("activitynet", tmp_path / "hf")
    with pytest.raises(ValueError, match="format is `npz`, expected one of `valor`, `llp-csv`"):
        store.export("npz", tmp_path / "x")
