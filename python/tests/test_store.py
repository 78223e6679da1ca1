"""Reading a store from Python."""

import shutil
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
    with pytest.raises(ValueError, match="split is 'dev', expected one of 'train', 'val', 'test'"):
        store.labels("dev")
    with pytest.raises(ValueError, match="modality is 'both', expected one of 'audio', 'visual'"):
        store.labels("train", "both")
    with pytest.raises(ValueError, match="store version 1 has no predictions of epoch 3"):
        store.predictions(3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda store: vaplan.open(3), TypeError, "path is 3, expected a path"),
        (lambda store: vaplan.open(store.path, "1"), TypeError, "version is '1', expected a whole number"),
        (lambda store: store.at(-1), ValueError, "version is -1, expected 0 to "),
        (lambda store: store.at(2**64), ValueError, "version is 18446744073709551616, expected 0 to "),
        (lambda store: store.predictions(-1), ValueError, "epoch is -1, expected 1 to "),
        (lambda store: store.predictions("1"), TypeError, "epoch is '1', expected a whole number"),
        (lambda store: store.labels(3), ValueError, "split is 3, expected one of 'train', 'val', 'test'"),
        (lambda store: store.weak_labels("dev"), ValueError, "split is 'dev', expected one of"),
        (lambda store: store.show("demo0001510", width=-1), ValueError, "width is -1, expected 1 to "),
        (lambda store: store.show(3), TypeError, "video is 3, expected the name of a video"),
        (lambda store: store.session(workers=-1), ValueError, "workers is -1, expected 1 to "),
        (lambda store: store.relabel(workers=0), ValueError, "workers is 0, expected 1 to "),
        (lambda store: store.relabel(dry_run="yes"), TypeError, "dry_run is 'yes', expected True or False"),
        (lambda store: store.export(3, "x"), TypeError, "format is 3, expected the name of a format"),
        (lambda store: store.export("valor", 3), TypeError, "out is 3, expected a path"),
        (lambda store: store.export("valor", "x", splits=["dev"]), ValueError, "a split of splits is 'dev', expected one of"),
        (lambda store: store.export("valor", "x", splits=3), TypeError, "splits is 3, expected a list of"),
        (lambda store: store.export("elan", "x", media=3), TypeError, "media is 3, expected a text such as '{video}.mp4'"),
        (lambda store: store.export("elan", "x", frame_rate=0), ValueError, "frame rate is 0, expected 0.001 to 1000000"),
    ],
)
def test_a_bad_argument_is_named(store, call, error, message):
    with pytest.raises(error) as raised:
        call(store)
    assert str(raised.value).startswith(message)


