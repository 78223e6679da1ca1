"""Changing a store from Python: the same tables as from the command line."""

import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vaplan


def command(*words, status=0):
    done = subprocess.run([sys.executable, "-m", "vaplan", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout


def tables(store):
    """The labels and predictions of a store, in order."""
    return [sorted(map(repr, store.table(name).to_pylist())) for name in ("labels", "predictions", "user_labels")]


def probabilities(store, seed):
    """Probabilities that contradict some labels of both modalities."""
    generator = np.random.default_rng(seed)
    found = {}
    for modality in ("audio", "visual"):
        labels = store.labels("train", modality)
        sure = np.abs(labels.values - generator.uniform(0, 0.02, labels.values.shape))
        wrong = generator.random(labels.values.shape) < 0.05
        found[modality] = np.where(wrong, 1 - sure, sure).astype(np.float32)
        found["names"] = labels.names
    return found


def write(folder, given):
    for modality in ("audio", "visual"):
        (folder / modality).mkdir(parents=True)
        for name, values in zip(given["names"], given[modality]):
            np.save(folder / modality / f"{name}.npy", values)
    return folder


@pytest.fixture
def twin(made, tmp_path):
    """A second copy of the store, for the command line."""
    import shutil

    shutil.copytree(made / "store", tmp_path / "twin")
    return tmp_path / "twin"


def test_epochs_from_memory_give_the_tables_of_epochs_from_files(own, twin, tmp_path):
    with own.session() as session:
        for epoch in (1, 2, 3):
            given = probabilities(own, epoch)
            change = session.apply(predictions={"epoch": epoch, **given})
            files = write(tmp_path / f"epoch{epoch}", given)
            command("relabel", "--store", twin, "--predictions", files, "--epoch", epoch)
            assert change.version == epoch + 1 == own.version == session.version
            assert change.changes.num_rows == change.set + change.unset > 0
    assert tables(own) == tables(vaplan.open(twin))
    assert np.array_equal(own.predictions(3, "train", "audio").values, given["audio"])
    flipped = set(own.table("labels", where="rule = 'pld'")["modality"].to_pylist())
    assert flipped == {"visual"}
    change = own.denoise(epoch=1, modalities=["audio", "visual"], alpha=4)
    command("denoise", "--store", twin, "--epoch", 1, "--modality", "both", "--alpha", 4)
    assert change.flips is not None and sum(change.flips) > 0
    assert tables(own) == tables(vaplan.open(twin))


def test_a_change_by_relabel_equals_one_by_a_session_and_by_dicts(own, twin):
    given = probabilities(own, 7)
    dicts = {modality: dict(zip(given["names"], given[modality])) for modality in ("audio", "visual")}
    dry = own.relabel(predictions={"epoch": 4, **given}, dry_run=True)
    assert dry.version is None and own.version == 1
    change = own.relabel(predictions={"epoch": 4, **given})
    other = vaplan.open(twin)
    other.session().apply({"predictions": {"epoch": 4, **dicts}}, list_changes=False)
    assert tables(own) == tables(other)
    assert dry.changes.to_pylist() == change.changes.to_pylist()
    assert set(change.changes["rule"].to_pylist()) == {"pld"}


def test_lengths_leave_out_padding(own, twin):
    given = probabilities(own, 8)
    padded = {key: np.pad(given[key], ((0, 0), (0, 3), (0, 0))) for key in ("audio", "visual")}
    lengths = np.full(len(given["names"]), 10)
    own.relabel(predictions={"epoch": 1, "names": given["names"], "lengths": lengths, **padded})
    vaplan.open(twin).relabel(predictions={"epoch": 1, **given})
    assert tables(own) == tables(vaplan.open(twin))


def test_user_labels_of_every_form_are_set_and_withdrawn(own):
    name = own.labels("train").names[0]
    track = own.table("labels", where=f"video = '{name}' AND modality = 'visual'").to_pylist()[0]
    row = {"video": name, "modality": "visual", "class": track["class"]}
    before = track["label"]
    change = own.relabel(user_labels=[{**row, "segment": track["segment"], "label": not before}])
    assert change.changes.to_pylist() == [
        {**row, "segment": track["segment"], "before": before, "after": not before, "rule": "user"}
    ]
    frame = pd.DataFrame([{**row, "segment": track["segment"], "label": None}])
    assert own.relabel(user_labels=frame).set + own.relabel(user_labels=frame).unset <= 1
    assert own.table("user_labels").num_rows == 0
    change = own.relabel(user_labels=[{**row, "onset": 0, "offset": 10, "label": True}])
    assert own.labels("train").values[0, :, own.labels().classes.index(track["class"])].all()
    unknown = own.relabel(user_labels=[{**row, "class": "Unicorn", "segment": 0, "label": 1}])
    assert unknown.version is not None or unknown.rejected
    assert any("Unicorn" in rejected["reason"] for rejected in unknown.rejected)


def test_weak_labels_and_thresholds_change(own):
    name = own.labels("train").names[0]
    own.relabel(add_weak={name: ["Dog"]})
    dog = own.weak_labels("train").classes.index("Dog")
    assert own.weak_labels("train").values[0, dog] == 1
    own.relabel(thresholds={"visual": {"Dog": -100.0}})
    assert own.labels("train").values[0, :, dog].all()
    own.relabel(remove_weak={name: ["Dog"]})
    assert not own.labels("train").values[0, :, dog].any()
    own.relabel(weak={name: None})
    assert name not in own.labels("train").names
    own.relabel(to_version=1, thresholds={"audio": 0.9})
    assert own.relabel(thresholds={"audio": 0.9}).version is None
    assert own.version == own.latest().version


def test_a_plan_commits_nothing(own):
    plan = own.plan(thresholds={"visual": 1.1})
    assert plan["tracks"] == 25 and not plan["everything"] and plan["tables"]["labels"]["rows"] > 0
    assert own.latest().version == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"threshold": 1}, ValueError, "an argument of the change is 'threshold', expected one of 'rule', 'thresholds'"),
        ({"thresholds": 1.0}, TypeError, "thresholds is of type float, expected a dict with 'audio' or 'visual'"),
        ({"thresholds": {"both": 1}}, ValueError, "a key of thresholds is 'both', expected one of 'audio', 'visual'"),
        ({"thresholds": {"audio": "x"}}, TypeError, "thresholds['audio'] is 'x', expected a number"),
        ({"thresholds": {"audio": float("nan")}}, ValueError, "audio threshold of class `Speech` is NaN, expected a finite number"),
        ({"thresholds": {"audio": {"Dgo": 1}}}, ValueError, "threshold of audio: "),
        ({"thresholds": "none.toml"}, ValueError, "thresholds file `none.toml`: "),
        ({"predictions": 3}, TypeError, "predictions is of type int, expected a dict with 'epoch', 'audio', 'visual'"),
        ({"predictions": {"audio": {}}}, ValueError, "predictions has no 'epoch', expected its number, from 1"),
        ({"predictions": {"epoch": 0}}, ValueError, 'predictions["epoch"] is 0, expected 1 to '),
        ({"predictions": {"epoch": 1}}, ValueError, "predictions has neither 'audio' nor 'visual', expected at least one"),
        (
            {"predictions": {"epoch": 1, "audio": np.zeros((1, 10, 25))}},
            TypeError,
            'predictions["names"] is missing or no list, expected the name of each video of predictions["audio"]',
        ),
        (
            {"predictions": {"epoch": 1, "audio": {"v": np.full((10, 25), np.nan)}}},
            ValueError,
            "predictions[\"audio\"]['v'][0, 0] is nan, expected a number from 0 to 1",
        ),
        ({"user_labels": [{"video": "v"}]}, ValueError, "user_labels[0] has no 'modality', expected video, modality, class"),
        (
            {"user_labels": [{"video": "v", "modality": "audio", "class": "Dog", "label": 2, "segment": 1}]},
            ValueError,
            "user_labels[0]['label'] is 2, expected true, false, or None or 'withdraw' to withdraw the label",
        ),
        (
            {"user_labels": [{"video": "v", "modality": "audio", "class": "Dog", "label": 1, "onset": 3, "offset": 2}]},
            ValueError,
            "user_labels[0]: onset is 3, expected less than offset 2",
        ),
        ({"weak": {"v": "Dog"}}, TypeError, "weak['v'] is 'Dog', expected a list of classes"),
        ({"epoch": 5}, ValueError, "store version 1 has no predictions of epoch 5"),
        ({"denoise": {"k": 0}}, ValueError, "denoising: k is 0, expected a whole number from 1 to 2147483647"),
        ({"to_version": 8}, LookupError, "store has no version 8, expected 1 to 1"),
    ],
)
def test_a_bad_change_is_named_and_commits_nothing(own, change, error, message):
    with own.session() as session:
        for make in (own.relabel, session.apply):
            with pytest.raises(error) as raised:
                make(**change)
            assert str(raised.value).startswith(message)
        assert session.apply(thresholds={"visual": 1.05}).version == 2


