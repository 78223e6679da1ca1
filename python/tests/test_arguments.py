"""Arguments of labelling and of changes: frames with missing values, and errors that name the argument, the index and the value."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import vaplan


@pytest.fixture
def track(own):
    """A visual track of the store, as keys of a user label."""
    name = own.labels("train").names[0]
    row = own.table("labels", where=f"video = '{name}' AND modality = 'visual'").to_pylist()[0]
    return {"video": name, "modality": "visual", "class": row["class"]}


def frames(rows):
    """The rows in every form."""
    return {"list": rows, "pandas": pd.DataFrame(rows), "polars": pl.DataFrame(rows), "pyarrow": pa.Table.from_pylist(rows)}


def user_labels(store):
    rows = store.table("user_labels").to_pylist()
    return sorted((row["segment"], row["label"]) for row in rows)


@pytest.mark.parametrize("form", ["list", "pandas", "polars", "pyarrow"])
def test_a_frame_may_set_and_withdraw_labels(own, track, form):
    rows = [{**track, "segment": 1, "label": 1}, {**track, "segment": 2, "label": 0}]
    own.relabel(user_labels=frames(rows)[form])
    assert user_labels(own) == [(1, True), (2, False)]
    # pandas makes NaN of None, and floats of the whole numbers beside it.
    rows = [{**track, "segment": 1, "label": None}, {**track, "segment": 3, "label": 1}]
    own.relabel(user_labels=frames(rows)[form])
    assert user_labels(own) == [(2, False), (3, True)]
    rows = [
        {**track, "segment": 4, "onset": None, "offset": None, "label": 1},
        {**track, "segment": None, "onset": 5, "offset": 7, "label": 1},
    ]
    own.relabel(user_labels=frames(rows)[form])
    assert user_labels(own) == [(2, False), (3, True), (4, True), (5, True), (6, True)]


def test_withdraw_may_be_written_as_in_files(own, track):
    own.relabel(user_labels=[{**track, "segment": 1, "label": True}])
    own.relabel(user_labels=pd.DataFrame([{**track, "segment": 1, "label": "withdraw"}]))
    assert user_labels(own) == []


def label_of(**change):
    return [{"video": "v", "modality": "audio", "class": "Dog", "segment": 1, "label": 1, **change}]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"user_labels": label_of(label=np.array([0, 1]))}, ValueError, "user_labels[0]['label'] is array([0, 1]), expected true"),
        ({"user_labels": label_of(label="yes")}, ValueError, "user_labels[0]['label'] is 'yes', expected true, false"),
        ({"user_labels": label_of(segment=1.5)}, TypeError, "user_labels[0]['segment'] is 1.5, expected a whole number"),
        ({"user_labels": label_of(segment=float("inf"))}, TypeError, "user_labels[0]['segment'] is inf, expected a whole number"),
        ({"user_labels": label_of(segment=None)}, ValueError, "user_labels[0] has none of them, expected either 'segment'"),
        ({"user_labels": label_of(onset=2)}, ValueError, "user_labels[0] has 'segment' and 'onset', expected either 'segment'"),
        ({"user_labels": label_of(segment=-1)}, ValueError, "user_labels[0]['segment'] is -1, expected 0 to "),
        ({"splits": ["x"]}, TypeError, "splits is of type list, expected a dict of splits by video"),
        ({"splits": {"v": "train"}}, ValueError, "splits has video 'v', expected a video of weak or add_weak"),
        ({"splits": {"v": "dev"}, "weak": {"v": ["Dog"]}}, ValueError, "splits['v'] is 'dev', expected one of 'train'"),
        ({"denoise": {"modalities": 3}}, TypeError, "denoise['modalities'] is 3, expected a list of 'audio' and 'visual'"),
        ({"denoise": {"alpha": 10**400}}, TypeError, "denoise['alpha'] is 1000"),
        ({"features": {"visual": 3}}, TypeError, "features['visual'] is 3, expected a path or a list of paths"),
        ({"features": {"visual": ["x", 3]}}, TypeError, "features['visual'] has 3, expected a path"),
        ({"allow_missing": "no"}, TypeError, "allow_missing is 'no', expected True or False"),
    ],
)
def test_a_bad_change_is_named(own, change, error, message):
    with pytest.raises(error) as raised:
        own.relabel(**change)
    assert str(raised.value).startswith(message)
    assert own.latest().version == 1


def test_a_session_names_its_arguments(own):
    with own.session() as session:
        with pytest.raises(TypeError, match="^changes is of type list, expected a dict"):
            session.apply([1])
        with pytest.raises(TypeError, match="^list_changes is 1, expected True or False"):
            session.apply(thresholds={"visual": 1.0}, list_changes=1)


def inputs(**annotations):
    features = {"v": np.ones((3, 2)), "w": np.ones((3, 2))}
    given = {"classes": ["Dog", "Cat"], "test": {"v": ["Dog"], "w": ["Cat"]}, **annotations}
    return {"annotations": given, "visual": features, "audio": features, "visual_text": np.eye(2), "audio_text": np.eye(2)}


@pytest.mark.filterwarnings("ignore:the thresholds set")
def test_dense_truth_may_have_whole_floats(tmp_path):
    truth = {"v": [("Dog", 0, 2.0), ["Dog", np.int64(2), np.float32(3)]]}
    done = vaplan.label(tmp_path / "store", **inputs(visual_truth=truth, audio_truth={}))
    rows = done.store.table("truth").to_pylist()
    assert [(row["onset"], row["offset"]) for row in rows] == [(0, 2), (2, 3)]


WHOLE = "expected a whole number of seconds from 0 to 2147483647"


@pytest.mark.parametrize(
    ("annotations", "error", "message"),
    [
        ({"visual_truth": {"v": [("Dog", 0.5, 2.7)]}}, ValueError, f"onset of annotations['visual_truth']['v'][0] is 0.5, {WHOLE}"),
        ({"visual_truth": {"v": [("Dog", 0, 2.7)]}}, ValueError, f"offset of annotations['visual_truth']['v'][0] is 2.7, {WHOLE}"),
        ({"visual_truth": {"v": [("Dog", np.nan, 2)]}}, ValueError, f"onset of annotations['visual_truth']['v'][0] is nan, {WHOLE}"),
        ({"visual_truth": {"v": [("Dog", 0, np.inf)]}}, ValueError, f"offset of annotations['visual_truth']['v'][0] is inf, {WHOLE}"),
        ({"audio_truth": {"v": [("Dog", "0", 2)]}}, TypeError, f"onset of annotations['audio_truth']['v'][0] is '0', {WHOLE}"),
        ({"audio_truth": {"v": [("Dog", None, 2)]}}, TypeError, f"onset of annotations['audio_truth']['v'][0] is None, {WHOLE}"),
        ({"audio_truth": {"v": [("Dog", -1, 2)]}}, ValueError, f"onset of annotations['audio_truth']['v'][0] is -1, {WHOLE}"),
        ({"audio_truth": {"v": [("Dog", 5, 2)]}}, ValueError, "onset of annotations['audio_truth']['v'][0] is 5, expected at most its offset 2"),
        ({"audio_truth": {"v": [("Dog", 0, 1), None]}}, ValueError, "annotations['audio_truth']['v'][1] is None, expected (class, onset"),
        ({"audio_truth": {"v": [("Cow", 0, 1)]}}, ValueError, "annotations['audio_truth']['v'][0] has class 'Cow', expected one of"),
        ({"audio_truth": {"v": None}}, TypeError, "annotations['audio_truth']['v'] is None, expected a list of events"),
        ({"audio_truth": [1]}, TypeError, "annotations['audio_truth'] is of type list, expected a dict of events by video"),
        ({"train": {"v": None}}, TypeError, "annotations['train']['v'] is None, expected a list of classes"),
        ({"train": {"v": ["Dog"], 3: ["Dog"]}}, TypeError, "a key of annotations['train'] is 3, expected text"),
        ({"train": {"v": [3]}}, ValueError, "annotations['train']['v'] has class 3, expected one of annotations['classes']"),
        ({"train": ["v"]}, TypeError, "annotations['train'] is of type list, expected a dict of classes by video"),
    ],
)
def test_bad_annotations_in_memory_are_named(tmp_path, annotations, error, message):
    with pytest.raises(error) as raised:
        vaplan.label(tmp_path / "store", **inputs(**annotations))
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"visual": {"v": np.full((3, 2), 1e300)}},
            ValueError,
            "visual['v'][0, 0] is 1e+300, expected a number from -3.4e38 to 3.4e38",
        ),
        ({"workers": -1}, ValueError, "workers is -1, expected 1 to "),
        ({"splits": 3}, TypeError, "splits is 3, expected a list of"),
        ({"splits": ["dev"]}, ValueError, "a split of splits is 'dev', expected one of"),
        ({"columns": ["id"]}, TypeError, "columns is of type list, expected a dict"),
        ({"segment_seconds": "1"}, TypeError, "segment_seconds is '1', expected a number"),
        ({"allow_missing": 1}, TypeError, "allow_missing is 1, expected True or False"),
        ({"classes_file": 3}, TypeError, "classes_file is 3, expected a path"),
    ],
)
def test_a_bad_argument_of_label_is_named(tmp_path, change, error, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error) as raised:
            vaplan.label(tmp_path / "store", **{**inputs(), **change})
    assert str(raised.value).startswith(message)


def test_thresholds_that_set_no_label_warn(made, own, tmp_path):
    with pytest.warns(UserWarning, match="^the thresholds set no label of the [0-9]+ visual labels, whose rule is `softmax`: ") as told:
        own.relabel(thresholds={"visual": 30.0})
    assert told[0].filename == __file__
    with own.session() as session, pytest.warns(UserWarning, match="^the thresholds set every label of the [0-9]+ audio labels") as told:
        session.apply(thresholds={"audio": 0.0})
    assert told[0].filename == __file__
    features = {key: made / "features" / key for key in ("visual", "audio")}
    texts = {f"{key}_text": made / "features" / f"{key}_text.npy" for key in ("visual", "audio")}
    with pytest.warns(UserWarning, match="^the thresholds set no label") as told:
        vaplan.label(tmp_path / "a", made / "annotations", thresholds={"visual": 30.0}, **features, **texts)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own.relabel(thresholds={"visual": 1.025, "audio": 0.95})


def test_labels_of_another_program_may_be_floats_and_have_notes(made, tmp_path):
    first = vaplan.open(made / "store")
    folders = tuple(tmp_path / modality for modality in ("visual", "audio"))
    for folder in folders:
        folder.mkdir()
        names, values, _, _ = first.labels(None, folder.name)
        for name, own in zip(names, values):
            np.save(folder / f"{name}.npy", own.astype(np.float64))
    np.save(folders[0] / "nobody.npy", np.zeros((10, 25)))
    done = vaplan.label(tmp_path / "store", made / "annotations", pseudo_labels=folders)
    assert done.rejected == []
    assert (done.store.labels(None, "visual").values == first.labels(None, "visual").values).all()
    note = next(row for row in done.notes if row["file"] == str(folders[0]))
    assert note["reason"].startswith("1 label files match no annotated video and are not used, for example `nobody.npy`")
    shown = done.store.show(first.labels().names[0])
    assert shown.imported and "labels of another program" in str(shown) and "labels of another program" in shown._repr_html_()
    with pytest.raises(ValueError, match="^columns is given beside pseudo_labels"):
        vaplan.label(tmp_path / "store", made / "annotations", pseudo_labels=folders, columns={"video": "id"})
    with pytest.raises(TypeError, match="^pseudo_labels is 3, expected the folders of visual and audio labels"):
        vaplan.label(tmp_path / "store", made / "annotations", pseudo_labels=3)