def test_a_damaged_file_is_an_error_of_the_package(own):
    for file in Path(own.path, "labels").glob("*.parquet"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(_native.VaplanError, match="labels"):
        own.labels("train")


def test_a_folder_to_write_is_a_path_or_a_file_url(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert store.export("valor", (tmp_path / "valor").as_uri(), splits=["test"]) == (24, [], [])
    with pytest.raises(ValueError, match="^`s3://bucket/a` is a URL, expected a folder of the local disk"):
        store.export("valor", "s3://bucket/a")
    with pytest.raises(vaplan.VaplanError, match="no path of this machine"):
        vaplan.sample("file://host/a")
    assert [path.name for path in tmp_path.iterdir()] == ["valor"]


def test_exports_hold_the_labels(store, tmp_path):
    assert store.export("valor", tmp_path / "valor", splits=["test"]) == (24, [], [])
    for modality in ("audio", "visual"):
        names, values, _, classes = store.labels("test", modality)
        assert len(list((tmp_path / "valor" / modality).iterdir())) == 24
        for name, labels in zip(names, values):
            found = np.load(tmp_path / "valor" / modality / f"{name[:11]}.npy")
            assert found.dtype == np.int64 and (found == labels).all()
    assert (tmp_path / "valor/classes.txt").read_text().splitlines() == classes
    assert store.export("huggingface", tmp_path / "hf").videos == 80
    frame = pl.read_parquet(tmp_path / "hf/data/train-00000-of-00001.parquet")
    names, values, _, _ = store.labels("train", "visual")
    assert frame["video"].to_list() == names
    assert (np.array(frame["visual_labels"].to_list()) == values).all()
    with pytest.raises(FileExistsError, match="is not empty, expected a folder that is new or empty"):
        store.export("activitynet", tmp_path / "hf")
    with pytest.raises(ValueError, match="format is `npz`, expected one of `valor`, `llp-csv`"):
        store.export("npz", tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file` is no folder, expected a folder that is new or empty"):
        store.export("valor", tmp_path / "file")


def test_exports_name_media_as_asked(store, tmp_path):
    for given in ({}, {"media": "clips/{id}.webm", "frame_rate": 10}):
        out = tmp_path / f"fiftyone{len(given)}"
        store.export("fiftyone", out, ["test"], **given)
        text = (out / "samples.json").read_text()
        assert ("clips/" in text) == bool(given) and (".mp4" in text) != bool(given)


def test_datasets_opens_an_export(store, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets

    store.export("huggingface", tmp_path / "hf")
    opened = datasets.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    assert set(opened) == {"train", "validation", "test"}
    for split, own in (("train", "train"), ("validation", "val"), ("test", "test")):
        weak = store.weak_labels(own)
        assert list(opened[split]["video"]) == weak.names
        for modality in ("audio", "visual"):
            assert (np.array(opened[split][f"{modality}_labels"]) == store.labels(own, modality).values).all()


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A store of videos of 3, 10 and 7 segments, in `train`, and their numbers of segments."""
    lengths = {"a_0_10": 3, "b_0_10": 10, "c_0_10": 7}
    generator = np.random.default_rng(5)
    features = {name: generator.normal(size=(length, 4)) for name, length in lengths.items()}
    weak = {"a_0_10": ["Dog"], "b_0_10": ["Dog", "Cat"], "c_0_10": ["Cat"]}
    done = vaplan.label(
        tmp_path_factory.mktemp("uneven") / "store",
        {"classes": ["Dog", "Cat"], "train": weak},
        visual=features,
        # Networks give one more axis.
        audio={name: values[np.newaxis] for name, values in features.items()},
        visual_text=np.eye(2, 4),
        audio_text=np.eye(2, 4),
    )
    assert done.rejected == [] and done.videos == 3
    return done.store, lengths


def test_shorter_videos_are_padded(uneven, tmp_path):
    store, lengths = uneven
    for modality in ("audio", "visual"):
        labels, scores = store.labels("train", modality), store.scores("train", modality)
        assert labels.lengths.tolist() == scores.lengths.tolist() == list(lengths.values())
        assert labels.values.shape == scores.values.shape == (3, 10, 2)
        weak = store.weak_labels("train").values.astype(bool)
        within = np.arange(10)[np.newaxis] < labels.lengths[:, np.newaxis]
        assert (np.isfinite(scores.values) == (within[:, :, np.newaxis] & weak[:, np.newaxis])).all()
        assert not labels.values[~within].any()
        rows = store.sql(f"SELECT count(*) AS n FROM labels WHERE label AND modality = '{modality}'")["n"].to_pylist()
        assert rows == [labels.values.sum()]


def test_predictions_of_some_videos_leave_the_others_nan(uneven, tmp_path):
    shutil.copytree(uneven[0].path, tmp_path / "store")
    store = vaplan.open(tmp_path / "store")
    given = {"a_0_10": np.full((3, 2), 0.25), "c_0_10": np.full((7, 2), 0.75)}
    assert store.relabel(predictions={"epoch": 1, "visual": given}).rejected == []
    found = store.predictions(1, "train", "visual")
    assert found.names == ["a_0_10", "b_0_10", "c_0_10"] and found.values.shape == (3, 10, 2)
    # A video without predictions keeps its number of segments, and all its values are NaN.
    assert found.lengths.tolist() == [3, 10, 7]
    for nth, name in enumerate(found.names):
        own = given.get(name, np.zeros((0, 2)))
        assert (found.values[nth, : len(own)] == own).all() and np.isnan(found.values[nth, len(own) :]).all()
    assert np.isnan(store.predictions(1, "train", "audio").values).all()