def test_predictions_of_other_classes_are_rejected_rows(own):
    name = own.labels("train").names[0]
    change = own.relabel(predictions={"epoch": 1, "audio": {name: np.zeros((10, 24))}})
    assert [row["video"] for row in change.rejected] == [name]
    assert "24 values, expected 25, one per class" in change.rejected[0]["reason"]


def test_a_closed_session_says_so(own):
    session = own.session()
    session.close()
    session.close()
    with pytest.raises(vaplan.VaplanError, match="the session is closed"):
        session.apply(thresholds={"visual": 1.05})
    with pytest.raises(ValueError, match="workers is 0, expected 1 to "):
        own.session(workers=0)


def test_threads_share_a_session(own):
    errors = []

    def change(session, threshold):
        try:
            session.apply(thresholds={"visual": threshold})
        except Exception as error:
            errors.append(error)

    with own.session() as session:
        threads = [threading.Thread(target=change, args=(session, 1.03 + nth / 100)) for nth in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == [] and session.version == own.latest().version
    assert not own.relabel(thresholds={"visual": 1.0}).rejected


def test_label_equals_the_command(made, tmp_path):
    inputs = {
        "visual": made / "features/visual",
        "visual_text": made / "features/visual_text.npy",
        "audio": made / "features/audio",
        "audio_text": made / "features/audio_text.npy",
    }
    done = vaplan.label(tmp_path / "a", made / "annotations", thresholds={"visual": 1.01}, splits=["val"], **inputs)
    assert done.labelled and done.videos == 16 and done.store.version == 1 == done.version
    flags = [word for key, path in inputs.items() for word in (f"--{key.replace('_', '-')}", path)]
    flags += ["--annotations", made / "annotations", "--visual-threshold", "1.01", "--split", "val"]
    command("label", "--store", tmp_path / "b", *flags)
    assert tables(done.store) == tables(vaplan.open(tmp_path / "b"))
    again = vaplan.label(tmp_path / "a", made / "annotations", thresholds={"visual": 1.01}, splits=["val"], **inputs)
    assert not again.labelled and again.version == 1
    with pytest.raises(OSError, match="nowhere"):
        vaplan.label(tmp_path / "c", "nowhere", **inputs)


def in_memory(made):
    """The inputs of the sample as values in memory."""

    def features(modality):
        return {path.stem: np.load(path) for path in sorted((made / "features" / modality).glob("*.npy"))}

    def weak(name):
        rows = (made / "annotations" / name).read_text().splitlines()[1:]
        return {video: labels.split(",") for video, labels in (row.split("\t") for row in rows)}

    def events(name):
        found = {}
        for row in (made / "annotations" / name).read_text().splitlines()[1:]:
            video, onset, offset, label = row.split("\t")
            found.setdefault(video, []).append((label, int(onset), int(offset)))
        return found

    names = {path.name.split("_", 1)[1]: path.name for path in (made / "annotations").glob("*.csv")}
    store = vaplan.open(made / "store")
    annotations = {
        "classes": store.weak_labels().classes,
        "train": weak(names["train.csv"]),
        "val": weak(names["val_pd.csv"]),
        "test": weak(names["test_pd.csv"]),
        "audio_truth": events(names["eval_audio.csv"]),
        "visual_truth": events(names["eval_visual.csv"]),
    }
    texts = {f"{modality}_text": np.load(made / f"features/{modality}_text.npy") for modality in ("audio", "visual")}
    return {"annotations": annotations, **{modality: features(modality) for modality in ("audio", "visual")}, **texts}


def test_label_of_arrays_equals_label_of_files_and_later_changes_find_the_features(made, tmp_path):
    inputs = in_memory(made)
    done = vaplan.label(tmp_path / "a", **inputs)
    assert done.labelled and done.videos == 80 and done.rejected == []
    before = vaplan.open(made / "store")
    for split in ("train", "val", "test"):
        for modality in ("audio", "visual"):
            assert (done.store.labels(split, modality).values == before.labels(split, modality).values).all()
            np.testing.assert_array_equal(done.store.scores(split, modality).values, before.scores(split, modality).values)
    counts = "SELECT count(*) AS n FROM truth"
    assert done.store.sql(counts)["n"].to_pylist() == before.sql(counts)["n"].to_pylist()
    # The same arrays again are the same files.
    assert not vaplan.label(tmp_path / "a", **inputs).labelled
    # A class that is added needs the features of its video, which the store kept.
    video, weak = next(iter(inputs["annotations"]["train"].items()))
    added = next(name for name in inputs["annotations"]["classes"] if name not in weak)
    command("vacuum", "--store", tmp_path / "a", "--keep", "1")
    change = done.store.relabel(add_weak={video: [added]})
    assert change.version == 2 and change.rejected == []
    assert np.isfinite(done.store.scores("train", "audio").values[done.store.labels("train").names.index(video)]).any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"visual": {"v": np.zeros((2, 3, 4))}}, ValueError, r"^visual\['v'\] has shape \(2, 3, 4\), expected two axes"),
        ({"visual": {"v": np.full((2, 3), np.nan)}}, ValueError, r"^visual\['v'\]\[0, 0\] is nan, expected a finite number"),
        ({"visual": {"v": np.zeros((2, 3)), "w": np.zeros((2, 4))}}, ValueError, r"^visual has arrays of \[3, 4\] columns"),
        ({"visual": {"v": np.array([[object()]])}}, TypeError, r"^visual\['v'\] has type object"),
        ({"visual": {}}, TypeError, "^visual is of type dict"),
        ({"visual": {3: np.zeros((2, 3))}}, TypeError, "^a key of visual is 3, expected the name of a video"),
        ({"audio_text": np.zeros((0, 4))}, ValueError, r"^audio_text has shape \(0, 4\)"),
        ({"annotations": {"classes": ["a"], "dev": {}}}, ValueError, "^a key of annotations is 'dev', expected one of"),
        ({"annotations": {"classes": "a"}}, TypeError, r"^annotations\['classes'\] is missing or no list"),
        ({"annotations": {"classes": ["a,b"], "train": {}}}, ValueError, "^a class is 'a,b', expected a name without ','"),
        ({"annotations": {"classes": ["a"], "train": {"v": "a"}}}, TypeError, r"^annotations\['train'\]\['v'\] is text"),
        ({"annotations": {"classes": ["a"], "train": {"v": ["b"]}}}, ValueError, "has class 'b', expected one of"),
        ({"annotations": {"classes": ["a"]}}, ValueError, "^annotations has no videos"),
        ({"columns": {"name": "id"}}, ValueError, "^a key of columns is 'name', expected one of 'video'"),
    ],
)
def test_a_bad_input_of_label_is_named(made, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        vaplan.label(tmp_path / "store", **{**in_memory(made), **change})


def test_columns_of_shards_may_have_other_names(made, tmp_path):
    inputs = in_memory(made)
    for modality in ("audio", "visual"):
        rows = [(name, nth, row.tolist()) for name, own in inputs[modality].items() for nth, row in enumerate(own)]
        names, segments, values = zip(*rows)
        table = pa.table({"id": names, "second": pa.array(segments, pa.int32()), "embedding": pa.array(values, pa.list_(pa.float32()))})
        pq.write_table(table, tmp_path / f"{modality}.parquet")
        inputs[modality] = tmp_path / f"{modality}.parquet"
    names = {"video": "id", "segment": "second", "feature": "embedding"}
    done = vaplan.label(tmp_path / "store", columns=names, **inputs)
    assert (done.store.labels("test").values == vaplan.open(made / "store").labels("test").values).all()


def test_labels_of_another_program_become_those_of_a_store(made, tmp_path):
    first = vaplan.open(made / "store")
    first.export("valor", tmp_path / "valor")
    folders = (tmp_path / "valor/visual", tmp_path / "valor/audio")
    done = vaplan.label(tmp_path / "store", made / "annotations", pseudo_labels=folders)
    assert done.labelled and done.videos == 80 and done.rejected == []
    for modality in ("audio", "visual"):
        assert (done.store.labels(None, modality).values == first.labels(None, modality).values).all()
    assert not vaplan.label(tmp_path / "store", made / "annotations", pseudo_labels=folders).labelled
    with pytest.raises(ValueError, match="^rule is given beside pseudo_labels"):
        vaplan.label(tmp_path / "store", made / "annotations", pseudo_labels=folders, rule="logit")
    with pytest.raises(TypeError, match="^visual_text is missing, expected features and text embeddings"):
        vaplan.label(tmp_path / "store", made / "annotations", visual="x")


def test_denoise_chooses_its_rule_on_val_as_the_command_does(own, twin, tmp_path):
    import json

    truth = own.table("truth").to_pylist()
    given = probabilities(own, 3)
    for right in (True, False):
        epoch = 1 if right else 2
        named = {"names": list(given["names"])}
        for modality in ("audio", "visual"):
            labels = own.labels("val", modality)
            event = np.zeros(labels.values.shape, dtype=bool)
            for row in truth:
                if row["modality"] == modality and row["video"] in labels.names:
                    place = list(labels.names).index(row["video"])
                    event[place, row["onset"] : row["offset"], list(labels.classes).index(row["class"])] = True
            found = np.where(event == right, 0.97, 0.03).astype(np.float32)
            named[modality] = np.concatenate([given[modality], found])
        named["names"] += list(own.labels("val", "audio").names)
        own.relabel(predictions={"epoch": epoch, **named})
        files = write(tmp_path / f"epoch{epoch}", named)
        command("relabel", "--store", twin, "--predictions", files, "--epoch", epoch)
        before = own.version
        change = own.denoise(epoch=epoch)
        told = json.loads(command("denoise", "--store", twin, "--epoch", epoch, "--format", "json"))["calibration"]
        assert {key: change.calibration[key] for key in told} == told
        assert change.calibration["taken"] is right and change.calibration["videos"] == 16
        assert tables(own) == tables(vaplan.open(twin))
        if not right:
            assert change.version is None and own.version == before
    assert own.denoise(epoch=2, calibrate=False, dry_run=True).calibration is None
    assert own.denoise(epoch=2, alpha=4, dry_run=True).calibration is None
