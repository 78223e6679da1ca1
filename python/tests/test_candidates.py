"""`candidates`: labels of videos without a weak label, and what tables, timelines and scores tell of them."""

import json
import subprocess
import sys

import numpy as np
import pytest

import vaplan

SPLITS = ("train", "val", "test")
MODALITIES = ("audio", "visual")


@pytest.fixture(scope="module")
def inputs(made):
    """The sample in memory. Every second train and test video has no weak label."""
    store = vaplan.open(made / "store")
    classes = store.labels().classes
    annotations = {"classes": classes, "audio_truth": {}, "visual_truth": {}}
    for split in SPLITS:
        weak = store.weak_labels(split)
        hidden = [split != "val" and nth % 2 == 0 for nth in range(len(weak.names))]
        annotations[split] = {
            name: [] if hides else [own for own, there in zip(classes, row) if there]
            for name, row, hides in zip(weak.names, weak.values, hidden)
        }
    for row in store.table("truth").to_pylist():
        events = annotations[f"{row['modality']}_truth"].setdefault(row["video"], [])
        events.append((row["class"], row["onset"], row["offset"]))
    given = {"annotations": annotations}
    for modality in MODALITIES:
        folder = made / "features" / modality
        given[modality] = {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}
        given[f"{modality}_text"] = np.load(made / "features" / f"{modality}_text.npy")
    return given


def label(folder, inputs, **options):
    return vaplan.label(folder / "store", **inputs, **options).store


def without_weak_label(inputs):
    return sorted(name for split in SPLITS for name, own in inputs["annotations"][split].items() if not own)


def labels_of(store):
    return sorted(map(repr, store.table("labels").to_pylist()))


def test_a_video_without_a_weak_label_has_no_labels_unless_candidates_are_asked_for(inputs, tmp_path):
    hidden = without_weak_label(inputs)
    assert len(hidden) == 20 + 12
    weak = label(tmp_path / "weak", inputs)
    assert labels_of(weak) == labels_of(label(tmp_path / "named", inputs, candidates="weak"))
    assert not weak.sql("SELECT video FROM videos WHERE guessed").num_rows
    assert not set(weak.table("labels")["video"].to_pylist()) & set(hidden)


@pytest.mark.parametrize(("rule", "most"), [("top:3", 3), ("all", 25)])
def test_candidates_are_guessed_and_column_guessed_tells_it(inputs, tmp_path, rule, most):
    hidden = without_weak_label(inputs)
    store = label(tmp_path, inputs, candidates=rule)
    assert sorted(store.sql("SELECT video FROM videos WHERE guessed")["video"].to_pylist()) == hidden
    weak, labels = store.weak_labels(), store.labels(None, "visual")
    counts = dict(zip(weak.names, weak.values.sum(1)))
    assert {counts[name] for name in hidden} == {most}
    guesses = [nth for nth, name in enumerate(labels.names) if name in hidden]
    assert labels.values[guesses].any(), "some segments of these videos are labelled"
    shown, other = store.show(hidden[0]), store.show(next(name for name in labels.names if name not in hidden))
    assert shown.guessed and len(shown.weak_labels) == most
    assert "candidate classes guessed from the scores" in shown._repr_html_()
    assert not other.guessed and "guessed" not in other._repr_html_()
    # Videos with a weak label are labelled as before.
    bare = label(tmp_path / "bare", inputs)
    condition = "video IN (SELECT video FROM videos WHERE NOT guessed)"
    assert store.table("labels", where=condition).num_rows == bare.table("labels", where=condition).num_rows > 0
    assert (weak.values.sum(1) > 0).all()


def truth_of(store, names, classes):
    """Dense truth as arrays `(N, 10, C)`."""
    arrays = {modality: np.zeros((len(names), 10, len(classes)), np.uint8) for modality in MODALITIES}
    for row in store.table("truth").to_pylist():
        if row["video"] in names:
            place = names.index(row["video"]), slice(row["onset"], row["offset"]), classes.index(row["class"])
            arrays[row["modality"]][place] = 1
    return arrays


def test_guessed_videos_are_scored_apart(inputs, tmp_path):
    store = label(tmp_path, inputs, candidates="top:3")
    arrays = {modality: store.labels("test", modality) for modality in MODALITIES}
    names, classes = arrays["audio"].names, arrays["audio"].classes
    truth = truth_of(store, names, classes)
    guessed = set(store.sql("SELECT video FROM videos WHERE guessed")["video"].to_pylist())
    words = [sys.executable, "-m", "vaplan", "eval", "--store", store.path, "--split", "test", "--format", "json"]
    told = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    found = {}
    for apart in (False, True):
        of = np.array([(name in guessed) == apart for name in names])
        scores = vaplan.evaluate(
            arrays["audio"].values[of], arrays["visual"].values[of], truth["audio"][of], truth["visual"][of]
        )
        expected = told["guessed"] if apart else told
        assert expected["videos"] == of.sum() == 12
        for level in ("segment", "event"):
            assert scores[level] == pytest.approx(expected[level], abs=1e-9)
        found[apart] = scores["segment"]["type_av"]
    assert found[False] > found[True] > 10


def test_relabel_gives_the_labels_of_a_fresh_store(inputs, tmp_path):
    store = label(tmp_path / "changed", inputs, candidates="top:2")
    before = labels_of(store)
    change = store.relabel(candidates="top:4")
    assert change.version == 2 and change.set > 0
    assert labels_of(store) == labels_of(label(tmp_path / "fresh", inputs, candidates="top:4")) != before
    with store.session() as session:
        session.apply(candidates="weak")
    store.refresh()
    assert not store.sql("SELECT video FROM videos WHERE guessed").num_rows
    # A weak label that comes replaces the guess.
    name = without_weak_label(inputs)[0]
    store.relabel(candidates="top:2")
    assert labels_of(store) == before
    store.relabel(weak={name: ["Banjo", "Blender"]})
    row = store.table("videos", where=f"video = '{name}'").to_pylist()[0]
    assert (row["guessed"], row["weak_labels"]) == (False, ["Banjo", "Blender"])


def test_a_rule_that_is_none_names_the_argument(inputs, store, tmp_path):
    with pytest.raises(ValueError, match="candidates is `top:0`, expected `weak`, `all` or `top:K` with K from 1"):
        label(tmp_path, inputs, candidates="top:0")
    with pytest.raises(TypeError, match="candidates is 3, expected a text such as 'top:3'"):
        label(tmp_path, inputs, candidates=3)
    with pytest.raises(ValueError, match="candidates is given beside pseudo_labels"):
        vaplan.label(tmp_path / "other", inputs["annotations"], pseudo_labels=(tmp_path, tmp_path), candidates="all")
    with pytest.raises(ValueError, match="candidates is `best`"):
        store.relabel(candidates="best", dry_run=True)
