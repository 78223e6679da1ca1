"""`generate`, `denoise` and `events` against golden arrays, and against plain numpy."""

import numpy as np
import pytest
import reference
from conftest import GOLDEN

import vaplan


def load(name):
    return np.load(GOLDEN / f"{name}.npy")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plg_softmax_0_041", {}),
        ("plg_softmax_0_038", {"modality": "audio"}),
        ("plg_scaled100_0_05", {"threshold": 1.25, "scale": 100}),
    ],
)
def test_softmax_labels_equal_the_golden_ones(name, options):
    labels = vaplan.generate(load("plg_cosine"), load("video_label"), **options)
    assert labels.dtype == bool and (labels == load(name)).all()


def test_logit_labels_equal_the_golden_ones():
    threshold = load("plg_per_class_threshold")
    labels = vaplan.generate(load("plg_cosine"), load("video_label"), rule="logit", threshold=threshold)
    assert (labels == load("plg_logit100_per_class")).all()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_random_cosines_give_the_labels_of_plain_numpy(dtype):
    generator = np.random.default_rng(3)
    cosine = generator.uniform(-1, 1, (9, 13, 7)).astype(dtype)
    weak = generator.random((9, 7)) < 0.4
    for rule, threshold, scale in (("softmax", 1.1, 3.0), ("logit", generator.random(7), 2.0)):
        found = vaplan.generate(cosine, weak, rule, threshold, scale=scale)
        assert (found == reference.generate(cosine, weak, rule, threshold, scale)).all()


@pytest.mark.parametrize(
    ("name", "k", "alpha", "guard"),
    [
        ("k5_a10", 5, 10, 0),
        ("k5_a4", 5, 4, 0),
        ("k3_a2", 3, 2, 0),
        ("k10_a3", 10, 3, 0),
        ("k1_a20", 1, 20, 0),
        ("k5_a10_g0.5", 5, 10, 0.5),
        ("k3_a2_g0.5", 3, 2, 0.5),
        ("k5_a4_g0.8", 5, 4, 0.8),
    ],
)
def test_denoised_labels_equal_the_golden_ones(name, k, alpha, guard):
    before, weak = load("plg_softmax_0_041"), load("video_label")
    found = vaplan.denoise(load("pld_probability"), before, weak, k=k, alpha=alpha, guard=guard)
    assert (found.labels == load(f"pld_{name}")).all()
    assert (found.flips == (found.labels != before)).all()
    there = np.broadcast_to(weak[:, None, :] == 1, found.losses.shape)
    assert np.allclose(found.losses[there], load("pld_forward_loss")[there], rtol=1e-6, atol=1e-12)
    assert np.isnan(found.losses[~there]).all()


def test_random_probabilities_flip_as_in_plain_numpy():
    generator = np.random.default_rng(4)
    for segments in (1, 4, 65):
        probability = generator.random((6, segments, 3)).astype(np.float32)
        labels, weak = generator.random((6, segments, 3)) < 0.5, generator.random((6, 3)) < 0.7
        found = vaplan.denoise(probability, labels, weak, k=3, alpha=1.5, guard=0.4)
        expected, _, flips = reference.denoise(probability, labels, weak, 3, 1.5, 0.4)
        assert (found.labels == expected).all() and (found.flips == flips).all()
        assert segments == 1 or flips.any()


def test_dicts_give_dicts():
    generator = np.random.default_rng(5)
    cosine = {"a": generator.random((4, 3)), "b": generator.random((6, 3))}
    weak = {"b": np.ones(3), "a": np.array([1, 0, 1])}
    labels = vaplan.generate(cosine, weak)
    assert list(labels) == ["a", "b"] and labels["b"].shape == (6, 3)
    assert (labels["a"] == vaplan.generate(cosine["a"][None], weak["a"][None])[0]).all()
    flipped = vaplan.denoise(cosine, labels, weak)
    assert flipped.losses["b"].shape == (6, 3)


def test_events_are_the_runs_of_labels():
    generator = np.random.default_rng(6)
    labels = generator.random((5, 70, 3)) < 0.5
    found = vaplan.events(labels, segment_seconds=0.5)
    again = np.zeros_like(labels)
    for video, index, onset, offset in zip(*found):
        begin, end = int(onset / 0.5), int(offset / 0.5)
        assert labels[video, begin:end, index].all()
        assert begin == 0 or not labels[video, begin - 1, index]
        assert end == 70 or not labels[video, end, index]
        again[video, begin:end, index] = True
    assert (again == labels).all()
    named = vaplan.events({"x": labels[0], "y": labels[1]})
    assert set(named.video) == {"x", "y"}
    assert len(vaplan.events(np.zeros((0, 4, 2))).onset) == 0


GOOD = {
    "generate": {"cosine": np.zeros((2, 3, 4)), "weak": np.ones((2, 4))},
    "denoise": {"probability": np.zeros((2, 3, 4)), "labels": np.zeros((2, 3, 4)), "weak": np.ones((2, 4))},
    "events": {"labels": np.zeros((2, 3, 4))},
}


def with_value(shape, place, value):
    array = np.zeros(shape)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        ("generate", {"cosine": with_value((2, 3, 4), (1, 2, 3), np.nan)}, "cosine[1, 2, 3] is nan, expected a finite number"),
        ("generate", {"weak": with_value((2, 4), (1, 3), 3)}, "weak[1, 3] is 3, expected 0 or 1"),
        ("generate", {"weak": np.ones((2, 3))}, "weak has shape (2, 3), expected (2, 4): videos, classes of cosine"),
        ("generate", {"rule": "softmx"}, "rule is 'softmx', expected one of 'softmax', 'logit'"),
        ("generate", {"rule": "logit"}, "threshold is missing, expected a number or one per class"),
        ("generate", {"threshold": [1, 2]}, "threshold has shape (2,), expected one number or (4,): one per class"),
        ("generate", {"threshold": [1, np.nan, 1, 1]}, "threshold[1] is nan, expected a finite number"),
        ("generate", {"scale": 0}, "scale is 0, expected a finite number above 0"),
        (
            "denoise",
            {"probability": with_value((2, 3, 4), (0, 1, 2), 1.5)},
            "probability[0, 1, 2] is 1.5, expected a number from 0 to 1",
        ),
        ("denoise", {"labels": with_value((2, 3, 4), (0, 0, 0), 0.5)}, "labels[0, 0, 0] is 0.5, expected 0 or 1"),
        ("denoise", {"k": 0}, "k is 0, expected a whole number from 1 to 2147483647"),
        ("denoise", {"k": 2**40}, "k is 1099511627776, expected a whole number from 1 to 2147483647"),
        ("denoise", {"alpha": -1}, "alpha is -1, expected a finite number above 0"),
        ("denoise", {"guard": 2}, "guard is 2, expected a number from 0 to 1"),
        ("events", {"labels": with_value((2, 3, 4), (0, 2, 1), 9)}, "labels[0, 2, 1] is 9, expected 0 or 1"),
        ("events", {"segment_seconds": 0}, "segment_seconds is 0.0, expected a finite number of seconds above 0"),
    ],
)
def test_a_bad_argument_is_named(function, change, message):
    with pytest.raises(ValueError) as raised:
        getattr(vaplan, function)(**{**GOOD[function], **change})
    assert str(raised.value).startswith(message)


def test_videos_without_segments_and_empty_arrays_are_fine():
    assert vaplan.generate(np.zeros((0, 3, 4)), np.zeros((0, 4))).shape == (0, 3, 4)
    assert vaplan.generate(np.zeros((2, 0, 4)), np.zeros((2, 4))).shape == (2, 0, 4)
    assert vaplan.denoise(np.zeros((2, 3, 0)), np.zeros((2, 3, 0)), np.zeros((2, 0))).losses.shape == (2, 3, 0)
    assert vaplan.generate(np.zeros((2, 3, 0)), np.zeros((2, 0))).shape == (2, 3, 0)
    assert vaplan.generate(np.zeros((2, 3, 0)), np.zeros((2, 0)), rule="logit", threshold=[]).shape == (2, 3, 0)
    assert len(vaplan.events(np.zeros((2, 3, 0))).video) == 0
